"""Tests of responses that need no network."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.errors import ConfigurationError
from tollkeeper.responses.base import Perturbation
from tollkeeper.responses.chain import Chain
from tollkeeper.responses.outputs import KeyedLogitNoise, KeyedNoise, ReverseSigmoid, Rounded, TopK
from tollkeeper.types import Images, Probabilities

KEY = b"a tenant's secret"
EVERY: tuple[Perturbation, ...] = (
    TopK(1),
    TopK(3),
    Rounded(0),
    Rounded(1),
    Rounded(3),
    Rounded(7),
    KeyedNoise(),
    KeyedLogitNoise(),
    ReverseSigmoid(),
    Chain(Rounded(1), KeyedNoise(), TopK(2)),
)
KEEPING = EVERY[:6]
NOISY = EVERY[6:8]


def _answers(seed: int, n: int = 8, classes: int = 10, sharp: float = 3.0) -> Probabilities:
    logits = sharp * np.random.default_rng(seed).normal(size=(n, classes))
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: Probabilities = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return found


def _images(seed: int, n: int = 8) -> Images:
    return np.random.default_rng(seed).random((n, 1, 4, 4), np.float32)


def _row(*values: float) -> Probabilities:
    return np.array([values], np.float32)


@given(
    st.sampled_from(EVERY),
    st.integers(0, 2**31),
    st.integers(2, 20),
    st.floats(0, 60),
)
def test_answers_stay_probabilities(
    response: Perturbation, seed: int, classes: int, sharp: float
) -> None:
    """Whatever the victim is sure of, rows are float32, not negative and sum to one."""
    answers = _answers(seed, classes=classes, sharp=sharp)
    found = response(_images(seed), answers, key=KEY)
    assert found.dtype == np.float32
    assert found.shape == answers.shape
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(axis=1, dtype=np.float64), 1, atol=1e-5)


@given(
    st.sampled_from(KEEPING), st.integers(0, 2**31), st.integers(2, 12), st.sampled_from((0.01, 3))
)
def test_labels_stay_where_promised(
    response: Perturbation, seed: int, classes: int, sharp: float
) -> None:
    """Cutting and rounding never change the arg-max, not even of nearly uniform answers."""
    answers = _answers(seed, classes=classes, sharp=sharp)
    found = response(_images(seed), answers, key=KEY)
    np.testing.assert_array_equal(found.argmax(axis=1), answers.argmax(axis=1))


@given(st.sampled_from(EVERY), st.integers(0, 2**31))
def test_an_answer_does_not_depend_on_its_batch(response: Perturbation, seed: int) -> None:
    """Each query gets what it would get alone, at any place, and again."""
    images, answers = _images(seed), _answers(seed)
    order = np.random.default_rng(seed).permutation(len(images))
    together = response(images, answers, key=KEY)
    moved = response(images[order], answers[order], key=KEY)
    alone = [response(images[i : i + 1], answers[i : i + 1], key=KEY) for i in range(len(images))]
    np.testing.assert_array_equal(together[order], moved)
    np.testing.assert_array_equal(together, np.concatenate(alone))


@pytest.mark.parametrize("response", EVERY, ids=lambda response: str(response.name))
def test_nothing_asked_is_nothing_answered(response: Perturbation) -> None:
    """An empty batch passes."""
    found = response(_images(0, n=0), np.empty((0, 10), np.float32), key=KEY)
    assert found.shape == (0, 10)


@pytest.mark.parametrize("response", NOISY, ids=lambda response: str(response.name))
def test_another_key_draws_other_noise(response: Perturbation) -> None:
    """Noise is the key's; without it nobody can draw the same and subtract it."""
    images, answers = _images(1), _answers(1)
    mine, other = (response(images, answers, key=key) for key in (KEY, b"another"))
    assert (np.abs(mine - other).max(axis=1) > 1e-3).all()


@pytest.mark.parametrize("response", NOISY, ids=lambda response: str(response.name))
def test_pictures_that_are_the_same_to_the_victim_draw_no_new_noise(
    response: Perturbation,
) -> None:
    """Neither -0 for 0 nor a change below half a level of 256 gets another sample to average."""
    images: Images = (np.rint(_images(2) * 255) / 255).astype(np.float32)
    images[:, :, 0, 0] = 0
    same = images.copy()
    same[:, :, 0, 0] = -0.0
    same[:, :, 1:, :] = np.clip(same[:, :, 1:, :] + 1e-3, 0, 1)
    other = images.copy()
    other[:, :, 0, 0] = 1 / 255
    answers = _answers(2)
    drawn = response(images, answers, key=KEY)
    np.testing.assert_array_equal(drawn, response(same, answers, key=KEY))
    assert (drawn != response(other, answers, key=KEY)).any(axis=1).all()


def test_noise_has_the_scale_that_is_asked_for() -> None:
    """Before clipping, noise is standard normal times the scale: seen where nothing clips."""
    count = 4000
    images = np.random.default_rng(3).random((count, 1, 4, 4), np.float32)
    answers = np.full((count, 2), 0.5, np.float32)
    found = KeyedNoise(0.05)(images, answers, key=KEY)
    # (p + a) / (1 + a + b) with a, b of scale s is 1/2 + (a - b) / 2 to first order.
    assert found[:, 0].std() == pytest.approx(0.05 / 2**0.5, rel=0.05)
    assert abs(found[:, 0].mean() - 0.5) < 0.003


def test_logit_noise_stays_in_its_ball() -> None:
    """Undone logits moved by the radius at most, and by something."""
    answers = _answers(4, n=200, sharp=1)
    found = KeyedLogitNoise(1.0)(_images(4, n=200), answers, key=KEY).astype(np.float64)
    logit = np.log(answers) - np.log1p(-answers)
    # The scale to one is unknown: the row must fit for one of its scales.
    fits = []
    for scale in np.linspace(0.3, 4, 400):
        inside = np.clip(found * scale, 1e-9, 1 - 1e-9)
        moved = np.log(inside) - np.log1p(-inside) - logit
        fits.append(np.linalg.norm(moved, axis=1))
    least = np.min(fits, axis=0)
    assert (least <= 1 + 1e-3).all()
    assert least.mean() > 0.01


def test_reverse_sigmoid_reproduces_the_published_settings() -> None:
    """With beta 1 and gamma .1, (.7, .2, .1) becomes (.6355, .2196, .1448)."""
    found = ReverseSigmoid(1.0, 0.1)(_images(0, n=1), _row(0.7, 0.2, 0.1), key=KEY)
    np.testing.assert_allclose(found, _row(0.6355, 0.2196, 0.1448), atol=5e-5)


def test_reverse_sigmoid_survives_certainty() -> None:
    """Probabilities of exactly 0 and 1 give finite answers with the same label."""
    found = ReverseSigmoid()(_images(0, n=1), _row(0.0, 1.0, 0.0), key=KEY)
    assert found.argmax() == 1
    assert found[0, 0] == found[0, 2] > 0


@given(st.integers(0, 2**31), st.floats(0.05, 1), st.floats(0.05, 0.95))
def test_reverse_sigmoid_keeps_a_label_above_one_half(seed: int, beta: float, gamma: float) -> None:
    """Its promise, for every beta and gamma."""
    answers = _answers(seed, n=30)
    sure = answers.max(axis=1) > 0.5
    found = ReverseSigmoid(beta, gamma)(_images(seed, n=30), answers, key=KEY)
    np.testing.assert_array_equal(found.argmax(axis=1)[sure], answers.argmax(axis=1)[sure])


def test_reverse_sigmoid_can_lift_a_class_that_had_nothing() -> None:
    """Why the promise ends at one half: the published form lets zero overtake .12."""
    answers = _row(0.12, *[0.11] * 8, 0.0)
    assert ReverseSigmoid()(_images(0, n=1), answers, key=KEY).argmax() == 9


def test_top_k_keeps_the_first_of_equals() -> None:
    """The k largest stay, scaled to one; a tie is broken as the arg-max breaks it."""
    found = TopK(2)(_images(0, n=1), _row(0.2, 0.4, 0.2, 0.2), key=KEY)
    np.testing.assert_allclose(found, _row(1 / 3, 2 / 3, 0, 0), atol=1e-6)


@pytest.mark.parametrize(
    ("decimals", "expected"),
    [
        (0, (0, 0, 1)),
        (1, (0.2, 0.4, 0.4)),
        (2, (0.20, 0.39, 0.41)),
    ],
)
def test_rounding_gives_multiples(decimals: int, expected: tuple[float, ...]) -> None:
    """Largest remainders make up the sum, and no rival ties with the true label."""
    found = Rounded(decimals)(_images(0, n=1), _row(0.198, 0.394, 0.408), key=KEY)
    if decimals == 1:  # 2, 4 and 4 units would tie
        expected = (0.2, 0.3, 0.5)
    np.testing.assert_allclose(found, _row(*expected), atol=1e-6)


def test_a_chain_applies_its_links_in_order() -> None:
    """Rounding and then cutting is not cutting and then rounding."""
    images, answers = _images(0, n=1), _row(0.38, 0.33, 0.29)
    there = Chain(TopK(2), Rounded(1))(images, answers, key=KEY)
    back = Chain(Rounded(1), TopK(2))(images, answers, key=KEY)
    np.testing.assert_allclose(there, _row(0.6, 0.4, 0), atol=1e-6)
    np.testing.assert_allclose(back, _row(4 / 7, 3 / 7, 0), atol=1e-6)
    assert Chain(TopK(2), Rounded(1)).name == "top-k+rounded"


def test_an_empty_chain_changes_nothing() -> None:
    """No response is a response too."""
    answers = _answers(5)
    assert Chain()(_images(5), answers, key=KEY) is answers
    assert Chain().name == "none"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TopK(0), "top_k of at least 1, got 0"),
        (lambda: Rounded(-1), "0 to 7 decimals, got -1"),
        (lambda: KeyedNoise(0.0), "noise scale above 0, got 0.0"),
        (lambda: KeyedLogitNoise(float("inf")), "noise radius above 0, got inf"),
        (lambda: ReverseSigmoid(1, 1), "not both 1"),
        (lambda: ReverseSigmoid(0, 0.5), "beta and gamma above 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make: object, message: str) -> None:
    """A response that cannot work says what it expected."""
    assert callable(make)
    with pytest.raises(ConfigurationError, match=message):
        make()
