"""Ed25519 keys (RFC 8032) that sign logs and commitments."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tollkeeper.audit.evidence.canonical import digest, unhex
from tollkeeper.errors import AuditRefused, EvidenceError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_BYTES, SIGNATURE_BYTES = 32, 64
_DOMAIN = b"tollkeeper\0"


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs.

    Attributes:
        private: the secret half.
        public: the public half, 64 hex digits.
    """

    private: Ed25519PrivateKey = field(repr=False)
    public: str

    @classmethod
    def of(cls, private: Ed25519PrivateKey) -> Signer:
        """Return the signer of a private key."""
        return cls(private, private.public_key().public_bytes_raw().hex())

    def sign(self, message: bytes, *, purpose: str) -> str:
        """Return the signature of a message as 128 hex digits.

        Args:
            message: any bytes.
            purpose: a signature made for one purpose never passes for another.
        """
        return self.private.sign(_bound(message, purpose)).hex()


def create(path: Path) -> Signer:
    """Make a key and write it to a new file that only its owner may read.

    Raises:
        AuditRefused: the file exists or cannot be written.
    """
    _needs_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            os.fsync(file.fileno())
    except OSError as error:
        raise AuditRefused(f"cannot write a new key to {path}: {error}") from error
    return Signer.of(private)


def load(path: Path) -> Signer:
    """Read the key that `create` or `openssl genpkey -algorithm ed25519` wrote.

    Raises:
        AuditRefused: it cannot be read or is no Ed25519 key in PEM without a password.
    """
    _needs_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise AuditRefused(f"cannot use the key {path}: {error}") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise AuditRefused(f"expected an Ed25519 key in {path}, got {type(private).__name__}")
    return Signer.of(private)


def check(signature: object, message: bytes, *, public: object, purpose: str) -> None:
    """Check a signature.

    Args:
        signature: 128 hex digits.
        message: what was signed.
        public: 64 hex digits of the public key.
        purpose: as it was signed.

    Raises:
        EvidenceError: it does not hold.
    """
    _needs_cryptography()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    raw = unhex(public, what="a public key", size=KEY_BYTES)
    given = unhex(signature, what=f"the signature of {purpose}", size=SIGNATURE_BYTES)
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(given, _bound(message, purpose))
    except (InvalidSignature, ValueError) as error:
        raise EvidenceError(
            f"the signature of {purpose} does not hold for the key {raw.hex()}"
        ) from error


def fingerprint(public: str) -> str:
    """Return 16 hex digits by which people compare keys."""
    return digest(unhex(public, what="a public key", size=KEY_BYTES))[:16]


def _bound(message: bytes, purpose: str) -> bytes:
    return _DOMAIN + purpose.encode() + b"\0" + message


def _needs_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ModuleNotFoundError as error:
        raise AuditRefused(
            "keys and signatures need an extra: pip install 'tollkeeper[audit]'"
        ) from error
