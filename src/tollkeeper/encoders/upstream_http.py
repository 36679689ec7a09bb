"""One bounded HTTP request to an OpenAI-compatible server, and what its status asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx2

from tollkeeper.errors import ConfigurationError, EncoderError

_PASSING = frozenset({408, 424, 429})  # and every 5xx; 424 is a TEI backend failure
_FIRST_WAIT_S = 0.5  # doubled with each retry, as the OpenAI client does
_MAX_WAIT_S = 8.0  # an upstream that asks for more is not asked again for this call


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered.

    Attributes:
        status: HTTP status.
        headers: names in any case.
        content: the body.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes


def base_address(url: str, *, whose: str) -> str:
    """Return a base address without its last slash, or say what is wrong with it.

    Args:
        url: address up to and with `/v1`.
        whose: the server, for the message.

    Raises:
        ConfigurationError: no such address, or one that holds a credential.
    """
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ConfigurationError(f"the {whose}'s address is not a URL: {error}") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ConfigurationError(f"expected the {whose}'s address to be like https://host/v1")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ConfigurationError(
            f"expected the {whose}'s address without user, query and fragment; "
            "give the credential as the API key"
        )
    return url.rstrip("/")


def bearer(api_key: str | None, *, whose: str) -> dict[str, str]:
    """Return the header that carries an API key; none for None.

    Raises:
        ConfigurationError: no header can carry the key, which is not quoted.
    """
    if api_key is None:
        return {}
    if not (api_key.isascii() and api_key.isprintable()):
        raise ConfigurationError(f"expected the {whose}'s API key in printable ASCII characters")
    return {"authorization": f"Bearer {api_key}"}


def request(
    client: httpx2.Client,
    method: str,
    url: str,
    *,
    content: bytes = b"",
    headers: Mapping[str, str],
    timeout_s: float,
    limit: int,
    clock: Callable[[], float],
) -> Reply:
    """Make one request, bounded in time and in size; redirects are not followed.

    Args:
        client: sends it.
        method: HTTP method.
        url: where to.
        content: a JSON body.
        headers: on top of those that every request has.
        timeout_s: seconds for all of it, body included.
        limit: bytes that the answer may have.
        clock: seconds, for a body that drips.

    Raises:
        EncoderError: the answer is larger than `limit`.
        httpx2.RequestError: no answer, or not in time.
    """
    sent = {"content-type": "application/json", "accept-encoding": "identity", **headers}
    deadline = clock() + timeout_s
    body = bytearray()
    # No redirects: they would carry inputs and the credential to another host.
    with client.stream(
        method, url, content=content, headers=sent, timeout=timeout_s, follow_redirects=False
    ) as response:
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > limit:
                raise EncoderError(f"the server's answer is larger than {limit} bytes")
            if clock() > deadline:
                raise httpx2.ReadTimeout("the body took too long")
        return Reply(response.status_code, response.headers, bytes(body))


def persist(post: Callable[[], Reply], *, retries: int, sleep: Callable[[float], None]) -> Reply:
    """Make a request again while its trouble may pass; return any reply worth reading.

    Args:
        post: makes it once.
        retries: further tries.
        sleep: waits between tries.

    Raises:
        EncoderError: every try failed, or the upstream wants no other soon.
    """
    trouble = ""
    for retry in range(retries + 1):
        wait_s: float | None = backoff(retry)
        try:
            reply = post()
        except httpx2.RequestError as error:
            # The text of the error may hold the address; its type tells enough.
            trouble = f"failed with {type(error).__name__}"
        else:
            if not is_passing(reply.status):
                return reply
            trouble = f"answered {reply.status}"
            wait_s = asked_wait(reply.headers, default=backoff(retry))
        if wait_s is None or wait_s > _MAX_WAIT_S or retry == retries:
            break
        sleep(wait_s)
    raise EncoderError(f"the upstream {trouble}; try again later")


def is_passing(status: int) -> bool:
    """Tell whether a status stands for trouble that may pass: overload or failure."""
    return status in _PASSING or status >= 500


def backoff(retry: int) -> float:
    """Return the seconds to wait before retry 0, 1, ... when the server names none."""
    return float(_FIRST_WAIT_S * 2**retry)


def asked_wait(headers: Mapping[str, str], *, default: float) -> float | None:
    """Return seconds to wait before the next try; None when the server wants none.

    A date in `Retry-After` (RFC 9110, section 10.2.3) counts from the answer's own `Date`,
    so that no clock is read and the two machines need not agree on the time.

    Args:
        headers: of an answer that may be tried again.
        default: seconds when it asks for nothing sensible.
    """
    if headers.get("x-should-retry") == "false":
        return None
    for name, unit_s in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            asked = float(headers.get(name, "")) * unit_s
        except ValueError:
            continue
        if asked >= 0:
            return asked
    try:
        until, now = (parsedate_to_datetime(headers[name]) for name in ("retry-after", "date"))
        asked = (until - now).total_seconds()
    except (KeyError, ValueError, TypeError):  # absent, no date, or only one with a zone
        return default
    return asked if asked >= 0 else default
