"""Clients that pay, against the gateway itself: a script that is refused finishes with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from tollkeeper.client import Allowance, Caps, Solver, open_target, paying_client
from tollkeeper.client.requests_adapter import PayingAdapter
from tollkeeper.errors import BudgetExhausted, RefusalError
from tollkeeper.testing import HashEncoder


@pytest.fixture(params=["sha-256", "scrypt"])
def live(request: pytest.FixtureRequest, start_gateway: Any) -> Any:
    """A gateway that asks for a millisecond an input from the knee on, and does nothing else."""
    plan = {
        "challenge": 0.0,
        "first_seconds": 0.001,
        "last_seconds": 0.002,
        "puzzle": request.param,
        "noise": None,
        "refuse": None,
    }
    return start_gateway(HashEncoder(16), plans={"pays": plan}, plan="pays")


@pytest.fixture
def solver() -> Iterator[Solver]:
    """Solve in the calling thread."""
    with Solver(processes=0) as here:
        yield here


def script(client: openai.OpenAI, model: str) -> int:
    """Ask 4,000 texts, as somebody does who never heard of puzzles; return the answers."""
    answered = 0
    for i in range(0, 4000, 100):
        texts = [f"text {j}" for j in range(i, i + 100)]
        answered += len(client.embeddings.create(model=model, input=texts).data)
    return answered


def model_of(live: Any) -> str:
    """Return the one model of a gateway."""
    with openai.OpenAI(base_url=live.url, api_key=live.key) as client:
        return client.models.list().data[0].id


@pytest.mark.parametrize("ahead", [None, 1000])
def test_the_openai_client_finishes(live: Any, ahead: int | None, solver: Solver) -> None:
    """With one argument every text is answered, request by request or paid ahead."""
    http = paying_client(solver=solver, ahead=ahead)
    with openai.OpenAI(base_url=live.url, api_key=live.key, http_client=http) as client:
        assert script(client, model_of(live)) == 4000
    assert solver.tally().challenges > 0


def test_requests_finish_too(live: Any, solver: Solver) -> None:
    """The adapter pays on the same session."""
    with requests.Session() as session:
        session.mount("http://", PayingAdapter(solver=solver))
        headers = {"authorization": f"Bearer {live.key}"}
        for i in range(0, 4000, 500):
            body = {"model": model_of(live), "input": [f"text {j}" for j in range(i, i + 500)]}
            answer = session.post(live.url + "/embeddings", json=body, headers=headers)
            assert answer.status_code == 200, answer.text
    assert solver.tally().challenges > 0


def test_a_live_target_pays_within_its_cap(live: Any, tmp_path: Path, solver: Solver) -> None:
    """Not without a solver, not over the cap, and the seconds are counted."""
    texts = [f"text {i}" for i in range(3000)]
    given: dict[str, Any] = {"transcript": tmp_path / "t", "api_key": live.key, "dim": 16}
    with open_target(live.url, **given) as target, pytest.raises(RefusalError, match="--solve"):
        target.embed(texts)
    tight = Allowance(Caps(puzzle_seconds=1e-6))
    with (
        open_target(live.url, **given, solver=solver, allowance=tight) as target,
        pytest.raises(BudgetExhausted, match="seconds of proofs of work"),
    ):
        target.embed(texts)
    with open_target(live.url, **given, solver=solver) as target:
        assert target.embed(texts).shape == (3000, 16)
        spend = target.spend()
    assert spend.challenges == solver.tally().challenges > 0
    assert spend.puzzle_seconds == pytest.approx(solver.tally().seconds)
