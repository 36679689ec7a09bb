"""Times of challenges and proofs beside one HMAC, taken in a process of their own.

In each repetition all contestants take turns on the same fresh challenges: each challenge has its
own salt, solution and second of expiry, and its proof is verified once, so nothing that remembers
the last proof helps. Of accounts there are a few; a server knows those who ask it.
"""

from __future__ import annotations

import hmac
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tollkeeper.bench.experiment import BenchError, Context, Progress
from tollkeeper.challenge.protocol import (
    INTENT,
    MAX_PROOF_CHARS,
    METHOD,
    REALM,
    Challenge,
    Issuer,
    body_digest,
)
from tollkeeper.challenge.puzzle import SCALE, SCRYPT, SHA_256, HashPuzzle, ScryptPuzzle
from tollkeeper.errors import ConfigurationError, LedgerError, ProofError
from tollkeeper.ledger.spent import MemorySpent, SpentStore, open_spent_store

_SECRET = bytes(range(32))
_POLICY = "00c0ffee"
_DIGEST = body_digest(b"body")
_BASE_S = 1_800_000_000
_WORK = 100_000
_LIFE_S = 60
_FAST_N = 2
"""Cost of scrypt for keys that are only made so that there is something to verify."""

_REDIS_S = 5.0

Times = dict[str, list[float]]
"""Seconds per call by contestant, one entry per repetition."""


@dataclass(frozen=True, slots=True)
class TimesSetting:
    """What is timed.

    Attributes:
        repetitions: turns that every contestant takes.
        proofs: fresh challenges in each turn.
        accounts: that they are for.
        body_bytes: sizes of bodies to digest.
        spendings: names that each store is asked to spend.
    """

    repetitions: int = 150
    proofs: int = 100
    accounts: int = 100
    body_bytes: tuple[int, ...] = (1_000, 100_000, 10_000_000)
    spendings: int = 2000


def take_times(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Take all times; runs in the child with the thread's processor clock."""
    setting = msgspec.convert(payload["setting"], TimesSetting)
    return {
        **time_proofs(setting, Context(payload["seed"], time.thread_time, progress)),
        # What waits for another process is not the processor's time.
        "spend": time_spending(setting, clock=time.perf_counter),
    }


class _Case(NamedTuple):
    """One challenge, with all that is needed to issue and to verify it.

    Attributes:
        account: that it is for.
        now: when its proof comes.
        text: what its id signs.
        token: its proof.
        issue: makes another such challenge and its header.
    """

    account: str
    now: float
    text: bytes
    token: str
    issue: Callable[[], str]


class Stage:
    """Makes challenges and their solutions, before the clock starts."""

    def __init__(self, setting: TimesSetting, rng: np.random.Generator) -> None:
        """Draw everything from `rng`, but for the salts of challenges issued under the clock."""
        self._setting = setting
        self._rng = rng
        self._made = 0
        self.issuer = Issuer(_SECRET, entropy=secrets.token_bytes)

    def cases(self, alg: str) -> list[_Case]:
        """Return challenges of one algorithm that were never seen."""
        return [self._case(alg) for _ in range(self._setting.proofs)]

    def _case(self, alg: str) -> _Case:
        self._made += 1
        account, now = f"tenant-{self._made % self._setting.accounts}", _BASE_S + self._made + 0.5
        puzzle, solution = self._hashes() if alg == SHA_256 else self._scrypt()

        def issue(fresh: Callable[[], HashPuzzle | ScryptPuzzle]) -> Challenge:
            return self.issuer.issue(
                fresh(), account=account, policy=_POLICY, digest=_DIGEST, expires_at=now + _LIFE_S
            )

        challenge = issue(lambda: puzzle)
        fresh = self._fresh(puzzle)
        return _Case(
            account,
            now,
            signed_text(challenge),
            challenge.proof(solution),
            lambda: issue(fresh).header(),
        )

    def _fresh(self, puzzle: HashPuzzle | ScryptPuzzle) -> Callable[[], HashPuzzle | ScryptPuzzle]:
        """Return what a server does for a new puzzle, as `Booth` does it."""
        if isinstance(puzzle, HashPuzzle):
            return lambda: HashPuzzle.of(_WORK, self.issuer.salt())
        work = puzzle.work
        return lambda: puzzle.over(work, secrets.randbelow(2 * work - 1))

    def _hashes(self) -> tuple[HashPuzzle, str]:
        """Return a puzzle that any counters solve, and counters as long as found ones would be.

        Checking them costs what checking any others does.
        """
        puzzle = HashPuzzle(self.issuer.salt(), SCALE - 1)
        counters = self._rng.integers(_WORK // 10, _WORK, puzzle.searches)
        return puzzle, "-".join(map(str, counters.tolist()))

    def _scrypt(self) -> tuple[ScryptPuzzle, str]:
        answer = 2**50 + int(self._rng.integers(2**50))
        made = ScryptPuzzle.make(self.issuer.salt(), answer, secret=_SECRET, n=_FAST_N)
        key = made.search(0, 0, 1)
        assert key is not None
        return made._replace(n=2**14).over(work=2, before=1), key

    def verify(self, case: _Case) -> object:
        """Return what is in the proof of a case.

        Raises:
            ProofError: it does not hold.
        """
        return self.issuer.verify(
            case.token, account=case.account, policy=_POLICY, digest=_digest, now=case.now
        )

    def refuse(self, case: _Case) -> object:
        """Return None for a proof that does not hold."""
        try:
            return self.verify(case)
        except ProofError:
            return None


def _digest() -> str:
    """Stand for the digest of a body, whose cost depends on the body and is timed apart."""
    return _DIGEST


def signed_text(challenge: Challenge) -> bytes:
    """Return what the id of a challenge signs, as docs/challenge.md says."""
    slots = (REALM, METHOD, INTENT, challenge.request, challenge.expires, challenge.digest, "")
    return "|".join(slots).encode()


def time_proofs(setting: TimesSetting, context: Context) -> dict[str, Any]:
    """Time issuing, verifying and refusing, and digests of bodies.

    Returns:
        `proofs`: algorithm to contestant to seconds per call; `digest`: bytes to the same.
    """
    stage = Stage(setting, context.rng(0))
    proofs: dict[str, Times] = {}
    for number, alg in enumerate((SHA_256, SCRYPT)):
        context.progress(number, 3, f"challenges of {alg}")
        proofs[alg] = _take_turns(stage, alg, setting, context.clock)
    context.progress(2, 3, "digests of bodies")
    return {"proofs": proofs, "digest": _time_digests(setting, context)}


def _take_turns(stage: Stage, alg: str, setting: TimesSetting, clock: Callable[[], float]) -> Times:
    times: Times = {}
    for repetition in range(setting.repetitions + 1):
        turns = _turns(stage, stage.cases(alg))
        # The order turns round each time, so that nobody always runs on warm caches.
        for name in turns if repetition % 2 else reversed(turns):
            call, holds, items = turns[name]
            started = clock()
            found = [call(item) for item in items]
            taken = (clock() - started) / len(items)
            if any((one is None) is holds for one in found):
                raise BenchError(f"{name}: a proof was not judged as it should be")
            if repetition:  # the first one warms up
                times.setdefault(name, []).append(taken)
    return times


_Turn = tuple[Callable[[_Case], object], bool, Sequence[_Case]]


def _turns(stage: Stage, cases: Sequence[_Case]) -> dict[str, _Turn]:
    """Return what takes turns on fresh cases: a call, whether it succeeds, and on what."""

    def refused(change: Callable[[_Case], str], later_s: float = 0.0) -> _Turn:
        changed = [case._replace(token=change(case), now=case.now + later_s) for case in cases]
        return stage.refuse, False, changed

    return {
        "hmac": (lambda case: hmac.digest(_SECRET, case.text, "sha256"), True, cases),
        "verify": (stage.verify, True, cases),
        "issue": (lambda case: case.issue(), True, cases),
        "refuse_oversized": refused(lambda case: case.token.ljust(MAX_PROOF_CHARS + 1, "0")),
        "refuse_malformed": refused(lambda case: case.token.replace(".", ",")),
        "refuse_forged": refused(lambda case: _flipped(case.token)),
        "refuse_expired": refused(lambda case: case.token, later_s=2 * _LIFE_S),
        "refuse_unsolved": refused(lambda case: case.token[:-1] + "!"),
    }


def _flipped(token: str) -> str:
    return ("1" if token[0] == "0" else "0") + token[1:]


def _time_digests(setting: TimesSetting, context: Context) -> Times:
    times: Times = {}
    for size in setting.body_bytes:
        body = context.rng(1).bytes(size)
        times[str(size)] = []
        for _ in range(min(setting.repetitions, 20)):
            started = context.clock()
            body_digest(body)
            times[str(size)].append(context.clock() - started)
    return times


# -- stores of what is spent -----------------------------------------------------


def time_spending(setting: TimesSetting, *, clock: Callable[[], float]) -> Times:
    """Return seconds of each first use of a name, by store."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stores: dict[str, SpentStore] = {
            "memory": MemorySpent(),
            "sqlite": open_spent_store(str(folder / "spent.sqlite3")),
        }
        redis = stack.enter_context(_redis(folder))
        if redis is not None:
            stores["redis"] = redis
        for store in stores.values():
            stack.callback(store.close)
        return {name: _spend(store, setting, clock) for name, store in stores.items()}


def _spend(store: SpentStore, setting: TimesSetting, clock: Callable[[], float]) -> list[float]:
    taken = []
    for name in [secrets.token_hex(32) for _ in range(setting.spendings)]:
        started = clock()
        done = store.spend(name, _WORK, limit=_WORK, expires=_BASE_S)
        taken.append(clock() - started)
        if not done:
            raise BenchError("a store refused a name that was never spent")
    return taken


@contextmanager
def _redis(folder: Path) -> Iterator[SpentStore | None]:
    """Lend a store in a Redis of our own; None where there is no server or no client."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with subprocess.Popen(  # noqa: S603 - found on the path
        [program, "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            yield _connect(f"redis://127.0.0.1:{port}/0")
        finally:
            server.terminate()


def _connect(url: str) -> SpentStore | None:
    deadline = time.monotonic() + _REDIS_S
    while True:
        try:
            return open_spent_store(url)
        except ConfigurationError:
            return None
        except LedgerError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
