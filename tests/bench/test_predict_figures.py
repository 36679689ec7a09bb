"""Figures of detectors with paired intervals, and ours beside the published."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.bench.experiment import Metric
from tollkeeper.bench.predict.beside import beside
from tollkeeper.bench.predict.figures import judge
from tollkeeper.bench.predict.published import DETECTION, RATIOS
from tollkeeper.bench.predict.ratios import ratios


def normal(count: int, mean: float, seed: int) -> np.ndarray:
    """Return scores."""
    return np.random.default_rng(seed).normal(mean, 1, count)


def test_figures_are_of_the_queries_and_lie_in_their_intervals() -> None:
    """AUROC of two normals one apart is about .76; every figure lies within its interval."""
    found = judge(
        {"a": normal(2000, 0, 0)},
        {"a": normal(2000, 1, 1)},
        resamples=200,
        rng=np.random.default_rng(0),
    ).metrics("mnist.2000", "jbda")
    assert found["auroc.mnist.2000.a.jbda"].value == pytest.approx(0.76, abs=0.02)
    assert found["fpr95.mnist.2000.a.jbda"].direction == "lower"
    for name in ("auroc", "aupr", "ap", "fpr95", "fpr90", "tpr_at_fpr1", "tpr_at_fpr01"):
        metric = found[f"{name}.mnist.2000.a.jbda"]
        assert metric.interval is not None
        low, high = metric.interval
        assert low <= metric.value <= high
        assert 0 < high - low < 0.3


def _width(size: int, *, seed: int, resamples: int = 1000) -> float:
    """Return how wide an interval of AUROC .93 is with so many queries of both kinds."""
    seen = judge(
        {"a": normal(size, 0, seed)},
        {"a": normal(size, 2.087, seed + 1)},
        resamples=resamples,
        rng=np.random.default_rng(seed),
    )
    low, high = seen.metrics("x", "y")["auroc.x.a.y"].interval or (0, 0)
    return high - low


def test_intervals_shrink_with_queries() -> None:
    """At 1,000 queries and an AUROC of .93 the standard error is about .6 points."""
    wide, narrow = _width(250, seed=3), _width(1000, seed=3)
    assert narrow == pytest.approx(4 * 0.006, rel=0.3)
    assert wide == pytest.approx(2 * narrow, rel=0.35)


def test_intervals_cover_the_truth() -> None:
    """Of 100 samples about 95 have the true AUROC, .76 for normals one apart, in their interval."""
    rng, hits = np.random.default_rng(4), 0
    for seed in range(100):
        seen = judge(
            {"a": normal(80, 0, 2 * seed)},
            {"a": normal(80, 1, 2 * seed + 1)},
            resamples=200,
            rng=rng,
        )
        low, high = seen.metrics("x", "y")["auroc.x.a.y"].interval or (0, 0)
        hits += low <= 0.7602 <= high
    assert 88 <= hits <= 99


def test_rounded_ranks_move_intervals_by_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more scores than ranks the ends of every interval are those of the exact scores."""

    def judged() -> list[tuple[float, float]]:
        seen = judge(
            {"a": normal(3000, 0, 0)},
            {"a": normal(3000, 1, 1)},
            resamples=300,
            rng=np.random.default_rng(0),
        )
        return [found.interval or (0, 0) for found in seen.metrics("x", "y").values()]

    rounded = judged()
    monkeypatch.setattr("tollkeeper.bench.predict.figures._RANKS", 10**6)
    np.testing.assert_allclose(rounded, judged(), atol=0.002)


def test_differences_are_paired() -> None:
    """A detector that is another plus a little noise differs with a narrow interval."""
    honest, malicious = normal(500, 0, 0), normal(500, 1, 1)
    noisy = normal(500, 0, 2), normal(500, 0, 3)
    seen = judge(
        {"a": honest, "b": honest + 0.1 * noisy[0], "c": -honest},
        {"a": malicious, "b": malicious + 0.1 * noisy[1], "c": -malicious},
        resamples=200,
        rng=np.random.default_rng(0),
    )
    close, far = seen.above("a", "b"), seen.above("a", "c")
    assert close.interval is not None
    assert far.interval is not None
    assert close.interval[1] - close.interval[0] < 0.03
    assert far.interval[0] > 0.4
    assert seen.above_best("b", ["a", "c"]).value == pytest.approx(-close.value)


def test_no_resamples_no_interval() -> None:
    """What was not drawn has no spread."""
    seen = judge({"a": normal(9, 0, 0)}, {"a": normal(9, 1, 1)}, resamples=0, rng=None)  # type: ignore[arg-type]
    assert seen.metrics("x", "y")["auroc.x.a.y"].interval is None


def share(value: float, low: float | None = None, high: float | None = None) -> Metric:
    """Return a metric."""
    ends = None if low is None or high is None else (low, high)
    return Metric(value, "share", "higher", ends)


def test_ours_stand_beside_the_published_and_verdicts_come_from_intervals() -> None:
    """A cell has both triples; what does not beat the floor, and who is ahead, is stated."""
    shown = beside(
        {
            "auroc.mnist.1000.same.jbda": share(0.942),
            "aupr.mnist.1000.same.jbda": share(0.931),
            "fpr95.mnist.1000.same.jbda": share(0.252),
            "auroc.mnist.1000.same.jbda_all": share(0.844),
            "auroc.mnist.1000.pixel-share.jbda": share(1.0),
            "above_floors.mnist.1000.same.jbda": share(-0.06, -0.07, -0.05),
            "above_floors.mnist.1000.same.knockoff": share(0.04, 0.03, 0.05),
            "above.mnist.1000.same_over_oe.jbda": share(0.4, 0.38, 0.42),
            "above.mnist.1000.oe_over_edm.jbda": share(0.01, -0.02, 0.03),
            "train_s.mnist.same": share(300),
            "auroc.mnist.1000.same.insider": share(0.503),
            "auroc.mnist.accounts50.prada.jbda": share(0.123),
        }
    )
    assert "in place of EMNIST digits" in shown
    assert "| `same` | 94.2 / 93.1 / 25.2 [93.3 / 93.0 / 27.4] |" in shown
    assert "| `pixel-share` | 100.0 |" in shown
    assert "84.4" not in shown
    assert "12.3" not in shown
    assert "| `insider` | 50.3 |  |" in shown
    assert "Not above the best floor: `same` (jbda)." in shown
    assert "AUROC on jbda: same > oe (+38.0 to +42.0); oe = edm (-2.0 to +3.0)." in shown


def test_table_four_stands_beside_the_published() -> None:
    """A line has the published figures and one column for each attack."""
    shown = ratios(
        {f"{name}.mnist.r1.same.mixed": share(0.5) for name in ("auroc", "aupr", "fpr95", "fpr90")}
    )
    expected = "| mnist, 1% | 98.9 / 82.8 / 3.9 / 3.0 | 50.0 / 50.0 / 50.0 / 50.0 |"
    assert expected in shown.replace("3.1 |", "3.0 |")


def test_published_tables_are_complete() -> None:
    """Tables 1 and 2 have three methods at two budgets each, table 4 six ratios of two sets."""
    assert len(DETECTION) == 12
    assert {len(row) for row in DETECTION.values()} == {3}
    assert len(RATIOS) == 12
