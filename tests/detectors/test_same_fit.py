"""The masked autoencoder has the paper's sizes, and a fitted SAME scores without torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tollkeeper.detectors.lab.mae import PUBLISHED, MaeLayout, MaskedAutoencoder, random_places  # noqa: E402
from tollkeeper.detectors.lab.mae_fit import (  # noqa: E402
    MaeRecipe,
    published,
    restored,
    train_mae,
)
from tollkeeper.detectors.lab.same import Aim, SameRecipe, fit_auxiliary, fit_same  # noqa: E402
from tollkeeper.detectors.same import Same  # noqa: E402
from tollkeeper.errors import ConfigurationError  # noqa: E402
from tollkeeper.lab.conv3 import Conv3, conv3  # noqa: E402
from tollkeeper.lab.fit import AdamW, Schedule  # noqa: E402
from tollkeeper.lab.progress import Step, silent  # noqa: E402
from tollkeeper.types import Images  # noqa: E402

pytestmark = pytest.mark.torch

MNIST, CIFAR, SMALL = (1, 28, 28), (3, 32, 32), (1, 16, 16)
TINY = MaeLayout(patch=4, width=32, encoder=1, decoder=1, heads=2)
RECIPE = MaeRecipe(
    layout=TINY, schedule=Schedule(epochs=30, batch=32, rate=5e-3, optimizer=AdamW(), warmup=2)
)


def bars(n: int, seed: int = 0) -> tuple[Images, np.ndarray]:
    """Draw pictures of one bright bar each, lying or standing, and which of the two."""
    rng = np.random.default_rng(seed)
    images, labels = np.zeros((n, *SMALL), np.float32), rng.integers(0, 2, n)
    for image, label, place in zip(images, labels, rng.integers(0, 14, n), strict=True):
        (image if label else image.transpose(0, 2, 1))[0, place : place + 2] = 1
    return images, labels


def classifier(rng: np.random.Generator) -> Conv3:
    """Make an auxiliary network."""
    return conv3(SMALL, 2, rng, width=4)


@pytest.fixture(scope="module")
def network() -> MaskedAutoencoder:
    """Train one autoencoder on bars."""
    return train_mae(bars(256)[0], recipe=RECIPE, rng=np.random.default_rng(1), progress=silent)


@pytest.mark.parametrize(
    ("shape", "sizes", "mflop"),
    [(MNIST, (196, 49, 7.20), (3266, 1371)), (CIFAR, (256, 64, 7.22), (4452, 1844))],
)
def test_sizes_are_those_of_the_paper(
    shape: tuple[int, int, int], sizes: tuple[int, int, float], mflop: tuple[float, float]
) -> None:
    """Tokens, weights in millions and cost of the released code's network."""
    network = PUBLISHED.build(shape, np.random.default_rng(0))
    weights = sum(one.numel() for one in network.parameters())
    found = (network.count, PUBLISHED.visible(shape, 0.75), round(weights / 1e6, 2))
    assert found == sizes
    # The blocks make up all but two thousandths of it.
    assert PUBLISHED.flops(shape) / 1e6 == pytest.approx(mflop[0], rel=2e-3)
    assert PUBLISHED.flops(shape, 0.75) / 1e6 == pytest.approx(mflop[1], rel=2e-3)


def test_with_nothing_masked_the_shuffle_does_not_matter() -> None:
    """All patches in any order are restored to the same picture."""
    network = PUBLISHED.build(MNIST, np.random.default_rng(0)).eval()
    images = torch.rand(2, *MNIST, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        patches = network.patchify(images)
        whole = network(images)[0]
        for seed in range(2):
            kept = random_places(2, 196, 196, torch.Generator().manual_seed(seed))
            found = network.unpatchify(network.restore(patches, kept))
            assert float((found - whole).abs().max()) <= 1e-5
        assert float((network(images)[0] - whole).abs().max()) <= 1e-6
        assert torch.equal(network.unpatchify(patches), (2 * images - 1 + 1) / 2)


def test_masked_patches_do_not_reach_the_decoder() -> None:
    """What is masked changes nothing of what is restored."""
    network = TINY.build(SMALL, np.random.default_rng(0)).eval()
    kept = torch.tensor([[0, 4]])
    patches = torch.zeros(1, 16, 16)
    other = patches.clone()
    other[:, [i for i in range(16) if i not in {0, 4}]] = 1
    assert torch.equal(network.restore(patches, kept), network.restore(other, kept))


def test_training_restores_what_is_honest_and_nothing_else(network: MaskedAutoencoder) -> None:
    """Held-out bars come back far better than noise does."""
    fresh = bars(64, seed=9)[0]
    noise = np.random.default_rng(2).random(fresh.shape, dtype=np.float32)
    honest = np.square(restored(network, fresh) - fresh).mean()
    assert honest < 0.25 * np.square(restored(network, noise) - noise).mean()


def test_the_same_generator_trains_the_same_network() -> None:
    """Weights, order, ratios and masks come from what is handed in."""
    images, _ = bars(64)
    short = replace(RECIPE, schedule=replace(RECIPE.schedule, epochs=2))
    made = [
        restored(
            train_mae(images, recipe=short, rng=np.random.default_rng(seed), progress=silent),
            images,
        )
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.allclose(made[0], made[2])


def test_loss_of_masked_pixels_only_is_another_loss() -> None:
    """The option changes what is learned, and whole batches still train."""
    images, _ = bars(64)
    short = replace(RECIPE, schedule=replace(RECIPE.schedule, epochs=2))
    made = [
        restored(
            train_mae(images, recipe=one, rng=np.random.default_rng(0), progress=silent), images
        )
        for one in (short, replace(short, masked_only=True))
    ]
    assert not np.allclose(made[0], made[1])


def test_published_recipe_is_that_of_the_code() -> None:
    """One ratio, its divisor, its rate; the warm-up never exceeds the cosine."""
    recipe = published()
    assert (recipe.ratios, recipe.scale, recipe.layout) == ((0.75,), 0.75, PUBLISHED)
    assert (recipe.schedule.rate, recipe.schedule.epochs, recipe.schedule.warmup) == (0.01, 500, 50)
    assert recipe.schedule.share(0, 10) == pytest.approx(1 / 500)
    assert recipe.schedule.share(4999, 10) < 1e-6


@pytest.mark.parametrize(("aim", "ratio"), [("labels", 0.0), ("answers", 0.0), ("labels", 0.75)])
def test_a_fitted_same_tells_noise_from_bars(
    network: MaskedAutoencoder, aim: Aim, ratio: float
) -> None:
    """Both forms of the auxiliary model; each row's score is its own to 1e-6."""
    seen, true = bars(256)
    detector = fit_auxiliary(
        network,
        seen,
        true,
        np.eye(2, dtype=np.float32)[true] * 0.8 + 0.1,
        classes=2,
        make_network=classifier,
        recipe=SameRecipe(aim=aim, ratio=ratio, schedule=Schedule(15, batch=32, rate=3e-3)),
        rng=np.random.default_rng(1),
        progress=silent,
    )
    images, labels = bars(64, seed=9)
    answers = np.eye(2, dtype=np.float32)[labels]
    noise = np.random.default_rng(2).random(images.shape, dtype=np.float32)
    honest, odd = detector.score(images, answers), detector.score(noise, answers)
    assert odd.min() > np.median(honest)
    alone = [detector.score(images[i : i + 1], answers[i : i + 1])[0] for i in range(8)]
    np.testing.assert_allclose(alone, honest[:8], atol=1e-6, rtol=0)
    deviation = detector.weighted(0)
    swapped = answers[:, ::-1].copy()
    assert deviation.score(images, swapped).mean() > 2 * deviation.score(images, answers).mean()


def test_the_graph_is_the_network() -> None:
    """What was exported restores as torch does."""
    images, _ = bars(64)
    short = replace(RECIPE, schedule=replace(RECIPE.schedule, epochs=2))
    found: list[tuple[int, Same]] = []
    steps: list[Step] = []
    fit_same(
        images,
        bars(64)[1],
        None,
        classes=2,
        make_network=classifier,
        recipe=SameRecipe(mae=short, schedule=Schedule(epochs=1, batch=32)),
        rng=np.random.default_rng(0),
        progress=steps.append,
        snapshots=(2,),
        after_epoch=lambda epoch, one: found.append((epoch, one)),
    )
    network = train_mae(images, recipe=short, rng=np.random.default_rng(0), progress=silent)
    ((epoch, detector),) = found
    assert (epoch, detector.name) == (2, "same-x")
    assert [step.phase for step in steps] == ["autoencoder", "autoencoder", "auxiliary"]
    made = detector.reconstruction.run(images)["restored"]
    np.testing.assert_allclose(made, restored(network, images), atol=1e-5)


def test_what_cannot_be_fitted_is_refused() -> None:
    """Each refusal says what to change."""
    images, labels = bars(8)
    with pytest.raises(ConfigurationError, match="multiples of 5 pixels"):
        MaeLayout(patch=5).build(SMALL, np.random.default_rng(0))
    with pytest.raises(ConfigurationError, match="multiple of the heads"):
        MaeLayout(width=10, heads=3)
    with pytest.raises(ConfigurationError, match="mask ratios"):
        MaeRecipe(ratios=(1.0,))
    with pytest.raises(ConfigurationError, match=r"needs answers of shape \(8, 2\), got none"):
        fit_same(
            images,
            labels,
            None,
            classes=2,
            make_network=classifier,
            recipe=SameRecipe(aim="answers"),
            rng=np.random.default_rng(0),
            progress=silent,
        )
