"""Pictures show what a result holds, and the same result gives the same file."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from tollkeeper.bench.experiment import BenchError, Metric, Result
from tollkeeper.bench.plots import draw


def metric(value: float) -> Metric:
    """Return a metric with a spread."""
    return Metric(value, "share", "lower", (value - 0.01, value + 0.01))


def test_signals_are_drawn_by_traffic(tmp_path: Path) -> None:
    """Each account has its line, with a name."""
    names = {
        f"coverage.{encoder}.{profile}.{traffic}.n{count}": metric(count / 2000)
        for encoder in ("text", "image")
        for profile in ("recommended", "b4b-2023")
        for traffic in ("narrow", "broad")
        for count in (100, 1000)
    }
    names["coverage.text.recommended.narrow.all"] = metric(0.9)
    found = Result("guard-coverage", "cpu", names, {}, {})
    draw(found, tmp_path / "one.svg")
    draw(found, tmp_path / "two.svg")
    text = (tmp_path / "one.svg").read_text()
    assert text == (tmp_path / "two.svg").read_text()
    for named in ("recommended, narrow", "b4b-2023, broad", "builtin:image", "price signal"):
        assert named in text


def test_thefts_are_drawn_beside_the_curve(tmp_path: Path) -> None:
    """Budgets without a guard are a line; every way behind one is named."""
    names = {
        f"theft.{encoder}.{rest}": metric(0.5)
        for encoder in ("text", "image")
        for rest in ("none.open.n1000", "none.open.n4000", "recommended.trunk", "b4b-2023.greedy")
    }
    names |= {f"accounts_sharded.text.recommended.n{n}": metric(2) for n in (1000, 4000)}
    draw(Result("guard-figures", "cpu", names, {}, {}), tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text()
    for named in (
        "no guard",
        "recommended, trunk",
        "b4b-2023, greedy",
        "fidelity of the copy",
        "recommended, sharded",
    ):
        assert named in text


def test_a_year_is_drawn_by_what_is_carried_over(tmp_path: Path) -> None:
    """Every encoder has a line of what customers pay and one of what a thief gets."""
    names = {f"paid.text.drifting.c{share}": metric(0.5) for share in (0, 100)}
    names |= {f"free_thief.patches.c{share}": metric(900) for share in (0, 100)}
    draw(Result("guard-windows", "cpu", names, {}, {}), tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text()
    for named in (">text<", ">patches<", "patient thief", "drifting customer"):
        assert named in text


def test_tolls_are_drawn_by_account(tmp_path: Path) -> None:
    """Every account has a line of what it paid and one of what it covered."""
    names = {
        f"{family}.{account}.n{count}": metric(count / 1000)
        for family in ("paid", "covered")
        for account in ("narrow", "thief")
        for count in (400, 800)
    }
    draw(Result("toll-timelines", "cpu", names, {}, {}), tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text()
    for named in (">narrow<", ">thief<", "seconds paid", "price signal"):
        assert named in text
    assert ">wide<" not in text


def test_others_have_no_picture(tmp_path: Path) -> None:
    """One line names those that have one."""
    with pytest.raises(BenchError, match=r"no picture of 'rda'.*guard-coverage"):
        draw(Result("rda", "cpu", {}, {}, {}), tmp_path / "x.svg")


def test_responses_are_drawn_by_what_they_cost_whom(tmp_path: Path) -> None:
    """Each response is named with the countermeasure that gets most out of it."""
    names = {f"honest.{name}.label_kept": metric(0.9) for name in ("noise", "top-3")}
    names |= {
        "copy_accuracy.noise.believed": metric(0.5),
        "copy_accuracy.noise.averaged": metric(0.7),
        "copy_accuracy.noise.labels": metric(0.6),
        "copy_accuracy.top-3.believed": metric(0.8),
        "copy_accuracy.top-3.labels": metric(0.7),
    }
    draw(Result("prediction-responses", "cpu", names, {}, {}), tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text()
    for named in ("noise: averaged", "top-3: believed", "accuracy of the copy"):
        assert named in text


def test_roc_curves_are_drawn_by_data_set_and_thief(tmp_path: Path) -> None:
    """Each thief that a data set has is a panel, each detector a named line."""
    at = [0.01, 0.1, 0.9]
    lines = {"same": [0.1, 0.5, 0.95], "oe": [0.0, 0.2, 0.9]}
    facts = {
        "mnist": {"roc_at": at, "roc": {"jbda": lines, "jbda_strokes": lines}},
        "cifar10": {"roc_at": at, "roc": {"jbda": lines}},
    }
    draw(Result("same-detection", "cpu", {}, facts, {}), tmp_path / "roc.svg")
    text = (tmp_path / "roc.svg").read_text()
    for named in ("mnist: jbda", "mnist: jbda_strokes", "cifar10: jbda", "same", "oe"):
        assert named in text
