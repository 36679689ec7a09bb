"""Promises of refusals: one line each, of the right kind, without the credential."""

from __future__ import annotations

import msgspec
import pytest

from tollkeeper.client.refusals import LOST, give_up, refuse
from tollkeeper.encoders.upstream_http import Reply
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
    TollkeeperError,
    TooLargeError,
)

KEY = "sk-secret-0123456789"


def reply(status: int, words: str = "") -> Reply:
    """Return a reply with a complaint in it."""
    return Reply(status, {}, msgspec.json.encode({"error": {"message": words}}))


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (400, InputError, "refused an input"),
        (422, InputError, "refused an input"),
        (401, AuthenticationError, "does not take the API key"),
        (402, RefusalError, "asks for proof of work: .*allow that with --solve SECONDS"),
        (403, SuspendedError, "refuses this account"),
        (404, ModelNotFoundError, "does not serve the model"),
        (413, TooLargeError, "too large"),
        (302, EncoderError, "answered 302"),
        (409, EncoderError, "answered 409"),
    ],
)
def test_each_status_is_one_line(status: int, kind: type[TollkeeperError], words: str) -> None:
    """The kind tells whose fault it is, and the target's own words are told without the key."""
    with pytest.raises(kind, match=words) as caught:
        refuse(reply(status, f"line\nbreak, key {KEY}, done"), secret=KEY)
    assert type(caught.value) is kind
    text = str(caught.value)
    assert "line break" in text
    assert text.isprintable()
    assert KEY not in text


def test_a_missing_route_is_about_the_address() -> None:
    """A 404 without words about a model tells to check the address."""
    with pytest.raises(EncoderError, match="check the address"):
        refuse(reply(404, "Not Found"), secret=None)


def test_a_refusal_without_words_says_so() -> None:
    """An empty body is no mystery in the message."""
    with pytest.raises(AuthenticationError, match="gave no reason"):
        refuse(Reply(401, {}, b""), secret=None)


@pytest.mark.parametrize(
    ("given", "wait_s", "kind", "words"),
    [
        (reply(429, "slow"), 300.0, ThrottledError, "3 tries and asks to wait 300 s: slow"),
        (reply(503, "down"), 0.5, EncoderError, "answered 503 3 times: down"),
        (Reply(LOST, {}, b"ReadError"), 0.5, EncoderError, r"broke 3 times \(ReadError\)"),
    ],
)
def test_lasting_trouble_says_how_to_go_on(
    given: Reply, wait_s: float | None, kind: type[TollkeeperError], words: str
) -> None:
    """The last try's reason is told, and that nothing answered is lost."""
    with pytest.raises(kind, match=words) as caught:
        give_up(given, wait_s, tries=3, secret=KEY)
    assert type(caught.value) is kind
    assert str(caught.value).endswith("what it answered is kept; run again later to go on")


def test_a_refused_input_is_no_barred_account() -> None:
    """A 403 that is about an input lets the caller go on with the next one."""
    words = {"message": "input[0] is not answered", "code": "input_refused"}
    given = Reply(403, {}, msgspec.json.encode({"error": words}))
    with pytest.raises(InputRefused, match=r"refuses an input: input\[0\] is not answered"):
        refuse(given, secret=None)


def test_what_stays_refused_is_not_to_be_tried_again() -> None:
    """A 429 without a time to wait for keeps the answers, and promises no more of them."""
    with pytest.raises(
        BudgetExhausted, match=r"from this account: quota; what it answered is kept$"
    ):
        give_up(reply(429, "quota"), None, tries=1, secret=None)


def test_throttling_carries_its_wait() -> None:
    """Whoever catches it can wait as long as the target asked."""
    with pytest.raises(ThrottledError) as caught:
        give_up(reply(429), 300.0, tries=1, secret=None)
    assert caught.value.retry_after_s == 300.0
