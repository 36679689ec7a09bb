"""What the experiments on image marks share, and their tables."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from scipy.stats import binomtest

from tollkeeper.audit.base import OwnershipResult

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tollkeeper.bench.ownership import marks, rotation_watermark, sslguard  # noqa: E402
from tollkeeper.bench.ownership.networks import Small  # noqa: E402


def result(statistic: float, p: float) -> OwnershipResult:
    """Return a result whose 99% interval is .1 wide to either side."""
    return OwnershipResult(
        test="t",
        null="key",
        statistic=statistic,
        p_value=p,
        effect_size=statistic,
        interval=(statistic - 0.1, statistic + 0.1),
        null_distribution=np.zeros(3),
        alternative="",
        details={"watermark_rate": 0.25, "null_max": 0.5},
    )


@pytest.mark.parametrize("hits", [0, 3, 20])
def test_a_rate_has_its_exact_interval(hits: int) -> None:
    """The interval of a share is SciPy's exact one."""
    found = marks.rate([True] * hits + [False] * (20 - hits))
    exact = binomtest(hits, 20).proportion_ci(0.95, method="exact")
    assert found.value == hits / 20
    assert found.interval == pytest.approx((exact.low, exact.high))


def test_metrics_have_intervals_of_95_percent() -> None:
    """The result's interval of 99% becomes one of 95% around the statistic."""
    found = marks.metrics_of("a.b", result(0.7, 0.001), "accuracy")
    assert found["accuracy.a.b"].interval == pytest.approx((0.7 - 0.0761, 0.7 + 0.0761), abs=1e-4)
    assert found["p.a.b"].value == 0.001


def test_a_copy_may_begin_with_given_weights() -> None:
    """Networks made from a start have its weights and are not it."""
    start = Small(width=16).build(4, np.random.default_rng(0))
    made = marks.From(start).build(4, np.random.default_rng(1))
    assert made is not start
    pairs = zip(start.state_dict().values(), made.state_dict().values(), strict=True)
    assert all((a == b).all() for a, b in pairs)


def _judged(
    names: tuple[str, ...], modes: Mapping[str, object], null: tuple[str, ...]
) -> dict[str, OwnershipResult]:
    found: dict[str, OwnershipResult] = {}
    for mark in names:
        found |= {f"{mark}.victim.{mode}": result(0.7, 0.001) for mode in modes}
        for number in range(9):
            found |= {
                f"{mark}.independent-{number}.{mode}": result(0.5, 0.04 if number else 0.001)
                for mode in null
            }
    return found


def test_independents_become_rates_and_ranges() -> None:
    """One independent in nine at .001 is a false accusation of a ninth; all are below .05."""
    judged = _judged(
        rotation_watermark.MARKS, rotation_watermark.MODES, rotation_watermark.NULL_MODES
    )
    found = rotation_watermark._figures(judged, rotation_watermark.Setting(independents=9))
    assert found["false_accusations.tuned.direct"].value == pytest.approx(1 / 9)
    assert found["p_below_5.alternated.affine-clean"].value == 1
    assert found["accuracy.tuned.independents.direct"].interval == (0.5, 0.5)
    table = rotation_watermark.report(found)
    assert "| `victim` | 70.0, 0.001 |" in table
    assert "50.0 (50.0 to 50.0)" in table


def test_the_table_of_sslguard_has_rate_cosine_and_p() -> None:
    """Each cell names rate, mean cosine and p; independents have no p."""
    judged = _judged(tuple(sslguard.MARKS), sslguard.MODES, sslguard.NULL_MODES)
    found = sslguard._figures(judged, sslguard.Setting(independents=9))
    table = sslguard.report(found)
    assert "| `victim` | 25% / 0.700, 0.001 |" in table
    assert "| `independents` | 25% / 0.500 |" in table
