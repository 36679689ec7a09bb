"""Promises of pools and draws: `audit include` without the command line."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.audit.evidence.draw import Draw
from tollkeeper.audit.evidence.log import SignedLog, head_path, read
from tollkeeper.audit.evidence.pool import Pool, enroll, open_pool, toss_coins
from tollkeeper.errors import AuditRefused, EvidenceError

Clock = Callable[[], float]


CALLS = itertools.count(1)


def random(size: int) -> bytes:
    """Return bytes that a test may foresee."""
    return bytes([next(CALLS) % 256]) * size


def pictures(count: int = 12) -> NDArray[np.uint8]:
    """Return different pictures."""
    return np.random.default_rng(0).integers(0, 255, size=(count, 4, 4, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path, clock: Clock) -> Path:
    """Return a pool of six pairs without coins."""
    names = [f"p{at}" for at in range(12)]
    enroll(tmp_path / "pool", pictures(), names, clock=clock, random=random)
    return tmp_path / "pool"


@pytest.fixture
def tossed(folder: Path, clock: Clock) -> Pool:
    """Return the pool with its coins."""
    return toss_coins(folder, "round 7", clock=clock)


def lines(path: Path) -> list[str]:
    """Return the lines of a list."""
    return path.read_text().splitlines()


def test_one_twin_of_each_pair_is_trained_on(tossed: Pool) -> None:
    """The lists hold every item once, and follow the coins of seed and beacon."""
    train, held = lines(tossed.folder / "train.txt"), lines(tossed.folder / "held.txt")
    assert sorted(train + held) == sorted(f"p{at}" for at in range(12))
    for pair, coin in enumerate(tossed.coins):
        twins = tossed.names[2 * pair : 2 * pair + 2]
        assert twins[0 if coin else 1] in train
        assert twins[1 if coin else 0] in held
    given = pictures()
    for item, name in zip(tossed.items, tossed.names, strict=True):
        assert np.array_equal(item, given[int(name[1:])])


def test_anybody_checks_a_draw_from_log_seed_and_openings(tossed: Pool) -> None:
    """Coins are recomputed, and each item is shown to have been in its pair before the beacon."""
    entries = read(tossed.folder / "log.jsonl", key=tossed.signer.public)
    draw = Draw.from_json(json.loads(json.dumps(Draw.of(entries).to_json())))
    coins = draw.coins(tossed.seed)
    before, after = tossed.tree(), tossed.tree(coins)
    assert draw.committed.count == 1

    for place, item in enumerate(tossed.items):
        openings = tossed.opening(place, before, after)
        draw.check(place, item, openings, coins)
        first, second = openings
        for forged in (
            (second, second),
            (first, first),
            (first, replace(second, coin=1 - second.coin)),
            (first, replace(second, pair=(second.pair + 1) % 6)),
        ):
            with pytest.raises(EvidenceError):
                draw.check(place, item, forged, coins)
        with pytest.raises(EvidenceError):
            draw.check(place, np.bitwise_xor(item, 1), openings, coins)
        with pytest.raises(EvidenceError):
            draw.check((place + 2) % 12, item, openings, coins)
        with pytest.raises(EvidenceError):
            draw.check(place, item, openings, ~coins)
    with pytest.raises(EvidenceError, match="expected an item of 12"):
        draw.check(12, item, openings, coins)


def test_a_seed_chosen_afterwards_is_refused(tossed: Pool) -> None:
    """Only the sealed seed tosses the coins."""
    assert tossed.draw is not None
    with pytest.raises(EvidenceError, match="does not match its commitment"):
        tossed.draw.coins(b"x" * 32)


def test_coins_are_tossed_once(tossed: Pool, clock: Clock) -> None:
    """Another beacon is refused; the same one writes lists that were lost."""
    with pytest.raises(AuditRefused, match="tossed once"):
        toss_coins(tossed.folder, "round 8", clock=clock)
    train = lines(tossed.folder / "train.txt")
    (tossed.folder / "train.txt").unlink()
    toss_coins(tossed.folder, "round 7", clock=clock)
    assert lines(tossed.folder / "train.txt") == train
    assert len(read(tossed.folder / "log.jsonl")) == 2


def test_a_log_with_two_tosses_is_no_draw(tossed: Pool, clock: Clock) -> None:
    """An owner who signs a second toss cannot choose the luckier."""
    path = tossed.folder / "log.jsonl"
    with SignedLog(path, tossed.signer, clock=clock) as log:
        log.append("coins", {"beacon": "round 8", "root": "00" * 32})
    with pytest.raises(EvidenceError, match="one pool and then one toss"):
        Draw.of(read(path))
    with pytest.raises(EvidenceError, match="one pool and then one toss"):
        open_pool(tossed.folder)


def test_before_the_toss_there_are_no_coins(folder: Path) -> None:
    """Neither lists nor coins can be had, and the log tells of no draw."""
    pool = open_pool(folder)
    assert pool.draw is None
    assert not (folder / "train.txt").exists()
    with pytest.raises(AuditRefused, match="not tossed yet"):
        _ = pool.coins
    with pytest.raises(EvidenceError, match="got 1 and 0"):
        Draw.of(read(folder / "log.jsonl"))
    with pytest.raises(AuditRefused, match="public value of a beacon"):
        toss_coins(folder, " ", clock=lambda: 0.0)


@pytest.mark.parametrize(
    "name",
    ["log.jsonl", "log.jsonl.head", "secret/items.npy", "secret/names.json", "secret/seeds.json"],
)
def test_a_changed_folder_is_refused(tossed: Pool, name: str) -> None:
    """Items, names, seeds and log belong together."""
    path = tossed.folder / name
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    with pytest.raises(EvidenceError):
        open_pool(tossed.folder)
    path.unlink()
    with pytest.raises(EvidenceError):
        open_pool(tossed.folder)


def test_changed_coins_are_refused(tossed: Pool, clock: Clock) -> None:
    """A log that an owner signs anew with other coins than the seed's does not pass."""
    folder = tossed.folder
    first = read(folder / "log.jsonl")[0]
    for path in (folder / "log.jsonl", head_path(folder / "log.jsonl")):
        path.unlink()
    with SignedLog(folder / "log.jsonl", tossed.signer, clock=clock) as log:
        log.append(first.kind, first.body)
        wrong = tossed.tree(~tossed.coins).root.hex()
        log.append("coins", {"beacon": "round 7", "root": wrong})
    with pytest.raises(EvidenceError, match="not those that were logged"):
        open_pool(folder)


def test_copies_are_left_out(tmp_path: Path, clock: Clock) -> None:
    """Copies and the odd one are named, so that they are not trained on by mistake."""
    texts = ["a", "b", "a", "c", "d", "e"]
    names = [f"t{at}" for at in range(6)]
    pool = enroll(tmp_path / "pool", texts, names, clock=clock, random=random)
    left = lines(tmp_path / "pool" / "left-out.txt")
    assert len(pool.names) == 4
    assert "t2" in left
    assert sorted([*pool.names, *left]) == sorted(names)
    assert [texts[int(name[1:])] for name in pool.names] == list(pool.items)
    assert open_pool(tmp_path / "pool").items == pool.items


def test_a_pool_is_never_replaced(folder: Path, clock: Clock) -> None:
    """A second pool needs a second folder, and the first stays whole."""
    with pytest.raises(AuditRefused, match="never replaced"):
        enroll(folder, ["a", "b"], ["a", "b"], clock=clock, random=random)
    open_pool(folder)


def test_secrets_are_private(folder: Path) -> None:
    """Only the owner may enter the folder of secrets."""
    assert (folder / "secret").stat().st_mode & 0o077 == 0
    assert (folder / "secret" / "seeds.json").stat().st_mode & 0o077 == 0
    shutil.rmtree(folder / "secret")
    with pytest.raises(AuditRefused, match="cannot use the key"):
        open_pool(folder)


def test_unusable_items_are_refused(tmp_path: Path, clock: Clock) -> None:
    """Pictures of two sizes, a mixture, one item or equal names are clear errors."""
    big, small = np.zeros((4, 4, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    for items, names, told in (
        ([big, small], ["a", "b"], "pictures of one size"),
        ([big, "text"], ["a", "b"], "pictures of one size"),
        (["a", "a"], ["a", "b"], "two or more different items"),
        (["a", "b"], ["a", "a"], "different names"),
    ):
        with pytest.raises(AuditRefused, match=told):
            enroll(tmp_path / "pool", items, names, clock=clock, random=random)


@pytest.mark.parametrize(
    "change",
    [
        {"pairs": 0},
        {"pairs": "6"},
        {"pool": "AB" * 32},
        {"beacon": " "},
        {"beacon": 7},
        {"committed": {"count": 1}},
        {"committed": None},
    ],
)
def test_a_malformed_draw_is_refused(tossed: Pool, change: dict[str, object]) -> None:
    """Missing parts and wrong types are found before anything is computed."""
    assert tossed.draw is not None
    with pytest.raises(EvidenceError):
        Draw.from_json(tossed.draw.to_json() | change)
