"""What a live target's refusals mean: each final reply becomes one error of one line."""

from __future__ import annotations

from typing import NoReturn

from tollkeeper.encoders.upstream_http import Reply
from tollkeeper.encoders.upstream_wire import parse_complaint
from tollkeeper.errors import (
    AuthenticationError,
    BudgetExhausted,
    EncoderError,
    InputError,
    InputRefused,
    ModelNotFoundError,
    RefusalError,
    SuspendedError,
    ThrottledError,
    TooLargeError,
)

LOST = 0
"""Stands for the status of a call whose connection broke; the content then tells how."""

_KEPT = "what it answered is kept"
_GO_ON = f"{_KEPT}; run again later to go on"

_INPUT = "input_refused"
"""Code of a 403 that is about an input and not about the account."""


def refuse(reply: Reply, *, secret: str | None) -> NoReturn:
    """Raise the error that a reply stands for which is neither 200 nor may pass.

    Args:
        reply: the reply.
        secret: the API key, which the target may quote.

    Raises:
        InputError: 400 or 422.
        AuthenticationError: 401.
        RefusalError: 402.
        InputRefused: 403 that is about an input.
        SuspendedError: any other 403.
        ModelNotFoundError: 404 that says something about a model.
        TooLargeError: 413 for a single input.
        EncoderError: any other.
    """
    complaint = parse_complaint(reply.content, secret=secret)
    words = complaint.message or "it gave no reason"
    if reply.status in {400, 422}:
        raise InputError(f"the target refused an input: {words}", code=complaint.code)
    if reply.status == 401:
        raise AuthenticationError(f"the target does not take the API key: {words}")
    if reply.status == 402:
        raise RefusalError(
            f"the target asks for proof of work: {words.rstrip('.')}; allow that with --solve SECONDS, or a "
            "solver"
        )
    if reply.status == 403 and complaint.code == _INPUT:
        raise InputRefused(f"the target refuses an input: {words}")
    if reply.status == 403:
        raise SuspendedError(f"the target refuses this account: {words}")
    if reply.status == 404 and not complaint.is_missing_route:
        raise ModelNotFoundError(f"the target does not serve the model: {words}")
    if reply.status == 413:
        raise TooLargeError(f"a single input is too large for the target: {words}")
    raise EncoderError(f"the target answered {reply.status}: {words}; check the address")


def give_up(reply: Reply, wait_s: float | None, *, tries: int, secret: str | None) -> NoReturn:
    """Raise the error of trouble that might have passed but is not waited for any longer.

    Args:
        reply: the last one.
        wait_s: seconds that it asks to wait; None if it wants no further try.
        tries: how often the call was sent.
        secret: the API key, which the target may quote.

    Raises:
        BudgetExhausted: 429 that wants no further try: it takes no more from this account.
        ThrottledError: 429 otherwise.
        EncoderError: the target fails or cannot be reached.
    """
    if reply.status == LOST:
        raise EncoderError(
            f"the connection to the target broke {tries} times ({reply.content.decode()}); {_GO_ON}"
        )
    words = parse_complaint(reply.content, secret=secret).message or "it gave no reason"
    if reply.status != 429:
        raise EncoderError(f"the target answered {reply.status} {tries} times: {words}; {_GO_ON}")
    if wait_s is None:
        raise BudgetExhausted(f"the target takes no more from this account: {words}; {_KEPT}")
    raise ThrottledError(
        f"the target throttled {tries} tries and asks to wait {wait_s:g} s: {words}; {_GO_ON}",
        retry_after_s=wait_s,
    )
