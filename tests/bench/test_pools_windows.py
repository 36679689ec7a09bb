"""The parts of `guard-pools` and `guard-windows`: subjects, pairs, links and patient thieves."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from tollkeeper.bench.figures import guard_pools, guard_windows
from tollkeeper.bench.figures.subjects import Scene, subjects
from tollkeeper.bench.figures.traffic import Stage, Traffic
from tollkeeper.bench.guard_coverage import Samples
from tollkeeper.guard import Calibration, Guard, profiles
from tollkeeper.guard.windows import Windows
from tollkeeper.types import Embeddings

CENTERS = np.random.default_rng(0).standard_normal((60, 48))


def around(centers: range, count: int, seed: int) -> tuple[Embeddings, np.ndarray]:
    """Return embeddings around some centers, and around which."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array(centers), count)
    rows = CENTERS[labels] + 0.3 * rng.standard_normal((count, 48))
    return rows.astype(np.float32), labels.astype(np.int64)


POOL, _ = around(range(60), 3000, 1)
TASK, LABELS = around(range(8), 1200, 2)
CALIBRATION = Calibration.fit(POOL[:1000], rng=np.random.default_rng(3))
STAGE = Stage(
    "toy",
    (Traffic("banking77", "narrow", TASK, LABELS), Traffic("pool", "broad", POOL)),
    CALIBRATION,
    POOL[:0],
)
GUARD = Guard(profiles.RECOMMENDED.with_knee(0.7), CALIBRATION, secret=bytes(32))
SCENE = Scene(STAGE, GUARD, np.random.default_rng(0))


def test_subjects_part_a_task_by_its_classes() -> None:
    """Every input belongs to one subject, and no class to two."""
    cut = subjects(STAGE, rng=np.random.default_rng(0))
    assert [one.name for one in cut] == [f"banking77{number}" for number in range(1, 5)]
    rows = np.concatenate([one.embeddings for one in cut])
    assert sorted(map(bytes, rows)) == sorted(map(bytes, TASK))
    held = [{int(LABELS[(row == TASK).all(axis=1)][0]) for row in one.embeddings} for one in cut]
    assert sum(map(len, held)) == len(set().union(*held)) == 8


def test_pairs_have_what_their_names_say() -> None:
    """Anchors are a hundred common inputs, edits nearly, and the other kinds share nothing."""
    seen = set()
    for kind, one, other in guard_pools._pairs(STAGE, 120, np.random.default_rng(0)):
        seen.add(kind)
        assert len(one) == len(other) == 120
        common = {bytes(row) for row in one} & {bytes(row) for row in other}
        assert len(common) == {"anchors": 100, "few_anchors": 30}.get(kind, 0)
        if kind == "edited_anchors":
            first, second = one[:100], other[:100]
            lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
            assert ((first * second).sum(axis=1) / lengths).min() > 0.998
    assert seen == {
        "strangers",
        "one_subject",
        "disjoint",
        "anchors",
        "few_anchors",
        "edited_anchors",
    }


def test_linked_sybils_get_what_one_account_gets() -> None:
    """Alone, k accounts are free k times; on one pool together they are free once."""
    samples = Samples()
    setting = guard_pools.Setting(sybils=(1, 4))
    guard_pools._link_sybils(SCENE, setting, samples)
    found = {name: metric.value for name, metric in samples.metrics().items()}
    assert found["free_alone.toy.k1"] == found["free_linked.toy.k1"]
    assert found["free_alone.toy.k4"] > found["free_linked.toy.k4"]
    assert found["free_linked.toy.k4"] == found["free_linked.toy.k1"]


def test_links_of_honest_accounts_chain() -> None:
    """An account is wronged that pays on a pool of accounts that overlap, each with the next."""
    rows = TASK[:150]
    labels = np.repeat(np.arange(4), 150)
    # Four subjects that share most of their inputs, each with a part of the pool besides.
    parts = [np.concatenate([rows[:100], POOL[50 * at : 50 * at + 50]]) for at in range(4)]
    traffic = Traffic("banking77", "narrow", np.concatenate(parts), labels)
    stage = Stage("toy", (traffic, STAGE.pool), CALIBRATION, POOL[:0])
    steep = Guard(profiles.RECOMMENDED.with_knee(0.4), CALIBRATION, secret=bytes(32))
    alone = [steep.fraction(steep.mark(steep.empty(), part)) for part in parts]
    together = steep.fraction(steep.mark(steep.empty(), np.concatenate(parts)))
    assert max(alone) < 0.4 < together
    for guard, expected in ((steep, 1.0), (GUARD, 0.0)):
        scene = Scene(stage, guard, np.random.default_rng(0))
        assert guard_pools._chained(scene, 150) == {"wrongly_pays.toy.n150": expected}
    strangers = Scene(STAGE, steep, np.random.default_rng(0))
    assert guard_pools._chained(strangers, 120) == {"wrongly_pays.toy.n120": 0.0}


def test_a_patient_thief_waits_for_windows() -> None:
    """With nothing carried over every month is a new account; with all of it none is."""
    once = guard_windows._steal(GUARD, POOL, Windows(30, 0.0), 1)
    assert once < len(POOL) / 6
    four = guard_windows._steal(GUARD, POOL, Windows(30, 0.0), 4)
    assert 3 * once < four < 5 * once
    kept = guard_windows._steal(GUARD, POOL, Windows(30, 1.0), 4)
    assert kept <= once + 3


def test_an_honest_year_is_counted_input_by_input() -> None:
    """The share that pays is that of inputs above the knee, window after window."""
    year = [POOL[:200], POOL[200:400], POOL[400:600]]
    paid, highest = guard_windows._live(GUARD, year, Windows(30, 1.0))
    signal = GUARD.signal(GUARD.empty(), POOL[:600])
    assert paid == pytest.approx(np.mean(signal > GUARD.profile.price.free_until))
    assert highest == pytest.approx(signal[-1])
    assert guard_windows._live(GUARD, year, Windows(30, 0.0))[1] < highest
