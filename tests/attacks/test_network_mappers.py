"""The published mappers train as published, and keep their best state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tollkeeper.attacks.sybil.mappers import Mapper  # noqa: E402
from tollkeeper.attacks.sybil.network_mappers import (  # noqa: E402
    NetworkMap,
    ThreeLayerMapper,
    Training,
    TwoLayerMapper,
)
from tollkeeper.errors import ConfigurationError, InputError  # noqa: E402
from tollkeeper.types import Embeddings  # noqa: E402

pytestmark = pytest.mark.torch

SHORT = Training(rate=1e-2, max_steps=200)
BOTH = (TwoLayerMapper(training=SHORT), ThreeLayerMapper(training=SHORT))


def draw(seed: int, *shape: int) -> Embeddings:
    """Return standard normal float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Scripted(Training):
    """Sets all weights to given values, one after the other, and notes how it was asked."""

    values: tuple[float, ...] = ()
    asked: list[int] | None = None

    def passes(
        self, network: Any, source: Any, target: Any, *, count: int, rng: np.random.Generator
    ) -> Iterator[None]:
        if self.asked is not None:
            self.asked.extend([count, len(source)])
        for value in self.values:
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.fill_(value)
            yield


@pytest.mark.parametrize("mapper", BOTH)
def test_they_learn_an_easy_map(mapper: Mapper) -> None:
    """A few hundred steps at a high rate explain most of an affine map on unseen rows."""
    source, unseen = draw(0, 300, 4), draw(1, 100, 4)
    scales, shift = np.array([[1, -0.5, 0.8, 0.3], [0.5, 0, -1, 2]], dtype=np.float32)

    mapped = mapper.fit(source, source * scales + shift, rng=np.random.default_rng(0))(unseen)

    truth = unseen * scales + shift
    assert mapped.dtype == np.float32
    assert np.square(mapped - truth).mean() < 0.2 * truth.var(axis=0).mean()


@pytest.mark.parametrize("mapper", BOTH)
def test_equal_rngs_give_equal_maps(mapper: Mapper) -> None:
    """All randomness comes from the rng, and torch's global generator is not touched."""
    source, target = draw(0, 40, 3), draw(1, 40, 2)
    before = torch.random.get_rng_state()
    one, same, other = (
        mapper.fit(source, target, rng=np.random.default_rng(seed))(source) for seed in (1, 1, 2)
    )

    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_two_layers_are_affine() -> None:
    """Without an activation the middle of two rows maps to the middle of their maps."""
    found = BOTH[0].fit(draw(0, 64, 5), draw(1, 64, 3), rng=np.random.default_rng(0))
    one, other = draw(2, 10, 5), draw(3, 10, 5)

    middle = found((one + other) / 2)

    np.testing.assert_allclose(middle, (found(one) + found(other)) / 2, atol=1e-5)


@pytest.mark.parametrize(("varying", "hidden", "expected"), [(5, None, 5), (5, 3, 3), (0, None, 1)])
def test_the_middle_is_as_wide_as_coordinates_vary(
    varying: int, hidden: int | None, expected: int
) -> None:
    """Pads do not widen the middle layer; a given width wins."""
    source = np.hstack([draw(0, 8, varying), np.ones((8, 4), np.float32)])
    for mapper in (TwoLayerMapper(hidden, SHORT), ThreeLayerMapper(hidden, SHORT)):
        found = mapper.fit(source, draw(1, 8, 2), rng=np.random.default_rng(0))

        assert isinstance(found, NetworkMap)
        assert found.network[0].out_features == expected


@pytest.mark.parametrize(
    ("pairs", "two", "three"), [(10, 249_999, 250_000), (3000, 50 * 16 - 1, 833)]
)
def test_they_pass_over_the_pairs_as_often_as_the_code(pairs: int, two: int, three: int) -> None:
    """The published formulas, on all pairs and on four fifths of them."""
    asked: list[int] = []
    training = Scripted(rate=1.0, values=(0.0,), asked=asked)
    for mapper in (TwoLayerMapper(training=training), ThreeLayerMapper(training=training)):
        mapper.fit(draw(0, pairs, 1), draw(1, pairs, 1), rng=np.random.default_rng(0))

    assert asked == [two, pairs, three, pairs * 4 // 5]


@pytest.mark.parametrize(("most", "expected"), [(1, 1), (5, 2), (6, 3), (100, 7)])
def test_steps_are_capped_in_whole_passes(most: int, expected: int) -> None:
    """Two steps a pass, at most `max_steps` of them, but one pass always."""
    network = torch.nn.Linear(2, 2)
    source = torch.zeros(65, 2)

    passes = Training(rate=1e-3, max_steps=most).passes(
        network, source, source, count=7, rng=np.random.default_rng(0)
    )

    assert len(list(passes)) == expected


def test_the_best_pass_on_held_out_pairs_is_kept() -> None:
    """Not the last one: weights of .5 map 1 to .5 + .5 and nothing else comes as close to 1."""
    ones = np.ones((10, 1), np.float32)
    training = Scripted(rate=1.0, values=(0.0, 0.5, 2.0))

    found = ThreeLayerMapper(hidden=1, training=training).fit(
        ones, ones, rng=np.random.default_rng(0)
    )

    # relu(.5 + .5) = 1, relu(.5 + .5) = 1, .5 + .5 = 1
    assert found(ones[:1]).tolist() == [[1.0]]


def test_bad_settings_and_pairs_are_refused() -> None:
    """One line says what was expected."""
    with pytest.raises(ConfigurationError, match="at least 1"):
        Training(rate=1e-3, batch=0)
    for mapper in BOTH:
        with pytest.raises(InputError, match="at least 2 pairs"):
            mapper.fit(draw(0, 3, 2), draw(1, 4, 2), rng=np.random.default_rng(0))
