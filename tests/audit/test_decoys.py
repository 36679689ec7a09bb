"""Keys of a committed seed, and the exact null that they give."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tollkeeper.audit.watermarks.decoys import (
    Draws,
    KeyStream,
    commitment_of,
    decoy_p,
    decoy_test,
    direction_p,
    mixed,
    require_earlier,
)
from tollkeeper.errors import AuditRefused, ConfigurationError, EvidenceError

SEED = bytes(range(32))


def test_a_key_is_the_same_everywhere() -> None:
    """Numbers of a key are those written here, bit by bit."""
    planted = KeyStream(SEED, "test").planted()
    assert planted.words(2).tolist() == [6959817728277094441, 7669880818270361320]
    assert planted.uniform(2).tolist() == [0.5069514344794388, 0.4678231953850037]
    assert planted.normal(2).tolist() == [1.365731120109558, -0.05165976285934448]


def test_keys_differ_by_seed_label_and_number() -> None:
    """No two keys of different seeds, labels or numbers share numbers."""
    streams = [KeyStream(SEED, "a"), KeyStream(SEED, "b"), KeyStream(SEED[::-1], "a")]
    firsts = [int(draws.words(1)[0]) for s in streams for draws in (s.planted(), *s.decoys(5))]
    assert len(set(firsts)) == 18


def test_normal_draws_are_normal() -> None:
    """A Kolmogorov-Smirnov test does not tell the draws from a normal distribution."""
    assert stats.kstest(Draws(1).normal(100, 50).ravel(), "norm").pvalue > 0.01


def test_choose_is_fair_and_without_repeats() -> None:
    """Every position is chosen equally often, never twice in one draw."""
    counts = np.zeros(10)
    for seed in range(2000):
        chosen = Draws(seed).choose(10, 4)
        assert len(set(chosen.tolist())) == 4
        counts[chosen] += 1
    assert stats.chisquare(counts).pvalue > 0.01
    with pytest.raises(ConfigurationError, match="at most 3"):
        Draws(0).choose(3, 4)


def test_only_the_committed_seed_opens() -> None:
    """Another seed than the committed one is refused, and so is one that can be guessed."""
    digest = commitment_of(SEED)
    assert KeyStream.opened(SEED, "a", commitment=digest) == KeyStream(SEED, "a")
    with pytest.raises(EvidenceError, match="not the committed one"):
        KeyStream.opened(SEED[:-1] + b"\0", "a", commitment=digest)
    with pytest.raises(ConfigurationError, match="at least 16 bytes"):
        KeyStream(b"short", "a")


def test_a_beacon_changes_the_seed() -> None:
    """The seed in use depends on both parts, so that its owner could not choose it."""
    assert len({mixed(SEED, b"1"), mixed(SEED, b"2"), mixed(SEED[::-1], b"1"), SEED}) == 4


def test_a_key_drawn_after_the_fact_is_refused() -> None:
    """A commitment that is not older than the suspect's first appearance is no evidence."""
    require_earlier(99.0, 100.0)
    for late in (100.0, 101.0, float("nan")):
        with pytest.raises(EvidenceError, match="made to fit the suspect"):
            require_earlier(late, 100.0)


def test_p_counts_ties_against_the_accuser() -> None:
    """The p-value is (1 + decoys at least as large) / (1 + B)."""
    decoys = np.arange(99.0)
    assert decoy_p(200.0, decoys) == 0.01
    assert decoy_p(98.0, decoys) == 0.02
    assert decoy_p(-1.0, decoys) == 1.0


def test_p_is_uniform_under_the_null() -> None:
    """For exchangeable statistics, P(p <= a) is a at every multiple a of 1/(1+B)."""
    rng = np.random.default_rng(5)
    found = [decoy_p(row[0], row[1:]) for row in rng.standard_normal((4000, 100))]
    share = np.array([np.mean(np.array(found) <= a + 1e-9) for a in (0.01, 0.05, 0.5)])
    expected = np.array([0.01, 0.05, 0.5])
    assert (np.abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / 4000)).all()


def test_the_early_p_is_exact() -> None:
    """Stopping at the tenth larger decoy keeps P(p <= a) at or below a."""
    stream, rng = KeyStream(SEED, "early"), np.random.default_rng(6)
    found = []
    for _ in range(2000):
        later = iter(rng.standard_normal(200))
        true = float(rng.standard_normal())
        p, _ = decoy_test(true, lambda _, it=later: next(it), stream, count=99, patience=10)
        found.append(p)
    for a in (0.01, 0.05, 0.2, 0.5):
        assert np.mean(np.array(found) <= a + 1e-9) < a + 4 * np.sqrt(a * (1 - a) / 2000)


def test_an_honest_suspect_needs_few_decoys() -> None:
    """A statistic in the middle of the decoys ends early; one above all is compared with all."""
    stream = KeyStream(SEED, "few")
    p, seen = decoy_test(0.5, lambda draws: float(draws.uniform(1)[0]), stream, count=999)
    assert len(seen) < 300
    assert 0.3 < p < 0.7
    p, seen = decoy_test(2.0, lambda draws: float(draws.uniform(1)[0]), stream, count=999)
    assert (p, len(seen)) == (0.001, 999)


def test_the_direction_p_is_that_of_many_random_keys() -> None:
    """The closed form agrees with the share of random keys that are as close."""
    rng = np.random.default_rng(7)
    found, key = rng.standard_normal((2, 16))
    key += 0.3 * found
    cosine = found @ key / np.linalg.norm(found) / np.linalg.norm(key)
    others = rng.standard_normal((40000, 16))
    share = np.mean(
        others @ found / np.linalg.norm(others, axis=1) / np.linalg.norm(found) >= cosine
    )
    assert direction_p(found, key) == pytest.approx(share, rel=0.1)
    assert direction_p(found, -key) == pytest.approx(1 - direction_p(found, key))
    assert direction_p(found, found) < 1e-100
    with pytest.raises(AuditRefused, match="zero"):
        direction_p(np.zeros(3), np.ones(3))


def test_unusable_decoys_are_refused() -> None:
    """Too few decoys and statistics that are no numbers refuse the audit."""
    with pytest.raises(AuditRefused, match="at least 99"):
        decoy_p(1.0, np.zeros(98))
    with pytest.raises(AuditRefused, match="at least 99"):
        decoy_test(1.0, lambda _: 0.0, KeyStream(SEED, "a"), count=98)
    with pytest.raises(AuditRefused, match="NaN"):
        decoy_p(float("nan"), np.zeros(99))
    with pytest.raises(AuditRefused, match="NaN"):
        decoy_p(0.0, np.full(99, np.nan))
