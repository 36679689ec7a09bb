"""What thieves of the prediction experiments ask, and how their pictures are drawn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("torch")

from tollkeeper.bench.predict.plan import SMOKE
from tollkeeper.bench.predict.rendering import SIDE, leveled, like_emnist, like_mnist
from tollkeeper.bench.predict.scene import load_scene
from tollkeeper.bench.predict.streams import EVERYONE, Stream, World, ask
from tollkeeper.bench.predict.victims import train_victim
from tollkeeper.data import Dataset

pytestmark = pytest.mark.torch

PLAN = SMOKE["mnist"]
Load = Callable[[str, str], Dataset]


def stroke(top: int, left: int, height: int, width: int, *, ink: float = 1.0) -> np.ndarray:
    """Return one picture with a bar."""
    picture = np.zeros((1, 1, SIDE, SIDE), np.float32)
    picture[0, 0, top : top + height, left : left + width] = ink
    return picture


@pytest.mark.parametrize("name", EVERYONE)
def test_a_thief_spends_its_budget_and_everything_is_recorded(drawn: Load, name: str) -> None:
    """Queries come with the victim's own answers, seeds first; the copy is judged."""
    rng = np.random.default_rng(0)
    scene = load_scene("mnist", PLAN.sizes, rng=rng, data={})
    victim = train_victim(scene, PLAN.training, rng=rng)
    thief = EVERYONE[name]
    world = World(scene, PLAN.copying, lambda _, images: images * np.float32(0.5))
    stream = ask(name, thief, world, victim, budget=44, rng=rng, clock=lambda: 0.0)
    assert len(stream.images) == 44
    assert np.allclose(stream.answers, victim.embed(stream.images), atol=1e-6)
    assert 0 <= stream.copied <= 1
    if name.startswith(("jbda", "t_rnd")):
        assert stream.seeds == len(scene.seeds)
        assert np.array_equal(stream.images[: len(scene.seeds)], scene.seeds)
        moved = np.abs(stream.images[20:40] - scene.seeds).max(axis=(1, 2, 3))
        assert 0 < moved.max() <= 0.051
    else:
        assert stream.seeds == 0
    if name in {"knockoff_projected", "knockoff_projected_fused"}:
        assert stream.images.max() <= 0.5
    if name.endswith("leveled"):
        honest = {np.sort(image.ravel()).tobytes() for image in scene.seeds}
        assert {np.sort(image.ravel()).tobytes() for image in stream.images} <= honest


def test_a_smaller_budget_asks_a_part_of_a_larger_one() -> None:
    """Seeds are left out or counted; whole rounds are kept, and a random part of the last."""
    images = np.arange(100, dtype=np.float32)[:, None, None, None]
    stream = Stream("jbda", images, np.zeros((100, 2), np.float32), seeds=10, copied=0, agreed=0)
    some = stream.first(50, rng=np.random.default_rng(0))
    assert len(some) == 40
    assert some[:30].tolist() == list(range(10, 40))
    assert some[30:].tolist() != list(range(40, 50))
    assert set(some[30:]) <= set(range(40, 80))
    counted = stream.first(50, rng=np.random.default_rng(0), seeds=True)
    assert counted.tolist() == [*range(10), *some]
    assert len(stream.first(100, rng=np.random.default_rng(0))) == 90


def test_a_stream_that_is_judged_whole_is_not_cut() -> None:
    """Its rounds do not double, so what a smaller budget would have asked is not known."""
    nothing = np.zeros((9, 1, 2, 2), np.float32), np.zeros((9, 2), np.float32)
    stream = Stream("jbda_papernot", *nothing, seeds=2, copied=0, agreed=0, whole=True)
    rng = np.random.default_rng(0)
    assert stream.first(9, rng=rng).tolist() == list(range(2, 9))
    assert stream.first(9, rng=rng, seeds=True).tolist() == list(range(9))
    assert stream.malicious.tolist() == list(range(2, 9))
    with pytest.raises(ValueError, match="judged at 9 queries, not at 8"):
        stream.first(8, rng=rng)


def test_pictures_get_the_levels_of_examples() -> None:
    """The order of a picture's pixels stays; the values are those of the example most like it."""
    dark, bright = np.array([[[[0, 0], [0, 51]]], [[[255, 204], [102, 255]]]], np.float32) / 255
    made = leveled(np.array([[[[0.1, 0.3], [0.05, 0.02]]]], np.float32), np.stack([bright, dark]))
    assert made.tolist() == [[[[0, np.float32(0.2)], [0, 0]]]]


def test_a_stream_without_seeds_is_cut() -> None:
    """The first queries of a larger budget are those of a smaller one."""
    stream = Stream(
        "knockoff",
        np.zeros((9, 1, 2, 2), np.float32),
        np.zeros((9, 2), np.float32),
        0,
        copied=0,
        agreed=0,
    )
    assert stream.first(4, rng=np.random.default_rng(0)).tolist() == [0, 1, 2, 3]


def test_mnist_is_drawn_in_a_box_of_twenty_around_its_center_of_mass() -> None:
    """Any bar becomes 20 pixels long, centered, on a ground of exactly zero."""
    made = like_mnist(stroke(2, 3, 24, 6), stroke(4, 12, 20, 4))
    rows, columns = np.nonzero(made[0, 0])
    assert rows.max() - rows.min() + 1 == 20
    assert abs(rows.mean() - 13.5) <= 0.5
    assert abs(columns.mean() - 13.5) <= 0.5
    assert not ((made > 0) & (made < 0.1)).any()  # The example has no gray at all.


def test_emnist_is_blurred_and_drawn_in_a_box_of_twenty_four() -> None:
    """The same bar becomes 24 pixels long, and has gray borders."""
    made = like_emnist(stroke(4, 12, 20, 4))
    rows, _ = np.nonzero(made[0, 0] > 0.02)
    assert rows.max() - rows.min() + 1 == 24
    assert ((made > 0) & (made < 0.9)).any()


def test_a_blank_picture_stays_blank() -> None:
    """Pictures without ink are drawn without ink."""
    blank = np.zeros((2, 1, SIDE, SIDE), np.float32)
    assert not like_emnist(blank).any()
    assert not like_mnist(blank, stroke(4, 12, 20, 4)).any()
