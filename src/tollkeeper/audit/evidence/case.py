"""The owner's side of an audit: what is committed, what is kept secret, and the log of both.

A case is a folder of the owner. Its files `commitment` and `log.jsonl` may be shown to anybody;
those in `secret` to nobody: whoever has the items and seeds can prepare for an audit, and whoever
has the key can write the log.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tollkeeper
from tollkeeper.audit.dataset_inference import REFERENCES
from tollkeeper.audit.evidence import commitment, keys, log, merkle, pool
from tollkeeper.audit.evidence.bundle import (
    COMMITMENT,
    INCLUSION,
    LOG,
    array_digest,
    read_json,
    read_pictures,
    write_array,
    write_json,
)
from tollkeeper.audit.evidence.canonical import digest, file_digest, folder_digest, to_bytes, utc
from tollkeeper.audit.evidence.commitment import Commitment
from tollkeeper.audit.evidence.draw import SEED, Draw
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

_SECRET, _KEY, _ITEMS, _PUBLIC, _PARTS = (
    "secret",
    "key.pem",
    "items.npy",
    "public.npy",
    "parts.json",
)

_PROBED = 8
"""Private and public pictures by whose answers an encoder without a file is recognized."""

Random = Callable[[int], bytes]
"""Returns so many bytes that nobody can guess."""


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """The owner's private pictures.

    Attributes:
        items: (2m, h, w, 3) uint8; 2i and 2i + 1 are pair i.
        coins: (m,) whether the first of each pair is the trained one.
    """

    items: NDArray[np.uint8]
    coins: NDArray[np.bool_]

    @property
    def trained(self) -> NDArray[np.bool_]:
        """(2m,) which pictures were trained on."""
        return pool.sides(self.coins)

    def tree(self, hidden: bytes, *, tossed: bool = True) -> merkle.Tree:
        """Return the tree over the pictures, salted from a secret, with or without the coins."""
        return merkle.commit(
            self.items,
            salts=salts(hidden, len(self.items)),
            pairs=[place // 2 for place in range(len(self.items))],
            coins=[int(each) for each in self.trained] if tossed else None,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """What the owner keeps; make it with `commit`, read it with `open_case`.

    Attributes:
        folder: of the owner.
        fixed: the commitment.
        sides: the private pictures.
        public: (p, h, w, 3) uint8.
        seeds: by name, those of `SEEDS`, `salts`, and `coins` where coins were tossed.
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
    public, private = read_pictures(plan.public), _private(plan, random)
    _check(plan, private.sides, public)
    encoders = [("control", plan.control), *(("reference", spec) for spec in plan.references)]
    probed = probes(private.sides, public)
    loaded = [identity(spec, load_encoder(spec), probed) for _, spec in encoders]
    seeds = {name: random(SEED_BYTES) for name in SEEDS}
    secret = _made(folder)
    signer = _signer(secret / _KEY, plan)
    fixed = Commitment(
        claim=plan.claim,
        roots={"items": private.sides.tree(private.seeds["salts"]).root.hex()},
        seeds={name: seal(seeds[name], name=name) for name in SEEDS},
        hashes={
            "code": package_digest(),
            "preprocessing": digest(to_bytes(_settings(make_views(seeds["views"], plan.views)))),
            **{name: _digest(path) for name, path in plan.hashes.items()},
            "weights": loaded[0],
            "references": digest(to_bytes(sorted(loaded[1:]))),
            "public": array_digest(public),
        },
        alpha=plan.alpha,
        decision={
            **plan.decision,
            "items": len(private.sides.items),
            "public": len(public),
            "coins": None if private.draw is None else private.draw.to_json(),
        },
        owner=signer.public,
        made_at=utc(clock()),
    )
    write_array(secret, _ITEMS, private.sides.items)
    write_array(secret, _PUBLIC, public)
    kept = {name: seed.hex() for name, seed in {**seeds, **private.seeds}.items()}
    coins = [int(each) for each in private.sides.coins]
    write_json(secret, _PARTS, {"coins": coins, "encoders": encoders, "seeds": kept})
    if plan.inclusion is not None:
        for path in (plan.inclusion / pool.LOG, log.head_path(plan.inclusion / pool.LOG)):
            shutil.copyfile(path, folder / path.name.replace(pool.LOG, INCLUSION))
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
        sides=Sides(_pictures(secret / _ITEMS), np.asarray(where["coins"], np.bool_)),
        public=_pictures(secret / _PUBLIC),
        seeds={name: bytes.fromhex(value) for name, value in where["seeds"].items()},
        encoders=[(role, spec) for role, spec in where["encoders"]],
        signer=signer,
    )
    for name in SEEDS:
        fixed.unseal(name, case.seeds[name])
    fixed.match("public", array_digest(case.public))
    if case.sides.tree(case.seeds["salts"]).root != fixed.root("items"):
        raise EvidenceError(f"the items of {folder} are not those that were committed")
    return case


@dataclass(frozen=True, slots=True, eq=False)
class _Private:
    """Where the sides come from: the pictures, the seeds behind them, and how coins fell."""

    sides: Sides
    seeds: dict[str, bytes]
    draw: Draw | None


def _private(plan: Plan, random: Random) -> _Private:
    """Return the private pictures of a plan.

    Raises:
        AuditRefused: they cannot be read, or the sides do not fit each other.
        EvidenceError: the folder of `audit include` was changed.
    """
    if plan.inclusion is not None:
        found = pool.open_pool(plan.inclusion)
        items, coins = found.items, found.coins
        if not (isinstance(items, np.ndarray) and items.dtype == np.uint8 and items.ndim == 4):
            raise AuditRefused(f"`audit run` scores pictures; {plan.inclusion} holds other items")
        return _Private(Sides(items, coins), {"salts": found.hidden, SEED: found.seed}, found.draw)
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
    return _Private(Sides(items, np.ones(half, np.bool_)), {"salts": random(SEED_BYTES)}, None)


def _check(plan: Plan, sides: Sides, public: NDArray[np.uint8]) -> None:
    """Refuse pictures that cannot carry the plan, before anything is committed."""
    half = len(sides.coins)
    if plan.draw > half:
        raise AuditRefused(f"the plan draws {plan.draw} pictures of each side, there are {half}")
    if plan.method == "dataset-inference" and len(plan.references) < REFERENCES:
        raise AuditRefused(
            f"expected {REFERENCES} or more references, the null distribution of this method, got "
            f"{len(plan.references)}"
        )
    trained, held = sides.items[sides.trained], sides.items[~sides.trained]
    views = make_views(bytes(SEED_BYTES), plan.views)
    Split(trained, held, public, views, randomized=plan.method == "inclusion").check()


def _signer(path: Path, plan: Plan) -> keys.Signer:
    """Return the key of the pool, so that one key signs the whole story; else a new one."""
    if plan.inclusion is None:
        return keys.create(path)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write((plan.inclusion / _SECRET / _KEY).read_bytes())
    return keys.load(path)


def make_views(seed: bytes, count: int) -> Views:
    """Return the views of a sealed seed."""
    return Views(int.from_bytes(derive(seed, "views")[:8], "big"), count)


def probes(sides: Sides, public: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (b, h, w, 3) pictures by whose answers an encoder is recognized."""
    return np.concatenate([sides.items[sides.trained][:_PROBED], public[:_PROBED]])


def identity(spec: str, encoder: Encoder, probed: NDArray[np.uint8]) -> str:
    """Return the hash by which an encoder of this process is recognized later.

    It is that of its file, if it has one; else of its answers to a few pictures, one by one, so
    that new weights under an old name are noticed.

    Args:
        spec: what it was loaded from.
        encoder: who is asked.
        probed: (b, h, w, 3) uint8 pictures.

    Raises:
        AuditRefused: the file cannot be read.
        EncoderError: from the encoder.
    """
    scheme, _, rest = spec.partition(":")
    if scheme == "onnx":
        return file_digest(Path(rest))
    rows = [checked(encoder.embed([item]), n=1, dim=encoder.dim) for item in probed]
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
