"""A gateway's records, read again: what an account paid, and when it would have been where.

The clock is computed and not measured: an account asks at some pace, solves puzzles on one core
of the reference machine, and waits for its rations, by the same code that rations it in the
gateway.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tollkeeper.gateway.plans import Ladder
from tollkeeper.gateway.policy import Rations
from tollkeeper.types import Record

ANSWERED = frozenset({"answered", "metered", "paid", "noised", "granted"})
"""Decisions with an answer."""

MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Step:
    """Where an account stood after one decision.

    Attributes:
        decision: as the record has it.
        inputs: answered so far.
        paid_s: paid so far, in seconds of the reference machine.
        coverage: reached.
        noised: whether this answer carried noise.
        rationed: whether its new inputs were rationed.
        minutes: the clock.
    """

    decision: str
    inputs: int
    paid_s: float
    coverage: float
    noised: bool
    rationed: bool
    minutes: float


def steps(
    records: Sequence[Record], ladder: Ladder, *, per_second: float, speed: float = 1.0
) -> list[Step]:
    """Return the steps of one account.

    Args:
        records: its own, the oldest first, refusals included.
        ladder: whose rations the clock keeps.
        per_second: inputs that the account asks in a second, where nothing holds it up.
        speed: of its solver, in cores of the reference machine; infinity solves in no time.
    """
    rations, now, inputs, paid_s = Rations(), 0.0, 0, 0.0
    per_minute = ladder.plan.inputs_per_minute
    found = []
    for record in records:
        is_answer = record.decision in ANSWERED
        rationed = record.decision in {"paid", "noised"} and ladder.rationed([record.coverage]) > 0
        if is_answer:
            now += record.inputs / per_second
            if rationed:
                now += rations.wait("", record.charge, per_minute=per_minute, now=now)
            now += record.paid_s / speed
            if rationed:
                rations.take("", record.charge, per_minute=per_minute, now=now)
            inputs += record.inputs
            paid_s += record.paid_s
        noised = is_answer and record.noise_scale > 0
        minutes = now / MINUTE_S
        found.append(
            Step(record.decision, inputs, paid_s, record.coverage, noised, rationed, minutes)
        )
    return found


def events(course: Sequence[Step]) -> Iterator[tuple[str, Step]]:
    """Yield the first step on each rung, by name; a rung that was not reached is left out."""
    tests = {
        "metered": lambda step: step.decision == "metered",
        "challenged": lambda step: step.decision == "challenged",
        "rationed": lambda step: step.rationed,
        "noised": lambda step: step.noised,
        "refused": lambda step: step.decision == "refused",
        "done": lambda step: step is course[-1],
    }
    for name, test in tests.items():
        yield from ((name, step) for step in [next(filter(test, course), None)] if step)


def at(course: Sequence[Step], inputs: int) -> Step | None:
    """Return the last step with at most so many inputs; None where fewer were answered at all."""
    if not course or course[-1].inputs < inputs:
        return None
    return [step for step in course if step.inputs <= inputs][-1]


def free_inputs(course: Sequence[Step]) -> int:
    """Return the inputs answered before the first that cost something, was noised or refused."""
    free = 0
    for step in course:
        if step.decision not in ANSWERED or step.paid_s or step.noised:
            break
        free = step.inputs
    return free


def paid(records: Sequence[Record]) -> float:
    """Return the seconds of the reference machine that records say were paid."""
    return math.fsum(record.paid_s for record in records)
