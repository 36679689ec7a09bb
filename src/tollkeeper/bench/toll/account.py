"""One account of `toll-timelines`, in a process of its own: the stock client, asking in order."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import httpx2
import msgspec
import numpy as np
from openai import APIStatusError, OpenAI

from tollkeeper.bench.experiment import Progress
from tollkeeper.client import Solver, paying_client

_MOST_RETRIES = 10_000
"""The client waits as it is told, however often."""


@dataclass(frozen=True, slots=True)
class Walk:
    """What an account asks.

    Attributes:
        url: base of the gateway.
        key: of the account.
        model: to ask for.
        inputs: in this order.
        batch: inputs of a request.
        pays: whether its client solves puzzles; otherwise it leaves at the first.
        answers: file that gets what was answered, (n, d) float32; empty for none.
    """

    url: str
    key: str
    model: str
    inputs: list[str]
    batch: int
    pays: bool
    answers: str = ""


@dataclass(frozen=True, slots=True)
class Walked:
    """What the client saw.

    Attributes:
        answered: inputs.
        ended: code of the error that ended it; empty if everything was answered.
        wall_s: from the first request to the last answer.
        cpu_s: processor time of the whole client.
        challenges: solved.
        evaluations: hashes that this took.
        throttled: answers that told it to wait.
        waited_s: seconds that it was told to wait.
    """

    answered: int
    ended: str
    wall_s: float
    cpu_s: float
    challenges: int
    evaluations: int
    throttled: int
    waited_s: float


def walk(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Ask what a `Walk` says; the child's side of `run_apart`."""
    del progress
    plan = msgspec.convert(payload, Walk)
    waits: list[float] = []
    # In this thread, so that the process's time is all that solving took.
    with Solver(processes=0, max_seconds=math.inf) as solver, _client(plan, solver, waits) as asked:
        wall, cpu = time.perf_counter(), time.process_time()
        rows, ended = _ask(asked, plan)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        tally = solver.tally()
    if plan.answers:
        np.save(plan.answers, np.array(rows, np.float32))
    walked = Walked(
        answered=len(rows),
        ended=ended,
        wall_s=wall,
        cpu_s=cpu,
        challenges=tally.challenges,
        evaluations=tally.evaluations,
        throttled=len(waits),
        waited_s=math.fsum(waits),
    )
    return asdict(walked)


@contextmanager
def _client(plan: Walk, solver: Solver, waits: list[float]) -> Iterator[OpenAI]:
    """Yield the stock client; it pays or does not, and notes the waits it is told."""

    def note(response: httpx2.Response) -> None:
        if response.status_code == httpx2.codes.TOO_MANY_REQUESTS:
            after = response.headers.get("retry-after")
            waits.extend([float(after)] if after is not None else [])

    hooks: dict[str, Any] = {"response": [note]}
    make = paying_client(solver=solver, event_hooks=hooks) if plan.pays else _plain(hooks)
    with OpenAI(
        base_url=plan.url, api_key=plan.key, http_client=make, max_retries=_MOST_RETRIES
    ) as client:
        yield client


def _plain(hooks: Mapping[str, Any]) -> httpx2.Client:
    return httpx2.Client(event_hooks=dict(hooks), timeout=600.0)


def _ask(client: OpenAI, plan: Walk) -> tuple[list[Sequence[float]], str]:
    """Return the answers up to the first error that waiting does not settle, and its code."""
    rows: list[Sequence[float]] = []
    for at in range(0, len(plan.inputs), plan.batch):
        try:
            answer = client.embeddings.create(
                model=plan.model, input=plan.inputs[at : at + plan.batch]
            )
        except APIStatusError as error:
            return rows, str(error.code)
        rows += [item.embedding for item in answer.data]
    return rows, ""
