"""Promises of commitments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tollkeeper.audit.evidence.canonical import digest
from tollkeeper.audit.evidence.commitment import Commitment, read, write
from tollkeeper.audit.evidence.keys import Signer, create
from tollkeeper.audit.evidence.seeds import seal
from tollkeeper.errors import AuditRefused, EvidenceError

SEED, KEY = b"v" * 32, b"k" * 32


@pytest.fixture
def commitment(signer: Signer) -> Commitment:
    """Return one with everything in it."""
    names = ("code", "weights", "preprocessing", "references")
    return Commitment(
        claim="claim-1",
        roots={"pool": digest(b"pool")},
        seeds={"views": seal(SEED, name="views")},
        hashes={name: digest(name.encode()) for name in names},
        alpha=0.001,
        decision={"test": "sign-flip", "views": 6},
        owner=signer.public,
        made_at="2027-01-15T08:00:00.000000+00:00",
        keys={"rotation": seal(KEY, name="rotation")},
    )


def test_it_survives_the_disk(commitment: Commitment, signer: Signer, tmp_path: Path) -> None:
    """What was written is read, with the same digest."""
    write(tmp_path / "c.json", commitment, signer)
    found = read(tmp_path / "c.json")
    assert found == commitment
    assert found.digest == commitment.digest == digest(commitment.to_bytes())


def test_any_changed_byte_is_found(commitment: Commitment, signer: Signer, tmp_path: Path) -> None:
    """Each byte of the file matters."""
    path = tmp_path / "c.json"
    write(path, commitment, signer)
    whole = path.read_bytes()
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 0x20 if chr(whole[at]).isalpha() else 0x01  # Hex parsers often pass A for a.
        path.write_bytes(changed)
        with pytest.raises(EvidenceError):
            read(path)


def test_seeds_and_keys_are_shown_against_their_seals(commitment: Commitment) -> None:
    """The right secret passes; another one, or one under another name, does not."""
    commitment.unseal("views", SEED)
    commitment.unseal_key("rotation", KEY)
    with pytest.raises(EvidenceError, match="does not match its commitment"):
        commitment.unseal("views", KEY)
    with pytest.raises(EvidenceError, match="does not match its commitment"):
        commitment.unseal_key("rotation", SEED)
    renamed = replace(commitment, seeds={"coins": commitment.seeds["views"]})
    with pytest.raises(EvidenceError, match="does not match its commitment"):
        renamed.unseal("coins", SEED)


def test_a_key_made_afterwards_is_refused(commitment: Commitment) -> None:
    """What was not committed cannot be shown, whatever it fits."""
    with pytest.raises(EvidenceError, match="no watermark key named 'sslguard' was committed"):
        commitment.unseal_key("sslguard", KEY)
    with pytest.raises(EvidenceError, match="no root named 'held'"):
        commitment.root("held")


def test_hashes_are_compared(commitment: Commitment) -> None:
    """Other code than the committed is named."""
    commitment.match("code", digest(b"code"))
    with pytest.raises(EvidenceError, match="the code do not match"):
        commitment.match("code", digest(b"other"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"alpha": 0.05}, "alpha must be"),
        ({"alpha": float("nan")}, "alpha must be"),
        ({"alpha": "0.001"}, "alpha must be"),
        ({"claim": " "}, "claim must be"),
        ({"decision": {}}, "decision must tell"),
        ({"roots": {}}, "no Merkle root"),
        ({"roots": {"pool": "AB" * 32}}, "roots.pool"),
        ({"hashes": {}}, "lack code, weights, preprocessing, references"),
        ({"seeds": [1]}, "seeds must map"),
        ({"owner": "me"}, "owner.key"),
        ({"made_at": 5}, "made_at must be"),
    ],
)
def test_what_is_missing_is_told(
    commitment: Commitment, changes: dict[str, Any], told: str
) -> None:
    """A commitment that leaves something open is none."""
    with pytest.raises(EvidenceError, match=told):
        replace(commitment, **changes)


def test_it_is_never_replaced(commitment: Commitment, signer: Signer, tmp_path: Path) -> None:
    """A second commitment needs a second file, and a foreign key signs neither."""
    write(tmp_path / "c.json", commitment, signer)
    with pytest.raises(AuditRefused, match="cannot write the commitment"):
        write(tmp_path / "c.json", replace(commitment, claim="claim-2"), signer)
    with pytest.raises(AuditRefused, match="the key is"):
        write(tmp_path / "d.json", commitment, create(tmp_path / "other.pem"))


def test_a_foreign_signature_is_refused(
    commitment: Commitment, signer: Signer, tmp_path: Path
) -> None:
    """A commitment under another's signature is not its owner's."""
    other = create(tmp_path / "other.pem")
    path = tmp_path / "c.json"
    write(path, replace(commitment, owner=other.public), other)
    forged = path.read_bytes().replace(other.public.encode(), signer.public.encode())
    path.write_bytes(forged)
    with pytest.raises(EvidenceError, match="signature of commitment does not hold"):
        read(path)
