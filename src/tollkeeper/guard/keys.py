"""Secrets: derived from one master key, never stored.

HKDF-SHA256 (RFC 5869). Every value the guard must keep secret (hyperplanes, tenant
keys, noise keys, transforms) is named by a purpose and its parts; the same name
always yields the same bytes, on every replica and after every restart.
"""

from __future__ import annotations

import hashlib
import hmac

from tollkeeper.errors import GuardError

_HASH_BYTES = hashlib.sha256().digest_size
_MIN_MASTER_BYTES = 16


def derive(master: bytes, purpose: str, *parts: str | int, length: int = 32) -> bytes:
    """Return `length` secret bytes named by `purpose` and `parts`.

    Two different names never give the same input to the hash: each part carries its
    type and its length, so ("ab", "c") is not ("a", "bc") and 1 is not "1".

    Args:
        master: secret key material, at least 16 bytes.
        purpose: what the secret is for, for example `"tenant"`.
        parts: whatever else the secret depends on: tenant, model, dims, version.
        length: bytes wanted, 1 to 8160.

    Raises:
        GuardError: the master key is too short or the length out of range.
    """
    if len(master) < _MIN_MASTER_BYTES:
        raise GuardError(
            f"expected a secret of at least {_MIN_MASTER_BYTES} bytes, got {len(master)}"
        )
    info = b"tollkeeper" + b"".join(_encode(part) for part in (purpose, *parts))
    return hkdf_sha256(master, salt=b"", info=info, length=length)


def hkdf_sha256(material: bytes, *, salt: bytes, info: bytes, length: int) -> bytes:
    """Extract and expand key material as RFC 5869 says.

    Args:
        material: input key material.
        salt: not secret; empty means a hash length of zeros.
        info: names the output.
        length: output bytes, 1 to 8160.

    Raises:
        GuardError: the length is out of range.
    """
    if not 1 <= length <= 255 * _HASH_BYTES:
        raise GuardError(f"expected a length from 1 to {255 * _HASH_BYTES} bytes, got {length}")
    pseudorandom = hmac.digest(salt or bytes(_HASH_BYTES), material, "sha256")
    block, output = b"", b""
    for counter in range(1, -(-length // _HASH_BYTES) + 1):
        block = hmac.digest(pseudorandom, block + info + bytes([counter]), "sha256")
        output += block
    return output[:length]


def _encode(part: str | int) -> bytes:
    """Return `part` with a type letter and its length in front."""
    if isinstance(part, int):
        kind, body = b"i", str(int(part)).encode("ascii")
    else:
        kind, body = b"s", part.encode("utf-8", errors="surrogatepass")
    return kind + len(body).to_bytes(8, "big") + body
