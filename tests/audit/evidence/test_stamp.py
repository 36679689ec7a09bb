"""Promises of time stamps; the replies were made by OpenSSL (fixtures/README.md)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tollkeeper.audit.evidence import der
from tollkeeper.audit.evidence.stamp import External, check, request
from tollkeeper.errors import AuditRefused, EvidenceError

FIXTURES = Path(__file__).parent / "fixtures"
SEEN = hashlib.sha256(b"a head").digest()
NONCE = 2**63 + 5


def fixture(name: str) -> bytes:
    """Return a file."""
    return (FIXTURES / name).read_bytes()


def test_the_query_is_what_openssl_reads() -> None:
    """The bytes are those that OpenSSL answered."""
    assert request(SEEN, nonce=NONCE) == fixture("query.tsq")


@pytest.mark.parametrize(
    ("reply", "authority"), [("rsa.tsr", "CN=Test authority"), ("ec.tsr", "CN=Test EC authority")]
)
def test_a_reply_of_openssl_holds(reply: str, authority: str) -> None:
    """RSA over a middle certificate, and EC with SHA-512 and the older certificate id."""
    found = check(fixture(reply), SEEN, trusted=fixture("root.pem"), nonce=NONCE)
    assert found.hash == SEEN.hex()
    assert found.at.startswith("2026-11-23T04:")
    assert found.at.endswith("+00:00")
    assert (found.authority, found.root) == (authority, "CN=Test root")


def test_another_hash_another_query_and_another_root_are_refused() -> None:
    """A stamp says one thing, to one query, on the word of one authority."""
    reply, root = fixture("rsa.tsr"), fixture("root.pem")
    with pytest.raises(EvidenceError, match="is of another hash"):
        check(reply, hashlib.sha256(b"another").digest(), trusted=root)
    with pytest.raises(EvidenceError, match="another query"):
        check(reply, SEEN, trusted=root, nonce=NONCE + 1)
    with pytest.raises(EvidenceError, match="no trusted certificate issued that of CN=Test EC"):
        check(fixture("ec.tsr"), SEEN, trusted=fixture("middle.pem"))
    with pytest.raises(EvidenceError, match="did not grant the time stamp: status 2"):
        check(fixture("refused.tsr"), SEEN, trusted=root)


def test_a_middle_certificate_may_be_trusted_itself() -> None:
    """A chain ends where the checking party says."""
    found = check(fixture("rsa.tsr"), SEEN, trusted=fixture("middle.pem"))
    assert found.root == "CN=Test middle"


@pytest.mark.parametrize("name", ["rsa.tsr", "ec.tsr"])
def test_no_changed_byte_changes_what_is_said(name: str) -> None:
    """Whatever byte differs, the stamp is refused, or says exactly what it said before."""
    reply, root = fixture(name), fixture("root.pem")
    whole = check(reply, SEEN, trusted=root)
    refused, places = 0, range(0, len(reply), 5)  # The fifth part of them, for time.
    for at in places:
        changed = bytearray(reply)
        changed[at] ^= 1
        try:
            assert check(bytes(changed), SEEN, trusted=root) == whole
        except EvidenceError:
            refused += 1
    assert refused > 0.8 * len(places)


def test_cut_off_and_foreign_bytes_are_refused() -> None:
    """Neither part of a reply nor something else is one."""
    reply, root = fixture("ec.tsr"), fixture("root.pem")
    for bad in (b"", b"\x30", reply[:-1], reply + b"\0", b"<html>", root, fixture("query.tsq")):
        with pytest.raises(EvidenceError):
            check(bad, SEEN, trusted=root)


def test_unusable_settings_are_refused() -> None:
    """No hash, a negative nonce and no certificate are clear errors."""
    with pytest.raises(AuditRefused, match="32 bytes, got 5"):
        request(b"short", nonce=1)
    with pytest.raises(AuditRefused, match="nonce of at least 0"):
        request(SEEN, nonce=-1)
    with pytest.raises(AuditRefused, match="trusted certificates in PEM"):
        check(fixture("ec.tsr"), SEEN, trusted=b"none")


def test_other_proofs_of_date_are_bound_to_the_hash() -> None:
    """They are kept by their own hash, and not checked here."""
    found = External.of(SEEN, kind="publication", proof=b"page", note="The Daily, page 7")
    assert found.hash == SEEN.hex()
    assert found.proof == hashlib.sha256(b"page").hexdigest()


@pytest.mark.parametrize(
    "data",
    [
        b"\x02\x81\x05\1\1\1\1\1",  # A long form of a short length
        b"\x02\x82\x00\x80" + bytes(128),  # A leading zero
        b"\x02\x80\0\0",  # Without a length
        b"\x1f\x01\0",  # A long tag
        b"\x02\x05\1",
        b"\x02",
        b"\x02\x01\1\1",
        b"\x02\x85\1\0\0\0\0",
    ],
)
def test_der_has_one_spelling(data: bytes) -> None:
    """Lengths that are not the shortest, long tags and cut-off values are refused."""
    with pytest.raises(EvidenceError):
        der.read(data)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 255, 256, 2**63 + 5, 2**1100])
def test_der_integers_come_back(number: int) -> None:
    """Also those whose first bit would be a sign, and those of long lengths."""
    assert der.read(der.write_integer(number)).integer() == number
