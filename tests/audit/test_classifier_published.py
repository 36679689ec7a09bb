"""The published test of classifiers: its rows, its tests, and that its defects are defects."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tollkeeper.audit.classifiers.margins import Margins
from tollkeeper.audit.classifiers.published import AsPublished, Standard, laid_out, one_sided
from tollkeeper.audit.classifiers.regressor import Fitting
from tollkeeper.errors import AuditRefused

QUICK = Fitting(units=10, steps=100)


def _margins(distances: np.ndarray) -> Margins:
    return Margins(distances, np.ones(distances.shape, np.bool_), 0)


def _honest(seed: int, *, count: int = 200) -> tuple[Margins, Margins]:
    """Return margins of two sides that differ by chance alone; a picture's walks are alike."""
    rng = np.random.default_rng(seed)
    hard = rng.gamma(2.0, 1.0, (2, count, 1, 1))
    walks = hard * rng.uniform(0.8, 1.2, (2, count, 10, 3))
    return _margins(walks[0]), _margins(walks[1])


def test_a_row_is_a_picture_or_what_the_notebooks_make_of_it() -> None:
    """Mixed rows hold one walk in one norm of many pictures."""
    picture, walk, norm = np.meshgrid(np.arange(60), np.arange(10), np.arange(3), indexing="ij")
    distances = (picture + 100 * walk + 10_000 * norm).astype(np.float64)
    plain, mixed = laid_out(distances, "pictures"), laid_out(distances, "released")
    assert plain.shape == mixed.shape == (60, 30)
    assert all(np.unique(row % 100).size == 1 for row in plain)
    assert all(np.unique(row % 100).size == 30 for row in mixed)
    assert all(np.unique(row // 100).size == 1 for row in mixed)
    np.testing.assert_array_equal(np.sort(mixed, axis=None), np.sort(plain, axis=None))


def test_tests_are_welch_tests() -> None:
    """Each row agrees with scipy's one-sided test."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, (20, 10)), rng.normal(0, 2, (20, 14))
    wanted = stats.ttest_ind(a, b, axis=1, equal_var=False, alternative="greater").pvalue
    np.testing.assert_allclose(one_sided(a, b), wanted, rtol=1e-10)


def test_constant_rows_have_p_values() -> None:
    """Scores that do not vary are in order, in reverse, or equal."""
    ones, zeros = np.ones((1, 5)), np.zeros((1, 5))
    assert one_sided(ones, zeros)[0] < 0.05
    assert one_sided(zeros, ones)[0] > 0.95
    assert one_sided(ones, ones)[0] == 0.5


@pytest.mark.parametrize("rows", ["pictures", "released"])
def test_a_victim_and_what_it_was_fitted_on_are_found(rows: str) -> None:
    """Private pictures with larger margins give a large effect and small p-values."""
    private, public = _honest(1)
    victim = _margins(private.distances * 1.8)
    test = AsPublished(rows=rows, fitting=QUICK)  # type: ignore[arg-type]
    fitted = test.fit(victim, public, rng=np.random.default_rng(0))
    found = test.test(fitted, victim, public, rng=np.random.default_rng(0))
    assert found.effect > 0.3
    assert found.p_all < 1e-3
    assert found.harmonic < 0.05


def test_mixed_rows_accuse_the_honest() -> None:
    """Pictures counted many times make chance look certain; rows of pictures do not."""
    private, public = _honest(1)
    victim = _margins(private.distances * 1.8)
    flagged = {}
    for rows in ("pictures", "released"):
        test = AsPublished(rows=rows, fitting=QUICK)
        fitted = test.fit(victim, public, rng=np.random.default_rng(0))
        p = [
            test.test(fitted, *_honest(seed), rng=np.random.default_rng(0)).p_all
            for seed in range(2, 42)
        ]
        flagged[rows] = np.mean(np.array(p) < 0.01)
    assert flagged["pictures"] <= 0.1
    assert flagged["released"] >= 0.2


def test_results_are_reproducible() -> None:
    """The generator decides which rows are drawn, and nothing else is random."""
    private, public = _honest(1)
    test = AsPublished(fitting=QUICK)
    fitted = test.fit(private, public, rng=np.random.default_rng(0))
    one, again = (
        test.test(fitted, private, public, rng=np.random.default_rng(3)) for _ in range(2)
    )
    assert one == again or (one.effect, one.harmonic) == (again.effect, again.harmonic)


def test_too_few_rows_and_constants_are_refused() -> None:
    """Both are told in one line."""
    private, public = _honest(1, count=50)
    test = AsPublished(m=30, fitting=QUICK)
    fitted = test.fit(private, public, rng=np.random.default_rng(0))
    with pytest.raises(AuditRefused, match="at least 30 rows to test, got 25"):
        test.test(fitted, private, public, rng=np.random.default_rng(0))
    with pytest.raises(AuditRefused, match="all margins are the same"):
        Standard.of(np.ones((5, 2, 3)))
