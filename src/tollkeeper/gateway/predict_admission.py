"""Who gets a prediction, and for what: detectors advise, the plan decides."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.classifiers.base import checked_probabilities
from tollkeeper.errors import (
    BudgetExhausted,
    ConfigurationError,
    DetectorError,
    InputRefused,
    RefusalError,
    RequestError,
    TollkeeperError,
)
from tollkeeper.gateway.admits import Admitted, BaseAdmission
from tollkeeper.gateway.archive import Kept
from tollkeeper.gateway.asks import Ask
from tollkeeper.gateway.booth import Booth
from tollkeeper.gateway.grants import Grants
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.plans import Plans
from tollkeeper.gateway.policy import EXHAUSTED, Decision, action_of, check_budget
from tollkeeper.gateway.predict_archive import Marks, Past, among
from tollkeeper.gateway.predict_tariff import Evidence, Tariff
from tollkeeper.gateway.predictor import checked_scores
from tollkeeper.ledger.spent import SpentStore
from tollkeeper.types import Account, Images, Probabilities, Scores

E = TypeVar("E", bound=TollkeeperError)

MOST_TARIFFS = 256
_log = logging.getLogger("tollkeeper.predictions")


@dataclass(frozen=True, slots=True, eq=False)
class _Query:
    """One request with what is new in it.

    Attributes:
        ask: the request.
        tariff: of its account's plan.
        enforced: whether decisions are carried out.
        past: of its pool.
        since: when the pool's window began.
        fresh: (n,) which inputs are new.
        new: (m,) marks of the new ones.
        scores: (m,) of the new ones; zeros without a detector.
        ranks: (m,) of the new ones.
    """

    ask: Ask
    tariff: Tariff
    enforced: bool
    past: Past
    since: float
    fresh: NDArray[np.bool_]
    new: Marks
    scores: Scores
    ranks: Scores

    @property
    def pictures(self) -> Images:
        """The tensors that were asked: (n, c, h, w)."""
        return np.stack([_picture(item) for item in self.ask.inputs])

    @property
    def answers(self) -> Probabilities:
        """What the classifier said: (n, k)."""
        assert self.ask.embeddings is not None
        return self.ask.embeddings

    def asked(self, past: Past) -> Past:
        """Return a past in which the new inputs are asked too."""
        return past.with_asked(self.new)

    def where(self, suspicion: float | None = None, due_s: float = 0.0) -> str:
        """Return for the operator what was found, and what was due."""
        known = self.past.suspicion if suspicion is None else suspicion
        price = f", {due_s:.3g} s due" if due_s else ""
        rank = f"rank {self.ranks.max():.4f}, account at {known:.4g}"
        return f"{len(self.new)} new, {rank}{price}"


class PredictAdmission(BaseAdmission):
    """Ranks what is new in a request, and lets the account's plan decide.

    What a refusal taught about an account is kept, or asking would be a free oracle of what the
    detectors find suspicious.
    """

    remembers = True
    screens = True

    def __init__(
        self,
        evidence: Evidence,
        *,
        booth: Booth,
        plans: Plans,
        grants: Grants,
        spent: SpentStore,
        clock: Callable[[], float],
        metrics: Metrics,
        shadow: bool,
        hash_rate: float,
        marking_key: bytes,
        response_key: bytes,
    ) -> None:
        """Hold the parts; those not named here are as in `BaseAdmission`.

        Args:
            evidence: what tells queries apart.
            booth: takes tolls.
            plans: what accounts meet.
            grants: reads grants.
            spent: what of grants is used up.
            clock: seconds since the epoch.
            metrics: instruments of this server.
            shadow: nothing is enforced for anyone.
            hash_rate: hashes a second of the reference machine.
            marking_key: secret by which inputs are recognized.
            response_key: secret of responses; one for all tenants, so that several of them cannot
                average noise away.

        Raises:
            ConfigurationError: a plan's ranks or outputs cannot be had.
        """
        super().__init__(
            booth=booth, plans=plans, grants=grants, spent=spent, clock=clock, shadow=shadow
        )
        detector = evidence.detector
        self.version = f"predictions/{detector.name if detector else 'none'}"
        self._evidence = evidence
        self._metrics = metrics
        self._hash_rate = hash_rate
        self._marking_key = marking_key
        self._response_key = response_key
        self._tariff_of = lru_cache(MOST_TARIFFS)(lambda plan: Tariff.of(plan, evidence))
        self.check(plans)
        if detector is not None and evidence.account is None:
            _log.warning("predictions.unfollowed: nothing follows accounts, so no alarm is raised")

    def check(self, plans: Plans) -> None:
        """Refuse plans that cannot hold here.

        Raises:
            ConfigurationError: a plan's ranks or outputs cannot be had.
        """
        if self._evidence.detector is None and (ranked := plans.ranked()):
            raise ConfigurationError(
                f"no detector tells queries apart, but these plans rank them: {', '.join(ranked)}; "
                "name a file with --detector, or write null there"
            )
        for plan in plans.all:
            self._tariff_of(plan)

    def ladder(self, account: Account) -> Tariff:
        """Return the tariff of an account."""
        return self._tariff_of(self.plans.of(account.plan).plan)

    def screen(self, kept: Kept, ask: Ask, *, spent: float) -> None:
        """Refuse new inputs of an account in alarm or over its budget; see `BaseAdmission`."""
        plans, past = self.plans, Past.of(kept)
        _, new = self._new(ask, past)
        if not len(new):
            return
        check_budget(spent + len(new), ask.account.budget)
        tariff = self._tariff_of(plans.of(ask.account.plan).plan)
        if not (self._enforced(plans, ask.account) and tariff.alarms(past.suspicion)):
            return
        if _is_promised(ask, new, past) or self.granted(ask.account) is not None:
            return
        note = f"{len(new)} new, not looked at, account at {past.suspicion:.4g}"
        raise _with_note(BudgetExhausted(EXHAUSTED), note)

    def admit(self, kept: Kept, asks: Sequence[Ask], *, spent: float) -> Admitted | None:
        """Decide about one request; see `BaseAdmission`."""
        if len(asks) > 1:
            return None
        query = self._query(asks[0], kept)
        count = len(query.new)
        if not count:
            return self._answered(query, query.past, _same, Decision("answered", "nothing new"))
        check_budget(spent + count, query.ask.account.budget)
        grant = self._use_grant(query.ask.account, asks)
        if grant is not None:
            # Noted as asked and not as suspicious, as the guard does with coverage.
            decision = Decision("granted", f"{query.where()}; grant {grant.id}")
            return self._answered(query, query.asked(query.past), query.asked, decision)
        return self._decide(query)

    def _query(self, ask: Ask, kept: Kept) -> _Query:
        plans, past = self.plans, Past.of(kept)  # plans may be replaced meanwhile
        fresh, new = self._new(ask, past)
        scores = np.concatenate(ask.scores)[fresh] if ask.scores else np.zeros(int(fresh.sum()))
        return _Query(
            ask,
            self._tariff_of(plans.of(ask.account.plan).plan),
            self._enforced(plans, ask.account),
            past,
            kept.since,
            fresh,
            new,
            scores,
            self._evidence.ranks(scores),
        )

    def _new(self, ask: Ask, past: Past) -> tuple[NDArray[np.bool_], Marks]:
        """Return which inputs of a request are new to its pool, and the marks of these."""
        marks = np.array([self._mark(item) for item in ask.inputs], np.uint32)
        fresh = past.unseen(marks)
        return fresh, marks[fresh]

    def _mark(self, item: Any) -> int:
        """Return what an input is recognized by: a keyed hash, the same in every process."""
        digest = hashlib.blake2b(_content(item), key=self._marking_key, digest_size=4).digest()
        return int.from_bytes(digest, "little")

    def _decide(self, query: _Query) -> Admitted:
        """Refuse, or take the toll, or answer; in shadow only say which."""
        alarmed = query.enforced and query.tariff.alarms(query.past.suspicion)
        promised = _is_promised(query.ask, query.new, query.past)
        if alarmed and not promised:
            raise _with_note(BudgetExhausted(EXHAUSTED), query.where())
        trail, after = self._watched(query, query.past)
        due_s = query.tariff.work(query.scores) / self._hash_rate
        where = query.where(after.suspicion, due_s)
        refusal: RefusalError | RequestError | None
        refusal = _refusal(query, () if promised and due_s else trail)
        paid_s, action = 0.0, "challenged" if due_s else "answered"
        if query.enforced and refusal is None and due_s:
            try:
                paid_s, action = self.booth.collect(query.ask, due_s, query.tariff), "paid"
            except (RefusalError, RequestError) as error:
                # Who is in alarm and holds no payment is not told a price.
                refusal = BudgetExhausted(EXHAUSTED) if alarmed else error
        if refusal is not None:
            if query.enforced:
                return self._refused(query, after, trail, _with_note(refusal, where))
            action = action_of(refusal)
        self._observe(query)
        decision, note = Decision(action, where, paid_s), partial(self._noted, query)
        return self._answered(query, query.asked(after), note, decision)

    def _refused(
        self, query: _Query, after: Past, trail: Scores, refusal: RefusalError | RequestError
    ) -> Admitted:
        """Keep what a refusal taught about the account; where it taught nothing, just refuse.

        So whoever repeats what was refused fills no ledger with it. A price is a refusal too: who
        is asked for one learns how suspicious an input is, paid or not.
        """
        self._observe(query)
        if self._evidence.account is None or among(query.new, query.past.watched).all():
            raise refusal
        after = replace(after, suspicion=max(after.suspicion, float(trail.max())))
        decision = Decision(action_of(refusal), refusal.__notes__[0])
        learn = partial(self._learned, query)
        return self._answered(query, after.with_watched(query.new), learn, decision, refusal)

    def _observe(self, query: _Query) -> None:
        for rank in query.ranks[~among(query.new, query.past.watched)].tolist():
            self._metrics.ranks.observe(rank)

    def _watched(self, query: _Query, past: Past) -> tuple[Scores, Past]:
        """Let the account detector see what is new.

        Returns:
            The account's suspicion before each new input, and its past after all of them.
        """
        fed = ~among(query.new, past.watched)
        found, state = np.empty(0), past.account
        if fed.any():
            found, state = self._update(query, past.account, fed)
        # What is not looked at again leaves suspicion as it was.
        known = np.concatenate([[past.suspicion], found + past.burden])
        trail = known[np.cumsum([0, *fed])]
        return trail[:-1], replace(past, suspicion=float(trail[-1]), account=state)

    def _update(self, query: _Query, state: bytes, fed: NDArray[np.bool_]) -> tuple[Scores, bytes]:
        """Let the account detector see some of the new inputs."""
        evidence, detector = self._evidence, self._evidence.account
        if detector is None:
            return np.zeros(int(fed.sum())), state
        state = state or detector.empty()
        places = np.flatnonzero(query.fresh)[fed]
        try:
            if evidence.follow is not None:
                found, state = evidence.follow(state, query.scores[fed])
            else:
                found, state = detector.update(state, query.pictures[places], query.answers[places])
        except TollkeeperError:
            raise
        except Exception as error:
            raise DetectorError(
                f"{detector.name} raised {type(error).__name__}: {error}"
            ) from error
        return checked_scores(found, n=len(places)), state

    def _learned(self, query: _Query, past: Past) -> Past:
        return self._watched(query, past)[1].with_watched(query.new)

    def _noted(self, query: _Query, past: Past) -> Past:
        return query.asked(self._watched(query, past)[1])

    def _answered(
        self,
        query: _Query,
        after: Past,
        note: Callable[[Past], Past],
        decision: Decision,
        refusal: RefusalError | RequestError | None = None,
    ) -> Admitted:
        """Return what leaves, if anything does; `note` does to another past what led to `after`."""
        answers = query.answers
        if query.enforced and query.tariff.responses and refusal is None:
            changed = query.tariff.respond(query.pictures, answers, key=self._response_key)
            answers = checked_probabilities(changed, n=len(answers), classes=answers.shape[1])
        return Admitted(
            answers,
            query.fresh,
            after.kept(query.since),
            lambda own: note(Past.of(own)).kept(own.since),
            decision,
            query.enforced,
            None,
            np.zeros(len(answers), np.float32),
            refusal,
        )


def _is_promised(ask: Ask, new: Marks, past: Past) -> bool:
    """Return whether a request brings the payment of a price that was named for it.

    Then it was before the alarm, and what it taught is known: naming the price may have raised the
    alarm, and who pays is answered like who was asked no price. Nothing else holds such a proof, as
    it is bound to the body of its request.
    """
    proof = ask.proof
    return proof is not None and not proof.is_pass and bool(among(new, past.watched).all())


def _refusal(query: _Query, trail: Iterable[float]) -> RefusalError | None:
    """Return why new inputs are not answered: their account's alarm, or the rank of one.

    The client learns which input it is, and no more.
    """
    tariff = query.tariff
    if any(map(tariff.alarms, trail)):
        return BudgetExhausted(EXHAUSTED)
    if tariff.refuse_rank is None or not (query.ranks >= tariff.refuse_rank).any():
        return None
    place = int(np.flatnonzero(query.fresh)[query.ranks >= tariff.refuse_rank][0])
    return InputRefused(f"input[{place}] is not answered by this API. Leave it out.")


def _with_note(error: E, note: str) -> E:
    """Tell the operator's record more than the client."""
    error.add_note(note)
    return error


def _same(past: Past) -> Past:
    return past


def _content(item: Any) -> bytes:
    """Return the bytes of an input, a text or a canonical tensor."""
    return item.encode() if isinstance(item, str) else item.tobytes()


def _picture(item: Any) -> NDArray[np.float32]:
    """Return a tensor as it is, and for a text one that stands for it: its hash."""
    if isinstance(item, str):
        digest = hashlib.sha256(item.encode()).digest()
        item = np.frombuffer(digest, np.uint8).astype(np.float32).reshape(1, 1, -1) / np.float32(
            255
        )
    tensor: NDArray[np.float32] = item
    return tensor
