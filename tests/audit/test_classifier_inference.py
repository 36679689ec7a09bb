"""Dataset inference of classifiers: whom it names, whom it never names, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import stats

from tollkeeper.audit.classifiers.inference import (
    MarginEvidence,
    MarginInference,
    MarginSplit,
    scored,
)
from tollkeeper.audit.classifiers.margins import BlindWalk, Margins, Side
from tollkeeper.audit.classifiers.regressor import Fitting
from tollkeeper.audit.dataset_inference import Residuals, judge, verdict
from tollkeeper.encoders.base import Modality
from tollkeeper.errors import AuditRefused
from tollkeeper.types import Batch, Probabilities

COUNT = 300
TEST = MarginInference(seed=5, ruler=BlindWalk(uniform=0.02, normal=0.02, starts=2, steps=12))


@cache
def _pictures(seed: int, count: int = COUNT) -> Side:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 1, 5, 5)).astype(np.float32) / np.float32(255)
    return Side(images, rng.integers(0, 3, count))


def _split() -> MarginSplit:
    return MarginSplit(_pictures(1), _pictures(2), randomized=True)


class Memory:
    """Knows pictures as far as their difficulty lets it, and trained ones farther.

    Difficulty is shared by all classifiers, as it is among real ones.
    """

    name, dim = "memory", 3
    accepts: frozenset[Modality] = frozenset({"tensor"})

    def __init__(self, sides: list[Side], gains: list[float], seed: int) -> None:
        """Learn sides; a side's gain is what training on it adds to its margins."""
        self._known = np.concatenate([side.images.reshape(len(side), -1) for side in sides])
        self._labels = np.concatenate([side.labels for side in sides])
        hard = np.random.default_rng(0).uniform(0.2, 0.6, len(self._labels))
        own = np.random.default_rng(seed).normal(0, 0.06, len(hard))
        self._reach = hard + own + np.repeat(gains, [len(side) for side in sides])

    def embed(self, inputs: Batch) -> Probabilities:
        """Name the true class of what is near enough to a known picture."""
        rows = np.asarray(inputs).reshape(len(inputs), -1)
        nearest = (rows @ self._known.T - (self._known**2).sum(axis=1) / 2).argmax(axis=1)
        far = np.linalg.norm(rows - self._known[nearest], axis=1)
        right = far < self._reach[nearest]
        said = np.where(right, self._labels[nearest], (self._labels[nearest] + 1) % 3)
        found: Probabilities = np.eye(3, dtype=np.float32)[said]
        return found


def _suspect(gain: float, seed: int, *, public: float = 0.0) -> Memory:
    return Memory([_pictures(1), _pictures(2)], [gain, public], seed)


VICTIM = _suspect(0.15, 100)


@cache
def _evidence() -> MarginEvidence:
    references = [_suspect(0.0, seed) for seed in range(8)]
    rng = np.random.default_rng(0)
    return TEST.prepare(_split(), references=references, victim=VICTIM, rng=rng)


def test_a_copy_is_derived() -> None:
    """A copy that kept a third of the victim's effect is called derived, its effect in its place."""
    found = TEST.run(_suspect(0.05, 50), _evidence(), rng=np.random.default_rng(1))
    assert verdict(found) == "derived"
    assert found.null == "data"
    assert found.p_value <= 0.001
    victim = TEST.decide(_evidence().victim, _evidence(), rng=np.random.default_rng(1))
    assert 0 < found.effect_size < victim.effect_size
    assert found.interval[0] < found.effect_size < found.interval[1]


@pytest.mark.parametrize("public", [0.0, 0.15])
def test_honest_classifiers_are_not(public: float) -> None:
    """Fresh data or the public side: neither is accused, and nobody is called innocent."""
    found = TEST.run(_suspect(0.0, 60, public=public), _evidence(), rng=np.random.default_rng(1))
    assert verdict(found) == "inconclusive"
    assert found.p_value > 0.01
    if public:
        assert found.effect_size < 0


def test_p_values_of_honest_classifiers_are_uniform() -> None:
    """Over re-splits of pictures that an honest classifier never saw, as the null says."""
    margins = TEST.margins(_suspect(0.0, 61), _split())
    found = Residuals.of(scored(None, margins), _evidence().references)
    rng = np.random.default_rng(2)
    p = [judge(found, rng.permutation(_split().trained), rng=rng).two.p_perm for _ in range(200)]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) < 0.01) <= 0.04


def test_a_surer_classifier_is_no_copy() -> None:
    """Margins twice as large on both sides change no score."""
    margins = TEST.margins(_suspect(0.0, 62), _split())
    surer = Margins(4 * margins.distances, margins.flipped, margins.queries)
    np.testing.assert_allclose(scored(None, surer), scored(None, margins), rtol=1e-9)


def test_a_regressor_can_score_pictures() -> None:
    """Fitted on pictures that are not tested, it finds the victim; its p-value is not the exact one."""
    both = _split()
    split = replace(both, fit_private=_pictures(3, 100), fit_public=_pictures(4, 100))
    sides = [_pictures(1), _pictures(2), _pictures(3, 100), _pictures(4, 100)]
    victim = Memory(sides, [0.15, 0, 0.15, 0], 100)
    references = [Memory(sides, [0, 0, 0, 0], seed) for seed in range(8)]
    test = replace(TEST, fitting=Fitting(units=10, steps=200))
    evidence = test.prepare(
        split, references=references, victim=victim, rng=np.random.default_rng(0)
    )
    found = test.decide(evidence.victim, evidence, rng=np.random.default_rng(0))
    assert verdict(found) == "derived"
    assert found.p_value == max(found.details["p_perm"], found.details["p_reference"])
    with pytest.raises(AuditRefused, match="fit_private and fit_public"):
        test.prepare(both, references=references, victim=victim, rng=np.random.default_rng(0))


class Evasive(Memory):
    """Answers a share of questions with any class, as drawn."""

    def embed(self, inputs: Batch) -> Probabilities:
        """Name classes, some of them at random."""
        said = super().embed(inputs)
        rng = np.random.default_rng(len(inputs))
        lies = rng.random(len(said)) < 0.1
        said[lies] = np.eye(3, dtype=np.float32)[rng.integers(0, 3, int(lies.sum()))]
        return said


def test_evasion_costs_power_and_accuses_nobody() -> None:
    """A copy that lies at times shows less; an honest liar, and another model, show nothing."""
    sides, rng = [_pictures(1), _pictures(2)], np.random.default_rng(1)
    plain = TEST.run(_suspect(0.1, 50), _evidence(), rng=rng)
    lying = TEST.run(Evasive(sides, [0.1, 0.0], 50), _evidence(), rng=rng)
    assert lying.effect_size < plain.effect_size
    for honest in (Evasive(sides, [0.0, 0.0], 60), _suspect(0.0, 63)):
        assert verdict(TEST.run(honest, _evidence(), rng=rng)) == "inconclusive"


def test_walks_are_of_the_seed() -> None:
    """The same seed gives the same margins, in the order of the split; another one does not."""
    one, again, other = (
        replace(TEST, seed=seed).margins(VICTIM, _split()).distances for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert one[:COUNT].mean() > one[COUNT:].mean()


def test_a_victim_that_is_not_found_refuses_the_audit() -> None:
    """A statistic that misses the owner's own classifier says nothing of others."""
    with pytest.raises(AuditRefused, match="positive control failed"):
        TEST.prepare(
            _split(),
            references=[_suspect(0.0, seed) for seed in range(8)],
            victim=_suspect(0.0, 70),
            rng=np.random.default_rng(0),
        )


def test_splits_that_cannot_carry_an_audit_are_refused() -> None:
    """Too few, shared or doubled pictures, other preparation, few references, sides not drawn."""
    rng, few = np.random.default_rng(0), [VICTIM] * 7
    one, other = _pictures(1), _pictures(2)
    with pytest.raises(AuditRefused, match="8 or more reference classifiers, got 7"):
        TEST.prepare(_split(), references=few, victim=VICTIM, rng=rng)
    paler = Side(np.minimum(np.float32(1), one.images + np.float32(51 / 255)), one.labels)
    with pytest.raises(AuditRefused, match="blind AUC"):
        TEST.prepare(MarginSplit(paler, other), references=[*few, VICTIM], victim=VICTIM, rng=rng)
    with pytest.raises(AuditRefused, match="at least 250 private pictures"):
        MarginSplit(_pictures(3, 100), other).check(least=250)
    with pytest.raises(AuditRefused, match="300 items of public are in private too"):
        MarginSplit(one, one).check(least=250)
    doubled = Side(np.concatenate([one.images, one.images[:2]]), np.zeros(302, np.int64))
    with pytest.raises(AuditRefused, match="2 of 302 items of private are there twice"):
        MarginSplit(doubled, other).check(least=250)
    other_way = Side(other.images * np.float32(0.93), other.labels)
    with pytest.raises(AuditRefused, match="prepare both by the same path"):
        MarginSplit(one, other_way).check(least=250)
    with pytest.raises(AuditRefused, match="expected scores of 600 pictures"):
        TEST.decide(np.zeros(5), _evidence(), rng=rng)
