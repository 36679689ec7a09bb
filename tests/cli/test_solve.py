"""Promises of `tollkeeper solve`: a proof on stdout, or one line on stderr."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from tollkeeper.challenge.protocol import Challenge, Issuer
from tollkeeper.challenge.puzzle import HashPuzzle

ISSUER = Issuer(bytes(32), entropy=bytes)


def challenge(work: int) -> Challenge:
    """Return a pass's challenge."""
    puzzle = HashPuzzle.of(work, "salt")
    return ISSUER.issue(puzzle, account="a", policy="p", digest="", expires_at=1.8e9)


def is_paid(token: str) -> bool:
    """Return whether a proof holds."""
    proof = ISSUER.verify(token, account="a", policy="p", digest=str, now=1.8e9 - 60)
    return proof.is_pass


def test_the_proof_is_all_that_is_printed(cli: Callable[..., Any]) -> None:
    """It can be given to another program as it is."""
    done = cli("solve", challenge(3000).header(), "--processes", "0")
    assert (done.status, done.err, done.out.count("\n")) == (0, "", 1)
    assert is_paid(done.out.strip())


def test_a_challenge_may_come_from_stdin(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Line breaks around it do no harm; machines are told what it took."""
    monkeypatch.setattr("sys.stdin", io.StringIO(f"Bearer,\n {challenge(3000).header()}\n"))
    told = json.loads(cli("solve", "-", "--json").out)
    assert sorted(told) == ["evaluations", "proof", "seconds"]
    assert is_paid(told["proof"])
    assert told["evaluations"] > 0


@pytest.mark.parametrize("text", ["", "Bearer", "Payment id=1", "ü\x00", 'Payment id="'])
def test_what_is_no_challenge_is_one_line(cli: Callable[..., Any], text: str) -> None:
    """Bad input exits with 2 and says what was expected."""
    done = cli("solve", text)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert "expected the value of WWW-Authenticate" in done.err


def test_what_takes_too_long_is_declined(cli: Callable[..., Any]) -> None:
    """The cap is named, and how long it would have taken."""
    done = cli("solve", challenge(10**13).header(), "--max-seconds", "1")
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert "the cap is 1 s" in done.err
