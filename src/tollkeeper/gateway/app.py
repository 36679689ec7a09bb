"""The data plane: a raw ASGI callable that answers the OpenAI embeddings API, and predictions.

`POST /v1/embeddings`, `POST /v1/classify`, `GET /v1/models`, `GET /v1/models/{id}`, `GET /livez`
and `GET /readyz`; nothing else answers.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote

from tollkeeper.errors import (
    AuthenticationError,
    EncoderError,
    ModelNotFoundError,
    RefusalError,
    RequestError,
)
from tollkeeper.gateway import wire
from tollkeeper.gateway.auth import KeyRing
from tollkeeper.gateway.calls import Call, Receive, Reply
from tollkeeper.gateway.desk import Desk
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.places import Places
from tollkeeper.gateway.policy import check_standing
from tollkeeper.gateway.routes import Route
from tollkeeper.types import Account

Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_UNSERVED = {"/v1/embeddings": "encoder", "/v1/classify": "classifier"}
"""Paths that a server may not serve, and the setting that lets it."""

_JSON = (b"content-type", b"application/json")
_NO_KEY = (
    "You didn't provide an API key. Send it in an Authorization header using Bearer auth: "
    "`Authorization: Bearer <key>`."
)
_log = logging.getLogger("tollkeeper.app")


class DataPlane:
    """The ASGI application that clients reach."""

    def __init__(
        self,
        routes: Mapping[str, Route],
        keyring: KeyRing,
        *,
        desk: Desk | None,
        limits: wire.Limits,
        places: Places,
        metrics: Metrics,
        ready: Callable[[], Awaitable[None]],
        body_timeout_s: float,
    ) -> None:
        """Hold the parts.

        Args:
            routes: what answers bodies, by path.
            keyring: knows accounts.
            desk: sells passes; None where nobody does.
            limits: what a request may hold.
            places: what requests hold at once.
            metrics: instruments of this server.
            ready: raises a TollkeeperError while the server cannot answer.
            body_timeout_s: for a whole body.
        """
        self._routes = routes
        self._keyring = keyring
        self._desk = desk
        self._models = {
            name: route.models.created for route in routes.values() for name in route.models.all
        }
        self._limits = limits
        self._places = places
        self._metrics = metrics
        self._ready = ready
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; other scope types are not served."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        route, handler = self._route(scope["path"])
        request_id = "req_" + secrets.token_hex(16)
        call = Call(scope["method"], scope["path"], dict(scope["headers"]), receive, request_id)
        with self._metrics.running.track_inprogress():
            try:
                reply = await handler(call)
            except asyncio.CancelledError:
                # Only a shutdown that took too long cancels requests.
                reply = _error_reply(EncoderError("the server is shutting down"))
            except Exception as error:  # noqa: BLE001 - every failure becomes a reply
                if not isinstance(error, (RequestError, RefusalError)):
                    _report(error, request_id)
                reply = _error_reply(error)
            await _send(send, reply, request_id, head_only=scope["method"] == "HEAD")
        self._metrics.requests.labels(route, str(reply.status)).inc()
        self._metrics.seconds.labels(route).observe(time.perf_counter() - started)

    def _route(self, path: str) -> tuple[str, Callable[[Call], Awaitable[Reply]]]:
        """Return a bounded label and the handler of a path."""
        route = self._routes.get(path)
        if route is not None:
            return path, partial(self._answer, route)
        if path in _UNSERVED:
            return path, _unserved
        if path == "/v1/models" or path.startswith("/v1/models/"):
            return "/v1/models", self._list_models
        if path == "/tollkeeper/v1/challenges" and self._desk is not None:
            return path, partial(self._challenges, self._desk)
        if path in {"/livez", "/readyz"}:
            return path, self._health
        return "other", _not_found

    async def _answer(self, route: Route, call: Call) -> Reply:
        if call.method != "POST":
            return _not_allowed(call, "POST")
        account = self._account(call)
        route.door.check(account, call.request_id)
        with self._places.admitted(account.tenant, self._announced(call)):
            body = await self._read(call)
            with self._places.working():
                return await route.answer(account, body, call)

    async def _challenges(self, desk: Desk, call: Call) -> Reply:
        """Sell a pass: what a client that plans many requests may pay ahead."""
        if call.method != "POST":
            return _not_allowed(call, "POST")
        account = self._account(call)
        desk.check(account, call.request_id)
        with self._places.admitted(account.tenant, self._announced(call)), self._places.working():
            inputs = wire.parse_prepayment(await self._read(call))
            # Reads the ledger.
            challenge = await asyncio.to_thread(desk.prepay, account, inputs)
        return Reply(200, wire.prepayment_body(challenge, inputs), (wire.NO_STORE,))

    async def _list_models(self, call: Call) -> Reply:
        if call.method not in {"GET", "HEAD"}:
            return _not_allowed(call, "GET")
        check_standing(self._account(call))
        path = call.path
        if path in {"/v1/models", "/v1/models/"}:
            return Reply(200, wire.models_body(self._models))
        name = unquote(path.removeprefix("/v1/models/"))
        if name not in self._models:
            raise ModelNotFoundError(f"The model '{name}' does not exist.", param="model")
        return Reply(200, wire.model_body(name, self._models[name]))

    async def _health(self, call: Call) -> Reply:
        if call.method not in {"GET", "HEAD"}:
            return _not_allowed(call, "GET")
        if call.path == "/readyz":
            await self._ready()
        return Reply(200, b'{"status":"ok"}')

    def _account(self, call: Call) -> Account:
        raw = call.headers.get(b"authorization")
        account = self._keyring.authenticate(None if raw is None else raw.decode("latin-1"))
        if account is None:
            raise AuthenticationError(_NO_KEY)
        return account

    def _announced(self, call: Call) -> int:
        """Return how many body bytes are coming; without a length, as many as may come.

        Raises:
            TooLargeError: over the limit.
        """
        limit = self._limits.max_body_bytes
        length = call.headers.get(b"content-length", b"")
        size = int(length) if length.isdigit() else limit
        if size > limit:
            raise wire.too_large(self._limits)
        return size

    async def _read(self, call: Call) -> bytes:
        """Read the whole body, refusing as soon as it is known to be too large.

        Raises:
            TooLargeError: over the limit.
            RequestError: the client stopped sending.
        """
        limit = self._limits.max_body_bytes
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._body_timeout_s):
                while True:
                    message = await call.receive()
                    if message["type"] == "http.disconnect":
                        raise RequestError("the client disconnected while sending")
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > limit:
                        raise wire.too_large(self._limits)
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        except TimeoutError as error:
            raise RequestError("the body did not arrive in time; send it again") from error


async def _unserved(call: Call) -> Reply:
    return _from_wire(wire.unserved(call.method, call.path, _UNSERVED[call.path]))


async def _not_found(call: Call) -> Reply:
    return _from_wire(wire.not_found(call.method, call.path))


def _not_allowed(call: Call, allowed: str) -> Reply:
    return _from_wire(wire.method_not_allowed(call.method, call.path, allowed))


def _error_reply(error: Exception) -> Reply:
    return _from_wire(wire.error_response(error))


def _from_wire(reply: wire.ErrorReply) -> Reply:
    return Reply(reply.status, reply.body, reply.headers)


def _report(error: Exception, request_id: str) -> None:
    """Tell the operator, never the client, what went wrong; inputs and keys stay out of it."""
    _log.warning("request.refused id=%s error=%s: %s", request_id, type(error).__name__, error)


async def _send(send: Send, reply: Reply, request_id: str, *, head_only: bool) -> None:
    headers = [
        _JSON,
        (b"content-length", str(len(reply.body)).encode()),
        (b"x-request-id", request_id.encode()),
        (b"openai-version", b"2020-10-01"),
        *reply.headers,
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head_only else reply.body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
