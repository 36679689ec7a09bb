"""Promises of reading `WWW-Authenticate`: ours is found among others, and garbage is not ours."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tollkeeper.challenge.protocol import Challenge, Issuer, body_digest
from tollkeeper.challenge.puzzle import HashPuzzle
from tollkeeper.client.offers import offered, parse

ISSUER = Issuer(bytes(range(32)), entropy=bytes)
PUZZLE = HashPuzzle.of(3000, ISSUER.salt())
MINE = ISSUER.issue(PUZZLE, account="acme", policy="p", digest=body_digest(b"{}"), expires_at=1.8e9)


def header(**changes: str | None) -> str:
    """Return our challenge with some parameters changed, or left out if None."""
    told: dict[str, str | None] = {
        "id": MINE.id,
        "realm": "tollkeeper",
        "method": "tollpow",
        "intent": "charge",
        "request": MINE.request,
        "expires": MINE.expires,
        "digest": MINE.digest,
        **changes,
    }
    return "Payment " + ", ".join(f'{k}="{v}"' for k, v in told.items() if v is not None)


def puzzle(**changes: Any) -> str:
    """Return a `request` whose puzzle has some fields changed."""
    fields = {"account": "a", "policy": "p", **PUZZLE.fields(), **changes}
    return urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()


def test_what_an_issuer_writes_is_read() -> None:
    """A header and what is read from it are the same challenge."""
    assert offered(MINE.header()) == MINE
    a_pass = MINE._replace(digest="")
    assert offered(a_pass.header()) == a_pass


@pytest.mark.parametrize(
    "text",
    [
        f'Bearer realm="a, b", {MINE.header()}',
        f"{MINE.header()}, Bearer",
        f"Negotiate, {MINE.header()}",
        f"Negotiate YWJj==, Basic realm=x , {MINE.header()}",
        f',, {MINE.header()} ,, Digest nonce="a\\"b", qop="auth"',
        header(id=None) + ", " + MINE.header(),
        header(method="card") + ", " + MINE.header(),
        MINE.header().replace("Payment", "pAYMENT").replace("request=", "REQUEST = "),
        "Payment " + ", ".join(reversed(MINE.header().removeprefix("Payment ").split(", "))),
        MINE.header() + ', opaque="new", description=word',
        MINE.header().replace('method="tollpow"', "method=tollpow"),
        MINE.header().replace('method="tollpow"', 'method="toll\\pow"'),
    ],
)
def test_ours_is_found_among_others(text: str) -> None:
    """In any order, with unknown parameters, as words or quoted, beside any other scheme."""
    assert offered(text) == MINE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Payment",
        "Bearer realm=tollkeeper",
        header(id=None),
        header(id=""),
        header(request=None),
        header(expires=None),
        header(realm="elsewhere"),
        header(method="card"),
        header(intent="refund"),
        header(id="a.b"),
        header(expires="2027-01-15T08:00:00.5Z"),
        header(digest="a\x00b"),
        header(id="ü"),
        header() + ', id="again"',
        header(request="!!"),
        header(request="AAAA"),
        header(request=puzzle(alg="sha-1")),
        header(request=puzzle(searches=65)),
        header(request=puzzle(searches=True)),
        header(request=puzzle(target=0)),
        header(request=puzzle(target="1")),
        header(request=puzzle(salt="\ud800")),
        header(request=puzzle(padding="a" * 2000)),
        header(request=urlsafe_b64encode(b"[" * 1200).decode().rstrip("=")),
        header(request=urlsafe_b64encode(b"[1]").decode().rstrip("=")),
        header(request=urlsafe_b64encode(b'{"alg":"sha-256","target":' + b"9" * 900).decode()),
        MINE.header()[:-1],
        MINE.header().replace(", ", "; "),
        "Payment " * 5000,
        'Payment a="' + "x" * 100_000,
    ],
)
def test_what_is_not_ours_is_left_alone(text: str) -> None:
    """Other schemes, methods and realms, half a challenge, and puzzles beyond reason."""
    assert offered(text) is None


@pytest.mark.parametrize(
    "memory",
    [
        {"n": 2**20},
        {"n": 3},
        {"r": 0},
        {"cost": 0},
        {"first": -1},
        {"first": 2**52},
        {"prefix": "\n" * 16},
    ],
)
def test_scrypt_beyond_reason_is_left_alone(memory: dict[str, Any]) -> None:
    """A puzzle may not take more memory than is reasonable, nor leave the page's limits."""
    fields: dict[str, Any] = {"alg": "scrypt", "n": 1024, "r": 8, "p": 1, "cost": 3, "first": 1}
    fields |= {"salt": "s", "prefix": "p" * 16, "seal": ""}
    assert offered(header(request=puzzle(**fields))) is not None
    assert offered(header(request=puzzle(**{**fields, **memory}))) is None


@pytest.mark.parametrize(
    ("changes", "is_ours"),
    [
        ({"salt": "A" * 64}, True),
        ({"salt": "A" * 65}, False),
        ({"salt": "\x00"}, False),
        ({"salt": "a\nb"}, False),
        ({"searches": 64, "padding": "a" * 400}, True),
        ({"searches": 64, "padding": "a" * 700}, False),
        ({"searches": 3, "padding": "a" * 700}, True),
    ],
)
def test_the_pages_limits_hold(changes: dict[str, Any], is_ours: bool) -> None:
    """A salt is short and printable, and the longest solution fits into the proof's header."""
    assert (offered(header(request=puzzle(**changes))) is not None) == is_ours


@given(st.text(max_size=300))
@example('a="')
@example("Payment id=")
def test_garbage_raises_nothing(text: str) -> None:
    """Any text is read, and nothing in it is taken for ours."""
    list(parse(text))
    assert offered(text) is None


@given(st.data())
def test_a_damaged_challenge_raises_nothing(data: st.DataObject) -> None:
    """A challenge with characters changed is read as one or left alone."""
    whole = MINE.header()
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at] + data.draw(st.text(max_size=3)) + whole[at + 1 :]
    found = offered(damaged)
    assert found is None or isinstance(found, Challenge)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Basic", "Digest", "X-y"]),
            st.dictionaries(
                st.sampled_from(["a", "b", "realm"]),
                st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=9),
                min_size=1,
            ),
        ),
        max_size=4,
    )
)
def test_quoted_text_is_read_as_it_was_meant(offers: list[tuple[str, dict[str, str]]]) -> None:
    """Commas, quotes and backslashes in a parameter are its own."""

    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = ", ".join(
        scheme + " " + ", ".join(f"{name}={quoted(value)}" for name, value in told.items())
        for scheme, told in offers
    )
    assert [(one.scheme, one.parameters) for one in parse(text)] == [
        (scheme.lower(), told) for scheme, told in offers
    ]
