"""An account's history as evidence: a wager against its honesty.

Each query of an account is a round of a game that nobody who is honest is expected to win: stakes
on "the next query is among the oddest 1 % of honest ones" multiply when it is and shrink when it
is not, at odds that are fair for honest traffic. What one unit of money became is an e-value, and
its logarithm is the suspicion.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from tollkeeper.detectors import packing
from tollkeeper.detectors.base import Detector
from tollkeeper.detectors.packing import Packed, array_bytes, read_array
from tollkeeper.errors import ConfigurationError, DetectorError
from tollkeeper.types import Images, Probabilities, Scores

CONFIDENCE = 0.99
"""That the law holds for the honest sample that happened to be drawn."""

STAKES = (0.5, 0.2, 0.05, 0.02, 0.004)
"""Shares of the money that are staked in a round; each is best against thieves of about that share
of odd queries."""

BANDS = ((0.001, 0.003, 0.01), (0.03, 0.1, 0.3))
"""Rarities that are betted on: stakes are spread over each row's. The first row is for queries that
a detector tells almost surely, the second for those it only leans on. A third wager is on
the rarity itself, for thieves none of whose queries is odd and all of which lean one way."""

MOST_GAIN = 1.6
"""The most that one query multiplies a wager's money by. So an account that has asked nothing else
is in alarm at 1 % after eleven queries that no honest user would ask, and not after three."""

CEILING = math.log(1e9)
"""Suspicion grows no further, so that an account that an operator clears can be cleared again."""

FEWEST = 500
"""Honest scores needed: with fewer, no query counts as rarer than about 2 %."""

_HEAD = "<II"
_WAGERS = len(STAKES) * (len(BANDS) + 1)


class History:
    """Follows accounts by an e-process over the scores of a detector.

    The law: if an account's queries are independent draws from the traffic whose scores the history
    was calibrated on, the probability that its suspicion *ever* reaches `alarm_at(rate)` is at most
    `rate`, however many queries it asks (Ville's inequality). This holds with confidence 99 % over
    the draw of the calibration sample: probabilities of scores are upper confidence limits that
    hold together. Accounts whose own traffic is odder than the sample, all of one rare kind, are
    not covered: `slack` covers those for which every rarity is up to `slack` times as likely.

    A wager may start at any query, with a prior weight of 1 / (t (t + 1)) for query t; that keeps
    an account's good past from being worth more than 2 log t in suspicion. The mean over the wagers
    and starts is an e-process since each is. What a query wins is cut at `MOST_GAIN`, which only
    takes from it: a few slips of somebody new are no alarm.

    Repeats of an input are not independent draws; feed it inputs that are new to the account.

    Source: Shafer, "Testing by betting", JRSS A 184, 2021; Ramdas et al., "Game-theoretic
    statistics and safe anytime-valid inference", Statistical Science 38, 2023. Limits: Chernoff's
    bound on the law of order statistics, over a grid of ranks.

    Attributes:
        name: "history".
        state_bytes: 128.
        detector: whose scores are followed.
    """

    kind: ClassVar[str] = "history"
    name = "history"
    state_bytes = struct.calcsize(_HEAD) + 8 * _WAGERS

    def __init__(self, detector: Detector, honest: Scores, *, slack: float = 1.0) -> None:
        """Calibrate on honest scores.

        Args:
            detector: scores single queries.
            honest: (n,) its scores of honest traffic that it was not fitted on.
            slack: how many times as often an honest account may ask odd queries, at least 1.

        Raises:
            ConfigurationError: too few scores, not finite, or a slack below 1.
        """
        if honest.ndim != 1 or len(honest) < FEWEST or not np.isfinite(honest).all():
            raise ConfigurationError(
                f"expected at least {FEWEST} finite honest scores, got shape {honest.shape}; "
                "record more honest traffic"
            )
        if not 1 <= slack < math.inf:
            raise ConfigurationError(f"expected a slack of at least 1, got {slack}")
        self.detector, self.slack = detector, float(slack)
        self._honest = np.sort(honest)
        self._limits = np.minimum(upper_limits(len(honest)) * self.slack, 1)
        self._tag = zlib.crc32(self._honest.tobytes() + self._limits.tobytes())

    def empty(self) -> bytes:
        """Return the state of an account that has asked nothing."""
        return self._packed(0, np.zeros(_WAGERS))

    def alarm_at(self, rate: float) -> float:
        """Return the suspicion that at most a share `rate` of honest accounts ever reaches.

        Raises:
            ConfigurationError: not a rate that suspicion can tell.
        """
        if not math.exp(-CEILING) * (1 - 1e-9) <= rate <= 1:
            raise ConfigurationError(f"expected an alarm rate from 1e-9 to 1, got {rate}")
        return -math.log(rate)

    def update(self, state: bytes, inputs: Images, outputs: Probabilities) -> tuple[Scores, bytes]:
        """Score an account's next n queries; see `AccountDetector.update`."""
        return self.follow(state, self.detector.score(inputs, outputs))

    def follow(self, state: bytes, scores: Scores) -> tuple[Scores, bytes]:
        """Take an account's next n scores in their order, where they are known already.

        Returns:
            (n,) suspicion after each: the logarithm of the e-value, at most `CEILING`; and the new
            state.

        Raises:
            DetectorError: a state of another detector or calibration, or damaged.
        """
        count, money = self._unpacked(state)
        returns = payoffs(self.rarity(scores))
        found = np.empty(len(scores))
        most = math.exp(CEILING)
        for position, factors in enumerate(returns):
            count += 1
            money = np.minimum((money + 1 / (count * (count + 1.0))) * factors, most)
            found[position] = math.log(money.mean() + 1 / (count + 1.0))
        return np.minimum(found, CEILING), self._packed(count, money)

    def rarity(self, scores: Scores) -> NDArray[np.float64]:
        """Return (n,) upper limits of the probability that an honest score is as large."""
        above = len(self._honest) - np.searchsorted(self._honest, scores, side="left")
        found: NDArray[np.float64] = self._limits[above]
        return found

    def pack(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return the parameters, the honest scores, and the detector's parts."""
        inner = packing.pack(self.detector)
        parameters = {"slack": self.slack, "kind": inner.kind, "parameters": inner.parameters}
        parts = {f"detector.{name}": blob for name, blob in inner.blobs.items()}
        return parameters, {"honest": array_bytes(self._honest), **parts}

    @classmethod
    def unpack(
        cls, parameters: Mapping[str, Any], blobs: Mapping[str, bytes], *, threads: int
    ) -> Self:
        """Return what `pack` took apart."""
        parts = {
            name.removeprefix("detector."): blob
            for name, blob in blobs.items()
            if name.startswith("detector.")
        }
        inner = Packed(parameters["kind"], parameters["parameters"], parts)
        detector = packing.unpack(inner, threads=threads)
        honest = read_array(blobs["honest"], dimensions=1).astype(np.float64)
        return cls(detector, honest, slack=float(parameters["slack"]))

    def _packed(self, count: int, money: NDArray[np.float64]) -> bytes:
        # A count that no account reaches; beyond it the weights of further starts are nothing.
        return struct.pack(_HEAD, self._tag, min(count, 2**32 - 1)) + money.astype("<f8").tobytes()

    def _unpacked(self, state: bytes) -> tuple[int, NDArray[np.float64]]:
        if len(state) != self.state_bytes:
            raise DetectorError(
                f"expected {self.state_bytes} bytes of state of {self.name}, got {len(state)}"
            )
        tag, count = struct.unpack_from(_HEAD, state)
        money = np.frombuffer(state, "<f8", offset=struct.calcsize(_HEAD)).astype(np.float64)
        if tag != self._tag or not (np.isfinite(money) & (money >= 0)).all():
            raise DetectorError(
                f"this state of {self.name} belongs to another calibration; start the account anew"
            )
        return int(count), money


def payoffs(rarity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n, wagers) by what each wager's money multiplies after n queries.

    A stake on "rarer than t" pays 1 / t, one on the rarity p pays 2 (1 - p). Fair odds make the mean
    at most 1 for honest queries; money grows by at most `MOST_GAIN`.
    """
    pays = [np.mean([(rarity <= t) / t for t in band], axis=0) for band in BANDS]
    pays.append(2 * (1 - rarity))
    factors = np.stack([1 + stake * (pay - 1) for stake in STAKES for pay in pays], axis=1)
    cut: NDArray[np.float64] = np.minimum(factors, MOST_GAIN)
    return cut


def upper_limits(n: int, *, confidence: float = CONFIDENCE) -> NDArray[np.float64]:
    """Return limits on an honest score's tail probability, by how many of n others are as large.

    With k of n as large, the probability is above q with probability P(Bin(n, q) <= k) at most
    exp(-n KL(k / n || q)). Only ranks of a grid are looked at, and between them the next larger one
    serves, so that few bounds share the doubt.

    Args:
        n: honest scores.
        confidence: that all limits hold together.

    Returns:
        (n + 1,) for k from 0 to n; never decreasing, the last is 1.
    """
    ratio = 1.25
    grid = np.unique(np.rint(ratio ** np.arange(0, math.log(n) / math.log(ratio))) - 1)
    grid = grid[grid < n]
    doubt = math.log(len(grid) / (1 - confidence)) / n
    share = grid / n
    low, high = share.copy(), np.ones(len(grid))
    for _ in range(60):  # Halvings: more than a double has digits.
        middle = (low + high) / 2
        enough = _divergence(share, middle) >= doubt
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    limits = np.append(high, 1.0)
    return limits[np.searchsorted(grid, np.arange(n + 1))]


def _divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return KL of Bernoulli variables, for p < 1 and p <= q."""
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.where(p > 0, p * np.log(p / q), 0)
        second = (1 - p) * (np.log1p(-p) - np.log1p(-q))
    found: NDArray[np.float64] = first + second
    return found
