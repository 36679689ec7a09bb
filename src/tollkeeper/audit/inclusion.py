"""Randomized inclusion: a coin chose which twin of each pair was trained on. Exact tests.

Under the null the suspect carries no information about the coins. They were tossed after all
else was fixed (`tollkeeper.audit.evidence.draw`), so this holds of every encoder that never met
the trained twins or the victim, whatever its data, size, recipe or preprocessing, and it holds
of one suspect, not on average over suspects. It is the one null of data use that needs neither
independents nor an argument (methods, section 10.2; Zhang et al., "Position: membership inference
attacks cannot prove that a model was trained on your data", SaTML 2025: randomly chosen canaries).

Any score will do; a poor one costs power and never validity, as long as it does not see the coins.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tollkeeper.audit.base import Null, OwnershipResult
from tollkeeper.audit.consistency import Frame, Mode, agreement, calibrate, standardized
from tollkeeper.audit.gates import check_embeddings
from tollkeeper.audit.sequential import bet_scale, crossed, e_process
from tollkeeper.audit.two_sample import Z_99
from tollkeeper.audit.views import Pictures, Views
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import AuditRefused
from tollkeeper.types import Batch, Embeddings, Scores

FLIPS = 9999
"""Least number of sign flips: a p-value can then be 1/10,000."""

ALPHA = 0.001

Statistic = Callable[[NDArray[Any]], NDArray[np.float64]]
"""(b, m) differences to (b,) numbers; larger speaks for the alternative."""

Score = Callable[[Encoder, Batch, NDArray[np.int64]], ArrayLike]
"""An encoder, n items and their (n,) ids to (n,) scores, larger for items trained on."""

_NULL: Null = "data"
_ALTERNATIVE = "the suspect learned from the trained twins, directly or through the victim"
_BITS = 8
_CHUNK = 1 << 22
"""Signs drawn at a time."""

_PICTURES = 4096
"""Pictures whose views are held at a time."""

_FLAT = 1e-3
"""Least spread of differences, as a share of their mean."""

_TIE = 1e-9
"""Sums that differ by less than this share of their spread are equal up to rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class Inclusion:
    """What the owner holds: pairs, and how their coins fell.

    Attributes:
        items: 2m items in the committed order: items 2i and 2i + 1 are pair i.
        coins: (m,) whether the first item of the pair is the trained one.
        references: (M, 2m) scores of encoders trained on none of the items, by the same score;
            None for none. They gain power and are not needed for validity.
    """

    items: Batch
    coins: NDArray[np.bool_]
    references: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        """Refuse parts that do not fit.

        Raises:
            AuditRefused: says what was expected.
        """
        coins = self.coins
        if coins.dtype != np.bool_ or coins.shape != (len(self.items) // 2,) or not coins.size:
            raise AuditRefused(
                f"expected one coin for each pair of {len(self.items)} items, got "
                f"{coins.dtype} {coins.shape}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class ConsistencyScore:
    """How alike the encoder finds views of one image (`tollkeeper.audit.consistency`).

    Attributes:
        views: from a sealed seed, the same for every encoder.
        public: images that nobody trained on; sets the frame of modes std and white.
        mode: what is undone first.
    """

    views: Views
    public: Pictures
    mode: Mode = "std"

    def __call__(self, encoder: Encoder, items: Batch, ids: NDArray[np.int64]) -> Scores:
        """Return (n,) scores of n images.

        Raises:
            AuditRefused: no images, or embeddings that no statistic may be computed from.
        """
        pictures = np.asarray(items)
        frame = Frame.fit(_embedded(encoder, self.public), self.mode)
        scores = np.empty(len(pictures))
        for at in range(0, len(pictures), _PICTURES):
            part = slice(at, at + _PICTURES)
            asked = (self.views.make(pictures[part], k, ids[part]) for k in range(self.views.k))
            views = np.stack([_embedded(encoder, view) for view in asked], axis=1)
            scores[part] = agreement(views, frame)
        return scores


@dataclass(frozen=True, slots=True, eq=False)
class SignFlip:
    """The exact sign-flip test.

    p = (1 + #{flips: T(flipped) >= T(actual)}) / (1 + B): under the null every assignment of signs
    was as likely as the actual one, so p is valid at any number of pairs, for any statistic T.

    Attributes:
        score: what tells trained items from others.
        flips: B, at least 9,999.
        alpha: level at which it should be able to reject.
        statistic: T; None takes the mean, the same test as with a paired t.

    References:
        Fisher, The Design of Experiments, 1935, section 21; Hemerik and Goeman, "Exact testing
        with random permutations", TEST 2018 (why the 1 is added); methods, section 10.2.
    """

    name: ClassVar[str] = "inclusion-sign-flip"
    score: Score
    flips: int = FLIPS
    alpha: float = ALPHA
    statistic: Statistic | None = None

    def run(
        self, suspect: Encoder, evidence: Inclusion, *, rng: np.random.Generator
    ) -> OwnershipResult:
        """Ask the suspect for both twins of every pair, in random order, and test.

        Raises:
            AuditRefused: too few pairs for alpha, or answers that no score can be made of.
        """
        check_pairs(len(evidence.coins), alpha=self.alpha)
        y = differences(ask(suspect, evidence, self.score, rng=rng), evidence)
        return sign_flip(y, rng=rng, flips=self.flips, statistic=self.statistic)


@dataclass(frozen=True, slots=True, eq=False)
class Betting:
    """The e-value test: pairs are revealed one by one, and a bettor tries to guess each coin.

    It may be stopped at any pair; p = 1 / max E is valid then too (Ville's inequality).

    Attributes:
        score: what tells trained items from others.
        alpha: level; it stops at E = 1 / alpha.
        scale: s of the bets, fixed beforehand; None takes twice the median difference, which
            does not tell the signs.

    References:
        Methods, section 10.2; Ville, Etude critique de la notion de collectif, 1939.
    """

    name: ClassVar[str] = "inclusion-betting"
    score: Score
    alpha: float = ALPHA
    scale: float | None = None

    def run(
        self, suspect: Encoder, evidence: Inclusion, *, rng: np.random.Generator
    ) -> OwnershipResult:
        """Ask the suspect for both twins of every pair, in random order, and bet.

        Raises:
            AuditRefused: too few pairs for alpha, or answers that no score can be made of.
        """
        check_pairs(len(evidence.coins), alpha=self.alpha)
        y = differences(ask(suspect, evidence, self.score, rng=rng), evidence)
        return betting(rng.permutation(y), alpha=self.alpha, scale=self.scale)


def check_pairs(count: int, *, alpha: float = ALPHA) -> None:
    """Refuse so few pairs that guessing all coins is not surprising enough.

    Raises:
        AuditRefused: 2^-m is above alpha.
    """
    least = math.ceil(-math.log2(alpha))
    if count < least:
        raise AuditRefused(
            f"expected at least {least} pairs to speak at level {alpha:g}, got {count}; "
            "copies usually take hundreds"
        )


def ask(suspect: Encoder, evidence: Inclusion, score: Score, *, rng: np.random.Generator) -> Scores:
    """Return (2m,) scores of the items; they are asked in random order, so twins lie far apart.

    Raises:
        AuditRefused: the scores are not finite numbers, one for each item.
    """
    order = rng.permutation(len(evidence.items))
    shuffled: Any = (
        evidence.items[order]
        if isinstance(evidence.items, np.ndarray)
        else [evidence.items[int(at)] for at in order]
    )
    found = np.asarray(score(suspect, shuffled, order), np.float64)
    if found.shape != order.shape or not np.isfinite(found).all():
        raise AuditRefused(
            f"{suspect.name}: expected {len(order)} finite scores, got shape {found.shape} with "
            f"{int((~np.isfinite(found)).sum())} that are not"
        )
    scores = np.empty(len(order))
    scores[order] = found
    return scores


def differences(scores: ArrayLike, evidence: Inclusion) -> Scores:
    """Return (m,) y_i = r(trained twin) - r(held twin).

    r are standardized scores, less what the references find too. Neither step looks at coins,
    so under the null the signs of y are fair coins, given all |y_i|.

    Args:
        scores: (2m,) of one encoder, in the committed order.
        evidence: coins and references.

    Raises:
        AuditRefused: other items, NaN, or scores without variation.
    """
    own = np.asarray(scores, np.float64)
    if own.shape != (2 * len(evidence.coins),):
        raise AuditRefused(
            f"expected the scores of {2 * len(evidence.coins)} items, got shape {own.shape}"
        )
    if evidence.references is None or not len(evidence.references):
        residuals = standardized(own)
    else:
        residuals, _ = calibrate(own, evidence.references)
    first, second = residuals.reshape(-1, 2).T
    return np.where(evidence.coins, first - second, second - first).astype(np.float64)


def sign_flip(
    y: ArrayLike,
    *,
    rng: np.random.Generator,
    flips: int = FLIPS,
    statistic: Statistic | None = None,
) -> OwnershipResult:
    """Test differences of pairs; `SignFlip` without the asking.

    Args:
        y: (m,) differences trained twin minus held twin.
        rng: draws the flips.
        flips: how many, at least 9,999.
        statistic: larger speaks for the alternative; None takes the mean.

    Returns:
        The effect size is mean(y) / sd(y), its interval normal; details hold the number of pairs
        and the share in which the trained twin scored higher.

    Raises:
        AuditRefused: too few flips, NaN, or differences that are all 0.
    """
    values = _checked(y)
    if flips < FLIPS:
        raise AuditRefused(f"expected at least {FLIPS} sign flips, got {flips}")
    measure = _means(values) if statistic is None else _of_signs(values, statistic)
    bytes_a_row = -(-values.size // _BITS)
    actual = float(measure(np.full((1, bytes_a_row), 255, np.uint8))[0])
    null = np.empty(flips)
    step = max(1, _CHUNK // values.size)
    for at in range(0, flips, step):
        count = min(step, flips - at)
        drawn = np.frombuffer(rng.bytes(count * bytes_a_row), np.uint8)
        null[at : at + count] = measure(drawn.reshape(count, bytes_a_row))
    if not (math.isfinite(actual) and np.isfinite(null).all()):
        raise AuditRefused("the statistic is not finite for every assignment of signs")
    slack = _TIE * max(float(null.std()), abs(actual))
    p_value = (1 + int(np.count_nonzero(null >= actual - slack))) / (1 + flips)
    return _result(SignFlip.name, values, actual, p_value, null=null)


def betting(y: ArrayLike, *, alpha: float = ALPHA, scale: float | None = None) -> OwnershipResult:
    """Bet on differences in the order given; `Betting` without the asking.

    Args:
        y: (m,) differences in an order that does not depend on them.
        alpha: level.
        scale: s of the bets; None takes twice the median |y| of those that are not 0.

    Returns:
        The e-value is E where it first reached 1 / alpha, or else at the last pair; the statistic
        is its logarithm; p is 1 / max E up to there. Details hold after how many pairs it crossed,
        0 for never.

    Raises:
        AuditRefused: NaN, or differences that have no scale.
    """
    values = _checked(y)
    path = e_process(values, s=bet_scale(values[values != 0]) if scale is None else scale)
    stopped = crossed(path, 1 / alpha)
    path = path[:stopped]
    e_value = float(path[-1])
    statistic = math.log(max(e_value, np.finfo(np.float64).tiny))
    p_value = 1 / max(float(path.max()), 1.0)
    details = {"crossed": float(stopped or 0), "threshold": 1 / alpha}
    return _result(Betting.name, values, statistic, p_value, e_value=e_value, details=details)


def _checked(y: ArrayLike) -> Scores:
    values = np.asarray(y, np.float64)
    if values.ndim != 1 or values.size < 2 or not np.isfinite(values).all():
        raise AuditRefused(f"expected two or more finite differences, got shape {values.shape}")
    if not values.any():
        raise AuditRefused("the twins of every pair score the same; nothing can be told of them")
    return values


def _means(y: Scores) -> Statistic:
    """Return what maps (b, m / 8) bytes, a bit for each sign, to (b,) means of y so signed.

    Sums of each eight differences under all 256 signs are made once and looked up, which is many
    times faster than to multiply, and rounds every assignment in the same way.
    """
    eights = np.zeros(-(-y.size // _BITS) * _BITS)
    eights[: y.size] = y
    signs = 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1) - 1
    sums = eights.reshape(-1, _BITS) @ signs.T / y.size
    place = np.arange(len(sums))
    return lambda drawn: sums[place, drawn].sum(axis=1)


def _of_signs(y: Scores, statistic: Statistic) -> Statistic:
    """Return what maps (b, m / 8) bytes, a bit for each sign, to (b,) statistics."""

    def measure(drawn: NDArray[Any]) -> NDArray[np.float64]:
        signs = 2.0 * np.unpackbits(drawn, axis=1, count=y.size) - 1
        return np.asarray(statistic(signs * y), np.float64)

    return measure


def _result(
    test: str,
    y: Scores,
    statistic: float,
    p_value: float,
    *,
    null: NDArray[np.float64] | None = None,
    e_value: float | None = None,
    details: dict[str, float] | None = None,
) -> OwnershipResult:
    # Scores of two values can leave no spread; the effect is then large and not infinite.
    spread = max(float(y.std(ddof=1)), _FLAT * abs(float(y.mean())))
    effect = float(y.mean()) / spread
    half = Z_99 * math.sqrt(1 / y.size + effect**2 / (2 * y.size))
    return OwnershipResult(
        test=test,
        null=_NULL,
        statistic=statistic,
        p_value=p_value,
        effect_size=effect,
        interval=(effect - half, effect + half),
        null_distribution=np.empty(0) if null is None else null,
        alternative=_ALTERNATIVE,
        e_value=e_value,
        details={"pairs": float(y.size), "wins": float((y > 0).mean()), **(details or {})},
    )


def _embedded(encoder: Encoder, items: Pictures) -> Embeddings:
    found = encoder.embed(items)
    check_embeddings(found, rows=len(items), width=encoder.dim or None, who=encoder.name)
    return found
