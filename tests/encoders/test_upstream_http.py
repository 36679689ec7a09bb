"""Promises of one request's edges: addresses, keys, and how long a server asks to wait."""

from __future__ import annotations

import pytest

from tollkeeper.encoders.upstream_http import (
    asked_wait,
    backoff,
    base_address,
    bearer,
    is_passing,
)
from tollkeeper.errors import ConfigurationError

AT_SEVEN = "Wed, 21 Oct 2026 07:00:00 GMT"
AT_HALF_PAST = "Wed, 21 Oct 2026 07:30:00 GMT"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 0.25),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
        ({"retry-after": AT_HALF_PAST, "date": AT_SEVEN}, 1800.0),
        ({"retry-after": AT_SEVEN, "date": AT_HALF_PAST}, 0.25),
        ({"retry-after": AT_HALF_PAST}, 0.25),
        ({"retry-after": AT_HALF_PAST, "date": "today"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2026 07:30:00", "date": AT_SEVEN}, 0.25),
        ({"retry-after": "-1", "date": AT_SEVEN}, 0.25),
        ({"retry-after": "nan"}, 0.25),
        ({"retry-after": "9", "x-should-retry": "false"}, None),
        ({"retry-after": "9", "x-should-retry": "true"}, 9.0),
    ],
)
def test_the_wait_that_a_server_asks_for(headers: dict[str, str], expected: float | None) -> None:
    """Seconds, milliseconds and dates are understood, nonsense is not, and a plain no is None."""
    assert asked_wait(headers, default=0.25) == expected


def test_waits_double() -> None:
    """Without a word of the server's the first wait is half a second."""
    assert [backoff(retry) for retry in range(4)] == [0.5, 1.0, 2.0, 4.0]


def test_only_overload_and_failure_may_pass() -> None:
    """Trying again is for 408, 424, 429 and 5xx."""
    found = [status for status in range(200, 600) if is_passing(status)]
    assert found == [408, 424, 429, *range(500, 600)]


def test_addresses_and_keys_name_whose_they_are() -> None:
    """The last slash is dropped, and what cannot be used is refused without quoting secrets."""
    assert base_address("https://host/v1/", whose="target") == "https://host/v1"
    assert bearer(None, whose="target") == {}
    assert bearer("sk-1", whose="target") == {"authorization": "Bearer sk-1"}
    with pytest.raises(ConfigurationError, match="target's address without user"):
        base_address("https://user:secret@host/v1", whose="target")
    with pytest.raises(ConfigurationError, match="upstream's API key"):
        bearer("schlüssel", whose="upstream")
