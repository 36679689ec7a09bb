"""Who gets an answer, and for what: the ladder of a plan, applied to one request.

The guard prices what an answer reveals; policy decides whether there is an answer. What can be
refused before the encoder costs anything is (`check_standing`, `Booth.check_patience`); the rest
needs to know what a request asks that is new. Repeats are answered whatever the rung, for free.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tollkeeper.errors import (
    BudgetExhausted,
    ChallengeRequired,
    RefusalError,
    RequestError,
    SuspendedError,
    ThrottledError,
    TollkeeperError,
)
from tollkeeper.gateway.asks import Ask
from tollkeeper.gateway.booth import Booth
from tollkeeper.gateway.grants import Grant
from tollkeeper.gateway.plans import Ladder
from tollkeeper.types import Account, Verdict

MINUTE_S: Final = 60.0
MOST_POOLS: Final = 10_000


def check_standing(account: Account) -> None:
    """Refuse an account whose tenant is suspended.

    Raises:
        SuspendedError: the operator suspended the tenant.
    """
    if account.suspended:
        raise SuspendedError("This account is suspended. Contact your provider.")


EXHAUSTED = "This request needs more quota than this account has left. Contact your provider."


def check_budget(spent: float, budget: float | None) -> None:
    """Refuse a request that would take a pool over its hard budget.

    Repeats cost nothing, so they are answered however much is spent.

    Args:
        spent: inputs charged to the pool, this request's included.
        budget: inputs that may be charged, or None for no limit.

    Raises:
        BudgetExhausted: not enough is left; retrying does not help.
    """
    if budget is not None and spent > budget:
        raise BudgetExhausted(EXHAUSTED)


@dataclass(frozen=True, slots=True)
class Case:
    """What stands about an account before its request is decided.

    Attributes:
        account: who asks.
        ladder: its plan.
        enforced: whether decisions are carried out; else they are only recorded.
        grant: what covers this request, if one does.
    """

    account: Account
    ladder: Ladder
    enforced: bool
    grant: Grant | None = None

    def where(self, verdict: Verdict, due_s: float) -> str:
        """Return for the operator how far the account has come, and what was due."""
        rung = self.ladder.rung(verdict.coverage)
        price = f", {due_s:.3g} s due" if due_s else ""
        return f"{verdict.charge:g} new, coverage {verdict.coverage:.3f}: {rung}{price}"


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, for the record; none of it is shown to the client.

    Attributes:
        action: one of the words of `Record.decision`.
        reason: one line for the operator.
        paid_s: seconds of the reference machine that were paid.
        allowance: percent of the free allowance left, if the account may see that.
    """

    action: str
    reason: str
    paid_s: float = 0.0
    allowance: int | None = None


class Rations:
    """Bounds new inputs per minute and pool: the generic cell rate algorithm, one time per pool."""

    def __init__(self) -> None:
        """Start with full rations."""
        self._lock = threading.Lock()
        self._used_until: OrderedDict[str, float] = OrderedDict()

    def wait(self, pool: str, inputs: float, *, per_minute: float, now: float) -> float:
        """Return seconds until so many inputs may be answered; 0 if they may be now.

        A request of more than a minute's inputs is answered when the ration is full.
        """
        until = self._used_until.get(pool, now)
        after = until + inputs * MINUTE_S / per_minute
        return max(0.0, min(after - MINUTE_S, until) - now)

    def take(self, pool: str, inputs: float, *, per_minute: float, now: float) -> None:
        """Count inputs that are answered."""
        with self._lock:
            until = max(self._used_until.get(pool, now), now)
            self._used_until[pool] = until + inputs * MINUTE_S / per_minute
            self._used_until.move_to_end(pool)
            while len(self._used_until) > MOST_POOLS:
                self._used_until.popitem(last=False)

    def put_back(self, pool: str, seconds: float) -> None:
        """Give back what inputs took that are not answered after all."""
        with self._lock:
            if pool in self._used_until:
                self._used_until[pool] -= seconds


class Policy:
    """Decides requests by the ladders of their accounts' plans."""

    def __init__(self, booth: Booth, *, ticks: Callable[[], float]) -> None:
        """Let `booth` take tolls; `ticks` are seconds that never jump."""
        self._booth = booth
        self._ticks = ticks
        self._rations = Rations()

    @staticmethod
    def is_steep(case: Case, verdict: Verdict) -> bool:
        """Return whether requests that were priced together have to be decided one by one."""
        priced = case.ladder.rationed(_reached(verdict)) > 0 or due(case, verdict) > 0
        return case.enforced and priced

    def put_back(self, ask: Ask) -> None:
        """Give back the ration of a request that is not answered, or decided anew."""
        if ask.rationed is not None:
            self._rations.put_back(*ask.rationed)
            ask.rationed = None

    def decide(self, case: Case, ask: Ask, verdict: Verdict, *, spent: float) -> Decision:
        """Decide about one request that the guard has priced.

        Where the case is not enforced nothing is refused or taken, but by a hard budget.

        Args:
            case: the account's.
            ask: the request.
            verdict: the guard's.
            spent: inputs charged to the pool so far.

        Returns:
            Why it is answered.

        Raises:
            RefusalError: it is not answered.
        """
        if verdict.charge:
            check_budget(spent + verdict.charge, case.account.budget)
        allowance = case.ladder.left(verdict.coverage) if case.enforced else None
        if not (verdict.charge or verdict.refused):
            return Decision("answered", "nothing new", allowance=allowance)
        due_s = due(case, verdict)
        where = case.where(verdict, due_s)
        if case.grant is not None:
            return Decision("granted", f"{where}; grant {case.grant.id}", allowance=allowance)
        try:
            action, paid_s = self._climb(case, ask, verdict, due_s)
        except (RefusalError, RequestError) as error:
            if case.enforced:
                error.add_note(where)  # for the operator's record
                raise
            return Decision(action_of(error), where)
        return Decision(action, where, paid_s, allowance)

    def _climb(self, case: Case, ask: Ask, verdict: Verdict, due_s: float) -> tuple[str, float]:
        """Refuse, ration and take the toll, in this order.

        Returns:
            The word for the record, and the seconds that were paid.
        """
        ladder, now, pool = case.ladder, self._ticks(), case.account.pool
        refuses_at = ladder.refuses_at
        # In shadow the guard refuses nothing, so it is asked here who would have been refused.
        if verdict.refused or (refuses_at is not None and verdict.before >= refuses_at):
            raise BudgetExhausted(EXHAUSTED)
        per_minute = ladder.plan.inputs_per_minute
        rationed = ladder.rationed(_reached(verdict))
        if rationed:
            wait_s = self._rations.wait(pool, rationed, per_minute=per_minute, now=now)
            if wait_s > 0:
                raise ThrottledError("Too many requests. Retry later.", retry_after_s=wait_s)
        paid_s = 0.0
        if due_s and not case.enforced:
            return "challenged", 0.0
        if due_s:
            paid_s = self._booth.collect(ask, due_s, ladder)
        if rationed:
            self._rations.take(pool, rationed, per_minute=per_minute, now=now)
            ask.rationed = (pool, rationed * MINUTE_S / per_minute)
        if verdict.noise_scale.any():
            return "noised", paid_s
        metered = ladder.rung(verdict.coverage) != "free"
        return "paid" if due_s else "metered" if metered else "answered", paid_s


def due(case: Case, verdict: Verdict) -> float:
    """Return what a request's new inputs cost together, in seconds of the reference machine."""
    if not case.ladder.charges or case.grant is not None:
        return 0.0
    return math.fsum(case.ladder.seconds(coverage) for coverage in _reached(verdict))


def _reached(verdict: Verdict) -> list[float]:
    """Return where each new input leads to."""
    reached: list[float] = verdict.fractions[verdict.opened].tolist()
    return reached


def action_of(error: TollkeeperError) -> str:
    """Return the record's word for a refusal."""
    return next((word for kind, word in _ACTIONS.items() if isinstance(error, kind)), "refused")


_ACTIONS: Final = {
    SuspendedError: "suspended",
    ChallengeRequired: "challenged",
    ThrottledError: "throttled",
    BudgetExhausted: "refused",
}
