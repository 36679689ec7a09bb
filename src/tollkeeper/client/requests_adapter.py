"""An adapter for requests that solves challenges: `session.mount(base, PayingAdapter())`."""

from __future__ import annotations

import io
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from tollkeeper.challenge.protocol import PROOF_HEADER
from tollkeeper.client.driving import drive
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


class PayingAdapter(HTTPAdapter):
    """Sends requests and pays where that is asked; the timeout counts for each sending."""

    def __init__(
        self, *, ahead: int | None = None, solver: Solver | None = None, **options: Any
    ) -> None:
        """Make an adapter to mount on a session.

        Args:
            ahead: inputs to pay for at a time; None pays request by request.
            solver: shared with others, whose owner closes it; None for an own one.
            options: of `requests.adapters.HTTPAdapter`.

        Raises:
            ConfigurationError: `ahead` is below 1.
        """
        super().__init__(**options)
        self._payer = Payer(ahead=ahead)
        self._solver = solver or Solver()
        self._owns_solver = solver is None

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings: passes and processes stay where they are."""
        solver = {"processes": self._solver.processes, "max_seconds": self._solver.max_seconds}
        return {**super().__getstate__(), "paying": {"ahead": self._payer.ahead, "solver": solver}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin with the settings of another adapter, no pass, and a solver of its own."""
        state = dict(state)
        paying = state.pop("paying")
        super().__setstate__(state)
        self._payer = Payer(ahead=paying["ahead"])
        self._solver = Solver(**paying["solver"])
        self._owns_solver = True

    def send(  # noqa: PLR0917 - the signature is that of requests
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002
        timeout: Any = None,
        verify: Any = True,  # noqa: FBT002
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Send a request, and send it again with a proof if it is challenged.

        Args:
            request: what to send; one whose body is a stream is sent once, as it is.
            stream: as in requests, like all that follow.
            timeout: seconds.
            verify: certificates or not.
            cert: of the client.
            proxies: scheme to address.
        """
        options = {
            "stream": stream,
            "timeout": timeout,
            "verify": verify,
            "cert": cert,
            "proxies": proxies,
        }
        order = _order(request)
        if order is None:
            return super().send(request, **options)
        exchange = _Exchange(super().send, request, options)
        drive(self._payer.steps(order), exchange, self._solver)
        response = exchange.response
        assert response is not None
        if response.status_code == 402 and may_tell_to_retry(response.headers):
            del response.headers["x-should-retry"]  # it is going to be refused again
        return response

    def close(self) -> None:
        """Close the connections, and the solver unless it is shared."""
        super().close()
        if self._owns_solver:
            self._solver.close()


class _Exchange:
    """One request on its way; `response` is the last answer."""

    def __init__(
        self, send: Any, request: requests.PreparedRequest, options: dict[str, Any]
    ) -> None:
        self.response: requests.Response | None = None
        self._send = send
        self._request = request
        self._options = options

    def send(self, proof: str | None) -> Answer:
        if self.response is not None:
            self.response.close()
        request = self._request
        if proof is not None:
            request = request.copy()
            request.headers[PROOF_HEADER] = proof
        response = self._send(request, **self._options)
        whole = response.status_code not in KEPT or _kept(response)
        response.request = self._request  # what is sent because of this answer has no proof
        self.response = response
        challenges = response.headers.get("www-authenticate", "") if whole else ""
        return Answer(response.status_code, challenges)

    def ask(self, url: str, body: bytes) -> tuple[int, bytes]:
        headers = asking_headers(self._request.headers.items())
        request = requests.Request("POST", url, headers=headers, data=body).prepare()
        with self._send(request, **{**self._options, "stream": True}) as response:
            told = response.raw.read(LONGEST_TOLD + 1, decode_content=False)
            return response.status_code, told if len(told) <= LONGEST_TOLD else b""


class _Begun(io.RawIOBase):
    """A body of which a part was read already."""

    def __init__(self, part: bytes, rest: HTTPResponse) -> None:
        self._part = io.BytesIO(part)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return self._part.read() + self._rest.read(decode_content=False)
        return self._part.read(size) or self._rest.read(size, decode_content=False)

    def close(self) -> None:
        self._rest.close()
        super().close()


def _kept(response: requests.Response) -> bool:
    """Read a body into memory, undecoded, which frees the connection; tell whether it was short."""
    raw = response.raw
    part = raw.read(LONGEST_KEPT + 1, decode_content=False)
    whole = len(part) <= LONGEST_KEPT
    response.raw = HTTPResponse(
        body=io.BytesIO(part) if whole else _Begun(part, raw),
        headers=raw.headers,
        status=raw.status,
        version=raw.version,
        reason=raw.reason,
        preload_content=False,
        decode_content=False,
        original_response=raw._original_response,  # noqa: SLF001 - requests reads cookies from it
    )
    return whole


def _order(request: requests.PreparedRequest) -> Order | None:
    """Return the order that a request is; None if it cannot be sent twice or pays by itself."""
    body = request.body or b""
    if isinstance(body, str):
        body = body.encode()
    if not isinstance(body, bytes) or is_own_affair(request.headers):
        return None
    credential = request.headers.get("authorization", "")
    if isinstance(credential, bytes):
        credential = credential.decode("latin-1")
    return Order(request.method or "", request.url or "", credential, body)
