"""Scores of similarity: what leaves them unchanged, and what they are read against."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.audit.mutual_information import (
    entropy,
    mutual_information,
    published_score,
    self_information,
)
from tollkeeper.audit.similarity import (
    SCORES,
    SimilarityEvidence,
    SimilarityTest,
    against,
    coordinate_cosine,
    knn_overlap,
    linear_cka,
    procrustes,
    ridge_r2,
    similarity,
    svcca,
)
from tollkeeper.errors import AuditRefused
from tollkeeper.types import Batch, Embeddings

N, D = 400, 16


def rows(seed: int, n: int = N, d: int = D) -> Embeddings:
    """Return embeddings whose coordinates have different scales and means."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + 3 * rng.standard_normal(d)
    return mixed.astype(np.float32)


def rotation(seed: int, d: int = D) -> NDArray[np.float64]:
    """Return a random orthogonal matrix."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]


class Given:
    """A suspect whose answers are known."""

    name, accepts = "given", frozenset({"image"})

    def __init__(self, answers: Embeddings) -> None:
        self.answers, self.dim = answers, answers.shape[1]

    def embed(self, inputs: Batch) -> Any:
        return self.answers[np.asarray(inputs)]


@pytest.mark.parametrize("name", list(SCORES))
def test_an_encoder_is_like_itself_and_unlike_noise(name: str) -> None:
    """Every score is near 1 for one encoder twice and clearly lower for unrelated embeddings."""
    one, other = rows(0), rows(1)
    itself = SCORES[name](one, one)
    assert itself == pytest.approx(1, abs=1e-3)
    assert SCORES[name](one, other) < 0.5 * itself


@pytest.mark.parametrize("score", [linear_cka, svcca, procrustes])
@pytest.mark.parametrize("change", ["permuted", "rotated", "scaled", "shifted"])
def test_a_rotated_copy_is_wholly_alike(score: Any, change: str) -> None:
    """Permutation, rotation, one scale and a shift leave CKA, SVCCA and Procrustes at 1."""
    one = rows(0)
    other = {
        "permuted": one[:, np.random.default_rng(2).permutation(D)],
        "rotated": one @ rotation(3),
        "scaled": one * 7.0,
        "shifted": one + np.arange(D),
    }[change]
    assert score(one, other) == pytest.approx(1, abs=1e-5)


def test_svcca_and_ridge_survive_any_affine_map() -> None:
    """What a linear map can undo, SVCCA over all directions and ridge do not see."""
    one = rows(0)
    other = one @ np.random.default_rng(4).standard_normal((D, D)) + 5
    assert svcca(one, other, kept=1.0) == pytest.approx(1, abs=1e-4)
    assert ridge_r2(other, one, strength=1e-8) == pytest.approx(1, abs=1e-4)


def test_the_cosine_of_a_permuted_copy_is_at_chance() -> None:
    """Shuffled coordinates bring the sharpest score down to that of strangers."""
    rng = np.random.default_rng(5)
    one = rng.standard_normal((4000, 64))
    chance = math.sqrt(2 / (math.pi * 64))
    assert coordinate_cosine(one, one[:, rng.permutation(64)]) == pytest.approx(chance, rel=0.15)
    assert coordinate_cosine(one, one + 0.1 * rng.standard_normal(one.shape)) > 0.98


def test_neighbors_are_those_of_a_plain_search() -> None:
    """The overlap equals that of sorting all cosines."""
    one, other = rows(0, 60), rows(0, 60) + rows(1, 60) * np.float32(0.3)
    expected = []
    lists = []
    for each in (one, other):
        z = each - each.mean(axis=0)
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        cosines = z @ z.T - 9 * np.eye(60)
        lists.append(np.argsort(-cosines, axis=1)[:, :10])
    for first, second in zip(*lists, strict=True):
        expected.append(len(set(first.tolist()) & set(second.tolist())) / 10)
    assert knn_overlap(one, other) == pytest.approx(np.mean(expected))


def test_widths_may_differ_but_not_for_coordinates() -> None:
    """A suspect of another width has every score but the coordinate cosine."""
    one, wide = rows(0), np.concatenate([rows(0), rows(1)], axis=1)
    assert set(similarity(wide, one)) == set(SCORES) - {"cosine"}
    with pytest.raises(AuditRefused, match="at one width, got 32 and 16"):
        coordinate_cosine(wide, one)


def test_what_is_handed_in_stays_as_it_is() -> None:
    """Scores center copies of the embeddings, also those that are float64 already."""
    one, other = rows(0).astype(np.float64), rows(1).astype(np.float64)
    before = one.copy()
    similarity(one, other)
    assert np.array_equal(one, before)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (np.full((N, D), np.nan), "NaN"),
        (np.full((N, D), 0.1), "the same embedding"),
        (np.zeros((N - 1, D)), "of the same four or more inputs"),
    ],
)
def test_useless_embeddings_are_refused(bad: Any, why: str) -> None:
    """NaN, constants and other inputs get a reason, not a score."""
    for score in SCORES.values():
        with pytest.raises(AuditRefused, match=why):
            score(bad.astype(np.float32), rows(0))


def test_a_score_is_read_against_independents() -> None:
    """z, rank and t follow their formulas, and a negative z has a p-value above one half."""
    others = np.random.default_rng(6).normal(0.9, 0.01, 24).tolist()
    high = against(0.99, others)
    assert high.z == pytest.approx((0.99 - np.mean(others)) / np.std(others, ddof=1))
    assert high.p_rank == 1 / 25
    assert high.interval[0] < high.z < high.interval[1]
    assert high.p_t < 1e-4
    assert against(0.85, others).p_t > 0.5
    assert against(min(others) - 1, others).p_rank == 1


def test_twenty_independents_are_needed() -> None:
    """With fewer a z-score is refused, and so are twenty of one value."""
    with pytest.raises(AuditRefused, match="at least 20 independents to quote a z-score, got 19"):
        against(0.99, list(np.linspace(0, 1, 19)))
    with pytest.raises(AuditRefused, match="all have one score"):
        against(0.99, [0.5] * 20)


def test_ranks_of_independents_are_uniform() -> None:
    """A suspect that is one more independent gets each rank equally often."""
    rng = np.random.default_rng(7)
    drawn = rng.standard_normal((3000, 21))
    ranks = [against(row[0], row[1:].tolist()).p_rank for row in drawn]
    assert np.mean(np.array(ranks) <= 0.1 + 1e-9) == pytest.approx(2 / 21, abs=0.02)


def test_a_copy_is_closer_than_independents() -> None:
    """The test ranks a noisy rotated copy first and an independent among the others."""
    victim = rows(0)
    independents = [rows(10 + k) for k in range(20)]
    noise = np.random.default_rng(8).standard_normal((N, D)).astype(np.float32)
    copy = (victim @ rotation(9) + 0.5 * noise).astype(np.float32)
    evidence = SimilarityEvidence(np.arange(N), victim, independents)
    rng = np.random.default_rng(0)
    stolen = SimilarityTest().run(Given(copy), evidence, rng=rng)
    honest = SimilarityTest().run(Given(rows(99)), evidence, rng=rng)
    assert stolen.null == "similarity"
    assert stolen.p_value == 1 / 21 < honest.p_value
    assert stolen.effect_size > 6 > honest.effect_size
    assert len(stolen.null_distribution) == 20
    with pytest.raises(AuditRefused, match="expected a score of cosine, r2"):
        SimilarityTest(score="mutual information")


@pytest.mark.parametrize(("n", "d"), [(50, 2), (200, 8), (300, 64)])
def test_information_about_oneself_is_a_constant(n: int, d: int) -> None:
    """I(v, v) depends on n and d alone, so the published score's upper end says nothing."""
    for seed in range(3):
        one = rows(seed, n, d) if seed else np.random.default_rng(1).exponential(size=(n, d))
        assert mutual_information(one, one) == pytest.approx(self_information(n, d), abs=1e-3)


def test_the_estimator_breaks_where_it_is_used() -> None:
    """Independent embeddings of 64 dimensions give a clearly negative "information"."""
    assert mutual_information(rows(0, 300, 64), rows(1, 300, 64)) < -5


def test_the_published_score_puts_strangers_halfway() -> None:
    """An independent that shares no more than inputs scores high above the random encoder."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((300, 4))
    victim, honest, untrained = (
        shared @ rng.standard_normal((4, 64)) + noise * rng.standard_normal((300, 64))
        for noise in (0.2, 0.2, 5.0)
    )
    assert published_score(victim, honest, untrained) > 0.3
    assert published_score(victim, victim, untrained) == pytest.approx(1)


def test_entropy_refuses_equal_rows() -> None:
    """Two inputs of one embedding have no nearest-neighbor distance."""
    with pytest.raises(AuditRefused, match="remove duplicates"):
        entropy(np.zeros((5, 2)))
    with pytest.raises(AuditRefused, match="of the same inputs, got 5 and 4"):
        mutual_information(rows(0, 5), rows(0, 4))
