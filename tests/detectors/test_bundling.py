"""Promises of fitting all detectors of a classifier together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tollkeeper.detectors.bundle import Bundle, load_bundle, save_bundle  # noqa: E402
from tollkeeper.detectors.history import History  # noqa: E402
from tollkeeper.detectors.lab.bundling import fit_bundle, recipe_for  # noqa: E402
from tollkeeper.detectors.lab.mae import MaeLayout  # noqa: E402
from tollkeeper.errors import ConfigurationError  # noqa: E402
from tollkeeper.lab.progress import Step, silent  # noqa: E402
from tollkeeper.types import Images, Probabilities  # noqa: E402

SHAPE, CLASSES = (1, 20, 20), 3


class Bright:
    """Answers by which third of a picture is brightest."""

    name = "bright"
    dim = CLASSES
    input_shape: tuple[int, int, int] | None = SHAPE

    def embed(self, inputs: Images) -> Probabilities:
        thirds = inputs[:, 0, :18].reshape(len(inputs), 3, -1).mean(axis=2)
        rows = np.exp(20 * thirds)
        found: Probabilities = (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)
        return found


def honest(n: int, seed: int) -> Images:
    """Draw pictures with one bright third."""
    rng = np.random.default_rng(seed)
    pictures = np.zeros((n, *SHAPE), np.float32)
    for picture, place in zip(pictures, rng.integers(0, 3, n), strict=True):
        picture[0, 6 * place : 6 * place + 6] = rng.integers(0, 256, (6, 20)) / 255
    return pictures


STEPS: list[Step] = []


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return what is fitted in one epoch, read back from its file."""
    bundle = fit_bundle(
        Bright(),
        honest(2000, 1),
        recipe=recipe_for(SHAPE, epochs=1, labels=False),
        graphs={},
        rng=np.random.default_rng(0),
        progress=STEPS.append,
    )
    path: Path = tmp_path_factory.mktemp("bundle") / "made.tkd"
    save_bundle(path, bundle)
    return load_bundle(path)


def test_ranks_of_fresh_honest_inputs_are_honest(fitted: Bundle) -> None:
    """Of inputs that fitting never saw, about a tenth ranks above nine tenths, for each detector."""
    fresh = honest(1500, 2)
    answers = Bright().embed(fresh)
    for name, detector in fitted.detectors.items():
        share = (fitted.rank(detector.score(fresh, answers), name) >= 0.9).mean()
        assert share == pytest.approx(0.1, abs=0.045), name


def test_everything_that_guards_is_in_it(fitted: Bundle) -> None:
    """The rivals, the recommended score, the account's history and the victim's probe."""
    assert set(fitted.detectors) == {"fused", "same", "same-x", "max-softmax", "pixel-share"}
    assert isinstance(fitted.account, History)
    fitted.check_victim(Bright())
    assert {step.phase for step in STEPS} >= {"asking", "SAME: autoencoder", "fused: autoencoder"}


def test_foreign_inputs_are_told_and_their_account_is_caught(fitted: Bundle) -> None:
    """Noise ranks above all honest inputs, and 16 of it raise the account's alarm."""
    noise = np.random.default_rng(3).random((16, *SHAPE), dtype=np.float32)
    answers = Bright().embed(noise)
    account = fitted.account
    assert isinstance(account, History)

    assert (fitted.rank(fitted.detectors["fused"].score(noise, answers)) > 0.99).all()
    assert account.update(account.empty(), noise, answers)[0][-1] >= account.alarm_at(0.01)


def test_patches_fit_the_pictures() -> None:
    """Patches divide both sides; prime sides are refused with what to do."""
    layouts = [recipe_for(shape, labels=True) for shape in ((1, 28, 28), (3, 32, 32), (1, 20, 30))]

    assert [one.same.mae.layout.patch for one in layouts] == [4, 4, 5]
    assert [one.fused.layout.patch for one in layouts] == [7, 8, 5]
    assert isinstance(layouts[0].fused.layout, MaeLayout)
    with pytest.raises(ConfigurationError, match="share a divisor"):
        recipe_for((1, 7, 9), labels=True)


def test_too_few_honest_inputs_are_refused() -> None:
    """Fitting on a handful is refused before anything is asked."""
    with pytest.raises(ConfigurationError, match="at least 2,000 honest inputs, got 10"):
        fit_bundle(
            Bright(),
            honest(10, 1),
            recipe=recipe_for(SHAPE, labels=False),
            rng=np.random.default_rng(0),
            progress=silent,
        )
