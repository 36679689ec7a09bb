"""What is fixed before the first query: hashes of everything that could be chosen afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from tollkeeper.audit.evidence.canonical import digest, from_bytes, to_bytes, unhex
from tollkeeper.audit.evidence.keys import Signer, check
from tollkeeper.audit.evidence.seeds import unseal
from tollkeeper.errors import AuditRefused, EvidenceError

VERSION = 1
STRICTEST, LOOSEST = 1e-9, 0.01
_PURPOSE = "commitment"
_HASHES = ("roots", "seeds", "hashes", "keys")
REQUIRED = ("code", "weights", "preprocessing", "references")
"""Names that `hashes` must hold (methods, 10.6)."""


@dataclass(frozen=True, slots=True)
class Commitment:
    """One claim, fixed.

    Every value that is hidden is a SHA-256; what it was is shown when it is needed.

    Attributes:
        claim: identifies it.
        roots: Merkle root by name, for example `pool`.
        seeds: seal of each secret seed (`seeds.seal`) by name.
        hashes: `code`, `weights` (of the victim), `preprocessing`, `references` (recipe or list
            of the reference encoders), and others.
        keys: seal or hash of each watermark's key by name; empty where there is none.
        alpha: chance of a false accusation, after all corrections.
        decision: the rule in JSON values: test, statistic, mode, views, samples, family of
            corrections, whatever the test lets choose.
        owner: public key, 64 hex digits.
        made_at: ISO 8601 in UTC, by the owner's clock; a stamp is what others believe.
    """

    claim: str
    roots: Mapping[str, str]
    seeds: Mapping[str, str]
    hashes: Mapping[str, str]
    alpha: float
    decision: Mapping[str, Any]
    owner: str
    made_at: str
    keys: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every field; all that is wrong is in one message.

        Raises:
            EvidenceError: a field is missing or malformed.
        """
        wrong = [] if _named(self.claim) else ["claim must be a name"]
        wrong += [] if _named(self.made_at) else ["made_at must be a time"]
        for name in _HASHES:
            wrong += _wrong_hashes(name, getattr(self, name))
        wrong += _wrong_hashes("owner", {"key": self.owner})
        if isinstance(self.hashes, Mapping):
            missing = [name for name in REQUIRED if name not in self.hashes]
            wrong += [f"hashes lack {', '.join(missing)}"] if missing else []
        if not self.roots:
            wrong.append("roots hold no Merkle root")
        if not isinstance(self.alpha, float) or not STRICTEST <= self.alpha <= LOOSEST:
            wrong.append(f"alpha must be a number in [{STRICTEST:g}, {LOOSEST:g}]")
        if not isinstance(self.decision, Mapping) or not self.decision:
            wrong.append("decision must tell the rule")
        if wrong:
            raise EvidenceError(f"this is no commitment: {'; '.join(wrong)}")

    @property
    def digest(self) -> str:
        """The hash by which logs and stamps name this commitment."""
        return digest(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the only accepted bytes."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return to_bytes({"version": VERSION, **values})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the commitment that `to_bytes` wrote.

        Raises:
            EvidenceError: it was changed or is malformed.
        """
        told = from_bytes(data, what="the commitment")
        names = {each.name for each in fields(cls)}
        if not isinstance(told, dict) or set(told) != {"version", *names}:
            raise EvidenceError(f"a commitment has version, {', '.join(sorted(names))}")
        if told.pop("version") != VERSION:
            raise EvidenceError(f"expected a commitment of version {VERSION}; use a newer release")
        return cls(**told)

    def unseal(self, name: str, secret: bytes) -> None:
        """Check that a seed is the one committed under `name`.

        Raises:
            EvidenceError: it is not, or none was committed.
        """
        unseal(secret, _found(self.seeds, name, "seed"), name=name)

    def unseal_key(self, name: str, secret: bytes) -> None:
        """Check that a watermark's key is the one committed under `name`.

        Raises:
            EvidenceError: it is not, or none was committed: it may have been made to fit.
        """
        unseal(secret, _found(self.keys, name, "watermark key"), name=name)

    def match(self, name: str, found: str) -> None:
        """Check a hash, for example of the code that runs.

        Raises:
            EvidenceError: it is not the committed one, or none was committed.
        """
        committed = _found(self.hashes, name, "hash")
        if found != committed:
            raise EvidenceError(
                f"the {name} do not match the commitment: expected {committed}, got {found}"
            )

    def root(self, name: str) -> bytes:
        """Return a Merkle root.

        Raises:
            EvidenceError: none was committed under that name.
        """
        return bytes.fromhex(_found(self.roots, name, "root"))


def write(path: Path, commitment: Commitment, signer: Signer) -> None:
    """Write a commitment and, on a second line, the owner's signature.

    Raises:
        AuditRefused: it names another owner, or the file exists or cannot be written: what is
            committed is never replaced.
    """
    if signer.public != commitment.owner:
        raise AuditRefused(f"the commitment is of {commitment.owner}, the key is {signer.public}")
    data = commitment.to_bytes()
    try:
        with path.open("xb") as file:
            file.write(data + b"\n" + signer.sign(data, purpose=_PURPOSE).encode() + b"\n")
    except OSError as error:
        raise AuditRefused(f"cannot write the commitment to {path}: {error}") from error


def read(path: Path) -> Commitment:
    """Read a commitment and check its owner's signature.

    Raises:
        EvidenceError: it cannot be read, was changed, or the signature does not hold.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise EvidenceError(f"cannot read the commitment {path}: {error}") from error
    if len(lines) != 3 or lines[2]:
        raise EvidenceError(f"{path} was changed: expected a commitment and its signature")
    commitment = Commitment.from_bytes(lines[0])
    signature = lines[1].decode("ascii", errors="replace")
    check(signature, lines[0], public=commitment.owner, purpose=_PURPOSE)
    return commitment


def _named(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _wrong_hashes(name: str, values: object) -> list[str]:
    """Return what is wrong with a mapping of hashes."""
    if not isinstance(values, Mapping):
        return [f"{name} must map names to hashes"]
    wrong = []
    for key, value in values.items():
        try:
            unhex(value, what=f"{name}.{key}")
        except EvidenceError as error:
            wrong.append(str(error))
    return wrong


def _found(values: Mapping[str, str], name: str, kind: str) -> str:
    if name not in values:
        raise EvidenceError(
            f"no {kind} named {name!r} was committed, only {', '.join(sorted(values)) or 'none'}"
        )
    return values[name]
