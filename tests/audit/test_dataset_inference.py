"""Dataset inference: its null, its power, its decision and its gates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from tollkeeper.audit.blind import BlindTest
from tollkeeper.audit.consistency import MODES, calibrate
from tollkeeper.audit.dataset_inference import (
    DatasetInference,
    Residuals,
    SplitEvidence,
    judge,
    leave_one_out,
    paired_e,
    reference_p,
    verdict,
)
from tollkeeper.audit.split import Split, measure
from tollkeeper.audit.views import Views
from tollkeeper.errors import AuditRefused
from tollkeeper.testing.memorizer import MemorizingEncoder, smooth_images

N, M = 250, 8
ALL = DatasetInference(modes=MODES)


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator of this test's own."""
    return np.random.default_rng(17)


@pytest.fixture(scope="module")
def evidence() -> SplitEvidence:
    """Return a randomized split with eight references and a victim that remembers one side."""
    rng = np.random.default_rng(0)
    images = smooth_images(3 * N, rng=rng)
    views = Views(7, k=3, area=(0.9, 1.0), flip=0.0)
    split = Split(images[:N], images[N : 2 * N], images[2 * N :], views, randomized=True)
    references = [MemorizingEncoder(12, rng=rng) for _ in range(M)]
    victim = MemorizingEncoder(12, rng=rng, remembered=split.trained, pull=0.8)
    return ALL.prepare(split, references=references, victim=victim, rng=rng)


def test_a_copy_is_found_and_an_independent_is_not(
    evidence: SplitEvidence, rng: np.random.Generator
) -> None:
    """An encoder that took over some of the memory is derived; others are inconclusive."""
    copy = MemorizingEncoder(12, rng=rng, remembered=evidence.split.trained, pull=0.6)
    mirrored = MemorizingEncoder(12, rng=rng, remembered=evidence.split.held, pull=0.6)
    found, opposite, innocent = (
        ALL.run(suspect, evidence, rng=rng)
        for suspect in (copy, mirrored, MemorizingEncoder(12, rng=rng))
    )

    assert verdict(found) == "derived"
    assert found.p_value < 1e-3
    assert found.e_value is not None
    assert found.e_value > 1000
    assert found.interval[0] > found.details["floor"]
    assert 0.3 < found.details["rho_low"] < found.details["rho"] < 1.1
    assert found.null_distribution.shape == (M,)
    assert {f"{mode}.t" for mode in MODES} <= found.details.keys()
    assert verdict(innocent) == verdict(opposite) == "inconclusive"
    assert opposite.statistic < -3
    assert opposite.p_value == 1


def test_p_values_are_uniform_for_independents() -> None:
    """Over 200 random re-splits an innocent encoder's p-values are uniform."""
    rng = np.random.default_rng(23)
    difficulty = rng.normal(size=400)
    scores = difficulty + 0.5 * rng.normal(size=(M + 1, 400))
    residuals = Residuals.of(scores[0], scores[1:])
    p = np.empty((200, 3))
    for row in p:
        found = judge(residuals, rng.permutation(400) < 200, rng=rng)
        row[:] = found.two.p_welch, found.two.p_perm, found.p_reference

    for column in p.T:
        assert stats.kstest(column, "uniform").pvalue > 0.01
        assert stats.binomtest(int((column < 0.01).sum()), 200, 0.01).pvalue > 0.01


def test_calibration_removes_what_a_split_did_by_chance(rng: np.random.Generator) -> None:
    """On an unlucky split every innocent encoder looks guilty until difficulty is taken off."""
    difficulty = rng.normal(size=400)
    trained = difficulty + rng.normal(size=400) > 0
    scores = difficulty + 0.3 * rng.normal(size=(M + 1, 400))
    plain = scores[0][trained].mean() - scores[0][~trained].mean()
    found = judge(Residuals.of(scores[0], scores[1:]), trained, rng=rng)

    assert plain > 0.8
    assert found.p_value(randomized=False) > 0.01
    assert abs(found.two.t) < 3


def test_the_larger_p_value_holds_where_one_assumption_fails(rng: np.random.Generator) -> None:
    """Sides that differ for every innocent encoder alike accuse nobody without randomization."""
    trained = np.arange(400) < 200
    scores = rng.normal(size=(M + 1, 400)) + 2.0 * trained * rng.random((M + 1, 1))
    found = judge(Residuals.of(scores[0], scores[1:]), trained, rng=rng)

    assert found.p_value(randomized=False) == max(found.two.p_perm, found.p_reference)
    assert found.p_value(randomized=True) == found.two.p_perm
    assert found.p_value(randomized=False) > 0.001


def test_leaving_one_out_is_calibration_by_the_others(rng: np.random.Generator) -> None:
    """Each reference's residuals are those of `calibrate` with the other references."""
    references = rng.normal(size=(5, 60)) + rng.normal(size=60)
    slow = [calibrate(references[k], np.delete(references, k, axis=0))[0] for k in range(5)]

    assert leave_one_out(references) == pytest.approx(np.asarray(slow))


def test_reference_p_is_that_of_one_more_draw(rng: np.random.Generator) -> None:
    """Among references drawn alike the p-value of the next one is uniform."""
    t = 3 + 2 * rng.normal(size=(2000, 9))
    p = [reference_p(row[0], row[1:]) for row in t]

    assert stats.kstest(p, "uniform").pvalue > 0.01
    with pytest.raises(AuditRefused, match="copies of one encoder"):
        reference_p(1, np.ones(4))


def test_evidence_of_random_pairs_is_fair(rng: np.random.Generator) -> None:
    """Under the null e-values are 1 on average, and pass 20 in one of twenty runs at most."""
    references = rng.normal(size=(3, 200))
    e_values = [
        paired_e(
            Residuals(rng.normal(size=200), references, 1.0), rng.permutation(200) < 100, rng=rng
        )
        for _ in range(1500)
    ]

    assert np.mean(np.asarray(e_values) >= 20) <= 0.05
    assert 0.5 < np.mean(e_values) < 1.5


def test_the_verdict_takes_both_size_and_chance(
    evidence: SplitEvidence, rng: np.random.Generator
) -> None:
    """Neither a small p-value alone nor a large effect alone is enough."""
    copy = MemorizingEncoder(12, rng=rng, remembered=evidence.split.trained, pull=0.6)
    found = ALL.run(copy, evidence, rng=rng)

    assert verdict(found) == "derived"
    assert verdict(found, p_value=0.01) == "inconclusive"
    assert verdict(replace(found, interval=(found.details["floor"], 9))) == "inconclusive"
    assert verdict(replace(found, p_value=0.02), alpha=0.05) == "derived"


def test_without_randomization_a_blind_test_must_pass(
    evidence: SplitEvidence, rng: np.random.Generator
) -> None:
    """An argued split needs a blind test, and then the larger p-value counts."""
    split = replace(evidence.split, randomized=False)
    scores = evidence.victim
    with pytest.raises(AuditRefused, match="no blind test"):
        ALL.decide(scores, replace(evidence, split=split), rng=rng)
    with pytest.raises(AuditRefused, match="told apart"):
        blind = BlindTest(0.6, (0.55, 0.65))
        ALL.decide(scores, replace(evidence, split=split, blind=blind), rng=rng)
    blind = BlindTest(0.5, (0.49, 0.51))
    found = ALL.decide(scores, replace(evidence, split=split, blind=blind), rng=rng)

    assert found.p_value > ALL.decide(scores, evidence, rng=rng).p_value


def test_a_victim_that_is_not_found_stops_the_audit(
    evidence: SplitEvidence, rng: np.random.Generator
) -> None:
    """The positive control must be there and reject, and there must be enough references."""
    blank = measure(MemorizingEncoder(12, rng=rng), evidence.split, modes=MODES, rng=rng)
    with pytest.raises(AuditRefused, match="the positive control failed"):
        ALL.decide(evidence.victim, replace(evidence, victim=blank), rng=rng)
    with pytest.raises(AuditRefused, match="no positive control"):
        ALL.decide(evidence.victim, replace(evidence, victim={}), rng=rng)
    with pytest.raises(AuditRefused, match="8 or more reference encoders, got 0"):
        ALL.prepare(evidence.split, references=[], victim=MemorizingEncoder(12, rng=rng), rng=rng)


def _shorter(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return scores[:-1]


def test_scores_of_other_images_are_refused(
    evidence: SplitEvidence, rng: np.random.Generator
) -> None:
    """Scores in a mode that was not measured, or of fewer images, are no evidence."""
    with pytest.raises(AuditRefused, match="no scores in mode raw"):
        ALL.decide({"std": evidence.victim["std"]}, evidence, rng=rng)
    with pytest.raises(AuditRefused, match="expected scores of 500 images"):
        ALL.decide({m: _shorter(s) for m, s in evidence.victim.items()}, evidence, rng=rng)
    with pytest.raises(AuditRefused, match="two or more references"):
        Residuals.of(np.arange(5.0), np.arange(5.0)[np.newaxis])
