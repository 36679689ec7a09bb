"""Transports and clients for httpx2 that solve challenges; `httpx_transport` is the same for httpx.

The caller's timeouts count for each sending; solving takes none of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

import httpx2

from tollkeeper.challenge.protocol import PROOF_HEADER
from tollkeeper.client.driving import drive, drive_async
from tollkeeper.client.paying import (
    KEPT,
    LONGEST_KEPT,
    LONGEST_TOLD,
    Answer,
    Order,
    Payer,
    asking_headers,
    is_own_affair,
    may_tell_to_retry,
)
from tollkeeper.client.solver import Solver

DEFAULTS: Final[Mapping[str, Any]] = {
    "timeout": httpx2.Timeout(600.0, connect=5.0),
    "limits": httpx2.Limits(max_connections=1000, max_keepalive_connections=100),
    "follow_redirects": True,
}
"""What the OpenAI client gives to the HTTP client that it makes itself."""

_OF_CONNECTIONS: Final = frozenset(
    {"cert", "http1", "http2", "limits", "mounts", "proxy", "trust_env", "verify"}
)


def paying_client(
    *, ahead: int | None = None, solver: Solver | None = None, **options: Any
) -> httpx2.Client:
    """Return a client that pays; `OpenAI(http_client=paying_client())` needs nothing else.

    Args:
        ahead: inputs to pay for at a time, for bulk jobs; None pays request by request.
        solver: shared with others, whose owner closes it; None for an own one.
        options: of `httpx2.Client`; timeout, limits and redirects are those of the OpenAI
            client if they are not given.

    Raises:
        ConfigurationError: `ahead` is below 1.
    """
    given = {**DEFAULTS, **options}
    inner = given.pop("transport", None)
    if inner is None:
        inner = _Connections(**{name: given[name] for name in _OF_CONNECTIONS & given.keys()})
    outer = {name: value for name, value in given.items() if name not in _OF_CONNECTIONS}
    return httpx2.Client(transport=PayingTransport(inner, ahead=ahead, solver=solver), **outer)


def paying_async_client(
    *, ahead: int | None = None, solver: Solver | None = None, **options: Any
) -> httpx2.AsyncClient:
    """Return an asynchronous client that pays, as `paying_client` does; for asyncio.

    Args:
        ahead: inputs to pay for at a time, for bulk jobs; None pays request by request.
        solver: shared with others, whose owner closes it; None for an own one.
        options: of `httpx2.AsyncClient`.

    Raises:
        ConfigurationError: `ahead` is below 1.
    """
    given = {**DEFAULTS, **options}
    inner = given.pop("transport", None)
    if inner is None:
        inner = _AsyncConnections(**{name: given[name] for name in _OF_CONNECTIONS & given.keys()})
    outer = {name: value for name, value in given.items() if name not in _OF_CONNECTIONS}
    return httpx2.AsyncClient(
        transport=AsyncPayingTransport(inner, ahead=ahead, solver=solver), **outer
    )


class PayingTransport(httpx2.BaseTransport):
    """Sends requests through another transport and pays where that is asked."""

    def __init__(
        self,
        inner: httpx2.BaseTransport | None = None,
        *,
        ahead: int | None = None,
        solver: Solver | None = None,
    ) -> None:
        """Wrap a transport, and close it in the end.

        Args:
            inner: what sends; None for `httpx2.HTTPTransport()`.
            ahead: inputs to pay for at a time; None pays request by request.
            solver: shared with others, whose owner closes it; None for an own one.

        Raises:
            ConfigurationError: `ahead` is below 1.
        """
        self._payer = Payer(ahead=ahead)
        self._inner = inner or httpx2.HTTPTransport()
        self._solver = solver or Solver()
        self._owns_solver = solver is None

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, and send it again with a proof if it is challenged."""
        order = _order(request)
        if order is None:
            return self._inner.handle_request(request)
        exchange = _Exchange(self._inner, request)
        drive(self._payer.steps(order), exchange, self._solver)
        assert exchange.response is not None
        return _final(exchange.response)

    def close(self) -> None:
        """Close the inner transport, and the solver unless it is shared."""
        self._inner.close()
        if self._owns_solver:
            self._solver.close()


class AsyncPayingTransport(httpx2.AsyncBaseTransport):
    """Sends requests through another transport and pays where that is asked; for asyncio."""

    def __init__(
        self,
        inner: httpx2.AsyncBaseTransport | None = None,
        *,
        ahead: int | None = None,
        solver: Solver | None = None,
    ) -> None:
        """Wrap a transport, and close it in the end.

        Args:
            inner: what sends; None for `httpx2.AsyncHTTPTransport()`.
            ahead: inputs to pay for at a time; None pays request by request.
            solver: shared with others, whose owner closes it; None for an own one.

        Raises:
            ConfigurationError: `ahead` is below 1.
        """
        self._payer = Payer(ahead=ahead)
        self._inner = inner or httpx2.AsyncHTTPTransport()
        self._solver = solver or Solver()
        self._owns_solver = solver is None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, and send it again with a proof if it is challenged."""
        order = _order(request)
        if order is None:
            return await self._inner.handle_async_request(request)
        exchange = _AsyncExchange(self._inner, request)
        await drive_async(self._payer.steps(order), exchange, self._solver)
        assert exchange.response is not None
        return _final(exchange.response)

    async def aclose(self) -> None:
        """Close the inner transport, and the solver unless it is shared."""
        await self._inner.aclose()
        if self._owns_solver:
            self._solver.close()


class _Exchange:
    """One request on its way; `response` is the last answer."""

    def __init__(self, inner: httpx2.BaseTransport, request: httpx2.Request) -> None:
        self.response: httpx2.Response | None = None
        self._inner = inner
        self._request = request

    def send(self, proof: str | None) -> Answer:
        if self.response is not None:
            self.response.close()
        response = self._inner.handle_request(_with(self._request, proof))
        self.response = _kept(response) if response.status_code in KEPT else response
        return _answer(self.response)

    def ask(self, url: str, body: bytes) -> tuple[int, bytes]:
        response = self._inner.handle_request(_asking(self._request, url, body))
        try:
            return response.status_code, _told(response)
        finally:
            response.close()


class _AsyncExchange:
    """One request on its way; `response` is the last answer."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, request: httpx2.Request) -> None:
        self.response: httpx2.Response | None = None
        self._inner = inner
        self._request = request

    async def send(self, proof: str | None) -> Answer:
        if self.response is not None:
            await self.response.aclose()
        response = await self._inner.handle_async_request(_with(self._request, proof))
        self.response = await _async_kept(response) if response.status_code in KEPT else response
        return _answer(self.response)

    async def ask(self, url: str, body: bytes) -> tuple[int, bytes]:
        response = await self._inner.handle_async_request(_asking(self._request, url, body))
        try:
            return response.status_code, await _async_told(response)
        finally:
            await response.aclose()


class _Connections(httpx2.BaseTransport):
    """Connections of a whole client: it is the client that knows proxies and the environment."""

    def __init__(self, **options: Any) -> None:
        self._client = httpx2.Client(**options)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        # `send` of a client would write each request into the log a second time.
        transport = self._client._transport_for_url(request.url)  # noqa: SLF001 - see above
        return transport.handle_request(request)

    def close(self) -> None:
        self._client.close()


class _AsyncConnections(httpx2.AsyncBaseTransport):
    """The same for asynchronous clients."""

    def __init__(self, **options: Any) -> None:
        self._client = httpx2.AsyncClient(**options)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        transport = self._client._transport_for_url(request.url)  # noqa: SLF001 - as above
        return await transport.handle_async_request(request)

    async def aclose(self) -> None:
        await self._client.aclose()


def _order(request: httpx2.Request) -> Order | None:
    """Return the order that a request is; None if it cannot be sent twice or pays by itself."""
    if not isinstance(request.stream, httpx2.ByteStream) or is_own_affair(request.headers):
        return None
    credential = request.headers.get("authorization", "")
    return Order(request.method, str(request.url), credential, request.read())


def _with(request: httpx2.Request, proof: str | None) -> httpx2.Request:
    """Return a copy with a proof; the original has none, so no redirect carries it on."""
    if proof is None:
        return request
    return httpx2.Request(
        request.method,
        request.url,
        headers=[*request.headers.raw, (PROOF_HEADER.encode(), proof.encode())],
        stream=request.stream,
        extensions=request.extensions,
    )


def _asking(request: httpx2.Request, url: str, body: bytes) -> httpx2.Request:
    headers = asking_headers(request.headers.multi_items())
    return httpx2.Request("POST", url, headers=headers, content=body, extensions=request.extensions)


class _Begun(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body of which some parts were read already; closing it closes the response."""

    def __init__(self, response: httpx2.Response, parts: list[bytes], rest: Any) -> None:
        self._response = response
        self._parts = parts
        self._rest = rest

    def __iter__(self) -> Iterator[bytes]:
        yield from self._parts
        yield from self._rest

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part
        async for part in self._rest:
            yield part

    def close(self) -> None:
        self._response.close()

    async def aclose(self) -> None:
        await self._response.aclose()


def _kept(response: httpx2.Response) -> httpx2.Response:
    """Return a response as it came, its body in memory and its connection free if it is short."""
    if response.is_stream_consumed:  # some transports read what they return
        return response
    parts: list[bytes] = []
    rest = response.iter_raw()
    for part in rest:
        parts.append(part)
        if sum(map(len, parts)) > LONGEST_KEPT:
            return _again(response, _Begun(response, parts, rest))
    return _again(response, httpx2.ByteStream(b"".join(parts)))


async def _async_kept(response: httpx2.Response) -> httpx2.Response:
    if response.is_stream_consumed:
        return response
    parts: list[bytes] = []
    rest = response.aiter_raw()
    async for part in rest:
        parts.append(part)
        if sum(map(len, parts)) > LONGEST_KEPT:
            return _again(response, _Begun(response, parts, rest))
    return _again(response, httpx2.ByteStream(b"".join(parts)))


def _told(response: httpx2.Response) -> bytes:
    """Return the body as it was sent, or nothing if it is longer than any answer about a pass."""
    if response.is_stream_consumed:
        return response.content[:LONGEST_TOLD]
    told = b""
    for part in response.iter_raw():
        told += part
        if len(told) > LONGEST_TOLD:
            return b""
    return told


async def _async_told(response: httpx2.Response) -> bytes:
    if response.is_stream_consumed:
        return response.content[:LONGEST_TOLD]
    told = b""
    async for part in response.aiter_raw():
        told += part
        if len(told) > LONGEST_TOLD:
            return b""
    return told


def _again(response: httpx2.Response, stream: Any) -> httpx2.Response:
    return httpx2.Response(
        response.status_code,
        headers=response.headers,
        stream=stream,
        extensions=response.extensions,
    )


def _answer(response: httpx2.Response) -> Answer:
    """Return what of a response matters; one that goes on and on is not paid for."""
    whole = not isinstance(response.stream, _Begun)
    return Answer(
        response.status_code, response.headers.get("www-authenticate", "") if whole else ""
    )


def _final(response: httpx2.Response) -> httpx2.Response:
    """Return a response for the caller, who is not to repeat what is going to be refused."""
    if response.status_code == 402 and may_tell_to_retry(response.headers):
        del response.headers["x-should-retry"]
    return response
