"""Promises of refusals: one line each, of the right kind, without the credential."""

from __future__ import annotations

import msgspec
import pytest

from tollkeeper.client.refusals import LOST, give_up, refuse
from tollkeeper.encoders.upstream_http import Reply
from tollkeeper.errors import (
    AuthenticationError,
    EncoderError,
    InputError,
    ModelNotFoundError,
    RefusalError,
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
        (403, RefusalError, "refuses this account"),
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
        (reply(429, "quota"), None, RefusalError, "takes no more from this account: quota"),
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


def test_throttling_carries_its_wait() -> None:
    """Whoever catches it can wait as long as the target asked."""
    with pytest.raises(ThrottledError) as caught:
        give_up(reply(429), 300.0, tries=1, secret=None)
    assert caught.value.retry_after_s == 300.0
