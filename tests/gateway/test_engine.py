"""The engine: gathers, survives failures, and always lets the server stop."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from tollkeeper.errors import EncoderError, LedgerError
from tollkeeper.gateway.asks import Ask
from tollkeeper.gateway.assembly import make_service
from tollkeeper.gateway.engine import Engine
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.ledger.memory import MemoryLedger
from tollkeeper.testing.encoders import HashEncoder
from tollkeeper.types import Account, Batch, Embeddings

ACCOUNT = Account("acme", "key_1", "acme")


def make_engine(encoder: Any) -> Engine:
    """An engine over a memory ledger."""
    guard = Guard(profiles.get("cheapest"), Calibration.identity(encoder.dim), secret=bytes(32))
    service = make_service(
        encoder,
        guard,
        MemoryLedger(),
        clock=lambda: 0.0,
        rng=np.random.default_rng(0),
        metrics=Metrics(),
    )
    return Engine(service)


class Waiting(HashEncoder):
    """A remote encoder that answers when told to."""

    concurrency = 2

    def __init__(self) -> None:
        super().__init__(4)
        self.go = threading.Event()
        self.batches: list[int] = []

    def embed(self, inputs: Batch) -> Embeddings:
        self.batches.append(len(inputs))
        self.go.wait(10)
        return super().embed(inputs)


def ask(text: str) -> Ask:
    """A request for one text."""
    return Ask(ACCOUNT, (text,), "text")


async def test_stop_after_a_cancelled_request() -> None:
    """A request cancelled while its upstream works does not keep the server from stopping."""
    encoder = Waiting()
    engine = make_engine(encoder)
    engine.start()
    request = asyncio.create_task(engine.answer(ask("a")))
    while not encoder.batches:
        await asyncio.sleep(0)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    encoder.go.set()
    await asyncio.wait_for(engine.stop(), 10)


async def test_stop_finishes_what_is_under_way() -> None:
    """Requests under way when the server stops are answered."""
    encoder = Waiting()
    engine = make_engine(encoder)
    engine.start()
    requests = [asyncio.create_task(engine.answer(ask(text))) for text in "ab"]
    while len(encoder.batches) < 2:
        await asyncio.sleep(0)
    encoder.go.set()
    await asyncio.wait_for(engine.stop(), 10)
    answers = await asyncio.gather(*requests)
    assert all(answer.embeddings.shape == (1, 4) for answer in answers)


async def test_requests_gather_while_the_engine_is_busy() -> None:
    """What arrives during one encoder call is embedded together in the next."""

    class Local(HashEncoder):
        def __init__(self) -> None:
            super().__init__(4)
            self.go = threading.Event()
            self.batches: list[int] = []

        def embed(self, inputs: Batch) -> Embeddings:
            self.batches.append(len(inputs))
            self.go.wait(10)
            return super().embed(inputs)

    encoder = Local()
    engine = make_engine(encoder)
    engine.start()
    first = asyncio.create_task(engine.answer(ask("a")))
    while not encoder.batches:
        await asyncio.sleep(0)
    others = [asyncio.create_task(engine.answer(ask(f"b{i}"))) for i in range(9)]
    await asyncio.sleep(0)
    encoder.go.set()
    await asyncio.gather(first, *others)
    await engine.stop()
    assert encoder.batches == [1, 9]


async def test_the_thread_survives_any_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault inside the service fails its requests and leaves the engine working."""
    engine = make_engine(HashEncoder(4))
    engine.start()

    def broken(_: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(engine._service, "charge", broken)
    with pytest.raises(LedgerError):
        await engine.answer(ask("a"))
    monkeypatch.undo()
    assert (await engine.answer(ask("b"))).embeddings.shape == (1, 4)
    await engine.stop()


async def test_remote_failure_is_the_requests_own() -> None:
    """A failing upstream call fails its request alone."""

    class Failing(HashEncoder):
        concurrency = 2

        def embed(self, inputs: Batch) -> Embeddings:
            if inputs[0] == "bad":
                raise EncoderError("down")
            return super().embed(inputs)

    engine = make_engine(Failing(4))
    engine.start()
    outcomes = await asyncio.gather(
        engine.answer(ask("bad")), engine.answer(ask("good")), return_exceptions=True
    )
    await engine.stop()
    assert isinstance(outcomes[0], EncoderError)
    assert not isinstance(outcomes[1], BaseException)
