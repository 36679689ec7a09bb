"""Promises of clients made with one call: the stock ones pay, and keep their settings."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from typing import Any

import httpx
import httpx2
import openai
import pytest
import requests

from tollkeeper.client import (
    PayingTransport,
    Solver,
    httpx2_transport,
    httpx_transport,
    paying_async_client,
    paying_client,
)
from tollkeeper.client.requests_adapter import PayingAdapter

KEY = {"authorization": "Bearer sk-1"}
EMBED = {"model": "fake-1", "input": ["a", "b"]}


def script(client: Any) -> list[int]:
    """Embed ten texts, as somebody does who never heard of puzzles."""
    return [
        len(client.embeddings.create(model="fake-1", input=f"text {i}").data[0].embedding)
        for i in range(10)
    ]


def test_the_openai_client_pays_with_one_argument(toll: Any) -> None:
    """The same script that is refused without it finishes."""
    with openai.OpenAI(base_url=toll.url, api_key="sk-1", http_client=paying_client()) as client:
        assert script(client) == [4] * 10
    assert len(toll.heard) == 20


def test_the_openai_client_without_it_makes_one_call(toll: Any) -> None:
    """It raises an error with the code, and does not try again."""
    with (
        openai.OpenAI(base_url=toll.url, api_key="sk-1") as client,
        pytest.raises(openai.APIStatusError, match=r"docs/challenge\.md") as caught,
    ):
        script(client)
    assert (caught.value.status_code, caught.value.code) == (402, "challenge_required")
    assert len(toll.heard) == 1


def test_the_asynchronous_openai_client_pays_too(toll: Any) -> None:
    """Many calls at once are paid ahead, with one argument more for the bulk job."""

    async def main() -> list[int]:
        http = paying_async_client(ahead=20)
        async with openai.AsyncOpenAI(
            base_url=toll.url, api_key="sk-1", http_client=http
        ) as client:
            calls = [client.embeddings.create(model="fake-1", input=f"text {i}") for i in range(9)]
            answers = await asyncio.gather(*calls)
            return [len(answer.data[0].embedding) for answer in answers]

    assert asyncio.run(main()) == [4] * 9
    assert {heard.proof for heard in toll.embeddings() if heard.proof} == {toll.heard[-1].proof}


def test_the_asynchronous_openai_client_without_it_makes_one_call(toll: Any) -> None:
    """The error is the same."""

    async def main() -> None:
        async with openai.AsyncOpenAI(base_url=toll.url, api_key="sk-1") as client:
            await client.embeddings.create(model="fake-1", input="a")

    with pytest.raises(openai.APIStatusError) as caught:
        asyncio.run(main())
    assert (caught.value.status_code, caught.value.code) == (402, "challenge_required")
    assert len(toll.heard) == 1


def test_streamed_answers_are_streamed(toll: Any, solver: Solver) -> None:
    """What the caller reads bit by bit is not read before."""
    with paying_client(solver=solver) as client:
        with client.stream("POST", toll.url + "/embeddings", json=EMBED, headers=KEY) as answer:
            assert not answer.is_stream_consumed
            assert len(json.loads(b"".join(answer.iter_raw()))["data"]) == 2
        toll.work = 10**12
        with client.stream("POST", toll.url + "/embeddings", json=EMBED, headers=KEY) as answer:
            assert answer.status_code == 402
            assert json.loads(b"".join(answer.iter_raw()))["error"]["code"] == "challenge_required"


def test_clients_have_the_openai_clients_settings() -> None:
    """Timeouts, connections and redirects are what that client sets when it makes its own."""
    from openai import DefaultHttpxClient
    from openai._constants import DEFAULT_CONNECTION_LIMITS, DEFAULT_TIMEOUT

    with DefaultHttpxClient() as theirs, paying_client() as ours:
        assert ours.timeout == theirs.timeout == DEFAULT_TIMEOUT
        assert ours.follow_redirects == theirs.follow_redirects
    assert httpx2_transport.DEFAULTS["limits"] == DEFAULT_CONNECTION_LIMITS


def test_options_go_where_they_belong(toll: Any, solver: Solver) -> None:
    """The client's own are the client's, and a transport that is given is wrapped."""
    passed: list[str] = []

    class Noting(httpx2.HTTPTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            passed.append(str(request.url))
            return super().handle_request(request)

    with paying_client(
        solver=solver, transport=Noting(), base_url=toll.url, headers=KEY, timeout=7
    ) as client:
        assert client.timeout == httpx2.Timeout(7)
        assert client.post("/embeddings", json=EMBED).status_code == 200
    assert passed == [toll.url + "/embeddings"] * 2


def test_a_solver_that_is_shared_is_not_closed(toll: Any) -> None:
    """Its owner closes it; one that a client made is closed with the client."""
    closed: list[Solver] = []

    class Noting(Solver):
        def close(self) -> None:
            closed.append(self)
            super().close()

    mine = Noting(processes=0)
    paying_client(solver=mine).close()
    requests_session(solver=mine).close()
    assert closed == []
    transport = PayingTransport()
    transport._solver = mine
    transport.close()
    assert closed == [mine]


def requests_session(**options: Any) -> requests.Session:
    """Return a session that pays."""
    session = requests.Session()
    session.mount("http://", PayingAdapter(**options))
    return session


def test_requests_keeps_its_own_request(toll: Any, solver: Solver) -> None:
    """The answer belongs to the request that the caller made, which has no proof."""
    with requests_session(solver=solver) as session:
        answer = session.post(toll.url + "/embeddings", json=EMBED, headers=KEY)
        assert answer.status_code == 200
        assert "tollkeeper-proof" not in answer.request.headers
    with httpx_transport.paying_client(solver=solver) as client:
        told = client.post(toll.url + "/embeddings", json=EMBED, headers=KEY)
        assert isinstance(told, httpx.Response)
        assert "tollkeeper-proof" not in told.request.headers


def pickled(one: Any) -> Any:
    """Return what comes out of another process."""
    return pickle.loads(pickle.dumps(one))  # noqa: S301 - our own


@pytest.mark.parametrize("again", [pickled, copy.copy])
def test_a_session_that_pays_can_be_pickled(toll: Any, again: Any) -> None:
    """It goes on paying elsewhere, with the same settings and a solver of its own."""
    with Solver(processes=0, max_seconds=7) as mine:
        adapter = again(PayingAdapter(ahead=9, solver=mine, pool_maxsize=3))
        assert adapter._solver is not mine
    with requests.Session() as session:
        session.mount("http://", adapter)
        answer = session.post(toll.url + "/embeddings", json=EMBED, headers=KEY)
    assert answer.status_code == 200
    settings = (adapter._payer.ahead, adapter._solver.processes, adapter._solver.max_seconds)
    assert (*settings, adapter._pool_maxsize) == (9, 0, 7, 3)
