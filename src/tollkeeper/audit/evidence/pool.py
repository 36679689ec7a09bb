"""The owner's folder of randomized inclusion: pairs, seeds, log, and what to train on.

`log.jsonl` and its head may be shown to anybody. `secret` may not: who has the items or the seeds
can prepare for an audit, and who has the key can write the log. `train.txt` appears with the
coins; `held.txt` and `left-out.txt` name what must not be used for anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.evidence import keys, merkle
from tollkeeper.audit.evidence.canonical import digest, from_bytes, to_bytes, unhex
from tollkeeper.audit.evidence.draw import COINS, POOL, SEED, Draw
from tollkeeper.audit.evidence.log import SignedLog, read
from tollkeeper.audit.evidence.merkle import Opening, Tree
from tollkeeper.audit.evidence.seeds import SEED_BYTES, coins, derive, generator, salts, seal
from tollkeeper.audit.gates import NEAR
from tollkeeper.audit.pairing import distinct, pairs
from tollkeeper.errors import AuditRefused, EvidenceError
from tollkeeper.types import Batch, Embeddings

LOG, TRAIN, HELD, LEFT_OUT = "log.jsonl", "train.txt", "held.txt", "left-out.txt"
_SECRET, _KEY, _SEEDS, _NAMES = "secret", "key.pem", "seeds.json", "names.json"
_PICTURES, _TEXTS = "items.npy", "items.json"

Clock = Callable[[], float]
Random = Callable[[int], bytes]
"""Returns so many bytes that nobody can guess."""


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """What the owner keeps; `enroll` makes it, `open_pool` reads it.

    Attributes:
        folder: of the owner.
        items: (2m, ...) pictures or 2m texts; 2i and 2i + 1 are pair i.
        names: (2m,) what the owner calls them.
        seed: of the coins; shown when the case is heard.
        hidden: secret of the salts; never shown.
        signer: the owner's key.
        draw: how the coins fell; None before.
    """

    folder: Path
    items: Batch
    names: Sequence[str]
    seed: bytes
    hidden: bytes
    signer: keys.Signer
    draw: Draw | None

    @property
    def coins(self) -> NDArray[np.bool_]:
        """(m,) whether the first item of each pair is the trained one.

        Raises:
            AuditRefused: the coins are not tossed yet.
        """
        return self._drawn().coins(self.seed)

    @property
    def trained(self) -> NDArray[np.bool_]:
        """(2m,) which items are trained on; raises as `coins`."""
        return sides(self.coins)

    def opening(self, place: int, before: Tree, after: Tree) -> tuple[Opening, Opening]:
        """Return what `Draw.check` needs of one item, from `tree()` and `tree(coins)`."""
        salt, pair = salts_of(self.hidden, [place])[0], place // 2
        coin = int(self.trained[place])
        return (
            Opening(salt, pair, merkle.UNTOSSED, before.proof(place)),
            Opening(salt, pair, coin, after.proof(place)),
        )

    def tree(self, tossed: NDArray[np.bool_] | None = None) -> Tree:
        """Return the tree over the items, without or with coins."""
        return _tree(self.items, self.hidden, tossed)

    def _drawn(self) -> Draw:
        if self.draw is None:
            raise AuditRefused(f"the coins of {self.folder} are not tossed yet; give a beacon")
        return self.draw


def enroll(
    folder: Path,
    items: Batch,
    names: Sequence[str],
    *,
    clock: Clock,
    random: Random,
    embeddings: Embeddings | None = None,
    others: Embeddings | None = None,
    near: float = NEAR,
) -> Pool:
    """Pair items, commit to the pairs and to a seed, and write the log's first line.

    Args:
        folder: to make; must not exist.
        items: pictures of one shape, or texts, unpublished and not yet trained on.
        names: what the owner calls them, one each.
        clock: seconds since the epoch.
        random: makes the seeds.
        embeddings: (n, d) by a public encoder; finds near copies and like twins.
        others: (k, d) of items that will be trained on in any case.
        near: cosine from which two embeddings count as copies.

    Raises:
        AuditRefused: fewer than two different items, or the folder exists.
    """
    if len(items) != len(names) or len(set(names)) != len(names):
        raise AuditRefused(f"expected {len(items)} different names, got {len(set(names))}")
    secrets = {SEED: random(SEED_BYTES), "salts": random(SEED_BYTES), "pairs": random(SEED_BYTES)}
    kept = distinct(items, embeddings, others=others, near=near)
    among = None if embeddings is None else embeddings[kept]
    paired = kept[pairs(len(kept), among, rng=generator(secrets["pairs"], "pairs"))].ravel()
    chosen = _taken(items, paired)
    labels = [names[int(at)] for at in paired]
    left = sorted(set(names) - set(labels))
    tree = _tree(chosen, secrets["salts"], None)
    signer = _stored(folder, chosen, labels, secrets)
    _write_names(folder / LEFT_OUT, left)
    with SignedLog(folder / LOG, signer, clock=clock) as log:
        log.append(
            POOL,
            {
                "pairs": len(paired) // 2,
                "pool": tree.root.hex(),
                "sealed": seal(secrets[SEED], name=SEED),
                "left_out": len(left),
                "kept_as": digest(to_bytes(labels)),
            },
        )
    return open_pool(folder)


def toss_coins(folder: Path, beacon: str, *, clock: Clock) -> Pool:
    """Toss the coins, write them to the log and name what to train on.

    If a toss broke off before its lists were written, the same beacon writes them.

    Args:
        folder: that `enroll` made.
        beacon: a public value issued after the log's head was stamped or published.
        clock: seconds since the epoch.

    Raises:
        AuditRefused: the beacon is empty, or another was used before.
        EvidenceError: the folder was changed.
    """
    pool = open_pool(folder)
    beacon = beacon.strip()
    if pool.draw is None:
        tossed = coins(pool.seed, beacon, len(pool.names) // 2)
        with SignedLog(folder / LOG, pool.signer, clock=clock) as log:
            log.append(COINS, {"beacon": beacon, "root": pool.tree(tossed).root.hex()})
        pool = open_pool(folder)
    if pool.draw is None or pool.draw.beacon != beacon:
        raise AuditRefused(
            f"the coins of {folder} were tossed with another beacon; they are tossed once"
        )
    trained = pool.trained
    for name, side in ((TRAIN, trained), (HELD, ~trained)):
        _write_names(folder / name, [pool.names[at] for at in np.flatnonzero(side).tolist()])
    return pool


def open_pool(folder: Path) -> Pool:
    """Read a folder and check it against its log.

    Raises:
        EvidenceError: a file is missing or was changed.
        AuditRefused: the key cannot be read.
    """
    secret = folder / _SECRET
    signer = keys.load(secret / _KEY)
    entries = read(folder / LOG, key=signer.public)
    told = _json(secret / _SEEDS)
    seed, hidden = (unhex(told.get(name), what=f"the seed of {name}") for name in (SEED, "salts"))
    first = [entry for entry in entries if entry.kind == POOL]
    tossed = any(entry.kind == COINS for entry in entries)
    if len(first) != 1:
        raise EvidenceError(f"expected one pool in the log of {folder}, got {len(first)}")
    names, items = _json(secret / _NAMES), _items(secret)
    pool = Pool(folder, items, names, seed, hidden, signer, Draw.of(entries) if tossed else None)
    if (
        pool.tree().root.hex() != first[0].body["pool"]
        or digest(to_bytes(names)) != first[0].body["kept_as"]
    ):
        raise EvidenceError(f"the items or names of {folder} are not those that were committed")
    if pool.draw is not None and pool.tree(pool.coins).root.hex() != pool.draw.root:
        raise EvidenceError(f"the coins of {folder} are not those that were logged")
    return pool


def sides(tossed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (2m,) which items the (m,) coins put into training."""
    return np.column_stack([tossed, ~tossed]).ravel()


def salts_of(hidden: bytes, places: Sequence[int]) -> list[bytes]:
    """Return the salts of some leaves, as `seeds.salts` makes them."""
    return [derive(hidden, f"salt {place}") for place in places]


def _tree(items: Batch, hidden: bytes, tossed: NDArray[np.bool_] | None) -> Tree:
    return merkle.commit(
        items,
        salts=salts(hidden, len(items)),
        pairs=[place // 2 for place in range(len(items))],
        coins=None if tossed is None else [int(each) for each in sides(tossed)],
    )


def _taken(items: Batch, places: NDArray[np.intp]) -> Batch:
    """Return the chosen items: texts, or pictures as one array."""
    chosen: list[Any] = [items[int(place)] for place in places]
    if all(isinstance(item, str) for item in chosen):
        return chosen
    shapes = {(np.shape(item), str(np.asarray(item).dtype)) for item in chosen}
    if len(shapes) > 1 or any(isinstance(item, str) for item in chosen):
        raise AuditRefused(
            "expected texts, or pictures of one size; bring them to the size that is trained on"
        )
    return np.stack(chosen)


def _stored(
    folder: Path, items: Batch, names: Sequence[str], secrets: dict[str, bytes]
) -> keys.Signer:
    """Make the folder and write everything that is secret; return a new key."""
    secret = folder / _SECRET
    try:
        folder.mkdir(parents=True)
        secret.mkdir(mode=0o700)
        if isinstance(items, np.ndarray):
            np.save(secret / _PICTURES, items, allow_pickle=False)
        else:
            (secret / _TEXTS).write_bytes(to_bytes(list(items)))
        (secret / _NAMES).write_bytes(to_bytes(list(names)))
        descriptor = os.open(secret / _SEEDS, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(to_bytes({name: value.hex() for name, value in secrets.items()}))
    except OSError as error:
        raise AuditRefused(
            f"cannot make {folder}: {error.strerror}; a pool is never replaced"
        ) from error
    return keys.create(secret / _KEY)


def _json(path: Path) -> Any:
    try:
        return from_bytes(path.read_bytes(), what=path.name)
    except OSError as error:
        raise EvidenceError(f"cannot read {path}: {error.strerror}") from error


def _items(secret: Path) -> Batch:
    if (secret / _TEXTS).exists():
        texts: list[str] = _json(secret / _TEXTS)
        return texts
    try:
        found: NDArray[Any] = np.load(secret / _PICTURES, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise EvidenceError(f"cannot read {secret / _PICTURES}: {error}") from error
    return found


def _write_names(path: Path, names: Sequence[str]) -> None:
    try:
        path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    except OSError as error:
        raise AuditRefused(f"cannot write {path}: {error.strerror}") from error
