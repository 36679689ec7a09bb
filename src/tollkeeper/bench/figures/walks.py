"""One account that asks on and on: what its answers are worth as it goes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tollkeeper.bench.experiment import BenchError
from tollkeeper.bench.figures.traffic import Traffic
from tollkeeper.bench.theft.probes import linear_probe
from tollkeeper.bench.theft.scoring import agreement, recall_at_10
from tollkeeper.guard.guard import Guard
from tollkeeper.types import Embeddings, Sketch

_TENANT = "walker"
_SEARCHED = 600
_GROWTH = 1.15
_TRAINED, _TESTED = 3000, 2000
_FIRST = 50


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """Where an account stands.

    Attributes:
        count: inputs asked, at least eleven.
        recall10: of its own inputs' answers when it asks again now, up to 600 of them.
        sketch: the account's.
    """

    count: int
    recall10: float
    sketch: Sketch


def stops(total: int) -> list[int]:
    """Return the counts at which an account is looked at: 15% apart, and all."""
    found = []
    at = float(_FIRST)
    while at < total:
        found.append(round(at))
        at *= _GROWTH
    return [*found, total]


def walk(guard: Guard, embeddings: Embeddings, *, rng: np.random.Generator) -> Iterator[Step]:
    """Ask (n, d) embeddings in order, until the guard refuses."""
    key, sketch, start = guard.tenant_key(_TENANT), guard.empty(), 0
    for end in stops(len(embeddings)):
        verdict = guard.admit(sketch, embeddings[start:end], key=key, rng=rng)
        if verdict.refused:
            return
        sketch, start = verdict.sketch, end
        again = embeddings[rng.permutation(end)[:_SEARCHED]]
        answers = guard.admit(sketch, again, key=key, rng=rng).embeddings
        yield Step(end, recall_at_10(again, answers), sketch)


def free_broad(guard: Guard, embeddings: Embeddings, *, rng: np.random.Generator) -> int:
    """Return F: inputs asked before answers lose a tenth of the recall they had at first.

    An account that never does has all of them free.
    """
    first = None
    before = 0
    for step in walk(guard, embeddings, rng=rng):
        first = step.recall10 if first is None else first
        if step.recall10 < 0.9 * first:
            return before
        before = step.count
    return before


@dataclass(frozen=True, slots=True)
class Honest:
    """What a customer with one task gets.

    Attributes:
        ceiling: H, inputs asked before recall@10 is below .99; all of them if it never is.
        recall10: of the whole task, asked again after all was asked; 0 if it was refused.
        accuracy: of a linear probe on the answers, each coordinate standardized; 0 if it was
            refused.
        accuracy_one_scale: of a probe that divides by one number, as rotations allow.
        requery_equal: share of inputs whose answer in the end has the bytes of the first one.
        retry_charge: inputs charged over distinct ones when everything is asked three times.
    """

    ceiling: int
    recall10: float
    accuracy: float
    accuracy_one_scale: float
    requery_equal: float
    retry_charge: float


def honest(guard: Guard, traffic: Traffic, *, rng: np.random.Generator) -> Honest:
    """Let a customer ask all of a task, and then all of it twice again."""
    rows = traffic.embeddings
    ceiling, last, good = 0, None, True
    for step in walk(guard, rows, rng=rng):
        good = good and step.recall10 >= 0.99
        ceiling = step.count if good else ceiling
        last = step
    if last is None or last.count < len(rows):
        return Honest(ceiling, 0.0, 0.0, 0.0, 0.0, 1.0)
    key = guard.tenant_key(_TENANT)
    first, second = (guard.admit(last.sketch, rows, key=key, rng=rng) for _ in range(2))
    same = (first.embeddings == _as_asked(guard, rows, rng=rng)).all(axis=1)
    return Honest(
        ceiling,
        last.recall10,
        probe(traffic, first.embeddings),
        probe(traffic, first.embeddings, one_scale=True),
        float(same.mean()),
        1.0 + (first.charge + second.charge) / len(rows),
    )


def _as_asked(guard: Guard, rows: Embeddings, *, rng: np.random.Generator) -> Embeddings:
    """Return the answers (n, d) as they came, an hundred inputs at a time."""
    key, sketch, answers = guard.tenant_key(_TENANT), guard.empty(), []
    for start in range(0, len(rows), 100):
        verdict = guard.admit(sketch, rows[start : start + 100], key=key, rng=rng)
        sketch = verdict.sketch
        answers.append(verdict.embeddings)
    return np.concatenate(answers)


def probe(traffic: Traffic, answers: Embeddings, *, one_scale: bool = False) -> float:
    """Return the accuracy of a linear probe on (n, d) answers to a task, on 2,000 test inputs.

    Raises:
        BenchError: the traffic is no task.
    """
    if traffic.labels is None or not 0 < traffic.tested < len(answers):
        raise BenchError(f"expected a task with test inputs to probe, got {traffic.name}")
    cut = len(answers) - traffic.tested
    train, test = slice(0, min(cut, _TRAINED)), slice(cut, cut + _TESTED)
    predicted = linear_probe(
        answers[train], traffic.labels[train], answers[test], one_scale=one_scale
    )
    return agreement(predicted, traffic.labels[test])
