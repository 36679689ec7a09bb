"""The owner's side of an audit: what is committed, what is kept secret, and the log of both.

A case is a folder of the owner. Its files `commitment` and `log.jsonl` may be shown to anybody;
those in `secret` to nobody: whoever has the items and seeds can prepare for an audit, and whoever
has the key can write the log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tollkeeper
from tollkeeper.audit.dataset_inference import REFERENCES
from tollkeeper.audit.evidence import commitment, keys, log, merkle
from tollkeeper.audit.evidence.bundle import (
    COMMITMENT,
    LOG,
    array_digest,
    read_json,
    read_pictures,
    write_array,
    write_json,
)
from tollkeeper.audit.evidence.canonical import digest, file_digest, folder_digest, to_bytes, utc
from tollkeeper.audit.evidence.commitment import Commitment
from tollkeeper.audit.evidence.findings import Role
from tollkeeper.audit.evidence.plan import Plan
from tollkeeper.audit.evidence.seeds import SEED_BYTES, derive, salts, seal
from tollkeeper.audit.split import Split
from tollkeeper.audit.views import Views
from tollkeeper.encoders.base import Encoder, checked
from tollkeeper.encoders.load import load_encoder
from tollkeeper.errors import AuditRefused, EvidenceError

SEEDS = ("views", "draw", "order", "analysis")
"""Seeds that are sealed, and shown with the first bundle."""

_SECRET, _KEY, _SEEDS, _ITEMS, _PUBLIC, _PARTS = (
    "secret",
    "key.pem",
    "seeds.json",
    "items.npy",
    "public.npy",
    "parts.json",
)

_PROBED = 8
"""Pictures by whose answers an encoder is recognized."""

Random = Callable[[int], bytes]
"""Returns so many bytes that nobody can guess."""


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """The owner's private pictures.

    Attributes:
        items: (2m, h, w, 3) uint8; 2i and 2i + 1 are pair i.
        coins: (m,) whether the first of each pair is the trained one.
        hashes: further hashes to commit to, of how the sides came about.
    """

    items: NDArray[np.uint8]
    coins: NDArray[np.bool_]
    hashes: dict[str, str]

    @property
    def trained(self) -> NDArray[np.bool_]:
        """(2m,) which pictures were trained on."""
        return np.column_stack([self.coins, ~self.coins]).ravel()

    def tree(self, secret: bytes) -> merkle.Tree:
        """Return the tree over the pictures, salted from a secret."""
        return merkle.commit(
            list(self.items),
            salts=salts(secret, len(self.items)),
            pairs=[place // 2 for place in range(len(self.items))],
            coins=[int(each) for each in self.trained],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """What the owner keeps; make it with `commit`, read it with `open_case`.

    Attributes:
        folder: of the owner.
        fixed: the commitment.
        sides: the private pictures.
        public: (p, h, w, 3) uint8.
        seeds: by name, those of `SEEDS` and `salts`.
        encoders: role and SPEC of control and references.
        signer: the owner's key.
    """

    folder: Path
    fixed: Commitment
    sides: Sides
    public: NDArray[np.uint8]
    seeds: dict[str, bytes]
    encoders: Sequence[tuple[Role, str]]
    signer: keys.Signer

    @property
    def tree(self) -> merkle.Tree:
        """The tree over the items."""
        return self.sides.tree(self.seeds["salts"])

    @property
    def salts(self) -> list[bytes]:
        """(2m,) salts of the items."""
        return salts(self.seeds["salts"], len(self.sides.items))


def commit(plan: Plan, folder: Path, *, clock: Callable[[], float], random: Random) -> Case:
    """Fix a plan: seal it, sign it, and write the first line of its log.

    Args:
        plan: what is fixed.
        folder: of the case; must not exist.
        clock: seconds since the epoch.
        random: makes the seeds.

    Raises:
        AuditRefused: the pictures cannot carry the plan, or the folder exists.
        ConfigurationError: an encoder cannot be loaded.
    """
    sides, public = read_sides(plan), read_pictures(plan.public)
    half = len(sides.items) // 2
    if plan.draw > half:
        raise AuditRefused(f"the plan draws {plan.draw} pictures of each side, there are {half}")
    if plan.method == "dataset-inference" and len(plan.references) < REFERENCES:
        raise AuditRefused(
            f"expected {REFERENCES} or more references, the null distribution of this method, got "
            f"{len(plan.references)}"
        )
    seeds = {name: random(SEED_BYTES) for name in (*SEEDS, "salts")}
    views = make_views(seeds["views"], plan.views)
    held, kept = sides.items[~sides.trained], sides.items[sides.trained]
    Split(kept, held, public, views, randomized=plan.method == "inclusion").check()
    encoders = [("control", plan.control), *(("reference", spec) for spec in plan.references)]
    loaded = [identity(spec, load_encoder(spec), public) for _, spec in encoders]
    secret = _made(folder)
    signer = keys.create(secret / _KEY)
    root = sides.tree(seeds["salts"]).root.hex()
    fixed = Commitment(
        claim=plan.claim,
        roots={"items": root},
        seeds={name: seal(seeds[name], name=name) for name in SEEDS},
        hashes={
            "code": package_digest(),
            "preprocessing": digest(to_bytes(_settings(views))),
            **{name: _digest(path) for name, path in plan.hashes.items()},
            "weights": loaded[0],
            "references": digest(to_bytes(sorted(loaded[1:]))),
            "public": array_digest(public),
            **sides.hashes,
        },
        alpha=plan.alpha,
        decision=plan.decision | {"items": len(sides.items), "public": len(public)},
        owner=signer.public,
        made_at=utc(clock()),
    )
    write_array(secret, _ITEMS, sides.items)
    write_array(secret, _PUBLIC, public)
    write_json(secret, _SEEDS, {name: seed.hex() for name, seed in seeds.items()})
    coins = [int(each) for each in sides.coins]
    write_json(secret, _PARTS, {"encoders": encoders, "coins": coins})
    commitment.write(folder / COMMITMENT, fixed, signer)
    with log.SignedLog(folder / LOG, signer, clock=clock) as written:
        written.append("commitment", {"digest": fixed.digest})
    return open_case(folder)


def open_case(folder: Path) -> Case:
    """Read a case and check that it is the one that was committed.

    Raises:
        EvidenceError: a file is missing or was changed.
    """
    fixed = commitment.read(folder / COMMITMENT)
    secret = folder / _SECRET
    where = read_json(secret, _PARTS)
    signer = keys.load(secret / _KEY)
    if signer.public != fixed.owner:
        raise EvidenceError(f"the key of {folder} is not the one that signed the commitment")
    case = Case(
        folder=folder,
        fixed=fixed,
        sides=Sides(_pictures(secret / _ITEMS), np.asarray(where["coins"], np.bool_), {}),
        public=_pictures(secret / _PUBLIC),
        seeds={name: bytes.fromhex(value) for name, value in read_json(secret, _SEEDS).items()},
        encoders=[(role, spec) for role, spec in where["encoders"]],
        signer=signer,
    )
    for name in SEEDS:
        fixed.unseal(name, case.seeds[name])
    fixed.match("public", array_digest(case.public))
    if case.tree.root != fixed.root("items"):
        raise EvidenceError(f"the items of {folder} are not those that were committed")
    return case


def read_sides(plan: Plan) -> Sides:
    """Return the private pictures of a plan.

    Raises:
        AuditRefused: they cannot be read, or the sides do not fit each other.
    """
    assert plan.trained is not None
    assert plan.held is not None
    trained, held = read_pictures(plan.trained), read_pictures(plan.held)
    if trained.shape[1:] != held.shape[1:]:
        raise AuditRefused(
            f"trained pictures are {trained.shape[1:]}, held ones {held.shape[1:]}; prepare both "
            "by the same path"
        )
    half = min(len(trained), len(held))
    items = np.stack([trained[:half], held[:half]], axis=1).reshape(-1, *trained.shape[1:])
    return Sides(items, np.ones(half, np.bool_), {})


def make_views(seed: bytes, count: int) -> Views:
    """Return the views of a sealed seed."""
    return Views(int.from_bytes(derive(seed, "views")[:8], "big"), count)


def identity(spec: str, encoder: Encoder, public: NDArray[np.uint8]) -> str:
    """Return the hash by which an encoder of this process is recognized later.

    It is that of its file, if it has one; else of its answers to a few pictures, one by one, so
    that new weights under an old name are noticed.

    Args:
        spec: what it was loaded from.
        encoder: who is asked.
        public: (p, h, w, 3) uint8 pictures that it takes.

    Raises:
        AuditRefused: the file cannot be read.
        EncoderError: from the encoder.
    """
    scheme, _, rest = spec.partition(":")
    if scheme == "onnx":
        return file_digest(Path(rest))
    rows = [checked(encoder.embed([item]), n=1, dim=encoder.dim) for item in public[:_PROBED]]
    return array_digest(np.concatenate(rows))


def package_digest() -> str:
    """Return the hash of the code of this room, which makes views, scores and verdicts."""
    return folder_digest(Path(tollkeeper.__file__).parent / "audit")


def _made(folder: Path) -> Path:
    """Make the folder of a case; return that of its secrets."""
    try:
        folder.mkdir(parents=True, exist_ok=False)
        (folder / _SECRET).mkdir(mode=0o700)
    except OSError as error:
        raise AuditRefused(
            f"cannot make the case {folder}: {error.strerror}; a commitment is never replaced"
        ) from error
    return folder / _SECRET


def _settings(views: Views) -> dict[str, Any]:
    """Return what is drawn, without the seed."""
    return {
        "pixels": "uint8 RGB, PNG on the wire",
        "k": views.k,
        "area": list(views.area),
        "flip": views.flip,
        "brightness": views.brightness,
        "noise": views.noise,
    }


def _digest(path: Path) -> str:
    return folder_digest(path, pattern="*") if path.is_dir() else file_digest(path)


def _pictures(path: Path) -> NDArray[np.uint8]:
    try:
        return read_pictures(path)
    except AuditRefused as error:
        raise EvidenceError(str(error)) from error
