"""The one place that holds an encoder, the guard and a ledger together. No HTTP here.

A request goes through three steps: `embed`, `charge`, and the answer. `charge` admits
the embeddings and submits the commit; an answer may leave only when the commit's
future is done, so no embedding leaves before its coverage is durable.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import (
    BudgetExhausted,
    ConflictError,
    LedgerError,
    TollkeeperError,
)
from tollkeeper.gateway.asks import Answer, Ask, Charge, Tally
from tollkeeper.gateway.backlog import Piece
from tollkeeper.gateway.embedder import Embedder
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.policy import check_budget, check_ceiling
from tollkeeper.gateway.pools import pool_key
from tollkeeper.gateway.wire import canonical
from tollkeeper.guard import profiles
from tollkeeper.guard.guard import Guard
from tollkeeper.ledger.base import GroupCommits, Ledger, Submission
from tollkeeper.types import Embeddings, Entry, Record, Sketch, Verdict

MAX_ATTEMPTS = 10
CACHED_POOLS = 2048  # at 10 KB each, 20 MB


class ServiceLedger(Ledger, GroupCommits, Protocol):
    """What the service needs from a ledger."""


@dataclass(slots=True)
class _Head:
    """The newest state of a pool, as submitted."""

    version: int
    sketch: Sketch
    spent: float
    unsaved: bool = False
    records: list[Record] = field(default_factory=list)


def identity(item: Any, key: bytes) -> bytes:
    """Return what makes an input that input: a keyed hash, the same in every process."""
    return hashlib.blake2b(canonical(item), key=key, digest_size=16).digest()


class _Identities(Sequence[bytes]):
    """Identities of inputs, computed only for inputs that get noise."""

    def __init__(self, items: Sequence[Any], key: bytes) -> None:
        self._items = items
        self._key = key

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        return identity(self._items[index], self._key)


class Service:
    """Answers requests: embed, charge, reply."""

    def __init__(
        self,
        encoder: Encoder,
        guard: Guard,
        ledger: ServiceLedger,
        *,
        clock: Callable[[], float],
        rng: np.random.Generator,
        metrics: Metrics,
        shadow: bool = False,
        on_ledger_failure: Literal["closed", "open"] = "closed",
        key_version: int = 1,
    ) -> None:
        """Hold the parts.

        Args:
            encoder: the clean encoder.
            guard: decides what each answer looks like.
            ledger: durable state.
            clock: seconds since the epoch, for records.
            rng: source of fresh noise, for profiles that use it.
            metrics: instruments of this server.
            shadow: decide and record, but answer with the clean embeddings.
            on_ledger_failure: `"closed"` refuses when the ledger fails; `"open"` answers
                from the state in memory and counts a fallback.
            key_version: version of the tenants' transform keys.
        """
        self.encoder = encoder
        self.embedder = Embedder(encoder, metrics)
        self.guard = guard
        self.ledger = ledger
        self.metrics = metrics
        self._clock = clock
        self._rng = rng
        self._shadow = shadow
        # What clients get in shadow mode is what profile `none` gives them.
        self._unguarded = (
            Guard(profiles.NONE, guard.calibration, secret=bytes(32)) if shadow else None
        )
        self._open = on_ledger_failure == "open"
        self._key_version = key_version
        self._heads: OrderedDict[str, _Head] = OrderedDict()
        self._in_flight: dict[str, Future[Entry]] = {}
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._fingerprint = guard.fingerprint

    # -- step 1 ------------------------------------------------------------------

    def check(self, ask: Ask) -> None:
        """Refuse what the encoder cannot take, before it costs anything.

        Raises:
            InputError: wrong modality or too many dimensions.
        """
        self.embedder.check(ask)

    # -- step 2 ------------------------------------------------------------------

    def charge(self, asks: Sequence[Ask]) -> list[Charge]:
        """Admit embedded asks and submit one commit per pool; callers take turns.

        Waits for the pool's previous commit first: two commits of one pool are never in
        flight together, so a refused commit cannot be followed by one built on it.
        """
        by_pool: dict[str, list[Ask]] = {}
        for ask in asks:
            by_pool.setdefault(self._pool(ask), []).append(ask)
        # `_turn` serializes whole charges. `_lock` guards the heads and is never held while
        # waiting or writing: a commit's callback, in whatever thread, may need it.
        with self._turn:
            for pool in by_pool:
                pending = self._in_flight.get(pool)
                if pending is not None:
                    _failure(pending)
            with self._lock:
                charges = [self._charge_pool(pool, group) for pool, group in by_pool.items()]
            self._submit([charge for charge in charges if charge.submission is not None])
        return charges

    def _pool(self, ask: Ask) -> str:
        return pool_key(ask.account.pool, self._fingerprint)

    def _charge_pool(self, pool: str, asks: list[Ask]) -> Charge:
        charge = Charge(asks=[], answers=[])
        try:
            head = self._head(pool) if self.guard.tracks else _Head(0, self.guard.empty(), 0.0)
            for group in _alike(asks):
                self._admit(head, group, charge)
            if self.guard.tracks and head.records:
                charge.submission = self._submission(pool, head)
        except TollkeeperError as error:
            if isinstance(error, LedgerError):
                self.metrics.fallbacks.labels("ledger", "closed").inc()
            return Charge(asks=asks, answers=[error] * len(asks))
        return charge

    def _admit(self, head: _Head, asks: list[Ask], charge: Charge) -> None:
        """Admit asks of one account and width in one guard call; updates `head` and `charge`."""
        account = asks[0].account
        items = [item for ask in asks for item in ask.inputs]
        clean = _stack([ask.embeddings for ask in asks])
        key = self.guard.tenant_key(account.tenant, version=self._key_version)
        started = time.perf_counter()
        verdict = self.guard.admit(
            head.sketch,
            clean,
            key=key,
            rng=self._rng,
            identities=_Identities(items, key),
            dimensions=asks[0].dimensions,
        )
        self.metrics.guard_seconds.observe(time.perf_counter() - started)
        if verdict.refused and len(asks) > 1:
            for ask in asks:  # those that ask for nothing new are answered
                self._admit(head, [ask], charge)
            return
        charge.asks.extend(asks)
        try:
            check_ceiling(refused=verdict.refused)
            if verdict.charge:
                check_budget(head.spent + verdict.charge, account.budget)
        except BudgetExhausted as error:
            charge.answers.extend([error] * len(asks))
            return
        noised = int(np.count_nonzero(verdict.noise_scale))
        charge.tallies.append(
            Tally(asks[0].modality, len(items), verdict.charge, noised, verdict.coverage)
        )
        head.sketch = verdict.sketch
        outgoing = verdict.embeddings
        if self._unguarded is not None:
            outgoing = self._unguarded.admit(
                self._unguarded.empty(),
                clean,
                key=key,
                rng=self._rng,
                dimensions=asks[0].dimensions,
            ).embeddings
        start = 0
        for ask in asks:
            rows = slice(start, start + len(ask.inputs))
            charge.answers.append(Answer(outgoing[rows], ask.tokens))
            self._record(head, ask, verdict, rows)
            start = rows.stop

    def _record(self, head: _Head, ask: Ask, verdict: Verdict, rows: slice) -> None:
        scales = verdict.noise_scale[rows]
        charged = float(verdict.opened[rows].sum())
        head.spent += charged
        head.records.append(
            Record(
                at=self._clock(),
                tenant=ask.account.tenant,
                key_id=ask.account.key_id,
                request_id=ask.request_id,
                model=self.encoder.name,
                inputs=len(ask.inputs),
                tokens=ask.tokens,
                charge=charged,
                coverage=verdict.coverage,
                noise_scale=float(scales.max(initial=0.0)),
                profile=self.guard.version,
                shadow=self._shadow,
            )
        )

    def _submission(self, pool: str, head: _Head) -> Submission:
        """Return what to commit of a pool; `head` becomes its newest state."""
        submission = Submission(pool, head.records, head.sketch.tobytes(), head.version)
        self._heads[pool] = _Head(head.version + 1, head.sketch, head.spent)
        self._heads.move_to_end(pool)
        while len(self._heads) > CACHED_POOLS:
            oldest, _ = self._heads.popitem(last=False)
            self._in_flight.pop(oldest, None)
        return submission

    def _submit(self, charges: Sequence[Charge]) -> None:
        """Hand all pools' commits to the ledger together, so that they share one fsync."""
        submissions = [charge.submission for charge in charges if charge.submission is not None]
        futures = self.ledger.submit(submissions)
        for charge, submission, future in zip(charges, submissions, futures, strict=True):
            charge.future = future
            self._in_flight[submission.pool] = future

    def _head(self, pool: str) -> _Head:
        """Return the newest state of a pool, after its commit in flight has settled."""
        pending = self._in_flight.pop(pool, None)
        head = self._heads.get(pool)
        if pending is not None and head is not None and _failure(pending) is not None:
            head.unsaved = True
        if head is not None and not head.unsaved:
            return _Head(head.version, head.sketch, head.spent)
        return self._read(pool, head if self._open else None)

    def _read(self, pool: str, unsaved: _Head | None) -> _Head:
        """Read a pool from the ledger, keeping what was answered but could not be stored."""
        try:
            entry = self.ledger.read(pool)
        except LedgerError:
            if not self._open:
                raise
            self.metrics.fallbacks.labels("ledger", "open").inc()
            # A version that no ledger has: this can only conflict, and is then read again.
            if unsaved is None:
                return _Head(-1, self.guard.empty(), 0.0)
            return _Head(-1, unsaved.sketch, unsaved.spent)
        sketch = self.guard.load(entry.sketch)
        if unsaved is not None:
            sketch = self.guard.merge(sketch, unsaved.sketch)
        return _Head(entry.version, sketch, entry.spent)

    # -- step 3 ------------------------------------------------------------------

    def settle(self, charge: Charge) -> tuple[list[Answer | TollkeeperError], list[Ask]]:
        """After the commit's future is done: the answers to give, and the asks to charge again.

        Returns:
            Answers in the order of `charge.asks`, and nothing to repeat; or, after a
            conflict with another writer, no answers and the asks to pass to `charge`.
        """
        failure = None if charge.future is None else _failure(charge.future)
        if failure is None:
            self._count(charge)
            return charge.answers, []
        self._forget(charge)
        attempts = min(ask.attempts for ask in charge.asks)
        if isinstance(failure, ConflictError) and attempts < MAX_ATTEMPTS:
            self.metrics.conflicts.inc()
            for ask in charge.asks:
                ask.attempts += 1
            return [], charge.asks
        policy = "open" if self._open else "closed"
        self.metrics.fallbacks.labels("ledger", policy).inc()
        if self._open:
            self._count(charge)
            return charge.answers, []
        return [failure] * len(charge.asks), []

    def _count(self, charge: Charge) -> None:
        for tally in charge.tallies:
            self.metrics.inputs.labels(tally.modality).inc(tally.inputs)
            self.metrics.charged.inc(tally.charged)
            self.metrics.noised.inc(tally.noised)
            self.metrics.coverage.observe(tally.coverage)

    def _forget(self, charge: Charge) -> None:
        """After a failed commit: what it would have stored is not the pool's state."""
        if charge.submission is None:
            return
        pool = charge.submission.pool
        with self._lock:
            if self._in_flight.get(pool) is charge.future:
                del self._in_flight[pool]
                head = self._heads[pool]
                head.unsaved = True

    def answer(self, ask: Ask) -> Answer:
        """Take one request through all steps and wait for durability.

        Raises:
            TollkeeperError: whatever stood in the way; nothing was charged unless the
                ledger itself failed while storing.
        """
        self.check(ask)
        (error,) = self.embedder.embed([Piece(ask, slice(0, len(ask.inputs)))])
        if error is not None:
            raise error
        pending = [ask]
        while True:
            (charge,) = self.charge(pending)
            answers, pending = self.settle(charge)
            if not pending:
                break
        (outcome,) = answers
        if isinstance(outcome, TollkeeperError):
            raise outcome
        return outcome


def _alike(asks: Sequence[Ask]) -> Iterable[list[Ask]]:
    """Group asks that one guard call can answer: same tenant, same width.

    Asks with a budget stay alone, so that each meets the spend of those before it.
    """
    groups: dict[tuple[str, int | None, int], list[Ask]] = {}
    for ask in asks:
        alone = id(ask) if ask.account.budget is not None else 0
        groups.setdefault((ask.account.tenant, ask.dimensions, alone), []).append(ask)
    return groups.values()


def _stack(parts: Sequence[Embeddings | None]) -> Embeddings:
    filled = [part for part in parts if part is not None]
    return filled[0] if len(filled) == 1 else np.concatenate(filled)


def _failure(future: Future[Entry]) -> TollkeeperError | None:
    """Wait for a commit; return its error, or None."""
    error = future.exception()
    if error is None or isinstance(error, TollkeeperError):
        return error
    return LedgerError(f"the ledger failed with {type(error).__name__}")
