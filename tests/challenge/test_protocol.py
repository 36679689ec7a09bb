"""Promises of challenges and proofs: only a paid one holds, and each fault has its code."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tollkeeper.challenge import puzzle as puzzles
from tollkeeper.challenge.protocol import (
    LONGEST_LIFE_S,
    MAX_PROOF_CHARS,
    Challenge,
    Issuer,
    Proof,
    body_digest,
    stamp,
)
from tollkeeper.challenge.puzzle import HashPuzzle, ScryptPuzzle
from tollkeeper.challenge.solve import solve
from tollkeeper.client.offers import offered
from tollkeeper.errors import ProofError

PAGE = Path(__file__).parents[2] / "docs" / "challenge.md"
SECRET = bytes(range(32))
NOW = 1.8e9
BODY = b'{"input": "a"}'


def counting() -> Callable[[int], bytes]:
    """Return entropy that repeats nothing."""
    numbers = iter(range(10**9))
    return lambda size: next(numbers).to_bytes(size, "big")


ISSUER = Issuer(SECRET, entropy=counting())


def issued(puzzle: Any = None, **changes: Any) -> Challenge:
    """Return a challenge for `acme` and the body above."""
    given = {
        "account": "acme",
        "policy": "p1",
        "digest": body_digest(BODY),
        "expires_at": NOW + 60,
        **changes,
    }
    return ISSUER.issue(puzzle or HashPuzzle.of(300, ISSUER.salt()), **given)


def verified(token: str, **changes: Any) -> Proof:
    """Verify as the gateway does for `acme` and the body above."""
    given = {
        "account": "acme",
        "policy": "p1",
        "digest": lambda: body_digest(BODY),
        "now": NOW,
        **changes,
    }
    return ISSUER.verify(token, **given)


def code(token: str, **changes: Any) -> str:
    """Return why a proof does not hold."""
    with pytest.raises(ProofError) as caught:
        verified(token, **changes)
    text = str(caught.value)
    assert "\n" not in text
    assert "acme" not in text
    assert caught.value.code is not None
    return caught.value.code


GOOD = issued()
TOKEN = GOOD.proof(solve(GOOD.puzzle))
PARTS = TOKEN.split(".")


def token(**changes: str) -> str:
    """Return the good proof with some of its parts changed."""
    names = ("id", "request", "expires", "digest", "solution")
    return ".".join(changes.get(name, part) for name, part in zip(names, PARTS, strict=True))


# What holds ---------------------------------------------------------------------------------------


def test_a_paid_proof_holds() -> None:
    """It tells what was paid, until when it counts, and that it is for one request."""
    proof = verified(TOKEN)
    assert proof == Proof(GOOD.id, "sha-256", 300, is_pass=False, expires_at=NOW + 60)


def test_a_memory_hard_proof_holds_without_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checking one costs the server no memory."""
    made = ScryptPuzzle.make(ISSUER.salt(), 10**6, secret=SECRET, n=16).over(3, 2)
    paid = issued(made).proof(solve(made))

    def no(*_: object, **__: object) -> bytes:
        raise AssertionError("verifying runs scrypt")

    monkeypatch.setattr(puzzles, "scrypt", no)
    assert verified(paid)[1:4] == ("scrypt", 3, False)
    assert code(paid[:-1]) == "proof_unsolved"


def test_a_pass_holds_for_any_body() -> None:
    """Nothing of the body is looked at."""
    one = issued(digest="")
    proof = verified(one.proof(solve(one.puzzle)), digest=lambda: pytest.fail("not asked for"))
    assert proof.is_pass


def test_replicas_with_one_secret_understand_each_other() -> None:
    """What one issued another takes; one with another secret does not."""
    given: Any = {"account": "acme", "policy": "p1", "digest": lambda: body_digest(BODY)}
    other = Issuer(SECRET, entropy=bytes)
    assert other.verify(TOKEN, **given, now=NOW) == verified(TOKEN)
    with pytest.raises(ProofError) as caught:
        Issuer(bytes(32), entropy=bytes).verify(TOKEN, **given, now=NOW)
    assert caught.value.code == "proof_forged"


def test_no_two_challenges_are_alike() -> None:
    """Salts come from the entropy that is handed in, 12 bytes of it."""
    assert issued().id != issued().id
    sizes: list[int] = []

    def entropy(size: int) -> bytes:
        sizes.append(size)
        return bytes(size)

    issuer = Issuer(SECRET, entropy=entropy)
    assert issuer.salt() == "A" * 16
    assert sizes == [12]


def test_the_account_is_not_named() -> None:
    """A challenge shows a tag of twelve characters, another one for another account."""
    tags = [
        json.loads(urlsafe_b64decode(issued(account=a).request + "=="))["account"] for a in "ab"
    ]
    assert len(set(tags)) == 2
    assert all(re.fullmatch("[0-9a-f]{12}", tag) for tag in tags)


@given(st.text())
def test_any_account_and_policy_can_be_charged(name: str) -> None:
    """Names of any characters are told apart, half characters too."""
    one = issued(HashPuzzle("salt", 2**48, 1), account=name + "\ud800", policy="p")
    assert verified(one.proof("0"), account=name + "\ud800", policy="p").work == 1
    assert code(one.proof("0"), account=name, policy="p") == "proof_wrong_account"


# What does not hold -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "proof_malformed"),
        ("....", "proof_forged"),
        (".".join(PARTS[:4]), "proof_malformed"),
        (TOKEN + ".", "proof_malformed"),
        (TOKEN[: len(TOKEN) // 2], "proof_malformed"),
        ("a" * (MAX_PROOF_CHARS + 1), "proof_too_large"),
        (TOKEN + "0" * MAX_PROOF_CHARS, "proof_too_large"),
        ("a" * MAX_PROOF_CHARS, "proof_malformed"),
        (token(id="0" * 64), "proof_forged"),
        (token(id=GOOD.id[:-1]), "proof_forged"),
        (token(id=GOOD.id.upper()), "proof_forged"),
        (token(id="ü" * 64), "proof_forged"),
        (token(request=GOOD.request + "A"), "proof_forged"),
        (token(request=issued().request), "proof_forged"),
        (token(expires=stamp(NOW + 61)), "proof_forged"),
        (token(digest=""), "proof_forged"),
        (token(digest="\ud800"), "proof_forged"),
        (token(digest=body_digest(b"other")), "proof_forged"),
        (token(solution=""), "proof_unsolved"),
        (token(solution=PARTS[4][:-1] + "x"), "proof_unsolved"),
        (token(solution="ü-\ud800-0"), "proof_unsolved"),
        (token(solution="0-0-0"), "proof_unsolved"),
        (token(solution=PARTS[4] + "-1"), "proof_unsolved"),
    ],
)
def test_each_damage_has_its_code(text: str, expected: str) -> None:
    """Truncated, oversized, forged, unsolved: the code says which."""
    assert code(text) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"account": "eve"}, "proof_wrong_account"),
        ({"policy": "p2"}, "proof_wrong_policy"),
        ({"digest": lambda: body_digest(b"{}")}, "proof_wrong_body"),
        ({"now": NOW + 60}, "proof_expired"),
        ({"now": NOW + 10**6}, "proof_expired"),
        ({"now": NOW + 60 - LONGEST_LIFE_S - 1}, "proof_expired"),
        ({"now": 0.0}, "proof_expired"),
    ],
)
def test_a_proof_for_something_else_has_its_code(changes: dict[str, Any], expected: str) -> None:
    """Another account, policy, body or time, also of a clock that has jumped."""
    assert code(TOKEN, **changes) == expected


def test_the_last_second_counts() -> None:
    """A proof holds until its expiry, and from the longest life before it."""
    assert verified(TOKEN, now=NOW + 59.9)
    assert verified(TOKEN, now=NOW + 60 - LONGEST_LIFE_S)


def test_forged_proofs_cost_one_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is not ours nothing is decoded, and no body is hashed."""
    monkeypatch.setattr("tollkeeper.challenge.protocol._read", lambda *_: pytest.fail("decoded"))
    assert code(token(id="0" * 64), digest=lambda: pytest.fail("hashed")) == "proof_forged"


@given(st.text())
@example("....")
@example("a.b.c.d.e")
@example("\ud800.\udc00.\x00.ü.-")
def test_any_text_is_a_proof_error(text: str) -> None:
    """Nothing else comes out, whatever a stranger sends."""
    with pytest.raises(ProofError) as caught:
        verified(text)
    assert caught.value.code in {"proof_malformed", "proof_forged", "proof_too_large"}


@given(st.integers(0, len(TOKEN) - 1), st.characters())
def test_any_changed_character_is_a_proof_error(at: int, character: str) -> None:
    """A proof with one character changed does not hold, unless it is another right solution."""
    changed = TOKEN[:at] + character + TOKEN[at + 1 :]
    try:
        verified(changed)
    except ProofError:
        return
    assert changed.rpartition(".")[0] == TOKEN.rpartition(".")[0]
    assert GOOD.puzzle.is_solved(changed.rpartition(".")[2], secret=SECRET)


@given(st.text(max_size=40))
def test_any_solution_is_right_or_a_proof_error(solution: str) -> None:
    """The last part is checked like all others: no text breaks it."""
    for puzzle in (HashPuzzle.of(300, "s"), ScryptPuzzle("s", 0, 3, "p" * 16, "0" * 64)):
        paid = issued(puzzle).proof(solution.replace(".", ""))
        with pytest.raises(ProofError) as caught:
            verified(paid)
        assert caught.value.code == "proof_unsolved"


# The page -----------------------------------------------------------------------------------------


def headers() -> Iterator[str]:
    """Yield the challenges that the page shows in full."""
    section = PAGE.read_text().partition("## Test vectors")[2]
    return iter(re.findall(r"^Payment .*$", section, re.MULTILINE))


def solutions() -> list[str]:
    """Return the solutions that the page gives."""
    return re.findall(
        r"solution (?:is )?`([^`]+)`", PAGE.read_text().partition("## Test vectors")[2]
    )


def the_body() -> bytes:
    """Return the body of the page's test vectors."""
    found = re.search(r"body `([^`]+)`", PAGE.read_text())
    assert found is not None
    return found[1].encode()


def test_the_page_shows_two_challenges() -> None:
    """One of each algorithm, both with a solution."""
    algorithms = [one.puzzle.alg for header in headers() if (one := offered(header))]
    assert algorithms == ["sha-256", "scrypt"]
    assert len(solutions()) == 2


@pytest.mark.parametrize("number", [0, 1])
def test_the_pages_vectors_hold(number: int) -> None:
    """They are read, solved as the page says, signed as it says, and accepted by a server."""
    header, solution = list(headers())[number], solutions()[number]
    one = offered(header)
    assert one is not None
    assert one.header() == header
    assert solve(one.puzzle) == solution
    slots = f"tollkeeper|tollpow|charge|{one.request}|{one.expires}|{one.digest}|"
    assert one.id == hmac.new(SECRET, slots.encode(), hashlib.sha256).hexdigest()
    proof = ISSUER.verify(
        one.proof(solution),
        account="acme",
        policy="00c0ffee",
        digest=lambda: body_digest(the_body()),
        now=NOW - 60,
    )
    assert (proof.is_pass, proof.work) == (not one.digest, one.puzzle.work)


@pytest.mark.parametrize("number", [0, 1])
def test_the_pages_vectors_are_what_is_issued(number: int) -> None:
    """The secret, account and puzzle of the page make its challenges, digit for digit."""
    header = list(headers())[number]
    one = offered(header)
    assert one is not None
    again = ISSUER.issue(
        one.puzzle, account="acme", policy="00c0ffee", digest=one.digest, expires_at=1.8e9
    )
    assert again.header() == header
    shown = re.findall(r"^\{\"account\".*\}$", PAGE.read_text(), re.MULTILINE)[number]
    told = json.loads(urlsafe_b64decode(one.request + "=="))
    assert {name: value for name, value in json.loads(shown).items() if name != "seal"} == {
        name: value for name, value in told.items() if name != "seal"
    }


def test_digests_are_those_of_rfc_9530() -> None:
    """Base64 of the SHA-256 between colons."""
    expected = b64encode(hashlib.sha256(b"x").digest()).decode()
    assert body_digest(b"x") == f"sha-256=:{expected}:"


def test_stamps_sort_as_times() -> None:
    """They are RFC 3339 in UTC, whole seconds, cut off."""
    assert stamp(1.8e9) == "2027-01-15T08:00:00Z"
    assert stamp(1.8e9 + 0.99) == stamp(1.8e9) < stamp(1.8e9 + 1)
