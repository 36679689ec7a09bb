"""Promises of a live target: an encoder that pays once for each answer and keeps its caps."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tollkeeper.client import Allowance, Caps, Pace, Spend, Tariff
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.metered import MeteredEncoder
from tollkeeper.errors import (
    BudgetExhausted,
    InputError,
    LedgerError,
    TollkeeperError,
)

Open = Callable[..., Any]
TEXTS = [f"text {i}" for i in range(70)]


def vectors(server: Any, items: list[Any]) -> Any:
    """Return (n, d) of what the server answers."""
    return np.stack([server.vector(item) for item in items])


def test_a_target_is_an_encoder(connect: Open) -> None:
    """It has name, width and modalities, takes no input at all, and can be metered like any other."""
    target = connect()
    assert isinstance(target, Encoder)
    assert target.accepts == {"text", "tokens", "image"}
    assert (target.name, target.dim) == ("fake-1", 4)
    assert target.embed([]).shape == (0, 4)
    metered = MeteredEncoder(target, budget=2)
    assert metered.embed(["a", "b", "a"]).shape == (3, 4)
    with pytest.raises(BudgetExhausted):
        metered.embed(["c"])


def test_batches_come_back_in_order(server: Any, connect: Open) -> None:
    """More inputs than a batch go in several calls, of 32 by default, and the rows are whole."""
    embeddings = connect().embed(TEXTS)
    assert embeddings.dtype == np.float32
    np.testing.assert_array_equal(embeddings, vectors(server, TEXTS))
    assert server.sizes() == [32, 32, 6]


def test_key_model_and_base64_are_sent(server: Any, connect: Open) -> None:
    """Every call carries the credential and names the model."""
    connect(api_key="sk-mine").embed(["a"])
    assert server.requests == [{"input": ["a"], "encoding_format": "base64", "model": "fake-1"}]
    assert server.headers[0]["authorization"] == "Bearer sk-mine"


@pytest.mark.parametrize("stack", [True, False], ids=["one array", "a list"])
def test_images_are_sent_without_loss(server: Any, connect: Open, stack: bool) -> None:
    """Pixels arrive as PNG data URIs that decode to the very same pixels."""
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
    assert connect().embed(images if stack else list(images)).shape == (3, 4)
    for uri, image in zip(server.asked(), images, strict=True):
        scheme, _, content = uri.partition(",")
        assert scheme == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
            np.testing.assert_array_equal(np.asarray(picture), image)


def test_token_lists_are_sent_as_they_are(server: Any, connect: Open) -> None:
    """Ids of any container travel as lists of integers."""
    connect().embed([[1, 2], (3,), np.array([4, 5])])
    assert server.asked() == [[1, 2], [3], [4, 5]]


def test_foreign_and_mixed_inputs_are_refused_here(server: Any, connect: Open) -> None:
    """What no target understands is not sent at all."""
    target = connect()
    for inputs in ([1.5], ["a", [1]], [np.zeros((4, 4), np.uint8)]):
        with pytest.raises(InputError):
            target.embed(inputs)
    assert server.requests == []


def test_a_batch_too_large_for_the_target_is_halved(server: Any, connect: Open) -> None:
    """A complaint about the batch is answered by smaller calls; rows stay in order."""

    def small(request: dict[str, Any]) -> Any:
        n = len(request["input"])
        return server.good(request) if n <= 3 else server.reply(422, f"batch size {n} > maximum 3")

    server.behavior = small
    target = connect()
    np.testing.assert_array_equal(target.embed(TEXTS[:9]), vectors(server, TEXTS[:9]))
    assert target.spend().distinct == 9
    assert max(server.sizes()[-2:]) <= 3


# Once and again -----------------------------------------------------------------------------------


class Moody:
    """Answers each time differently, as a guard with fresh noise does."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.count = 0

    def __call__(self, request: dict[str, Any]) -> Any:
        self.count += 1
        rows = [[float(self.count), i, 0.0, 0.0] for i in range(len(request["input"]))]
        return self.server.reply(
            body={"data": [{"index": i, "embedding": row} for i, row in enumerate(rows)]}
        )


def test_asking_again_is_a_repeat_and_gets_a_fresh_answer(server: Any, connect: Open) -> None:
    """Within a run an input that comes twice is asked twice: averaging of repeats is an attack."""
    server.behavior = Moody(server)
    target = connect()
    first = target.embed(["a", "b", "a"])
    assert not np.array_equal(first[0], first[2])
    again = target.embed(["a"])
    assert again[0][0] == 2
    assert server.asked() == ["a", "b", "a", "a"]
    spend = target.spend()
    assert (spend.distinct, spend.repeats) == (2, 2)


def test_a_run_that_is_repeated_is_answered_from_the_transcript(server: Any, connect: Open) -> None:
    """A new run gets the same answers in the same turns, repeats too, and sends nothing."""
    server.behavior = Moody(server)
    asked = [["a", "b", "a"], ["a"], ["c", "b"]]
    target = connect()
    first = [target.embed(inputs) for inputs in asked]
    target.close()
    before = len(server.requests)
    again = connect()
    for inputs, expected in zip(asked, first, strict=True):
        np.testing.assert_array_equal(again.embed(inputs), expected)
    assert len(server.requests) == before
    assert again.spend().repeats == 3
    assert again.embed(["a"])[0][0] == 4  # the fourth time is new
    assert server.asked()[-1] == "a"


def test_only_what_is_missing_is_asked(server: Any, connect: Open) -> None:
    """A run that goes further than the one before pays for the difference."""
    with connect() as first:
        first.embed(TEXTS[:40])
    server.requests.clear()
    target = connect()
    np.testing.assert_array_equal(target.embed(TEXTS), vectors(server, TEXTS))
    assert server.asked() == TEXTS[40:]
    assert target.spend().distinct == 70


def test_rewinding_begins_a_new_run(server: Any, connect: Open) -> None:
    """The next budget or seed of a curve reuses the answers without opening anything anew."""
    server.behavior = Moody(server)
    target = connect()
    first = target.embed(["a", "b"])
    target.rewind()
    np.testing.assert_array_equal(target.embed(["b", "a"]), first[::-1])
    assert len(server.requests) == 1


def test_a_failed_call_keeps_what_was_answered(server: Any, connect: Open) -> None:
    """When a batch fails the ones before it are kept; asking again asks for the rest only."""
    server.queue = [server.good({"input": TEXTS[:32]}), server.reply(403, "suspended")]
    target = connect()
    with pytest.raises(TollkeeperError, match="suspended"):
        target.embed(TEXTS)
    assert len(server.requests) == 2, "nothing is sent after a refusal"
    assert (target.spend().distinct, target.spend().repeats) == (32, 0)
    server.requests.clear()
    np.testing.assert_array_equal(target.embed(TEXTS), vectors(server, TEXTS))
    assert server.asked() == TEXTS[32:]
    assert (target.spend().distinct, target.spend().repeats) == (70, 0)


def test_the_transcript_must_be_writable(server: Any, connect: Open) -> None:
    """When a call cannot be written down it is not sent."""
    target = connect()
    target._line.transcript._file.execute("PRAGMA query_only = ON")
    with pytest.raises(LedgerError, match="transcript"):
        target.embed(["a"])
    assert server.requests == []


# Caps ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caps", "words"),
    [
        (Caps(distinct=69), "cap of 69 distinct inputs"),
        (Caps(calls=2), "cap of 2 calls"),
        (Caps(money=0.72), "cap of 0.72 in money"),
        (Caps(repeats=0), "cap of 0 repeats"),
    ],
)
def test_a_cap_that_would_break_stops_before_anything_is_sent(
    server: Any, connect: Open, caps: Caps, words: str
) -> None:
    """70 inputs, one asked twice, in three calls at 0.01 an input and a call: refused in one line."""
    allowance = Allowance(caps, Tariff(per_input=0.01, per_call=0.01))
    inputs = [*TEXTS, TEXTS[0]] if caps.repeats == 0 else TEXTS
    with pytest.raises(BudgetExhausted, match=words) as caught:
        connect(allowance=allowance).embed(inputs)
    assert str(caught.value).isprintable()
    assert server.requests == []


def test_what_fits_exactly_is_asked(server: Any, connect: Open) -> None:
    """Caps that are just reached do not get in the way."""
    caps = Caps(distinct=70, repeats=0, calls=3, money=0.73, seconds=0)
    allowance = Allowance(caps, Tariff(per_input=0.01, per_call=0.01))
    target = connect(allowance=allowance)
    np.testing.assert_array_equal(target.embed(TEXTS), vectors(server, TEXTS))
    assert allowance.spend() == target.spend()
    with pytest.raises(BudgetExhausted):
        target.embed(["new"])


def test_answers_from_the_transcript_cost_nothing(server: Any, connect: Open) -> None:
    """A run at its cap still gets everything that it has paid for."""
    target = connect(allowance=Allowance(Caps(distinct=70)))
    target.embed(TEXTS)
    target.rewind()
    target.embed(TEXTS)
    with pytest.raises(BudgetExhausted):
        target.embed(["new"])
    assert server.sizes() == [32, 32, 6]


def test_an_earlier_run_counts_under_the_cap(server: Any, connect: Open) -> None:
    """Breaking a run and beginning again does not double the budget."""
    first = connect(allowance=Allowance(Caps(distinct=50)))
    first.embed(TEXTS[:40])
    first.close()
    second = connect(allowance=Allowance(Caps(distinct=50)))
    with pytest.raises(BudgetExhausted, match="40 spent or in flight and 11 more"):
        second.embed(TEXTS[:51])
    np.testing.assert_array_equal(second.embed(TEXTS[:50]), vectors(server, TEXTS[:50]))


def test_opening_again_with_the_same_allowance_counts_once(connect: Open) -> None:
    """What the allowance has seen itself is not added a second time."""
    allowance = Allowance()
    target = connect(allowance=allowance)
    target.embed(TEXTS[:5])
    target.close()
    connect(allowance=allowance)
    assert allowance.spend().distinct == 5


def test_accounts_share_one_allowance(server: Any, connect: Open, tmp_path: Path) -> None:
    """Ten accounts together spend one cap; each has its own transcript, key and spend."""
    allowance = Allowance(Caps(distinct=10))
    accounts = [
        connect(
            transcript=tmp_path / f"{number}.sqlite",
            account=f"sybil-{number}",
            api_key=f"key-{number}",
            allowance=allowance,
        )
        for number in range(3)
    ]
    for account in accounts[:2]:
        account.embed(TEXTS[:5])
    with pytest.raises(BudgetExhausted, match="cap of 10 distinct"):
        accounts[2].embed(["a"])
    assert [account.spend().distinct for account in accounts] == [5, 5, 0]
    assert allowance.spend().distinct == 10
    assert [headers["authorization"][-5:] for headers in server.headers] == ["key-0", "key-1"]


def test_a_cap_reached_on_the_way_sends_nothing_more(server: Any, connect: Open) -> None:
    """Tokens dearer than estimated end the run between two calls; what was answered is kept."""

    def dear(request: dict[str, Any]) -> Any:
        reply = server.good(request)
        reply.body["usage"] = {"prompt_tokens": 1000}
        return reply

    server.behavior = dear
    allowance = Allowance(Caps(money=1.5), Tariff(per_1k_tokens=1.0))
    target = connect(allowance=allowance, batch=10)
    with pytest.raises(BudgetExhausted, match="in money"):
        target.embed(TEXTS)
    assert len(server.requests) == 2
    assert target.spend().distinct == 20
    assert target.spend().money == 2.0


# At once ------------------------------------------------------------------------------------------


def test_calls_overlap_up_to_the_limit(server: Any, connect: Open, clock: Any) -> None:
    """Four calls are in flight together by default, never five, and rows stay in order."""
    four = threading.Barrier(4, timeout=60)
    lock = threading.Lock()
    inside = [0]
    peaks = []

    def slow(request: dict[str, Any]) -> Any:
        with lock:
            inside[0] += 1
            peaks.append(inside[0])
        four.wait()  # passes only if four calls are here together
        with lock:
            inside[0] -= 1
        return server.good(request)

    server.behavior = slow
    target = connect(pace=Pace(clock=clock, sleep=clock.advance), batch=5)
    items = [f"text {i}" for i in range(40)]
    np.testing.assert_array_equal(target.embed(items), vectors(server, items))
    assert (len(peaks), max(peaks)) == (8, 4)


def test_threads_may_share_a_target(server: Any, connect: Open) -> None:
    """Calls from several threads each get their own rows, and nothing is asked twice."""
    target = connect(pace=Pace(), batch=3)
    rows: dict[int, Any] = {}

    def ask(worker: int) -> None:
        rows[worker] = target.embed([f"{worker}-{i}" for i in range(7)])

    threads = [threading.Thread(target=ask, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for worker in range(6):
        expected = vectors(server, [f"{worker}-{i}" for i in range(7)])
        np.testing.assert_array_equal(rows[worker], expected)
    assert len(server.asked()) == len(set(server.asked())) == 42


def test_one_failure_ends_the_round(server: Any, connect: Open) -> None:
    """When one of several calls is refused, calls that wait for a retry give up as well."""
    refused = threading.Event()

    def mixed(request: dict[str, Any]) -> Any:
        if "text 0" in request["input"]:
            refused.set()
            return server.reply(401, "bad key")
        refused.wait(60)
        return server.reply(503, retry_after="100")

    server.behavior = mixed
    naps: list[float] = []
    target = connect(pace=Pace(concurrency=2, sleep=naps.append), batch=10)
    with pytest.raises(TollkeeperError, match="bad key"):
        target.embed(TEXTS)
    assert len(server.requests) <= 3


def test_the_rate_is_kept(server: Any, connect: Open, clock: Any) -> None:
    """At two calls a second seven batches take three seconds."""
    pace = Pace(concurrency=1, calls_per_second=2, clock=clock, sleep=clock.advance)
    target = connect(pace=pace, batch=10)
    target.embed(TEXTS)
    assert clock.now == 1000.0 + 3.0
    assert target.spend() == Spend(calls=7, distinct=70, tokens=700, seconds=3.0)


def test_closing_closes_only_its_own(connect: Open, http: Any) -> None:
    """A client that was handed in stays open; a closed target says so."""
    with connect() as target:
        pass
    assert not http.is_closed
    with pytest.raises(LedgerError, match="closed"):
        target.embed(["a"])
