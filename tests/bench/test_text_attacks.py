"""Thieves against marks of text services: what they take out, ask, and hide behind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tollkeeper.bench.ownership.text_attacks import (
    Cse,
    Mapped,
    Recorded,
    Rewriter,
    Rewritten,
    affine,
    permuted,
    truncated,
)
from tollkeeper.bench.theft.probes import unit
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import ConfigurationError
from tollkeeper.testing.words import WordEncoder
from tollkeeper.types import Embeddings

DIM = 32
POOL = tuple(
    f"{kind} {animal} eats {food} today"
    for kind in ("old", "young", "tired")
    for animal in ("cat", "dog", "cow", "hen")
    for food in ("grain", "meat", "grass", "cake", "fish")
)


def marked_answers(count: int = 400) -> tuple[Embeddings, Embeddings, np.ndarray, np.ndarray]:
    """Return answers, those without a mark, the rows that carry one, and its direction."""
    rng = np.random.default_rng(0)
    clean = unit(rng.normal(size=(count, DIM)).astype(np.float32))
    target = unit(rng.normal(size=(1, DIM)).astype(np.float32))
    carries = np.arange(count) % 10 == 0
    answers = unit(np.where(carries[:, None], 0.4 * clean + 0.6 * target, clean))
    return answers, clean, carries, target[0]


def test_cse_finds_the_direction_that_marked_answers_share() -> None:
    """The pairs that gain are marked ones, and the first direction is the target."""
    answers, clean, carries, target = marked_answers()
    cse = Cse(clusters=4, directions=3)

    suspected = cse.suspected(answers, clean, seed=0)
    first = cse.directions_of(answers, clean, seed=0)[0]

    assert carries[suspected].mean() > 0.9
    assert abs(first @ target) > 0.9


def test_cleaned_answers_are_free_of_all_directions() -> None:
    """What was found is gone, lengths are 1, and so is the gap of marked answers."""
    answers, clean, carries, target = marked_answers()
    cse = Cse(clusters=4, directions=3)
    cleaned = cse(answers, clean, seed=0)
    found = cse.directions_of(answers, clean, seed=0)

    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-4)
    np.testing.assert_allclose(cleaned @ found.T, 0, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(cleaned, axis=1), 1, atol=1e-5)
    assert (cleaned[carries] @ target).mean() < 0.1 < (answers[carries] @ target).mean()


@pytest.mark.parametrize(("directions", "rows"), [(0, 400), (DIM, 400), (3, 7)])
def test_cse_needs_answers_and_leaves_directions(directions: int, rows: int) -> None:
    """Nothing to project out, nothing left, or nothing to cluster."""
    answers, clean, _, _ = marked_answers()

    with pytest.raises(ConfigurationError, match="directions and at least"):
        Cse(clusters=4, directions=directions)(answers[:rows], clean[:rows], seed=0)


def test_a_rewrite_changes_words_within_the_pool() -> None:
    """Same random numbers, same rewrite; others differ, and neighbors are words of the pool."""
    rewriter = Rewriter(POOL, seed=0)
    first, again, other = (rewriter(POOL[0], np.random.default_rng(seed)) for seed in (1, 1, 2))
    known = {word for text in POOL for word in text.split()}

    assert first == again
    assert len({first, other, POOL[0]}) == 3
    assert set(first.split()) | set(other.split()) <= known


def test_rewrites_keep_words_as_often_as_said() -> None:
    """Without dropping and moving, the share of replaced words is the one asked for."""
    rewriter = Rewriter(POOL, replaced=0.4, dropped=0.0, moved=0, seed=0)
    rng = np.random.default_rng(0)
    pairs = [
        pair
        for text in POOL
        for pair in zip(text.split(), rewriter(text, rng).split(), strict=True)
    ]

    assert np.mean([old != new for old, new in pairs]) == pytest.approx(0.4, abs=0.12)


def test_a_rewrite_is_never_empty() -> None:
    """A thief who drops all words keeps one; a text without words stays."""
    rewriter = Rewriter(POOL, dropped=1.0, seed=0)

    assert len(rewriter("some words here", np.random.default_rng(0)).split()) == 1
    assert rewriter("", np.random.default_rng(0)) == ""


def test_rewritten_answers_are_means_over_rewrites() -> None:
    """The service never sees the text itself, and is asked as often as said."""
    asked: list[str] = []

    class Service(WordEncoder):
        """Notes what it is asked."""

        def embed(self, inputs: object) -> Embeddings:
            assert isinstance(inputs, list)
            asked.extend(inputs)
            return super().embed(inputs)

    rewriter = Rewriter(POOL, seed=0)
    thief = Rewritten(Service(DIM), rewriter, rewrites=3, rng=np.random.default_rng(5))
    rows = thief.embed(POOL[:2])

    expected = WordEncoder(DIM).embed(asked).reshape(2, 3, DIM).mean(axis=1)
    assert len(asked) == 6
    np.testing.assert_allclose(rows, unit(expected), atol=1e-6)


@pytest.mark.parametrize(
    ("hide", "width"),
    [
        (lambda copy: permuted(copy, rng=np.random.default_rng(0)), DIM),
        (lambda copy: truncated(copy, kept=0.5), DIM // 2),
        (lambda copy: affine(copy, rng=np.random.default_rng(0)), DIM),
    ],
    ids=["permuted", "truncated", "affine"],
)
def test_a_hidden_copy_is_an_encoder(hide: Callable[[Encoder], Mapped], width: int) -> None:
    """It repeats itself, row by row, and says its width."""
    hidden = hide(WordEncoder(DIM))
    rows = hidden.embed(POOL)

    assert isinstance(hidden, Encoder)
    assert rows.shape == (len(POOL), width == hidden.dim and width)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(hidden.embed(POOL[3:5]), rows[3:5], atol=1e-6)


def test_a_permuted_copy_has_the_same_values() -> None:
    """Only their order is another, the same for all rows."""
    copy = WordEncoder(DIM)
    rows = permuted(copy, rng=np.random.default_rng(0)).embed(POOL)
    order = np.random.default_rng(0).permutation(DIM)

    np.testing.assert_array_equal(rows, copy.embed(POOL)[:, order])


def test_recorded_answers_come_back_in_any_order() -> None:
    """By text, not by place."""
    rows = WordEncoder(DIM).embed(POOL)

    np.testing.assert_array_equal(Recorded(POOL, rows).embed(POOL[::-1]), rows[::-1])
