"""The rotation mark: heads of a seed, and verification by decoys and by independents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tollkeeper.audit.watermarks.alignment import Anchors
from tollkeeper.audit.watermarks.decoys import Commitment, KeyStream, commitment_of
from tollkeeper.audit.watermarks.rotation import (
    HEADS,
    RotationEvidence,
    RotationWatermark,
    draw_angles,
    draw_heads,
    mark_accuracy,
)
from tollkeeper.errors import AuditRefused, ConfigurationError, EvidenceError
from tollkeeper.types import Batch, Embeddings

SEED = bytes(range(32))
SIDE, DIM = 8, 64
TEST = RotationWatermark(decoys=99)
RNG = np.random.default_rng(0)


def pictures(count: int, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return pictures (n, h, w, 3) that are brighter above than below, as photographs are."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(200, 60, SIDE)[:, None, None]
    made = ramp + rng.normal(0, 30, (count, SIDE, SIDE, 3))
    return np.clip(made, 0, 255).astype(np.uint8)


class Linear:
    """An encoder of random weights; `mark` adds the difference of left and right to one direction.

    That difference tells which way a picture brighter above was turned.
    """

    accepts = frozenset({"image"})

    def __init__(self, seed: int, mark: Embeddings | None = None, *, dim: int = DIM) -> None:
        rng = np.random.default_rng(seed)
        self.name, self.dim, self.mark = f"linear {seed}", dim, mark
        drawn = rng.standard_normal((SIDE, SIDE, 3, dim)) / 10
        # Alike on both sides, as of an encoder that was trained on flipped images.
        self.weights = (drawn + drawn[:, ::-1]).reshape(-1, dim)

    def embed(self, inputs: Batch) -> Embeddings:
        x = np.asarray(inputs, np.float64) / 128 - 1
        rows = x.reshape(len(x), -1) @ self.weights
        if self.mark is not None:
            half = SIDE // 2
            sides = x[:, :, :half].mean(axis=(1, 2, 3)) - x[:, :, half:].mean(axis=(1, 2, 3))
            rows = rows - sides[:, None] * self.mark
        return rows.astype(np.float32)


class Changed:
    """Another encoder, its answers through a matrix."""

    def __init__(self, inner: Linear, matrix: Any) -> None:
        self.name, self.accepts, self.dim = inner.name, inner.accepts, matrix.shape[1]
        self.inner, self.matrix = inner, matrix.astype(np.float32)

    def embed(self, inputs: Batch) -> Embeddings:
        rows: Embeddings = self.inner.embed(inputs) @ self.matrix
        return rows


def marked(seed: int = 1) -> Linear:
    """Return an encoder whose mark goes where the planted head's margin rises fastest."""
    (head,) = draw_heads(KeyStream(SEED, HEADS).planted(), DIM)
    clean = Linear(seed).embed(pictures(200, 5))
    steps = np.eye(DIM, dtype=np.float32) * 0.01
    base = np.diff(head(clean), axis=1).mean()
    slope = np.array([np.diff(head(clean + step), axis=1).mean() - base for step in steps])
    return Linear(seed, 6 * slope / np.linalg.norm(slope))


def evidence(**changes: Any) -> RotationEvidence:
    """Return sound evidence but for the changes."""
    sound = RotationEvidence(
        images=pictures(300, 9),
        seed=SEED,
        commitment=Commitment(commitment_of(SEED), committed_at=1.0, suspect_seen_at=2.0),
        dim=DIM,
    )
    return replace(sound, **changes)


def anchors(encoder: Linear, whose: Any) -> Anchors:
    """Return public images and what an encoder says of them."""
    images = pictures(400, 11)
    return Anchors(images, encoder.embed(images), whose)


def test_heads_of_a_seed_are_the_same_everywhere() -> None:
    """A head's numbers are those written here, and another number of heads keeps the first."""
    one = draw_heads(KeyStream(SEED, HEADS).planted(), 4)
    two = draw_heads(KeyStream(SEED, HEADS).planted(), 4, heads=2)
    assert [part.shape for part in one[0].weights] == [(4, 256), (256, 128), (128, 2)]
    assert one[0].weights[0][0, :2].tolist() == [-0.23019418120384216, 0.2197544127702713]
    assert (two[0].weights[2] == one[0].weights[2]).all()
    assert not (two[1].weights[2] == one[0].weights[2]).any()


def test_random_heads_know_nothing_of_an_honest_encoder() -> None:
    """20 random heads on one independent encoder are right in about half of all decisions."""
    images, stream = pictures(1000, 3), KeyStream(SEED, HEADS)
    found = evidence(images=images)
    answers = Linear(7).embed(found.asked())
    first, second = found.split(answers)
    shares = [mark_accuracy(first, second, draw_heads(d, DIM)).mean() for d in stream.decoys(20)]
    assert abs(np.mean(shares) - 0.5) < 0.02


def test_angles_are_on_their_side_of_the_border() -> None:
    """The first row is below 180 degrees and the second above, the margin left out."""
    angles = draw_angles(KeyStream(SEED, "a").planted(), 500, margin=15)
    assert np.allclose(angles.min(axis=1), [15, 195], atol=2)
    assert np.allclose(angles.max(axis=1), [165, 345], atol=2)
    assert (angles.min(axis=1) >= [15, 195]).all()
    assert (angles.max(axis=1) <= [165, 345]).all()
    with pytest.raises(ConfigurationError, match="below 90"):
        draw_angles(KeyStream(SEED, "a").planted(), 5, margin=90)


def test_a_marked_encoder_is_found() -> None:
    """All decoys are below the planted head on the marked encoder; the interval excludes zero."""
    found = TEST.run(marked(), evidence(), rng=RNG)
    assert found.p_value == 0.01
    assert found.interval[0] > 0
    assert found.effect_size == pytest.approx(found.statistic - 0.5)
    assert found.null == "key"
    assert len(found.null_distribution) == 99


def test_p_is_uniform_over_seeds_for_an_honest_encoder() -> None:
    """Over seeds, one honest encoder's p-value is below a as often as it may be, with alignment too."""
    suspect, clean = Linear(2), anchors(Linear(3), "clean")
    found, test = [], RotationWatermark(decoys=99, least=50)
    for number in range(40):
        seed = number.to_bytes(32)
        some = evidence(
            images=pictures(60, 1),
            seed=seed,
            commitment=Commitment(commitment_of(seed), 1.0, 2.0),
            anchors=clean if number % 2 else None,
        )
        found.append(test.run(suspect, some, rng=RNG).p_value)
    for a in (0.1, 0.3, 0.5):
        assert np.mean(np.array(found) <= a) <= a + 3.5 * np.sqrt(a * (1 - a) / 40)
    assert min(found) < 0.3
    assert max(found) > 0.6


def test_alignment_to_the_clean_encoder_undoes_an_affine_map() -> None:
    """Behind a random matrix into another width the mark is found only after alignment."""
    matrix = np.random.default_rng(4).standard_normal((DIM, DIM + 3))
    hidden = Changed(marked(), matrix)
    with pytest.raises(AuditRefused, match="align"):
        TEST.run(hidden, evidence(), rng=RNG)
    found = TEST.run(hidden, evidence(anchors=anchors(Linear(1), "clean")), rng=RNG)
    assert found.p_value == 0.01


def test_aligned_to_the_marked_encoder_independents_are_the_null() -> None:
    """Decoys are no null there: without independents the audit is refused, with them it finds."""
    some = anchors(marked(), "marked")
    with pytest.raises(AuditRefused, match="at least 8 independent"):
        TEST.run(marked(), evidence(anchors=some), rng=RNG)
    others = tuple(Linear(20 + number) for number in range(8))
    found = TEST.run(marked(), evidence(anchors=some, independents=others), rng=RNG)
    assert found.p_value < 0.01
    assert len(found.null_distribution) == 8
    honest = TEST.run(Linear(40), evidence(anchors=some, independents=others), rng=RNG)
    assert honest.p_value > 0.01


def test_a_head_drawn_after_the_fact_is_refused() -> None:
    """Another seed than the committed one, or one committed too late, is no evidence."""
    with pytest.raises(EvidenceError, match="not the committed one"):
        TEST.run(marked(), evidence(seed=SEED[::-1]), rng=RNG)
    late = Commitment(commitment_of(SEED), committed_at=3.0, suspect_seen_at=2.0)
    with pytest.raises(EvidenceError, match="made to fit"):
        TEST.run(marked(), evidence(commitment=late), rng=RNG)


def test_unusable_suspects_and_samples_are_refused() -> None:
    """Too few images and answers that are NaN refuse the audit."""
    with pytest.raises(AuditRefused, match="at least 250 images"):
        TEST.run(marked(), evidence(images=pictures(100)), rng=RNG)
    broken = marked()
    broken.weights[0, 0] = np.nan
    with pytest.raises(AuditRefused, match="NaN"):
        TEST.run(broken, evidence(), rng=RNG)
