"""Promises of the clients that pay, each against a fake gateway on a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tollkeeper.client import (
    Solver,
    httpx2_transport,
    httpx_transport,
    paying_async_client,
)
from tollkeeper.client.requests_adapter import PayingAdapter

KEY = {"authorization": "Bearer sk-1"}
EMBED = {"model": "fake-1", "input": ["a", "b"]}


class Caller:
    """Posts with one of the libraries; the same words for all of them."""

    def __init__(self, library: str, **options: Any) -> None:
        self.options = options
        self.library = library
        self.session = self._session()

    def _session(self) -> Any:
        if self.library == "requests":
            session = requests.Session()
            for scheme in ("http://", "https://"):
                session.mount(scheme, PayingAdapter(**self.options))
            return session
        module = httpx_transport if "httpx-" in self.library else httpx2_transport
        if "async" not in self.library:
            return module.paying_client(**self.options)
        return asyncio.Runner(), module.paying_async_client(**self.options)

    def post(self, url: str, **words: Any) -> Any:
        """Post and return the answer."""
        if isinstance(self.session, tuple):
            runner, client = self.session
            return runner.run(client.post(url, **words))
        return self.session.post(url, **words)

    def close(self) -> None:
        """Close the session."""
        if isinstance(self.session, tuple):
            runner, client = self.session
            runner.run(client.aclose())
            runner.close()
        else:
            self.session.close()


LIBRARIES = ["httpx2-sync", "httpx2-async", "httpx-sync", "httpx-async", "requests"]


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> str:
    """Name each library in turn."""
    return str(request.param)


@contextmanager
def calling(library: str, **options: Any) -> Iterator[Caller]:
    """Open a caller; everything closes with the block."""
    caller = Caller(library, **options)
    try:
        yield caller
    finally:
        caller.close()


@pytest.fixture
def caller(library: str, solver: Solver) -> Iterator[Caller]:
    """Pay request by request, with each of the libraries."""
    with calling(library, solver=solver) as one:
        yield one


def test_the_twins_are_the_same() -> None:
    """The module for httpx is that for httpx2, word for word but for the name."""
    one, other = (Path(str(module.__file__)) for module in (httpx2_transport, httpx_transport))
    renamed = one.read_text().replace("httpx2", "\0").replace("httpx", "httpx2")
    assert renamed.replace("\0", "httpx") == other.read_text()


# One request --------------------------------------------------------------------------------------


def test_a_challenge_is_paid(toll: Any, caller: Caller, solver: Solver) -> None:
    """The caller gets its answer; the same body went twice, the second time with a proof."""
    answer = caller.post(toll.url + "/embeddings", json=EMBED, headers=KEY)
    assert answer.status_code == 200
    assert len(answer.json()["data"]) == 2
    first, second = toll.heard
    assert first.proof is None
    assert second.proof is not None
    assert first.body == second.body
    assert second.headers["authorization"] == "Bearer sk-1"
    assert solver.tally().challenges == 1


def test_what_costs_nothing_is_sent_once(toll: Any, caller: Caller, solver: Solver) -> None:
    """No challenge, no puzzle."""
    toll.work = 0
    assert caller.post(toll.url + "/embeddings", json=EMBED, headers=KEY).status_code == 200
    assert len(toll.heard) == 1
    assert solver.tally().challenges == 0


def test_memory_hard_puzzles_are_solved(toll: Any, caller: Caller) -> None:
    """The other algorithm is paid the same way."""
    toll.work, toll.puzzle = 3, toll.scrypt
    assert caller.post(toll.url + "/embeddings", json=EMBED, headers=KEY).status_code == 200


def test_connections_are_used_again(toll: Any, caller: Caller) -> None:
    """The first answer is let go of: all sending goes over one connection."""
    for _ in range(3):
        assert caller.post(toll.url + "/embeddings", json=EMBED, headers=KEY).status_code == 200
    assert len({one.client for one in toll.heard}) == 1
    assert len(toll.heard) == 6


def test_what_is_declined_comes_back_unchanged(toll: Any, library: str) -> None:
    """Above the cap the caller gets the 402 as it was sent, after one request."""
    with Solver(processes=0, max_seconds=0) as stingy, calling(library, solver=stingy) as one:
        answer = one.post(toll.url + "/embeddings", json=EMBED, headers=KEY)
    assert answer.status_code == 402
    assert answer.json()["error"]["code"] == "challenge_required"
    assert answer.headers["x-should-retry"] == "false"
    assert "Payment id=" in answer.headers["www-authenticate"]
    assert answer.elapsed.total_seconds() > 0
    assert len(toll.heard) == 1


def test_a_server_that_asks_again_and_again_is_left(toll: Any, caller: Caller) -> None:
    """After three challenges in a row the last one is the caller's."""
    toll.issuer.verify = lambda *_, **__: pytest.fail("not asked")
    toll._charge = lambda one, price: toll._challenge(one, price, "proof_spent")
    answer = caller.post(toll.url + "/embeddings", json=EMBED, headers=KEY)
    assert answer.status_code == 402
    assert answer.json()["error"]["code"] == "proof_spent"
    assert len(toll.heard) == 4


def test_bad_input_is_told_as_it_is(toll: Any, caller: Caller) -> None:
    """A 400 comes back with its words."""
    answer = caller.post(toll.url + "/embeddings", json={"input": "bad"}, headers=KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_input")


def test_who_pays_by_hand_is_left_alone(toll: Any, caller: Caller, solver: Solver) -> None:
    """A request that has a proof already goes out as it is."""
    headers = {**KEY, "Tollkeeper-Proof": "a.b.c.d.e"}
    answer = caller.post(toll.url + "/embeddings", json=EMBED, headers=headers)
    assert answer.json()["error"]["code"] == "proof_forged"
    assert solver.tally().challenges == 0


def test_a_stream_that_cannot_be_sent_twice_gets_the_402(toll: Any, caller: Caller) -> None:
    """A body that is a generator is sent once."""

    def parts() -> Iterator[bytes]:
        yield json.dumps(EMBED).encode()

    async def async_parts() -> AsyncIterator[bytes]:
        yield json.dumps(EMBED).encode()

    body = async_parts() if "async" in caller.library else parts()
    word = "data" if caller.library == "requests" else "content"
    answer = caller.post(toll.url + "/embeddings", headers=KEY, **{word: body})
    assert (answer.status_code, len(toll.heard)) == (402, 1)
    assert answer.json()["error"]["code"] == "challenge_required"


def test_text_is_sent_as_it_was(toll: Any, caller: Caller) -> None:
    """A body given as text is paid for too."""
    word = "data" if caller.library == "requests" else "content"
    body = json.dumps({"input": ["Füße 北京"]}, ensure_ascii=False)
    if caller.library == "requests":
        body = json.dumps({"input": ["Fuss"]})  # requests takes text for latin-1
    answer = caller.post(toll.url + "/embeddings", headers=KEY, **{word: body})
    assert answer.status_code == 200
    assert toll.heard[0].body == toll.heard[1].body == body.encode()


def test_a_read_timeout_counts_for_each_sending(toll: Any, library: str) -> None:
    """Solving takes none of it."""
    now = [0.0]

    def solving(done: int, expected: int) -> None:
        now[0] += 30  # half a minute by the solver's clock, a moment by the socket's

    slow = Solver(processes=0, clock=lambda: now[0], progress=solving)
    with calling(library, solver=slow) as one:
        answer = one.post(toll.url + "/embeddings", json=EMBED, headers=KEY, timeout=5)
    assert answer.status_code == 200
    assert slow.tally().seconds >= 30


# Passes -------------------------------------------------------------------------------------------


def test_a_bulk_job_solves_one_puzzle(toll: Any, library: str, solver: Solver) -> None:
    """Paid ahead, later requests go through at once, until the pass is used up."""
    with calling(library, solver=solver, ahead=6) as one:
        for _ in range(4):
            assert one.post(toll.url + "/embeddings", json=EMBED, headers=KEY).status_code == 200
    assert solver.tally().challenges == 2  # six inputs, then two
    assert [bool(heard.proof) for heard in toll.embeddings()] == [False] + [True] * 5


def test_without_the_route_requests_are_paid_one_by_one(
    toll: Any, library: str, solver: Solver
) -> None:
    """A gateway without passes is asked for one once."""
    toll.sells_passes = False
    with calling(library, solver=solver, ahead=6) as one:
        for _ in range(3):
            assert one.post(toll.url + "/embeddings", json=EMBED, headers=KEY).status_code == 200
    assert len(toll.heard) - len(toll.embeddings()) == 1
    assert solver.tally().challenges == 3


def test_another_key_buys_its_own_pass(toll: Any, library: str, solver: Solver) -> None:
    """A pass goes with the credential that it was bought with."""
    with calling(library, solver=solver, ahead=6) as one:
        for key in ("sk-1", "sk-2", "sk-1", "sk-2"):
            headers = {"authorization": f"Bearer {key}"}
            answer = one.post(toll.url + "/embeddings", json=EMBED, headers=headers)
            assert answer.status_code == 200
    used: dict[str, set[str]] = {}
    for heard in toll.embeddings():
        if heard.proof:
            used.setdefault(heard.headers["authorization"], set()).add(heard.proof)
    one_each = list(used.values())
    assert [len(proofs) for proofs in one_each] == [1, 1]
    assert one_each[0] != one_each[1]


def test_prices_that_change_make_a_new_pass(toll: Any, library: str, solver: Solver) -> None:
    """What the old policy sold is replaced."""
    with calling(library, solver=solver, ahead=6) as one:
        assert one.post(toll.url + "/embeddings", json=EMBED, headers=KEY).status_code == 200
        toll.policy = "p2"
        assert one.post(toll.url + "/embeddings", json=EMBED, headers=KEY).status_code == 200
    assert solver.tally().challenges == 2


def test_a_redirect_to_another_host_gets_no_pass(
    toll: Any, second_toll: Any, library: str, solver: Solver
) -> None:
    """The proof stays with the host that sold it; the other one's puzzle is solved for it."""
    with calling(library, solver=solver, ahead=6) as one:
        assert one.post(toll.url + "/embeddings", json=EMBED, headers=KEY).status_code == 200
        proof = toll.heard[-1].proof
        toll.redirects["/v1/embeddings"] = second_toll.url + "/embeddings"
        answer = one.post(toll.url + "/embeddings", json=EMBED, headers=KEY)
    assert answer.status_code == 200
    assert toll.heard[-1].proof == proof
    elsewhere = [heard.proof for heard in second_toll.heard]
    assert elsewhere[0] is None
    assert proof not in elsewhere
    assert all("tollkeeper-proof" not in heard.headers for heard in second_toll.heard[:2])


@pytest.fixture
def second_toll(toll: Any) -> Iterator[Any]:
    """Run another fake gateway."""
    other = type(toll)()
    yield other
    other.close()


def test_a_pass_of_a_server_that_was_reset_is_replaced(
    toll: Any, library: str, solver: Solver
) -> None:
    """A gateway with a new secret calls the pass forged, and the caller never hears of it."""
    with calling(library, solver=solver, ahead=6) as one:
        assert one.post(toll.url + "/embeddings", json=EMBED, headers=KEY).status_code == 200
        toll.issuer = type(toll.issuer)(b"\1" * 32, entropy=toll.entropy.bytes)
        assert one.post(toll.url + "/embeddings", json=EMBED, headers=KEY).status_code == 200


# Many at once -------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["httpx2-sync", "httpx-sync", "requests"])
@pytest.mark.parametrize("ahead", [None, 40])
def test_many_threads_share_a_client(
    toll: Any, library: str, ahead: int | None, solver: Solver
) -> None:
    """Twenty threads are all answered; paying ahead they share one pass."""
    with calling(library, solver=solver, ahead=ahead) as one, ThreadPoolExecutor(20) as pool:
        calls = [
            pool.submit(one.post, toll.url + "/embeddings", json=EMBED, headers=KEY)
            for _ in range(20)
        ]
        assert [call.result().status_code for call in calls] == [200] * 20
    assert solver.tally().challenges == (20 if ahead is None else 1)


@pytest.mark.parametrize("ahead", [None, 40])
def test_many_tasks_share_a_client(toll: Any, ahead: int | None, solver: Solver) -> None:
    """Twenty tasks are all answered; paying ahead they share one pass."""

    async def main() -> list[int]:
        async with paying_async_client(solver=solver, ahead=ahead) as client:
            calls = [
                client.post(toll.url + "/embeddings", json=EMBED, headers=KEY) for _ in range(20)
            ]
            return [answer.status_code for answer in await asyncio.gather(*calls)]

    assert asyncio.run(main()) == [200] * 20
    assert solver.tally().challenges == (20 if ahead is None else 1)


@pytest.mark.parametrize("library", ["httpx2-sync", "httpx2-async", "httpx-sync", "httpx-async"])
def test_proxies_of_the_environment_are_used(
    toll: Any, library: str, solver: Solver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that pays goes the way that the stock client goes."""
    monkeypatch.setenv("http_proxy", toll.url.removesuffix("/v1"))
    monkeypatch.setenv("no_proxy", "")
    with calling(library, solver=solver) as one:
        url = "http://gateway.invalid/v1/embeddings"
        assert one.post(url, json=EMBED, headers=KEY).status_code == 200
    assert [heard.path for heard in toll.heard] == [url, url]
