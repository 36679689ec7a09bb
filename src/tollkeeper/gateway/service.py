"""The one place that holds an encoder, its guard and a ledger together. No HTTP here.

A request goes through three steps: `embed`, `charge`, and the answer. `charge` admits
the embeddings and submits the commit; an answer may leave only when the commit's
future is done, so no embedding leaves before its coverage is durable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, Protocol

from prometheus_client import Counter

from tollkeeper.errors import (
    ConflictError,
    LedgerError,
    RefusalError,
    RequestError,
    SpentError,
    TollkeeperError,
)
from tollkeeper.gateway.admission import Admission
from tollkeeper.gateway.admits import Admitted, BaseAdmission
from tollkeeper.gateway.archive import Keeper, Kept
from tollkeeper.gateway.asks import Answer, Ask, Charge
from tollkeeper.gateway.backlog import Piece
from tollkeeper.gateway.embedder import Embedder
from tollkeeper.gateway.heads import Head, Heads, failure
from tollkeeper.gateway.journal import Journal
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.policy import action_of
from tollkeeper.gateway.screen import Screen
from tollkeeper.gateway.work import (
    Work,
    alike,
    answer_of,
    entries_of,
    is_linked,
    take_stored,
    tally_of,
)
from tollkeeper.guard.guard import Guard
from tollkeeper.ledger.base import Beside, GroupCommits, Ledger, Notes, Submission
from tollkeeper.types import Account, Record

MAX_ATTEMPTS = 10


class ServiceLedger(Ledger, GroupCommits, Notes, Protocol):
    """What the service needs from a ledger."""


class Service:
    """Answers requests: embed, charge, reply."""

    def __init__(
        self,
        embedder: Embedder,
        admission: BaseAdmission,
        archive: Keeper,
        ledger: ServiceLedger,
        *,
        clock: Callable[[], float],
        metrics: Metrics,
        journal: Journal,
        decisions: Counter | None = None,
        on_ledger_failure: Literal["closed", "open"] = "closed",
    ) -> None:
        """Hold the parts.

        Args:
            embedder: calls the clean encoder.
            admission: decides what each answer looks like, and whether there is one.
            archive: how the states of pools lie in the ledger.
            ledger: durable state.
            clock: seconds since the epoch, for records.
            metrics: instruments of this server.
            journal: takes refusals.
            decisions: counts decisions by word and mode; that of embeddings unless given.
            on_ledger_failure: `"closed"` refuses when the ledger fails; `"open"` answers
                from the state in memory and counts a fallback.
        """
        self.encoder = embedder.encoder
        self.embedder = embedder
        self.admission = admission
        self.ledger = ledger
        self.metrics = metrics
        self.journal = journal
        self._decisions = decisions or metrics.decisions
        self._clock = clock
        self._open = on_ledger_failure == "open"
        self._archive = archive
        self._heads = Heads(ledger, self._archive, metrics, fail_open=self._open)
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._screen = Screen(admission, archive, ledger)

    def exposure(self, account: Account) -> float:
        """Return the coverage of an account's pool that its plan sees.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        if not self.admission.remembers:
            return 0.0
        entry = self.ledger.read(self._archive.key(account.pool))
        kept = self._archive.load(entry.sketch, at=self._clock())
        return self._archive.reached(kept)

    def refuse(self, account: Account, request_id: str, error: RefusalError) -> None:
        """Write down a refusal that came before the engine."""
        self._decisions.labels(action_of(error), "enforce").inc()
        blank = self._blank(self._clock(), account, request_id)
        self.journal.note(replace(blank, decision=action_of(error), reason=str(error)))

    # -- step 1 ------------------------------------------------------------------

    def check(self, ask: Ask) -> None:
        """Refuse what the encoder cannot take, before it costs anything.

        Raises:
            InputError: wrong modality or too many dimensions.
        """
        self.embedder.check(ask)

    def embed(self, pieces: Sequence[Piece]) -> list[TollkeeperError | None]:
        """Embed pieces of one modality; what is refused anyway costs no call of the encoder.

        Returns:
            For each piece None, or the error to give its ask.
        """
        refused = [self._screened(piece) for piece in pieces]
        rest = [piece for piece, error in zip(pieces, refused, strict=True) if error is None]
        embedded = iter(self.embedder.embed(rest) if rest else ())
        return [next(embedded) if error is None else error for error in refused]

    def _screened(self, piece: Piece) -> TollkeeperError | None:
        """Return why the ask of a piece is not answered, where its pool's state tells already."""
        now = self._clock()
        found = None if piece.rows.start else self._screen.refusal(piece.ask, at=now)
        if found is not None:
            self._refused(found[1], now, piece.ask, found[0])
        return found and found[0]

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
                    *(self._archive.key(ask.account.tenant) for ask in group if is_linked(ask)),
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
                if self.admission.remembers
                else Head(0, self._archive.load(b"", at=now))
            )
            work = Work(pool, head, now)
            for group in alike(asks):
                self._admit(work, group, charge)
            if self.admission.remembers and work.records:
                charge.submission = self._submission(work)
        except TollkeeperError as error:
            if isinstance(error, LedgerError):
                self.metrics.fallbacks.labels("ledger", "closed").inc()
            self.give_back(asks)
            return Charge(asks=asks, answers=[error] * len(asks))
        if charge.submission is None:
            # Refused, perhaps for a state that an operator has changed since.
            self._heads.drop(pool)
            self._screen.note(pool)
        return charge

    def _admit(self, work: Work, asks: list[Ask], charge: Charge) -> None:
        """Decide about asks of one account and width together; updates `work` and `charge`."""
        head = work.head
        try:
            admitted = self.admission.admit(head.kept, asks, spent=head.spent)
        except (RefusalError, RequestError, SpentError) as error:
            self._refused(head.kept, work.now, asks[0], error)
            charge.asks.extend(asks)
            charge.answers.extend([error] * len(asks))
            return
        if admitted is None:
            for ask in asks:
                self._admit(work, [ask], charge)
            return
        charge.tallies.append(tally_of(asks, admitted))
        charge.stored.update(map(id, asks))
        head.kept = admitted.kept
        if self.admission.remembers and is_linked(asks[0]):
            self._mark_own(work, asks[0].account.tenant, admitted)
        charge.asks.extend(asks)
        start = 0
        for ask in asks:
            rows = slice(start, start + len(ask.inputs))
            charge.answers.append(admitted.refusal or answer_of(ask, admitted, rows))
            self._record(work, ask, admitted, rows)
            start = rows.stop

    def _mark_own(self, work: Work, tenant: str, admitted: Admitted) -> None:
        """Note what a linked tenant asked itself."""
        own = work.own.get(tenant)
        if own is None:
            own = work.own[tenant] = self._heads.take(self._archive.key(tenant), at=work.now)
        own.kept = admitted.mark(own.kept)

    def _record(self, work: Work, ask: Ask, admitted: Admitted, rows: slice) -> None:
        decision, refused = admitted.decision, admitted.refusal is not None
        charged = 0.0 if refused else float(admitted.opened[rows].sum())
        work.head.spent += charged
        work.records.append(
            replace(
                self._blank(work.now, ask.account, ask.request_id),
                inputs=0 if refused else len(ask.inputs),
                tokens=0 if refused else ask.tokens,
                charge=charged,
                coverage=admitted.coverage or 0.0,
                noise_scale=float(admitted.noise_scale[rows].max(initial=0.0)),
                shadow=not admitted.enforced,
                decision=decision.action,
                reason=decision.reason,
                paid_s=decision.paid_s,
            )
        )

    def _refused(self, kept: Kept, now: float, ask: Ask, error: TollkeeperError) -> None:
        """Tell the operator, not the client, why a request is not answered."""
        if isinstance(error, SpentError):
            self.metrics.fallbacks.labels("spent", "closed").inc()
            return
        coverage = self._archive.reached(kept)
        mode = "enforce" if self.admission.enforces(ask.account) else "shadow"
        self._decisions.labels(action_of(error), mode).inc()
        self.journal.note(
            replace(
                self._blank(now, ask.account, ask.request_id),
                coverage=coverage,
                decision=action_of(error),
                reason="; ".join(getattr(error, "__notes__", ())) or str(error),
            )
        )

    def _blank(self, at: float, account: Account, request_id: str) -> Record:
        """Return a record of a request that says nothing yet of what became of it."""
        return Record(
            at=at,
            tenant=account.tenant,
            key_id=account.key_id,
            request_id=request_id,
            model=self.encoder.name,
            inputs=0,
            tokens=0,
            charge=0.0,
            coverage=0.0,
            noise_scale=0.0,
            profile=self.admission.stamp(account),
        )

    def _submission(self, work: Work) -> Submission:
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
            self._heads.sent(entries_of(submission), future)

    # -- step 3 ------------------------------------------------------------------

    def settle(self, charge: Charge) -> tuple[list[Answer | TollkeeperError], list[Ask]]:
        """After the commit's future is done: the answers to give, and the asks to charge again.

        Returns:
            Answers in the order of `charge.asks`, and what to pass to `charge` again: after a
            conflict with another writer those whose outcome was not stored, which are then not
            among `charge.asks` any more.
        """
        failed = None if charge.future is None else failure(charge.future)
        if failed is None:
            self._count(charge)
            return charge.answers, []
        self._forget(charge)
        attempts = min(ask.attempts for ask in charge.asks)
        if isinstance(failed, ConflictError) and attempts < MAX_ATTEMPTS:
            self.metrics.conflicts.inc()
            again = take_stored(charge)
            self.give_back(again)
            for ask in again:
                ask.attempts += 1
            return charge.answers, again
        policy = "open" if self._open else "closed"
        self.metrics.fallbacks.labels("ledger", policy).inc()
        if self._open and not isinstance(failed, ConflictError):
            self._count(charge)
            return charge.answers, []
        self.give_back(charge.asks)
        return [failed] * len(charge.asks), []

    def _count(self, charge: Charge) -> None:
        for tally in charge.tallies:
            self.metrics.inputs.labels(tally.modality).inc(tally.inputs)
            self.metrics.charged.inc(tally.charged)
            self.metrics.noised.inc(tally.noised)
            if tally.coverage is not None:
                self.metrics.coverage.observe(tally.coverage)
            self.metrics.puzzle_seconds.inc(tally.paid_s)
            mode = "enforce" if tally.enforced else "shadow"
            self._decisions.labels(tally.decision, mode).inc(tally.requests)

    def give_back(self, asks: Sequence[Ask]) -> None:
        """Give back what asks paid that are not answered, or are charged anew."""
        try:
            self.admission.refund(asks)
        except LedgerError:
            self.metrics.fallbacks.labels("spent", "lost").inc()

    def _forget(self, charge: Charge) -> None:
        """After a failed commit: what it would have stored is not the pool's state."""
        if charge.submission is None or charge.future is None:
            return
        with self._lock:
            self._heads.failed(entries_of(charge.submission), charge.future)

    def answer(self, ask: Ask) -> Answer:
        """Take one request through all steps and wait for durability.

        Raises:
            TollkeeperError: whatever stood in the way; nothing was charged unless the
                ledger itself failed while storing.
        """
        self.check(ask)
        (error,) = self.embed([Piece(ask, slice(0, len(ask.inputs)))])
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


class Guarded(Service):
    """A service of embeddings, whose answers a guard prices."""

    admission: Admission

    @property
    def guard(self) -> Guard:
        """What prices its answers."""
        return self.admission.guard
