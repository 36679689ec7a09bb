"""What may be spent at live targets: caps that hold before anything is sent."""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

from tollkeeper.encoders.inputs import estimate_tokens
from tollkeeper.encoders.metered import Price
from tollkeeper.errors import BudgetExhausted, ConfigurationError

_SLACK = 1e-9
"""Relative; ten times 0.1 has to fit under a cap of 1."""

_MOST_TOKENS = 4
"""`estimate_tokens` takes four bytes for a token; no tokenizer takes less than one."""

_MARKS = 2
"""Tokens that models put around an input."""


def _refuse_negative(values: Any, what: str) -> None:
    """Raise unless all fields are None or finite and at least 0."""
    given = {field.name: getattr(values, field.name) for field in fields(values)}
    wrong = [
        f"{name}={value}"
        for name, value in given.items()
        if value is not None and not (math.isfinite(value) and value >= 0)
    ]
    if wrong:
        raise ConfigurationError(f"expected each {what} to be at least 0, got {', '.join(wrong)}")


@dataclass(frozen=True, slots=True)
class Spend:
    """What asking a live target has cost.

    Attributes:
        calls: requests for embeddings that were sent, retries too.
        distinct: inputs answered for the first time.
        repeats: inputs answered that had been answered before.
        tokens: as the target counted; estimated where it did not.
        money: at the stated price, in its currency.
        seconds: from asking to the last answer, waits included.
        retries: calls that repeat one that had failed.
        throttled_seconds: seconds by which failures and `Retry-After` put off the next call.
        challenges: proofs of work that were solved.
        puzzle_seconds: of computing them, summed over processes.
    """

    calls: int = 0
    distinct: int = 0
    repeats: int = 0
    tokens: int = 0
    money: float = 0.0
    seconds: float = 0.0
    retries: int = 0
    throttled_seconds: float = 0.0
    challenges: int = 0
    puzzle_seconds: float = 0.0

    def __add__(self, other: Spend) -> Spend:
        """Add field by field."""
        return Spend(*map(operator.add, astuple(self), astuple(other)))

    def __sub__(self, other: Spend) -> Spend:
        """Subtract field by field."""
        return Spend(*map(operator.sub, astuple(self), astuple(other)))


@dataclass(frozen=True, slots=True)
class Caps:
    """The most that may be spent, over all accounts that share an allowance; None means no limit.

    Attributes:
        distinct: inputs, each counted once for each account that is asked for it.
        repeats: inputs asked again.
        calls: requests for embeddings, retries too.
        money: in the currency of the tariff.
        seconds: spent asking.
        puzzle_seconds: of computing proofs; a challenge is not begun that is expected to go over.
    """

    distinct: int | None = None
    repeats: int | None = None
    calls: int | None = None
    money: float | None = None
    seconds: float | None = None
    puzzle_seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no limit.

        Raises:
            ConfigurationError: a cap is negative or not a number; names all that are.
        """
        _refuse_negative(self, "cap")


@dataclass(frozen=True, slots=True)
class Tariff(Price):
    """What a live target takes, as its operator states it.

    Attributes:
        per_input: for each input answered, asked before or not.
        per_call: for each call that was or may have been answered.
        per_1k_tokens: for a thousand tokens of usage.
    """

    per_1k_tokens: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no price.

        Raises:
            ConfigurationError: a price is negative or not a number; names all that are.
        """
        _refuse_negative(self, "price")

    def money(self, *, inputs: int, tokens: int, calls: int = 1) -> float:
        """Return the price of answered calls."""
        return (
            self.per_input * inputs + self.per_call * calls + self.per_1k_tokens * tokens / 1000.0
        )


_CAPPED = {
    "distinct": "distinct inputs",
    "repeats": "repeats",
    "calls": "calls",
    "money": "in money",
    "seconds": "seconds",
    "puzzle_seconds": "seconds of proofs of work",
}

NOTHING = Tariff()
"""A target that takes nothing."""

UNLIMITED = Caps()
"""No limits."""


class Allowance:
    """Counts what is spent and refuses what would go over a cap; any thread may use it.

    All accounts of one attacker share one, so that k accounts do not spend k times the cap.
    What is in flight counts as spent at the highest price it can have.

    Attributes:
        caps: the limits.
        tariff: what money is counted by.
    """

    def __init__(self, caps: Caps = UNLIMITED, tariff: Tariff = NOTHING) -> None:
        """Start with nothing spent.

        Raises:
            ConfigurationError: a cap on money without a price, which would never hold.
        """
        if caps.money is not None and tariff == NOTHING:
            raise ConfigurationError(
                "a cap on money needs a price: state what an input, a call or 1,000 tokens cost"
            )
        self.caps = caps
        self.tariff = tariff
        self._spent = Spend()
        self._held = Spend()
        self._carried: set[str] = set()
        self._lock = threading.Lock()

    def spend(self) -> Spend:
        """Return what all accounts have spent."""
        with self._lock:
            return self._spent

    def estimate(self, inputs: Sequence[Any], *, calls: int) -> float:
        """Return the money that some calls are likely to cost."""
        tokens = int(estimate_tokens(inputs).sum())
        return self.tariff.money(inputs=len(inputs), tokens=tokens, calls=calls)

    def most(self, inputs: Sequence[Any]) -> float:
        """Return the most money that one call can cost; for images an estimate, as models differ."""
        tokens = _MOST_TOKENS * int(estimate_tokens(inputs).sum()) + _MARKS * len(inputs)
        return self.tariff.money(inputs=len(inputs), tokens=tokens)

    def carry(self, name: str, spent: Spend) -> None:
        """Count what an earlier run spent; of one `name` only once."""
        with self._lock:
            if name not in self._carried:
                self._carried.add(name)
                self._spent += spent

    def check(self, need: Spend) -> None:
        """Refuse `need` if it does not fit under the caps.

        Raises:
            BudgetExhausted: names the cap, what is spent and what was wanted.
        """
        with self._lock:
            self._check(need)

    def hold(self, need: Spend) -> None:
        """Set `need` aside for a call that is about to be sent.

        Raises:
            BudgetExhausted: it does not fit; nothing is set aside.
        """
        with self._lock:
            self._check(need)
            self._held += need

    def settle(self, held: Spend, spent: Spend) -> None:
        """Count what a call has cost, instead of what was held for it."""
        with self._lock:
            self._held -= held
            self._spent += spent

    def _check(self, need: Spend) -> None:
        taken = self._spent + self._held
        for field in fields(Caps):
            cap = getattr(self.caps, field.name)
            used, wanted = getattr(taken, field.name), getattr(need, field.name)
            if cap is not None and used + wanted > cap * (1 + _SLACK):
                raise BudgetExhausted(
                    f"the cap of {cap:,} {_CAPPED[field.name]} is reached: {used:,.10g} spent or "
                    f"in flight and {wanted:,.10g} more wanted; nothing more was sent"
                )
