"""Selections choose what they promise, and pay only for what they choose."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.attacks.selection.base import Selection
from tollkeeper.attacks.selection.class_sorted import ClassSorted
from tollkeeper.attacks.selection.coverage_greedy import CoverageGreedy, _Buckets, _take
from tollkeeper.attacks.selection.features import thumbnails
from tollkeeper.attacks.selection.k_center import KCenter
from tollkeeper.attacks.selection.pixels import random_pixels
from tollkeeper.attacks.selection.random import FixedOrder, Random
from tollkeeper.errors import ConfigurationError, InputError
from tollkeeper.types import Batch, Embeddings

POOL = 90
IMAGES = np.random.default_rng(0).integers(0, 256, (POOL, 12, 12, 3), dtype=np.uint8)
LABELS = np.random.default_rng(1).integers(0, 4, POOL)
FAMILY: Sequence[Selection] = (
    Random(),
    FixedOrder(),
    KCenter(),
    ClassSorted(LABELS),
    CoverageGreedy(first=10, rounds=3, tables=4, bits=5),
)


class FakeVictim:
    """Answers positions with a random projection of the images, and notes them."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, index: NDArray[np.intp]) -> Embeddings:
        self.asked.append(index.tolist())
        secret = np.random.default_rng(7).standard_normal((192, 6), dtype=np.float32)
        answers: Embeddings = np.maximum(0, (thumbnails(IMAGES) - 0.5) @ secret)[index]
        return answers


def choose(selection: Selection, count: int, *, seed: int = 0) -> NDArray[np.intp]:
    """Choose from the pool."""
    rng = np.random.default_rng(seed)
    return selection.choose(IMAGES, count, ask=FakeVictim(), rng=rng)


@pytest.mark.parametrize("selection", FAMILY)
@pytest.mark.parametrize("count", [1, 2, 10, 11, 57, POOL])
def test_choices_are_distinct_positions_of_the_pool(selection: Selection, count: int) -> None:
    """As many as were wanted, each within the pool and none twice."""
    chosen = choose(selection, count)

    assert chosen.shape == (count,)
    assert np.issubdtype(chosen.dtype, np.integer)
    assert len(set(chosen.tolist())) == count
    assert 0 <= chosen.min() <= chosen.max() < POOL


@pytest.mark.parametrize("selection", FAMILY)
def test_choices_follow_the_rng(selection: Selection) -> None:
    """Equal rngs choose the same; another one differs where chance plays a part."""
    one, same, other = (choose(selection, 40, seed=seed) for seed in (1, 1, 2))

    assert np.array_equal(one, same)
    assert np.array_equal(one, other) == isinstance(selection, FixedOrder | ClassSorted)


@pytest.mark.parametrize("selection", FAMILY)
@pytest.mark.parametrize("count", [0, -1, POOL + 1])
def test_counts_that_do_not_fit_the_pool_are_refused(selection: Selection, count: int) -> None:
    """One line names the range."""
    with pytest.raises(ConfigurationError, match="between 1 and 90"):
        choose(selection, count)


@pytest.mark.parametrize("selection", FAMILY)
def test_what_is_asked_is_part_of_the_choice(selection: Selection) -> None:
    """A selection spends no query on an input that it does not choose."""
    victim = FakeVictim()

    chosen = selection.choose(IMAGES, 40, ask=victim, rng=np.random.default_rng(0))

    assert {position for index in victim.asked for position in index} <= set(chosen.tolist())


def test_random_draws_all_inputs_equally() -> None:
    """Over many draws of a third, each input comes up in about a third of them."""
    rng = np.random.default_rng(0)
    counts = np.zeros(POOL)
    for _ in range(900):
        counts[Random().choose(IMAGES, POOL // 3, ask=FakeVictim(), rng=rng)] += 1

    assert np.abs(counts / 900 - 1 / 3).max() < 5 * np.sqrt(2 / 9 / 900)


def test_fixed_order_is_the_pools() -> None:
    """The first ones, in order."""
    assert choose(FixedOrder(), 5).tolist() == [0, 1, 2, 3, 4]


def test_class_sorted_takes_class_after_class() -> None:
    """As reading a folder of classes does: pool order within a class."""
    expected = [i for label in range(4) for i in range(POOL) if LABELS[i] == label]

    assert choose(ClassSorted(LABELS), POOL).tolist() == expected
    with pytest.raises(ConfigurationError, match="a label for each of 90"):
        choose(ClassSorted(LABELS[:-1]), 5)


def points(_queries: Batch) -> NDArray[np.float32]:
    """Return random features of the pool."""
    return np.random.default_rng(3).standard_normal((POOL, 5), dtype=np.float32) + 100


def radius(features: NDArray[np.float32], chosen: Sequence[int]) -> float:
    """Return the largest distance of a point to its nearest chosen one, by loops."""
    return max(
        min(float(np.linalg.norm(point - features[center])) for center in chosen)
        for point in features
    )


def test_k_center_is_the_greedy_choice() -> None:
    """Each input is the one farthest from those before it, found by comparing all pairs."""
    chosen = choose(KCenter(points), 20).tolist()

    features = points(IMAGES)
    for place in range(1, 20):
        distances = [
            min(float(np.linalg.norm(point - features[c])) for c in chosen[:place])
            for point in features
        ]
        assert chosen[place] == int(np.argmax(distances))


def test_k_center_is_at_most_twice_the_best() -> None:
    """On twelve points its radius is within Gonzalez' bound of the best triple's."""
    features = points(IMAGES)[:12]
    best = min(radius(features, triple) for triple in itertools.combinations(range(12), 3))
    for seed in range(10):
        chosen = KCenter(lambda _queries: features).choose(
            IMAGES[:12], 3, ask=FakeVictim(), rng=np.random.default_rng(seed)
        )

        assert best <= radius(features, chosen.tolist()) <= 2 * best


def test_k_center_can_take_a_pool_of_twins() -> None:
    """Equal inputs are chosen once each, when nothing else is left."""
    twins = np.zeros((6, 8, 8, 3), np.uint8)

    chosen = KCenter().choose(twins, 6, ask=FakeVictim(), rng=np.random.default_rng(0))

    assert sorted(chosen.tolist()) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 32), (28, 20), (9, 64), (5, 3)])
def test_thumbnails_are_means_over_areas(height: int, width: int) -> None:
    """Every cell is the mean over its rectangle, found by cutting each pixel into 8x8 parts."""
    image = np.random.default_rng(4).integers(0, 256, (height, width, 3), dtype=np.uint8)
    fine = image.repeat(8, axis=0).repeat(8, axis=1).astype(np.float64)
    expected = np.empty((8, 8, 3))
    for i, j in itertools.product(range(8), repeat=2):
        cell = fine[i * height : (i + 1) * height, j * width : (j + 1) * width]
        expected[i, j] = cell.mean(axis=(0, 1)) / 255

    found = thumbnails([image, image])

    np.testing.assert_allclose(found, [expected.ravel()] * 2, atol=1e-6)


def test_thumbnails_need_images() -> None:
    """Other pools are told to bring features of their own."""
    with pytest.raises(InputError, match=r"input 1: .*features"):
        thumbnails([IMAGES[0], "a text"])


def test_buckets_are_sides_of_hyperplanes() -> None:
    """A bucket is its table's sign bits as a number, and those seen are exactly those hit."""
    rng = np.random.default_rng(5)
    answers = rng.standard_normal((30, 4), dtype=np.float32)
    buckets = _Buckets.draw(answers, 3, 5, rng)

    codes = buckets(answers)

    hit = set()
    for i, table in itertools.product(range(30), range(3)):
        code = 0
        for bit in range(5):
            normal = buckets.normals[:, table * 5 + bit]
            code += int((answers[i] - answers.mean(axis=0)) @ normal > 0) << bit
        assert codes[i, table] == code
        hit.add((table, code))
    assert {(int(t), int(c)) for t, c in np.argwhere(buckets.seen(codes))} == hit


@pytest.mark.parametrize("price", [0.0, 0.3, 1.0, 5.0])
def test_inputs_are_taken_greedily_by_rank_less_price(price: float) -> None:
    """Each is the best of all that are left, given the buckets that those before it opened."""
    rng = np.random.default_rng(6)
    disagreement = rng.uniform(0, 1, 60)
    disagreement[[3, 9]] = -np.inf
    codes = rng.integers(0, 8, (60, 4))
    seen = rng.uniform(size=(4, 8)) < 0.3
    open_ = {(int(t), int(c)) for t, c in np.argwhere(seen)}
    order = sorted((i for i in range(60) if i not in (3, 9)), key=lambda i: disagreement[i])

    taken = _take(disagreement, codes, seen, amount=25, price=price)

    left = set(range(60)) - {3, 9}
    for found in taken.tolist():
        scores = {
            i: order.index(i) / 57
            - price * sum((t, int(codes[i, t])) not in open_ for t in range(4)) / 4
            for i in left
        }
        assert scores[found] == pytest.approx(max(scores.values()))
        left.remove(found)
        open_ |= {(t, int(codes[found, t])) for t in range(4)}


def test_a_high_price_opens_fewer_buckets_than_chance() -> None:
    """On a crowd in one corner and as many loners all around it stays with the crowd."""
    rng = np.random.default_rng(8)
    crowd = (np.arange(600) < 300)[:, None]
    features = np.where(crowd, 0.2, 1.0) * rng.standard_normal((600, 6)) + np.where(crowd, 3, 0)
    answers = (features + np.sin(3 * features)).astype(np.float32)
    cheap = features.astype(np.float32)
    selection = CoverageGreedy(features=lambda _q: cheap, price=30, first=20)

    def opened(chosen: NDArray[np.intp]) -> int:
        """Count buckets over 20 tables of a hash that the attacker does not know."""
        meter = _Buckets.draw(answers, 20, 12, np.random.default_rng(9))
        return int(meter.seen(meter(answers[chosen])).sum())

    pool = np.zeros((600, 1, 1, 3), np.uint8)
    greedy, chance = (
        s.choose(pool, 150, ask=lambda index: answers[index], rng=np.random.default_rng(0))
        for s in (selection, Random())
    )

    assert opened(greedy) < 0.7 * opened(chance)


def test_the_committee_is_refitted_in_rounds_and_never_for_nothing() -> None:
    """It asks for all answers so far before each round, and not after the last."""
    victim = FakeVictim()
    selection = CoverageGreedy(first=10, rounds=3, tables=4, bits=5)

    chosen = selection.choose(IMAGES, 40, ask=victim, rng=np.random.default_rng(0))

    assert victim.asked == [chosen[:size].tolist() for size in (10, 20, 30)]


@pytest.mark.parametrize(
    "settings",
    [{"first": 2}, {"rounds": 0}, {"members": 1}, {"tables": 0}, {"bits": 17}, {"price": -1}],
)
def test_settings_without_a_meaning_are_refused(settings: dict[str, int]) -> None:
    """One line says what was expected."""
    with pytest.raises(ConfigurationError, match="expected"):
        CoverageGreedy(**settings)  # type: ignore[arg-type]  # a table of keywords


def test_random_pixels_are_uniform_images() -> None:
    """All bytes come up about equally, and the rng decides which."""
    one, same = (random_pixels(50, 20, rng=np.random.default_rng(3)) for _ in range(2))

    counts = np.bincount(one.ravel(), minlength=256)
    assert one.shape == (50, 20, 20, 3)
    assert np.array_equal(one, same)
    assert np.abs(counts / one.size * 256 - 1).max() < 0.3
    with pytest.raises(ConfigurationError, match="at least one"):
        random_pixels(0, 20, rng=np.random.default_rng(3))
