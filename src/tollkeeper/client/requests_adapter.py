"""An adapter for requests that solves challenges: `session.mount(base, PayingAdapter())`."""

from __future__ import annotations

from typing import Any

import requests
from requests.adapters import HTTPAdapter

from tollkeeper.challenge.protocol import PROOF_HEADER
from tollkeeper.client.paying import (
    KEPT,
    Answer,
    Order,
    Payer,
    asking_headers,
    drive,
    is_own_affair,
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
        assert exchange.response is not None
        return exchange.response

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
        if response.status_code in KEPT:
            _ = response.content  # reading it frees the connection
        response.request = self._request  # what is sent because of this answer has no proof
        self.response = response
        return Answer(response.status_code, response.headers.get("www-authenticate", ""))

    def ask(self, url: str, body: bytes) -> tuple[int, bytes]:
        headers = asking_headers(self._request.headers.items())
        request = requests.Request("POST", url, headers=headers, data=body).prepare()
        with self._send(request, **self._options) as response:
            return response.status_code, response.content


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
