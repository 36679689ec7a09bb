"""Promises about what is read of an answer: as it came, and no more than is needed."""

from __future__ import annotations

import asyncio
import gzip
import logging
from typing import Any

import httpx
import httpx2
import pytest
import requests

from tollkeeper.client import Solver, httpx2_transport, httpx_transport, paying_client
from tollkeeper.client.paying import LONGEST_KEPT
from tollkeeper.client.requests_adapter import PayingAdapter

KEY = {"authorization": "Bearer sk-1"}
EMBED = {"model": "fake-1", "input": ["a", "b"]}
MODULES: list[Any] = [(httpx, httpx_transport), (httpx2, httpx2_transport)]


@pytest.mark.parametrize(("library", "module"), MODULES, ids=["httpx", "httpx2"])
@pytest.mark.parametrize("status", [200, 400, 402])
def test_answers_that_were_read_already_are_handed_on(
    library: Any, module: Any, status: int, solver: Solver
) -> None:
    """A transport that returns whole bodies, as those for tests do, can be wrapped."""
    inner = library.MockTransport(lambda _: library.Response(status, json={"a": 1}))
    with module.paying_client(transport=inner, solver=solver) as client:
        answer = client.post("http://gateway.invalid/v1/embeddings", json=EMBED)
    assert (answer.status_code, answer.json()) == (status, {"a": 1})

    async def main() -> Any:
        async with module.paying_async_client(transport=inner, solver=solver) as client:
            return await client.post("http://gateway.invalid/v1/embeddings", json=EMBED)

    assert asyncio.run(main()).json() == {"a": 1}


def post(library: str, url: str, **options: Any) -> tuple[int, dict[str, str], bytes]:
    """Post with one of the libraries; return status, headers and body."""
    words: dict[str, Any] = {"json": EMBED, "headers": KEY}
    if library == "requests":
        with requests.Session() as session:
            session.mount("http://", PayingAdapter(**options))
            got = session.post(url, **words)
            return got.status_code, dict(got.headers), got.content
    module = httpx_transport if "httpx-" in library else httpx2_transport
    if "async" not in library:
        with module.paying_client(**options) as client:
            answer = client.post(url, **words)
            return answer.status_code, dict(answer.headers), answer.content

    async def main() -> Any:
        async with module.paying_async_client(**options) as client:
            return await client.post(url, **words)

    answer = asyncio.run(main())
    return answer.status_code, dict(answer.headers), answer.content


LIBRARIES = ["httpx2-sync", "httpx2-async", "httpx-sync", "httpx-async", "requests"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_402_without_end_is_not_kept(toll: Any, library: str, solver: Solver) -> None:
    """What is too long for an error reaches the caller byte by byte, and is not paid for."""
    told = bytes(range(256)) * (LONGEST_KEPT // 128)
    charge = toll._charge

    def long(one: Any, price: int) -> Any:
        reply = charge(one, price)
        if reply is not None:
            reply.body = told
        return reply

    toll._charge = long
    status, _, body = post(library, toll.url + "/embeddings", solver=solver)
    assert (status, body == told) == (402, True)
    assert len(toll.heard) == 1


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_compressed_error_is_decoded_by_the_caller(
    toll: Any, library: str, solver: Solver
) -> None:
    """A short body is kept as it was sent."""
    error = toll._error

    def packed(status: int, code: str) -> Any:
        reply = error(status, code)
        reply.body = gzip.compress(b"why not")
        reply.headers["content-encoding"] = "gzip"
        return reply

    toll._error, toll.work = packed, 10**12
    status, _, body = post(library, toll.url + "/embeddings", solver=solver)
    assert (status, body) == (402, b"why not")


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_answer_about_a_pass_is_asked_plain_and_read_in_part(
    toll: Any, library: str, solver: Solver
) -> None:
    """It is not decompressed, and one that is no answer is not read to its end."""
    sell = toll._sell

    def bomb(one: Any) -> Any:
        reply = sell(one)
        reply.body = gzip.compress(bytes(2**22))
        reply.headers["content-encoding"] = "gzip"
        return reply

    toll._sell = bomb
    status, _, _ = post(library, toll.url + "/embeddings", solver=solver, ahead=9)
    assert status == 200
    wishes = [one for one in toll.heard if one.path.endswith("/challenges")]
    assert [one.headers["accept-encoding"] for one in wishes] == ["identity"]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(("told", "handed_on"), [("true", None), ("false", "false")])
def test_no_server_has_an_unpaid_request_repeated(
    toll: Any, library: str, told: str, handed_on: str | None, solver: Solver
) -> None:
    """A 402 that asks to be retried would have the OpenAI client solve puzzle after puzzle."""
    toll.work = 10**12
    error = toll._error

    def urging(status: int, code: str) -> Any:
        reply = error(status, code)
        reply.headers["x-should-retry"] = told
        return reply

    toll._error = urging
    status, headers, _ = post(library, toll.url + "/embeddings", solver=solver)
    headers = {name.lower(): value for name, value in headers.items()}
    assert (status, headers.get("x-should-retry")) == (402, handed_on)


def test_each_request_is_in_the_log_once(
    toll: Any, solver: Solver, caplog: pytest.LogCaptureFixture
) -> None:
    """As with the stock client: one line for what the caller asked."""
    toll.work = 0
    with caplog.at_level(logging.INFO), paying_client(solver=solver) as client:
        client.post(toll.url + "/embeddings", json=EMBED, headers=KEY)
    assert len([one for one in caplog.records if "HTTP Request" in one.getMessage()]) == 1
