"""The one training loop."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tollkeeper.attacks.networks.convnet import ConvNet  # noqa: E402
from tollkeeper.attacks.networks.ngram import NGram  # noqa: E402
from tollkeeper.attacks.surrogate import Surrogate  # noqa: E402
from tollkeeper.errors import ConfigurationError, InputError  # noqa: E402
from tollkeeper.lab.fit import SGD, Adam, AdamW, Schedule, fit, run_network  # noqa: E402
from tollkeeper.lab.progress import Step  # noqa: E402

IMAGES = np.random.default_rng(3).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)


def line(schedule: Schedule, *, count: int = 64, seed: int = 0) -> tuple[float, list[Step]]:
    """Fit y = 3 x by one weight; return the weight and the steps told."""
    weight = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        weight.weight.zero_()
    x = torch.linspace(-1, 1, count)[:, None]
    steps: list[Step] = []
    fit(
        [weight],
        count,
        lambda index: (weight(x[index]) - 3 * x[index]).square().mean(),
        schedule=schedule,
        rng=np.random.default_rng(seed),
        progress=steps.append,
    )
    assert not weight.training
    return weight.weight.item(), steps


@pytest.mark.parametrize("optimizer", [Adam(), AdamW(weight_decay=0.01), SGD()])
def test_it_learns(optimizer: Adam | AdamW | SGD) -> None:
    """Each optimizer finds the one weight that fits, and the loss told falls."""
    found, steps = line(Schedule(epochs=100, batch=16, rate=0.1, optimizer=optimizer))
    assert found == pytest.approx(3, abs=0.05)
    assert [step.done for step in steps] == list(range(1, 101))
    first, last = steps[0].loss, steps[-1].loss
    assert first is not None
    assert last is not None
    assert last < first / 100


def test_the_rate_rises_under_the_cosine() -> None:
    """The lower of a line over the warm-up and half a cosine over all steps, as published."""
    schedule = Schedule(epochs=10, warmup=4)
    for step in range(50):
        cosine = 0.5 * (1 + np.cos(np.pi * step / 50))
        assert schedule.share(step, 5) == pytest.approx(min((step + 1) / 20, cosine))
    assert Schedule(epochs=10).share(0, 5) == 1
    with pytest.raises(ConfigurationError, match="warm-up -1"):
        Schedule(warmup=-1)


def test_same_seed_same_weights() -> None:
    """The order of rows is all that is random, and it comes from the generator handed in."""
    schedule = Schedule(epochs=3, batch=16, rate=0.1)
    assert line(schedule, seed=1) == line(schedule, seed=1)
    assert line(schedule, seed=1)[0] != line(schedule, seed=2)[0]


def test_fewer_rows_than_a_batch_are_one_batch() -> None:
    """A tiny budget still trains."""
    found, _ = line(Schedule(epochs=200, batch=256, rate=0.1), count=5)
    assert found == pytest.approx(3, abs=0.1)


def test_one_row_is_too_few() -> None:
    """A single answer cannot be contrasted with anything."""
    with pytest.raises(ConfigurationError, match="at least 2 answers"):
        line(Schedule(), count=1)


def test_a_diverging_loss_is_one_clear_line() -> None:
    """NaN ends the run at once and says what to change."""
    with pytest.raises(ConfigurationError, match="lower the learning rate"):
        line(Schedule(epochs=60, batch=8, rate=1e30, optimizer=SGD()))


def test_convnet_reads_images_of_any_size() -> None:
    """Images are averaged to the network's side; the width is the victim's."""
    network = ConvNet(width=4, side=16).build(24, np.random.default_rng(0))
    surrogate = Surrogate(network, dim=24)
    assert surrogate.embed(IMAGES).shape == (40, 24)
    assert surrogate.embed(list(IMAGES[:3, :20, :20])).shape == (3, 24)
    assert surrogate.embed([]).shape == (0, 24)


@pytest.mark.parametrize(
    "inputs",
    [
        ["text"],
        np.zeros((2, 4, 4, 1), np.uint8),
        np.zeros((2, 4, 4, 3), np.float32),
        [np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)],
    ],
)
def test_convnet_refuses_what_is_no_image(inputs: object) -> None:
    """Texts, gray or float arrays and mixed sizes are named, not crashed on."""
    surrogate = Surrogate(ConvNet(width=4).build(8, np.random.default_rng(0)), dim=8)
    with pytest.raises(InputError, match="images"):
        surrogate.embed(inputs)


def test_uint8_and_unit_floats_are_the_same_image() -> None:
    """Augmented floats in [0, 1] embed as the uint8 pixels do."""
    network = ConvNet(width=4).build(8, np.random.default_rng(0)).eval()
    pixels = network.prepare(IMAGES)
    assert torch.allclose(run_network(network, pixels), run_network(network, pixels / 255))


def test_ngram_tells_texts_apart_and_refuses_others() -> None:
    """Different words give different rows, empty text is fine, numbers are not."""
    surrogate = Surrogate(NGram(buckets=64, width=8).build(6, np.random.default_rng(0)), dim=6)
    rows = surrogate.embed(["a lost card", "the weather", "", "a lost card"])
    assert rows.shape == (4, 6)
    assert np.array_equal(rows[0], rows[3])
    assert not np.allclose(rows[0], rows[1])
    with pytest.raises(InputError, match="expected texts"):
        surrogate.embed([1])


def test_networks_depend_on_the_generator_only() -> None:
    """Same generator state, same weights; the global one is left alone."""
    before = torch.random.get_rng_state()
    one, two, other = (ConvNet(width=4).build(8, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    pixels = one.prepare(IMAGES[:4])
    one, two, other = (net.eval()(pixels) for net in (one, two, other))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
