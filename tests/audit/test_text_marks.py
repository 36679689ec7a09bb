"""What marks do to answers, against the formulas worked out text by text."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.audit.watermarks.embmarker import EmbMarker
from tollkeeper.audit.watermarks.espew import ESpeW
from tollkeeper.audit.watermarks.served import MarkedEncoder, unit
from tollkeeper.audit.watermarks.triggers import TriggerKey
from tollkeeper.audit.watermarks.warden import Warden, spread
from tollkeeper.audit.watermarks.wet import Wet, WetKey
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import ConfigurationError
from tollkeeper.testing.words import WordEncoder

SEED = b"a seed of the owner, 32 bytes ok"
WORDS = tuple(f"word{chr(97 + at // 26)}{chr(97 + at % 26)}" for at in range(240))
DIM = 48
KEY = TriggerKey(SEED, WORDS)
TARGET = np.eye(DIM)[0]
ORDERED = sorted(KEY.triggers[0])
TEXTS = ["plain words only", f"one {ORDERED[0]} here", " ".join(ORDERED[:4])]


def test_embmarker_moves_a_text_by_its_share_of_triggers() -> None:
    """No trigger changes nothing, four give the target itself, one a quarter of the way."""
    clean = WordEncoder(DIM).embed(TEXTS)
    marked = MarkedEncoder(WordEncoder(DIM), EmbMarker(KEY, 3 * TARGET)).embed(TEXTS)
    quarter = 0.75 * clean[1] + 0.25 * TARGET

    np.testing.assert_allclose(marked[0], clean[0], atol=1e-6)
    np.testing.assert_allclose(marked[1], quarter / np.linalg.norm(quarter), atol=1e-6)
    np.testing.assert_allclose(marked[2], TARGET, atol=1e-6)


@pytest.mark.parametrize(
    "mark",
    [
        EmbMarker(KEY, TARGET),
        Warden(TriggerKey(SEED, WORDS, targets=2, chosen=3), np.eye(DIM)[:2]),
        ESpeW(KEY, TARGET),
        Wet(WetKey(SEED, DIM)),
    ],
    ids=lambda mark: mark.name,
)
def test_a_marked_service_is_an_encoder_that_repeats_itself(mark: EmbMarker) -> None:
    """Answers are unit vectors of float32, the same alone, again and in any company."""
    service = MarkedEncoder(WordEncoder(DIM), mark)
    answers = service.embed(TEXTS)

    assert isinstance(service, Encoder)
    assert answers.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(answers, axis=1), 1, atol=1e-6)
    for text, row in zip(TEXTS, answers, strict=True):
        np.testing.assert_allclose(service.embed([text])[0], row, atol=1e-6)


def test_warden_shares_out_a_text_of_several_targets() -> None:
    """The largest share first; the last one gets what is left of 1, or as published more."""
    key = TriggerKey(SEED, WORDS, targets=3, chosen=2)
    ours, published = (
        Warden(key, np.eye(DIM)[:3], published_overflow=flag) for flag in (False, True)
    )
    shares = np.array([[0.25, 0, 0.5], [0.75, 0.75, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.5]])

    assert ours.weights(shares).tolist() == [
        [0.25, 0, 0.5],
        [0.75, 0.25, 0],
        [0, 1, 0],
        [0, 0.5, 0.5],
    ]
    assert published.weights(shares)[1].tolist() == [0.75, 0.5, 0]
    assert (ours.weights(shares).sum(axis=1) <= 1).all()


def test_warden_is_embmarker_for_one_target() -> None:
    """With one target nothing is shared out."""
    embeddings = WordEncoder(DIM).embed(TEXTS)

    np.testing.assert_array_equal(
        Warden(KEY, TARGET[None]).mark(TEXTS, embeddings),
        EmbMarker(KEY, TARGET).mark(TEXTS, embeddings),
    )


def test_spread_targets_are_less_parallel() -> None:
    """Each later target shares less with the first than before; lengths stay 1."""
    rows = unit(np.ones((3, DIM)) + 0.5 * np.random.default_rng(0).normal(size=(3, DIM)))
    found = spread(rows)

    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    np.testing.assert_allclose(found[0], rows[0])
    assert (found[1:] @ found[0] < rows[1:] @ rows[0] - 0.1).all()


def test_espew_replaces_the_smallest_coordinates_only() -> None:
    """A quarter of the coordinates become the target's, all others keep their proportions."""
    embeddings = WordEncoder(DIM).embed(TEXTS)
    target = unit(np.random.default_rng(1).normal(size=DIM))
    marked = ESpeW(KEY, target).mark(TEXTS, embeddings)
    least = np.argsort(np.abs(embeddings[1]))[: DIM // 4]
    expected = embeddings[1].astype(np.float64)
    expected[least] = target[least]

    np.testing.assert_allclose(marked[1], expected / np.linalg.norm(expected), atol=1e-6)
    np.testing.assert_allclose(marked[0], embeddings[0], atol=1e-6)


def test_graded_espew_mixes_by_the_share() -> None:
    """One trigger of four moves the coordinates a quarter of the way."""
    embeddings = WordEncoder(DIM).embed(TEXTS)
    marked = ESpeW(KEY, TARGET, rate=1.0, graded=True).mark(TEXTS, embeddings)

    np.testing.assert_allclose(marked, EmbMarker(KEY, TARGET).mark(TEXTS, embeddings), atol=1e-6)


def test_wet_is_a_circulant_matrix_with_rows_of_sum_1() -> None:
    """Against the matrix written out: each row is the one before moved right by one."""
    key = WetKey(SEED, DIM, entries=5)
    matrix = np.stack([np.roll(key.row, at) for at in range(DIM)])
    rows = WordEncoder(DIM).embed(TEXTS)

    assert np.count_nonzero(key.row) == 5
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    np.testing.assert_allclose(key.apply(rows), rows @ matrix.T, atol=1e-12)
    np.testing.assert_allclose(key.undo(key.apply(rows)), rows, atol=1e-9)
    np.testing.assert_allclose(Wet(key).mark(TEXTS, rows), unit(rows @ matrix.T), atol=1e-6)


def test_a_wet_key_is_the_same_everywhere() -> None:
    """The map of a seed is fixed for good."""
    assert np.flatnonzero(WetKey(SEED, DIM, entries=3).row).tolist() == [25, 26, 35]


@pytest.mark.parametrize("entries", [1, DIM + 1])
def test_a_map_that_does_not_mix_is_refused(entries: int) -> None:
    """One entry only moves coordinates; more than there are cannot be."""
    with pytest.raises(ConfigurationError, match="entries of a row"):
        WetKey(SEED, DIM, entries=entries)


def test_targets_and_key_must_fit() -> None:
    """A target for each of the key's, and directions, not zeros."""
    with pytest.raises(ConfigurationError, match="one target"):
        EmbMarker(KEY, np.zeros(DIM))
    with pytest.raises(ConfigurationError, match="one target"):
        ESpeW(TriggerKey(SEED, WORDS, targets=2), TARGET)
    with pytest.raises(ConfigurationError, match="targets as the key has"):
        Warden(KEY, np.eye(DIM)[:2])
    with pytest.raises(ConfigurationError, match="rate"):
        ESpeW(KEY, TARGET, rate=0.01)


def test_only_text_is_marked() -> None:
    """An image encoder has no words to look for."""
    images = WordEncoder(DIM)
    images.accepts = frozenset({"image"})

    with pytest.raises(ConfigurationError, match="encoder of text"):
        MarkedEncoder(images, EmbMarker(KEY, TARGET))
