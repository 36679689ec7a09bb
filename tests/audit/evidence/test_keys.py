"""Promises of keys and signatures."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tollkeeper.audit.evidence.keys import Signer, check, create, fingerprint, load
from tollkeeper.errors import AuditRefused, EvidenceError


def test_a_key_survives_the_disk_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    """The file is private, and what it signs holds for the public half."""
    made = create(tmp_path / "key.pem")
    found = load(tmp_path / "key.pem")

    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    assert found.public == made.public
    check(found.sign(b"text", purpose="log"), b"text", public=made.public, purpose="log")


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    """A second key needs a second file."""
    create(tmp_path / "key.pem")
    with pytest.raises(AuditRefused, match="cannot write a new key"):
        create(tmp_path / "key.pem")


def test_a_signature_holds_for_one_text_one_purpose_and_one_key(
    signer: Signer, tmp_path: Path
) -> None:
    """Anything else is refused, and so is another spelling of the signature."""
    signed = signer.sign(b"text", purpose="log")
    other = create(tmp_path / "other.pem").public
    for signature, message, public, purpose in (
        (signed, b"text!", signer.public, "log"),
        (signed, b"text", signer.public, "commitment"),
        (signed, b"text", other, "log"),
        (signed.upper(), b"text", signer.public, "log"),
        (signed[:-2], b"text", signer.public, "log"),
        (None, b"text", signer.public, "log"),
        (signed, b"text", "ff" * 32, "log"),
        (signed, b"text", 5, "log"),
    ):
        with pytest.raises(EvidenceError):
            check(signature, message, public=public, purpose=purpose)


def test_the_secret_is_not_shown(signer: Signer) -> None:
    """The text form of a signer holds only its public half."""
    assert signer.public in repr(signer)
    assert "private" not in repr(signer)


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    """A missing file, other text and a key of another kind are clear errors."""
    (tmp_path / "text.pem").write_text("no key")
    curve = generate_private_key(SECP256R1())
    pem = curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "curve.pem").write_bytes(pem)
    for name, told in (
        ("absent.pem", "cannot use the key"),
        ("text.pem", "cannot use the key"),
        ("curve.pem", "expected an Ed25519 key"),
    ):
        with pytest.raises(AuditRefused, match=told):
            load(tmp_path / name)


def test_fingerprints_tell_keys_apart(signer: Signer, tmp_path: Path) -> None:
    """They are short, and of one key always the same."""
    assert len(fingerprint(signer.public)) == 16
    assert fingerprint(signer.public) == fingerprint(signer.public)
    assert fingerprint(signer.public) != fingerprint(create(tmp_path / "other.pem").public)
