"""Time stamps of RFC 3161: an authority signs that it saw a hash at a time.

`request` makes what is posted to an authority as `application/timestamp-query`; `check` checks its
reply against certificates that the checking party trusts. `openssl ts` makes and checks the same
files. What should be stamped is the hash of a log's head (`log.Head`), before the first release.

A second, independent proof of date (a transparency log, a newspaper, OpenTimestamps) is a file
that others can check by its own tools; `External` only binds it to the hash.

References:
    Adams et al., "Internet X.509 Public Key Infrastructure Time-Stamp Protocol", RFC 3161, 2001;
    Housley, "Cryptographic Message Syntax", RFC 5652, 2009; Santesson and Pope, "ESSCertIDv2
    Update for RFC 3161", RFC 5816, 2010.

Notes:
    Revocation is not looked up: it needs the network, and a later revocation for key compromise is
    for people to judge. Signers with RSA (PKCS 1 v1.5) and ECDSA keys are checked, others refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tollkeeper.audit.evidence import der
from tollkeeper.audit.evidence.canonical import HASH_BYTES, digest
from tollkeeper.audit.evidence.der import Value
from tollkeeper.errors import AuditRefused, EvidenceError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_SHA256 = "2.16.840.1.101.3.4.2.1"
_SIGNED_DATA = "1.2.840.113549.1.7.2"
_TST_INFO = "1.2.840.113549.1.9.16.1.4"
_CONTENT_TYPE = "1.2.840.113549.1.9.3"
_MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
_SIGNING_CERTIFICATE = "1.2.840.113549.1.9.16.2.12"
_SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.47"
_TIME_STAMPING = "1.3.6.1.5.5.7.3.8"

_HASHES = {
    der.write_oid(oid): name
    for oid, name in (
        (_SHA256, "sha256"),
        ("2.16.840.1.101.3.4.2.2", "sha384"),
        ("2.16.840.1.101.3.4.2.3", "sha512"),
    )
}
_GRANTED = {0, 1}
_TAG_0 = 0xA0
_LONGEST_CHAIN = 8


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an authority signed, after every check.

    Attributes:
        hash: what it saw, 64 hex digits.
        at: when, ISO 8601 in UTC.
        serial: of the stamp.
        authority: subject of its certificate.
        root: subject of the trusted certificate that its chain ends in.
    """

    hash: str
    at: str
    serial: int
    authority: str
    root: str


@dataclass(frozen=True, slots=True)
class External:
    """A proof of date of another kind, checked by its own tools and not here.

    Attributes:
        hash: what it is of, 64 hex digits.
        kind: for example `opentimestamps` or `publication`.
        proof: SHA-256 of the proof's file.
        note: where to look it up.
    """

    hash: str
    kind: str
    proof: str
    note: str

    @classmethod
    def of(cls, seen: bytes, *, kind: str, proof: bytes, note: str) -> External:
        """Bind a proof to the 32-byte hash that it is of."""
        return cls(_sized(seen).hex(), kind, digest(proof), note)


def request(seen: bytes, *, nonce: int) -> bytes:
    """Return a time-stamp query in DER that asks for the authority's certificate too.

    Args:
        seen: SHA-256 to be stamped, 32 bytes.
        nonce: at random, at least 0; the reply has to repeat it.

    Raises:
        AuditRefused: no hash, or a negative nonce.
    """
    if nonce < 0:
        raise AuditRefused(f"expected a nonce of at least 0, got {nonce}")
    return der.write(
        der.SEQUENCE,
        der.write_integer(1),
        der.write(
            der.SEQUENCE,
            der.write(der.SEQUENCE, der.write_oid(_SHA256), der.write(der.NULL)),
            der.write(der.OCTETS, _sized(seen)),
        ),
        der.write_integer(nonce),
        der.write(der.BOOLEAN, b"\xff"),
    )


def stamped(reply: bytes) -> bytes:
    """Return the SHA-256 that a reply claims to be of; `check` tells whether that holds.

    Raises:
        EvidenceError: it holds no time stamp of a SHA-256.
    """
    try:
        content, _ = _token(reply)
        _, _, imprint, *_ = der.read(content).expect(der.SEQUENCE).children()
        found = imprint.children()[1].expect(der.OCTETS).content
    except (ValueError, IndexError) as error:
        raise EvidenceError(f"a time stamp cannot be read: {error}") from error
    if len(found) != HASH_BYTES:
        raise EvidenceError(f"the time stamp is of a hash of {len(found)} bytes, not a SHA-256")
    return found


def check(reply: bytes, seen: bytes, *, trusted: bytes, nonce: int | None = None) -> Stamp:
    """Check a reply to a query.

    Args:
        reply: as the authority sent it, DER.
        seen: the 32 bytes that should be stamped.
        trusted: one or more certificates in PEM in which the authority's chain must end.
        nonce: of the query; None does not compare it.

    Raises:
        EvidenceError: it is of another hash or query, was changed, or no trusted party signed it.
        AuditRefused: `trusted` holds no certificate.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    unreadable = (UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension)
    try:
        roots = x509.load_pem_x509_certificates(trusted)
    except ValueError as error:
        raise AuditRefused(f"expected trusted certificates in PEM: {error}") from error
    try:
        content, signed = _token(reply)
        info = _info(content, seen, nonce)
        signer, others = _signer(signed)
        _check_signature(signed, content, signer)
        root = _chain(signer, others, roots, at=info.at)
    except (ValueError, TypeError, IndexError, *unreadable) as error:
        raise EvidenceError(f"a time stamp cannot be read: {error}") from error
    names = signer.subject.rfc4514_string(), root.subject.rfc4514_string()
    return Stamp(seen.hex(), info.at.isoformat(), info.serial, *names)


@dataclass(frozen=True, slots=True)
class _Info:
    at: datetime
    serial: int


def _sized(seen: bytes) -> bytes:
    if len(seen) != HASH_BYTES:
        raise AuditRefused(f"expected a SHA-256 of {HASH_BYTES} bytes, got {len(seen)}")
    return seen


def _token(reply: bytes) -> tuple[bytes, list[Value]]:
    """Return the stamped content and the parts of SignedData (RFC 5652, section 5.1)."""
    status, *token = der.read(reply).expect(der.SEQUENCE).children()
    code = status.children()[0].integer()
    if code not in _GRANTED or not token:
        raise EvidenceError(f"the authority did not grant the time stamp: status {code}")
    kind, wrapped = token[0].expect(der.SEQUENCE).children()
    signed = wrapped.expect(_TAG_0).children()[0].expect(der.SEQUENCE).children()
    inner, holder = signed[2].expect(der.SEQUENCE).children()
    kinds = (kind.whole, inner.whole)
    if kinds != (der.write_oid(_SIGNED_DATA), der.write_oid(_TST_INFO)):
        raise EvidenceError("the reply holds something else than a time stamp")
    return holder.expect(_TAG_0).children()[0].expect(der.OCTETS).content, signed


def _info(content: bytes, seen: bytes, nonce: int | None) -> _Info:
    """Return time and serial number of a TSTInfo (RFC 3161, section 2.4.2) of the right hash."""
    _, _, imprint, serial, at, *others = der.read(content).expect(der.SEQUENCE).children()
    algorithm, hashed = imprint.children()
    named = algorithm.children()[0].whole
    if named != der.write_oid(_SHA256) or hashed.expect(der.OCTETS).content != seen:
        raise EvidenceError(
            f"the time stamp is of another hash: expected {seen.hex()}, got {hashed.content.hex()}"
        )
    nonces = [each.integer() for each in others if each.tag == der.INTEGER]
    if nonce is not None and nonces != [nonce]:
        raise EvidenceError(f"the time stamp answers another query: nonce {nonces}")
    text = at.expect(der.TIME).content.decode("ascii")
    form = "%Y%m%d%H%M%S.%fZ" if "." in text else "%Y%m%d%H%M%SZ"
    return _Info(datetime.strptime(text, form).replace(tzinfo=UTC), serial.integer())


def _signer(signed: list[Value]) -> tuple[Certificate, list[Certificate]]:
    """Return the certificate that the signature names, and all that came along."""
    from cryptography import x509

    sent = [each for each in signed[3:-1] if each.tag == _TAG_0]
    found = [
        x509.load_der_x509_certificate(each.whole)
        for holder in sent
        for each in holder.children()
        if each.tag == der.SEQUENCE
    ]
    named = _signer_info(signed)[1]
    for each in found:
        issuer = each.issuer.public_bytes()
        if named.content == issuer + der.write_integer(each.serial_number):
            return each, found
    raise EvidenceError("the time stamp came without its authority's certificate")


def _signer_info(signed: list[Value]) -> list[Value]:
    """Return the parts of the one SignerInfo (RFC 5652, section 5.3)."""
    infos = signed[-1].expect(der.SET).children()
    if len(infos) != 1:
        raise EvidenceError(f"a time stamp has one signature, got {len(infos)}")
    return infos[0].expect(der.SEQUENCE).children()


def _check_signature(signed: list[Value], content: bytes, signer: Certificate) -> None:
    """Check that the certificate's key signed attributes that name content and certificate."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

    _, _, algorithm, attributes, _, signature, *_ = _signer_info(signed)
    name = _hash_name(algorithm)
    _check_attributes(attributes.expect(_TAG_0), content, name, signer)
    # What was signed is the set itself, not its place in the structure (RFC 5652, section 5.4).
    message = bytes([der.SET]) + attributes.whole[1:]
    used: hashes.HashAlgorithm = getattr(hashes, name.upper())()
    given = signature.expect(der.OCTETS).content
    key = signer.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(given, message, padding.PKCS1v15(), used)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(given, message, ec.ECDSA(used))
        else:
            raise EvidenceError(f"a time stamp by a {type(key).__name__} cannot be checked here")
    except InvalidSignature as error:
        raise EvidenceError("the time stamp's signature does not hold") from error


def _hash_name(algorithm: Value) -> str:
    oid = algorithm.expect(der.SEQUENCE).children()[0].whole
    if oid not in _HASHES:
        raise EvidenceError("the time stamp uses a hash other than SHA-256, SHA-384 or SHA-512")
    return _HASHES[oid]


def _check_attributes(attributes: Value, content: bytes, name: str, signer: Certificate) -> None:
    """Check type and hash of the content, and that the certificate is the named one."""
    from cryptography.hazmat.primitives.serialization import Encoding

    found: dict[bytes, Value] = {}
    for each in attributes.children():
        kind, values = each.expect(der.SEQUENCE).children()
        found[kind.whole] = values.expect(der.SET).children()[0]
    content_type = found.get(der.write_oid(_CONTENT_TYPE))
    hashed = found.get(der.write_oid(_MESSAGE_DIGEST))
    if content_type is None or content_type.whole != der.write_oid(_TST_INFO):
        raise EvidenceError("the signature is not of a time stamp")
    if hashed is None or hashed.content != hashlib.new(name, content).digest():
        raise EvidenceError("the time stamp was changed: its content does not match")
    raw = signer.public_bytes(Encoding.DER)
    if not any(certificate == want for certificate, want in _named_certificates(found, raw)):
        raise EvidenceError("the time stamp does not name its authority's certificate")


def _named_certificates(found: dict[bytes, Value], raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the certificate's hash as it was signed and as it is (RFC 5816, RFC 2634)."""
    second = found.get(der.write_oid(_SIGNING_CERTIFICATE_V2))
    if second is not None:
        first = second.children()[0].children()[0].children()
        name = _hash_name(first[0]) if first[0].tag == der.SEQUENCE else "sha256"
        hashed = first[1] if first[0].tag == der.SEQUENCE else first[0]
        yield hashed.expect(der.OCTETS).content, hashlib.new(name, raw).digest()
        return
    old = found.get(der.write_oid(_SIGNING_CERTIFICATE))
    if old is not None:
        hashed = old.children()[0].children()[0].children()[0]
        # SHA-1 by the standard; the signature itself covers this hash with a better one.
        yield hashed.content, hashlib.sha1(raw, usedforsecurity=False).digest()


def _chain(
    signer: Certificate, sent: Sequence[Certificate], roots: Sequence[Certificate], *, at: datetime
) -> Certificate:
    """Return the trusted certificate that a chain from the signer ends in."""
    from cryptography import x509

    try:
        purpose = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound as error:
        raise EvidenceError("the authority's certificate is not for time stamps") from error
    if not purpose.critical or [each.dotted_string for each in purpose.value] != [_TIME_STAMPING]:
        raise EvidenceError("the authority's certificate is not for time stamps alone")
    here = signer
    for _ in range(_LONGEST_CHAIN):
        if not here.not_valid_before_utc <= at <= here.not_valid_after_utc:
            raise EvidenceError(
                f"the certificate of {here.subject.rfc4514_string()} was not valid on {at:%Y-%m-%d}"
            )
        if here in roots:
            return here
        above = next((each for each in (*roots, *sent) if _issued(here, each)), None)
        if above is None or above == here:
            break
        here = above
    raise EvidenceError(f"no trusted certificate issued that of {signer.subject.rfc4514_string()}")


def _issued(below: Certificate, above: Certificate) -> bool:
    """Return whether one certificate issued the other and may issue any."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        below.verify_directly_issued_by(above)
        limits = above.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return limits.ca
