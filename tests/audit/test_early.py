"""Early stopping: fewer queries against copies, and the promise kept under the null."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.audit.dataset_inference import DatasetInference, SplitEvidence
from tollkeeper.audit.early import SequentialInference
from tollkeeper.audit.split import Split
from tollkeeper.audit.views import Views
from tollkeeper.errors import AuditRefused
from tollkeeper.testing.memorizer import MemorizingEncoder, smooth_images

N = 250
TEST = SequentialInference(step=50)


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator of this test's own."""
    return np.random.default_rng(29)


@pytest.fixture(scope="module")
def evidence() -> SplitEvidence:
    """Return a randomized split with eight references and a victim that remembers one side."""
    rng = np.random.default_rng(0)
    images = smooth_images(3 * N, rng=rng)
    views = Views(7, k=3, area=(0.9, 1.0), flip=0.0)
    split = Split(images[:N], images[N : 2 * N], images[2 * N :], views, randomized=True)
    references = [MemorizingEncoder(12, rng=rng) for _ in range(8)]
    victim = MemorizingEncoder(12, rng=rng, remembered=split.trained, pull=0.8)
    return DatasetInference().prepare(split, references=references, victim=victim, rng=rng)


def test_a_copy_is_found_before_all_is_asked(
    evidence: SplitEvidence, rng: np.random.Generator
) -> None:
    """Asking stops when the evidence reaches the threshold, and the p-value is its inverse."""
    copy = MemorizingEncoder(12, rng=rng, remembered=evidence.split.trained, pull=0.7)
    found = TEST.run(copy, evidence, rng=rng)

    assert found.details["pairs"] < N
    assert found.details["pairs"] % 50 == 0
    assert found.e_value is not None
    assert found.e_value >= 1000
    assert found.p_value == pytest.approx(1 / found.e_value)
    assert found.effect_size > found.details["floor"]


def test_an_independent_is_asked_everything(
    evidence: SplitEvidence, rng: np.random.Generator
) -> None:
    """Without evidence the pool is spent, and nothing is concluded."""
    found = TEST.run(MemorizingEncoder(12, rng=rng), evidence, rng=rng)

    assert found.details["pairs"] == N
    assert found.p_value > 0.01


def test_evidence_is_rare_over_many_random_splits(
    evidence: SplitEvidence, rng: np.random.Generator
) -> None:
    """Whatever an encoder remembers, few orders of a split that was drawn anew accuse it."""
    from tollkeeper.audit import early
    from tollkeeper.audit.consistency import standardized

    references = standardized(rng.normal(size=(4, 200)))
    passed = 0
    for _ in range(400):
        scores = rng.exponential(size=200)
        pairs = rng.permutation(200).reshape(100, 2)
        wealth, highest = np.zeros((1, 7)), 0.0
        for done in (25, 50, 75, 100):
            residuals = early._residuals(scores, references, pairs[:done])
            wealth = wealth[-1] + early._bets(residuals, 25)
            highest = max(highest, float(early._log_mean(wealth).max()))
        passed += highest >= np.log(20)

    assert passed / 400 <= 0.05 + 0.03


def test_its_gates_are_those_of_the_fixed_test(
    evidence: SplitEvidence, rng: np.random.Generator
) -> None:
    """Too few samples are refused before the suspect is asked anything."""
    with pytest.raises(AuditRefused, match="at least 251"):
        SequentialInference(least=251).run(MemorizingEncoder(12, rng=rng), evidence, rng=rng)
