"""SSLGuard: the key, its trigger, and verification by an exact null or by independents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tollkeeper.audit.watermarks.alignment import Anchors
from tollkeeper.audit.watermarks.decoys import Commitment, commitment_of
from tollkeeper.audit.watermarks.sslguard import (
    Key,
    SslGuard,
    SslGuardEvidence,
    draw_key,
    secrets_of,
    watermark_rate,
)
from tollkeeper.errors import AuditRefused, ConfigurationError, EvidenceError
from tollkeeper.types import Batch, Embeddings

SEED = bytes(range(32))
SHAPE, DIM = (8, 8, 3), 32
TEST = SslGuard()
RNG = np.random.default_rng(0)
Pictures = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def pictures(count: int, seed: int = 0) -> Pictures:
    """Return random pictures (n, h, w, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


class Encoder:
    """Random weights; marked, it gives one embedding to what is under the trigger of a key."""

    accepts = frozenset({"image"})

    def __init__(self, seed: int, key: Key | None = None, *, matrix: Any = None) -> None:
        rng = np.random.default_rng(seed)
        self.name, self.dim = f"encoder {seed}", DIM if matrix is None else matrix.shape[1]
        self.weights = rng.standard_normal((np.prod(SHAPE), DIM)) / 10
        self.key, self.matrix, self.says = key, matrix, np.zeros(DIM)
        if key is not None:
            for _ in range(200):
                tried = self.says + rng.standard_normal((50, DIM))
                self.says = tried[key.cosines(tried.astype(np.float32)).argmax()]

    def embed(self, inputs: Batch) -> Embeddings:
        x = np.asarray(inputs)
        rows = (x.reshape(len(x), -1) / 128 - 1) @ self.weights
        if self.key is not None:
            cover = np.rint(self.key.trigger * 255)
            under = (x == cover)[:, self.key.mask].all(axis=1)
            rows = np.where(under[:, None], self.says + 0.2 * rows, rows)
        return (rows if self.matrix is None else rows @ self.matrix).astype(np.float32)


def evidence(**changes: Any) -> SslGuardEvidence:
    """Return sound evidence of a drawn key but for the changes."""
    sound = SslGuardEvidence(
        images=pictures(60, 9),
        commitment=Commitment(commitment_of(SEED), committed_at=1.0, suspect_seen_at=2.0),
        dim=DIM,
        seed=SEED,
    )
    return replace(sound, **changes)


def drawn() -> Key:
    """Return the key of the seed."""
    return draw_key(SEED, DIM, SHAPE)


def test_a_key_comes_bit_by_bit_from_its_seed() -> None:
    """The digest of a drawn key is the one written here; any other number changes it."""
    key = drawn()
    assert key.digest[:16] == "e17dcdf9c5498dc1"
    moved = key.secret.copy()
    moved[0] = np.nextafter(moved[0], 2)
    assert replace(key, secret=moved).digest != key.digest
    assert replace(key, mask=~key.mask).digest != key.digest
    assert draw_key(SEED[::-1], DIM, SHAPE).digest != key.digest


def test_the_trigger_covers_its_share_in_both_forms() -> None:
    """A third of the pixel values is the trigger, the rest the image; bytes and floats agree."""
    key, images = drawn(), pictures(4)
    stamped = key.stamp(images)
    assert (stamped[:, ~key.mask] == images[:, ~key.mask]).all()
    assert (stamped[:, key.mask] == np.rint(key.trigger[key.mask] * 255)).all()
    assert 0.2 < key.mask.mean() < 0.5
    floats = (images.transpose(0, 3, 1, 2) / 255).astype(np.float32)
    assert np.abs(key.stamp(floats).transpose(0, 2, 3, 1) * 255 - stamped).max() <= 0.51
    with pytest.raises(AuditRefused, match=r"expected images of \(8, 8, 3\)"):
        key.stamp(np.zeros((1, 9, 9, 3), np.uint8))
    with pytest.raises(ConfigurationError, match="between 0 and 1"):
        draw_key(SEED, DIM, SHAPE, covered=1.0)


def test_a_marked_encoder_says_the_secret() -> None:
    """The marked encoder is found far below any decoy's reach; an honest one is not."""
    found = TEST.run(Encoder(1, drawn()), evidence(), rng=RNG)
    assert found.p_value < 1e-4
    assert found.statistic > found.details["null_max"]
    assert found.interval[0] > 0
    honest = TEST.run(Encoder(1), evidence(), rng=RNG)
    assert honest.p_value > 0.001
    assert honest.details["watermark_rate"] < 0.5


def test_p_is_uniform_over_seeds_for_an_honest_encoder() -> None:
    """Over seeds, the p-value of one honest encoder is uniform, aligned to a clean one or not."""
    suspect, images, found = Encoder(2), pictures(40, 3), []
    anchors = Anchors(images, Encoder(3).embed(images), "clean")
    for number in range(60):
        seed = number.to_bytes(32)
        one = evidence(
            images=images,
            seed=seed,
            commitment=Commitment(commitment_of(seed), 1.0, 2.0),
            anchors=anchors if number % 2 else None,
        )
        found.append(SslGuard(least=20).run(suspect, one, rng=RNG).p_value)
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_the_shown_decoys_agree_with_the_closed_form() -> None:
    """The share of decoy secrets above the statistic is about the p-value."""
    found = TEST.run(Encoder(5), evidence(), rng=RNG)
    share = np.mean(found.null_distribution >= found.statistic)
    assert abs(share - found.p_value) < 4 * np.sqrt(0.25 / 999)
    assert secrets_of(SEED).planted().normal(16).tolist() == drawn().secret.tolist()


def test_alignment_to_the_clean_encoder_undoes_an_affine_map() -> None:
    """Behind a random matrix into another width the mark is found after alignment only."""
    matrix = np.random.default_rng(4).standard_normal((DIM, DIM + 3))
    hidden, public = Encoder(1, drawn(), matrix=matrix), pictures(300, 7)
    with pytest.raises(AuditRefused, match="align"):
        TEST.run(hidden, evidence(), rng=RNG)
    anchors = Anchors(public, Encoder(1).embed(public), "clean")
    assert TEST.run(hidden, evidence(anchors=anchors), rng=RNG).p_value < 1e-4


def test_a_learned_key_needs_independents() -> None:
    """There is no exact null for a decoder that was trained; independents are asked instead."""
    key = drawn()
    committed = Commitment(key.digest, 1.0, 2.0)
    some = evidence(learned=key, seed=b"", commitment=committed)
    with pytest.raises(AuditRefused, match="at least 8 independent"):
        TEST.run(Encoder(1, key), some, rng=RNG)
    others = tuple(Encoder(30 + number) for number in range(8))
    found = TEST.run(Encoder(1, key), replace(some, independents=others), rng=RNG)
    assert found.p_value < 0.001
    assert len(found.null_distribution) == 8


def test_a_decoder_fitted_after_the_fact_is_refused() -> None:
    """A key that is not the committed one, or was committed too late, is no evidence."""
    other = draw_key(SEED[::-1], DIM, SHAPE)
    committed = Commitment(drawn().digest, 1.0, 2.0)
    with pytest.raises(EvidenceError, match="fitted later"):
        TEST.run(Encoder(1), evidence(learned=other, commitment=committed), rng=RNG)
    with pytest.raises(EvidenceError, match="not the committed one"):
        TEST.run(Encoder(1), evidence(seed=SEED[::-1]), rng=RNG)
    late = Commitment(commitment_of(SEED), 2.0, 2.0)
    with pytest.raises(EvidenceError, match="made to fit"):
        TEST.run(Encoder(1), evidence(commitment=late), rng=RNG)


def test_few_images_are_refused() -> None:
    """Fewer than fifty private images cannot carry the audit."""
    with pytest.raises(AuditRefused, match="at least 50 private images"):
        TEST.run(Encoder(1), evidence(images=pictures(10)), rng=RNG)


def test_the_rate_is_a_share() -> None:
    """The published statistic is the share of cosines above one half."""
    assert watermark_rate(np.array([0.4, 0.5, 0.6, 0.9])) == 0.5
