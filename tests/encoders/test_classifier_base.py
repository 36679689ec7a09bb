"""What is common to classifiers: canonical pictures and checked probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.encoders.classifiers.base import canonical, checked_probabilities, softmax
from tollkeeper.encoders.inputs import modality
from tollkeeper.errors import EncoderError, InputError

SHAPE = (1, 4, 5)
GRAY = np.arange(20, dtype=np.uint8).reshape(4, 5) * 12


def test_a_gray_picture_is_the_same_tensor_however_it_comes() -> None:
    """Equal channels keep their value, exactly."""
    image, tensor = np.repeat(GRAY[:, :, None], 3, axis=2), (GRAY / np.float32(255))[None]
    from_image = canonical([image], SHAPE, name="m")
    np.testing.assert_array_equal(from_image, canonical([tensor], SHAPE, name="m"))
    np.testing.assert_array_equal(from_image[0, 0] * 255, GRAY.astype(np.float32))


def test_color_becomes_gray_by_luma() -> None:
    """Green weighs most."""
    image = np.zeros((4, 5, 3), np.uint8)
    image[:, :, 1] = 200
    np.testing.assert_allclose(canonical([image], SHAPE, name="m") * 255, 117)


@pytest.mark.parametrize(
    "item",
    [
        np.zeros((5, 4, 3), np.uint8),
        np.zeros((1, 5, 4), np.float32),
        np.zeros((3, 4, 5), np.float32),
        np.zeros((1, 4, 5)),
        np.zeros((4, 5), np.float32),
    ],
)
def test_another_size_is_refused_with_the_size_wanted(item: np.ndarray) -> None:
    """Also another number of channels, and another kind of numbers."""
    with pytest.raises(InputError, match=r"input 1: expected a picture of 4 x 5 pixels.*'m'"):
        canonical([np.zeros(SHAPE, np.float32), item], SHAPE, name="m")


def test_nothing_is_reserved_for_inputs_that_do_not_fit() -> None:
    """Many small inputs do not take the memory of as many large ones before they are refused."""
    tiny = [np.zeros((1, 1, 1), np.float32)] * 2048
    with pytest.raises(InputError, match="input 0: expected a picture"):
        canonical(tiny, (3, 1 << 14, 1 << 14), name="m")


@pytest.mark.parametrize("value", [np.nan, -0.01, 1.01, np.inf])
def test_values_out_of_range_are_refused(value: float) -> None:
    """NaN too, here and where the kind of an input is told."""
    bad = np.full(SHAPE, value, np.float32)
    with pytest.raises(InputError, match="input 1: expected values from 0 to 1"):
        canonical([np.zeros(SHAPE, np.float32), bad], SHAPE, name="m")
    with pytest.raises(InputError, match="expected a finite tensor"):
        modality([bad])
    assert modality([np.zeros(SHAPE, np.float32)]) == "tensor"


def test_rows_that_are_no_probabilities_are_the_classifiers_fault() -> None:
    """Logits and rows that do not sum to one are told apart."""
    good = np.array([[0.25, 0.75], [1.0, 0.0]])
    np.testing.assert_array_equal(checked_probabilities(good, n=2, classes=2), good)
    with pytest.raises(EncoderError, match="does the classifier return logits"):
        checked_probabilities([[-1.0, 2.0]], n=1, classes=2)
    with pytest.raises(EncoderError, match=r"sum to 1, got 0.9 for input 1"):
        checked_probabilities([[0.5, 0.5], [0.5, 0.4]], n=2, classes=2)


def test_softmax_of_large_logits() -> None:
    """Nothing overflows, and nobody's rows are needed."""
    np.testing.assert_allclose(softmax([[1000.0, 0.0]], n=1, classes=2), [[1.0, 0.0]])
    assert softmax(np.empty((0, 2)), n=0, classes=2).shape == (0, 2)
