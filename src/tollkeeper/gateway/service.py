"""The one place that holds an encoder, the guard and a ledger together. No HTTP here.

A request goes through three steps: `embed`, `charge`, and the answer. `charge` admits
the embeddings and submits the commit; an answer may leave only when the commit's
future is done, so no embedding leaves before its coverage is durable.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import (
    BudgetExhausted,
    ConflictError,
    LedgerError,
    TollkeeperError,
)
from tollkeeper.gateway.archive import Archive, Kept
from tollkeeper.gateway.asks import Answer, Ask, Charge, Tally
from tollkeeper.gateway.backlog import Piece
from tollkeeper.gateway.embedder import Embedder
from tollkeeper.gateway.heads import Head, Heads, failure
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.policy import check_budget, check_ceiling
from tollkeeper.gateway.wire import canonical
from tollkeeper.guard import profiles
from tollkeeper.guard.guard import Guard
from tollkeeper.guard.windows import Windows
from tollkeeper.ledger.base import Beside, GroupCommits, Ledger, Submission
from tollkeeper.types import Embeddings, Record, Verdict

MAX_ATTEMPTS = 10


class ServiceLedger(Ledger, GroupCommits, Protocol):
    """What the service needs from a ledger."""


@dataclass(slots=True)
class _Work:
    """What becomes of one pool while its asks are admitted.

    Attributes:
        pool: the ledger's name of it.
        head: its newest state.
        now: seconds since the epoch.
        own: of each tenant that is linked to others, what it asked itself; changes with the
            pool, so that the link can be undone.
        records: of the asks that are answered.
    """

    pool: str
    head: Head
    now: float
    own: dict[str, Head] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)

    def spent_by(self, tenant: str) -> tuple[float, int]:
        """Return what a tenant was charged and how many of its inputs are answered."""
        rows = [record for record in self.records if record.tenant == tenant]
        return math.fsum(row.charge for row in rows), sum(row.inputs for row in rows)


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
        windows: Windows | None = None,
        window_since: float = 0.0,
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
            windows: when pools forget; None never.
            window_since: start of the first window; see `Archive.first`.
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
        self._archive = Archive(guard.profile.layout, windows, guard.fingerprint, window_since)
        self._heads = Heads(ledger, self._archive, metrics, fail_open=self._open)
        self._lock = threading.Lock()
        self._turn = threading.Lock()

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
            by_pool.setdefault(self._archive.key(ask.account.pool), []).append(ask)
        charges: list[Charge] = []
        unsent: list[Charge] = []
        # `_turn` serializes whole charges. `_lock` guards the heads and is never held while
        # waiting or writing: a commit's callback, in whatever thread, may need it.
        with self._turn:
            touched: set[str] = set()
            for pool, group in by_pool.items():
                entries = {
                    pool,
                    *(self._archive.key(ask.account.tenant) for ask in group if _linked(ask)),
                }
                if touched & entries:  # a tenant on its old pool and on its new one
                    self._submit(unsent)
                    unsent, touched = [], set()
                touched |= entries
                self._heads.wait(entries)
                with self._lock:
                    unsent.append(self._charge_pool(pool, group))
                charges.append(unsent[-1])
            self._submit(unsent)
        return charges

    def _charge_pool(self, pool: str, asks: list[Ask]) -> Charge:
        charge = Charge(asks=[], answers=[])
        now = self._clock()
        try:
            head = (
                self._heads.take(pool, at=now)
                if self.guard.tracks
                else Head(0, Kept(self.guard.empty()))
            )
            work = _Work(pool, head, now)
            for group in _alike(asks):
                self._admit(work, group, charge)
            if self.guard.tracks and work.records:
                charge.submission = self._submission(work)
        except TollkeeperError as error:
            if isinstance(error, LedgerError):
                self.metrics.fallbacks.labels("ledger", "closed").inc()
            return Charge(asks=asks, answers=[error] * len(asks))
        if charge.submission is None:
            # Refused, perhaps for a state that an operator has changed since.
            self._heads.drop(pool)
        return charge

    def _admit(self, work: _Work, asks: list[Ask], charge: Charge) -> None:
        """Admit asks of one account and width in one guard call; updates `work` and `charge`."""
        account, head = asks[0].account, work.head
        items = [item for ask in asks for item in ask.inputs]
        clean = _stack([ask.embeddings for ask in asks])
        key = self.guard.tenant_key(account.tenant, version=self._key_version)
        started = time.perf_counter()
        verdict = self.guard.admit(
            head.kept.sketch,
            clean,
            key=key,
            rng=self._rng,
            identities=_Identities(items, key),
            dimensions=asks[0].dimensions,
        )
        self.metrics.guard_seconds.observe(time.perf_counter() - started)
        if verdict.refused and len(asks) > 1:
            for ask in asks:  # those that ask for nothing new are answered
                self._admit(work, [ask], charge)
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
        head.kept = replace(head.kept, sketch=verdict.sketch)
        if self.guard.tracks and _linked(asks[0]):
            self._mark_own(work, account.tenant, verdict)
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
            self._record(work, ask, verdict, rows)
            start = rows.stop

    def _mark_own(self, work: _Work, tenant: str, verdict: Verdict) -> None:
        """Note what a linked tenant asked itself."""
        own = work.own.get(tenant)
        if own is None:
            own = work.own[tenant] = self._heads.take(self._archive.key(tenant), at=work.now)
        sketch = self.guard.mark_places(own.kept.sketch, verdict.places)
        own.kept = replace(own.kept, sketch=sketch)

    def _record(self, work: _Work, ask: Ask, verdict: Verdict, rows: slice) -> None:
        scales = verdict.noise_scale[rows]
        charged = float(verdict.opened[rows].sum())
        work.head.spent += charged
        work.records.append(
            Record(
                at=work.now,
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

    def _submission(self, work: _Work) -> Submission:
        """Return what to commit of a pool; its head becomes its newest state."""
        head = work.head
        beside = []
        for tenant, own in work.own.items():
            charge, inputs = work.spent_by(tenant)
            key, data = self._archive.key(tenant), self._archive.dump(own.kept)
            beside.append(Beside(key, data, own.version, charge, inputs))
            self._heads.put(key, Head(own.version + 1, own.kept, own.spent + charge, own.owed))
        self._heads.put(work.pool, Head(head.version + 1, head.kept, head.spent, head.owed))
        data = self._archive.dump(head.kept)
        return Submission(work.pool, work.records, data, head.version, beside)

    def _submit(self, charges: Sequence[Charge]) -> None:
        """Hand all pools' commits to the ledger together, so that they share one fsync."""
        due = [(one, one.submission) for one in charges if one.submission is not None]
        futures = self.ledger.submit([submission for _, submission in due])
        for (charge, submission), future in zip(due, futures, strict=True):
            charge.future = future
            self._heads.sent(_entries(submission), future)

    # -- step 3 ------------------------------------------------------------------

    def settle(self, charge: Charge) -> tuple[list[Answer | TollkeeperError], list[Ask]]:
        """After the commit's future is done: the answers to give, and the asks to charge again.

        Returns:
            Answers in the order of `charge.asks`, and nothing to repeat; or, after a
            conflict with another writer, no answers and the asks to pass to `charge`.
        """
        failed = None if charge.future is None else failure(charge.future)
        if failed is None:
            self._count(charge)
            return charge.answers, []
        self._forget(charge)
        attempts = min(ask.attempts for ask in charge.asks)
        if isinstance(failed, ConflictError) and attempts < MAX_ATTEMPTS:
            self.metrics.conflicts.inc()
            for ask in charge.asks:
                ask.attempts += 1
            return [], charge.asks
        policy = "open" if self._open else "closed"
        self.metrics.fallbacks.labels("ledger", policy).inc()
        if self._open and not isinstance(failed, ConflictError):
            self._count(charge)
            return charge.answers, []
        return [failed] * len(charge.asks), []

    def _count(self, charge: Charge) -> None:
        for tally in charge.tallies:
            self.metrics.inputs.labels(tally.modality).inc(tally.inputs)
            self.metrics.charged.inc(tally.charged)
            self.metrics.noised.inc(tally.noised)
            self.metrics.coverage.observe(tally.coverage)

    def _forget(self, charge: Charge) -> None:
        """After a failed commit: what it would have stored is not the pool's state."""
        if charge.submission is None or charge.future is None:
            return
        with self._lock:
            self._heads.failed(_entries(charge.submission), charge.future)

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


def _linked(ask: Ask) -> bool:
    """Return whether a tenant is charged on a pool that is not its own."""
    return ask.account.pool != ask.account.tenant


def _entries(submission: Submission) -> list[str]:
    """Return the names of all entries that a commit changes."""
    return [submission.pool, *(part.pool for part in submission.beside)]
