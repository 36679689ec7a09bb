"""The admin plane: metrics, tenants, keys and records, on its own port with its own token."""

from __future__ import annotations

import hmac
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tollkeeper.errors import LedgerError, TollkeeperError, UnknownNameError
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.operator import Operator
from tollkeeper.types import KeyInfo

MAX_RECORDS = 10_000
MAX_BODY_BYTES = 64 * 1024
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}


class RequireToken:
    """Middleware: every route needs `Authorization: Bearer <admin token>`."""

    def __init__(self, app: ASGIApp, *, token: str) -> None:
        """Protect `app`."""
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request with the token on; answer any other with 401."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, token = sent.partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token):
            await self._app(scope, receive, send)
            return
        refusal = _error(401, "invalid_admin_token", "expected the admin token as a bearer token")
        refusal.headers["www-authenticate"] = "Bearer"
        await refusal(scope, receive, send)


def create_admin_app(
    operator: Operator,
    *,
    metrics: Metrics,
    token: str,
    document: Mapping[str, Any],
) -> ASGIApp:
    """Build the admin plane.

    Args:
        operator: what an operator may do; the command line uses the same.
        metrics: the server's instruments.
        token: the admin token.
        document: the data plane's OpenAPI document.
    """
    handlers = _Handlers(operator, metrics, dict(document))
    app = Starlette(
        routes=handlers.routes(),
        exception_handlers={HTTPException: _http_error, TollkeeperError: _own_error},
    )
    return RequireToken(app, token=token)


class _Handlers:
    """One method per route."""

    def __init__(self, operator: Operator, metrics: Metrics, document: dict[str, Any]) -> None:
        self._operator = operator
        self._metrics = metrics
        self._document = document

    def routes(self) -> list[Route]:
        """Every route of the admin plane."""
        return [
            Route("/", self.index),
            Route("/metrics", self.show_metrics),
            Route("/openapi.json", self.openapi),
            Route("/tenants", self.tenants),
            Route("/tenants/{name}", self.tenants),
            Route("/tenants/{name}/{action}", self.change_tenant, methods=["POST"]),
            Route("/overlaps", self.overlaps),
            Route("/keys", self.keys),
            Route("/keys", self.create_key, methods=["POST"]),
            Route("/keys/{key_id}", self.revoke_key, methods=["DELETE"]),
            Route("/records", self.records),
        ]

    async def show_metrics(self, _: Request) -> Response:
        """Prometheus exposition."""
        return Response(self._metrics.render(), media_type=CONTENT_TYPE_LATEST)

    async def index(self, _: Request) -> Response:
        """The routes of this plane."""
        return JSONResponse({"see": sorted({route.path for route in self.routes()})})

    async def openapi(self, _: Request) -> Response:
        """The data plane's OpenAPI document."""
        return JSONResponse(self._document)

    async def tenants(self, request: Request) -> Response:
        """One tenant, or all."""
        name = request.path_params.get("name")
        if name is None:
            found = await run_in_threadpool(self._operator.tenants)
            return JSONResponse(msgspec.to_builtins(found))
        return JSONResponse(
            msgspec.to_builtins(await run_in_threadpool(self._operator.tenant, name))
        )

    async def overlaps(self, request: Request) -> Response:
        """Pairs of tenants that asked the same."""
        try:
            above = _finite(request.query_params.get("above", "0"))
        except (ValueError, OverflowError) as error:
            raise HTTPException(400, "expected a number in `above`") from error
        found = await run_in_threadpool(self._operator.overlaps)
        return JSONResponse([asdict(pair) for pair in found if pair.shared >= above])

    async def change_tenant(self, request: Request) -> Response:
        """Whatever an operator does to one tenant."""
        body = await _json(request)
        name = request.path_params["name"]
        actions: dict[str, Callable[[], object]] = {
            "suspend": lambda: self._operator.suspend(name, _note(body)),
            "resume": lambda: self._operator.resume(name, _note(body)),
            "note": lambda: self._operator.note(name, _text(body, "text")),
            "plan": lambda: self._operator.set_plan(name, _text(body, "plan")),
            "mode": lambda: self._operator.set_mode(name, _text(body, "mode")),
            "allow": lambda: self._allow(name, body),
            "disallow": lambda: self._operator.disallow(name),
            "grant": lambda: self._operator.grant(name, _inputs(body)),
            "link": lambda: self._operator.link(name, _text(body, "with")),
            "unlink": lambda: self._operator.unlink(name),
            "pardon": lambda: self._operator.pardon(name),
        }
        action = actions.get(request.path_params["action"])
        if action is None:
            raise HTTPException(404, f"expected one of {', '.join(actions)}")
        await run_in_threadpool(action)
        return JSONResponse({"ok": True})

    def _allow(self, name: str, body: Mapping[str, Any]) -> None:
        inputs, days = _number(body, "inputs"), _number(body, "days")
        if not inputs.is_integer():
            raise HTTPException(400, "expected a whole number in `inputs`")
        self._operator.allow(name, int(inputs), days, _note(body))

    async def keys(self, _: Request) -> Response:
        """All keys, without digests."""
        return JSONResponse([_public(key) for key in await run_in_threadpool(self._operator.keys)])

    async def create_key(self, request: Request) -> Response:
        """Make a key and show it once."""
        tenant = (await _json(request)).get("tenant")
        if not isinstance(tenant, str):
            raise HTTPException(400, 'expected {"tenant": "<name>"}')
        secret, info = await run_in_threadpool(self._operator.create_key, tenant)
        created = {"key": secret, "id": info.id, "tenant": info.tenant}
        return JSONResponse(created, status_code=201)

    async def revoke_key(self, request: Request) -> Response:
        """Revoke a key."""
        info = await run_in_threadpool(self._operator.revoke_key, request.path_params["key_id"])
        return JSONResponse(_public(info))

    async def records(self, request: Request) -> Response:
        """The newest records first."""
        query = request.query_params
        try:
            limit = min(max(int(query.get("limit", "100")), 0), MAX_RECORDS)
            since = _finite(query["since"]) if "since" in query else None
        except (ValueError, OverflowError) as error:
            raise HTTPException(400, "expected numbers in `limit` and `since`") from error
        rows = await run_in_threadpool(
            lambda: list(
                self._operator.records(tenant=query.get("tenant"), since=since, limit=limit)
            )
        )
        return JSONResponse([asdict(row) for row in rows])


async def _json(request: Request) -> dict[str, Any]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"expected a body of at most {MAX_BODY_BYTES} bytes")
    if not body:
        return {}
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise HTTPException(400, "expected a JSON object")
    return content


def _number(body: Mapping[str, Any], name: str) -> float:
    value = body.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise HTTPException(400, f'expected {{"{name}": <number>}}')
    try:
        return _finite(value)
    except (ValueError, OverflowError) as error:
        raise HTTPException(400, f"expected a finite number in `{name}`") from error


def _inputs(body: Mapping[str, Any]) -> float:
    """Return a number of inputs; null takes the budget away."""
    return math.inf if "inputs" in body and body["inputs"] is None else _number(body, "inputs")


def _note(body: Mapping[str, Any]) -> str:
    return _text(body, "note") if "note" in body else ""


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise HTTPException(400, f'expected {{"{name}": "<text>"}}')
    return value


def _finite(value: str | float) -> float:
    """Return a finite float; raises ValueError or OverflowError where there is none."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number


def _public(key: KeyInfo) -> dict[str, Any]:
    return {name: value for name, value in asdict(key).items() if name != "digest"}


def _error(status: int, code: str, message: str) -> JSONResponse:
    error = {"message": message, "type": "admin_error", "param": None, "code": code}
    return JSONResponse({"error": error}, status_code=status)


async def _http_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    code = _CODES.get(error.status_code, "bad_request")
    return _error(error.status_code, code, str(error.detail))


async def _own_error(_: Request, error: Exception) -> Response:
    if isinstance(error, UnknownNameError):
        return _error(404, _CODES[404], str(error))
    status = 503 if isinstance(error, LedgerError) else 400
    return _error(status, type(error).__name__, str(error))
