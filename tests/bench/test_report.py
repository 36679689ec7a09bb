"""Findings as a file, a page and a picture."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from tollkeeper.bench.theft.campaign import Row, Run
from tollkeeper.bench.theft.chart import Dot, draw
from tollkeeper.bench.theft.findings import Findings, limits
from tollkeeper.bench.theft.report import (
    cost_cells,
    cost_columns,
    page,
    summary,
    task_cells,
    task_columns,
)
from tollkeeper.bench.theft.verdicts import parse_condition
from tollkeeper.client import Spend

VOID = {"meta"}


def figures(fidelity: float) -> dict[str, float]:
    """Return the figures of one run."""
    return {
        "fidelity": fidelity,
        "recall10": 0.5,
        "centered_cosine": 0.75,
        "accuracy.cifar10": 0.625,
        "agreement.cifar10": 0.7,
    }


def row(budget: int, *values: float, **changes: Any) -> Row:
    """Return a row with one run a value."""
    runs = [
        Run(seed, figures(value), queries=budget, calls=4, money=budget * 0.01, seconds=8.0)
        for seed, value in enumerate(values)
    ]
    return replace(Row(budget, tuple(runs), figures(0.1)), **changes)


def found(*rows: Row, **changes: Any) -> Findings:
    """Return findings about a live target."""
    given: dict[str, Any] = {
        "attack": "rda",
        "source": "Wu et al., ECCV 2024",
        "settings": {"epochs": 3},
        "target": "http://127.0.0.1:8080/v1",
        "profile": None,
        "model": "served",
        "dim": 16,
        "is_live": True,
        "accounts": 1,
        "pool": "tiny_imagenet",
        "pool_size": 10_000,
        "reference": "builtin:image",
        "is_clean": True,
        "scored_on": 2000,
        "scoring_queries": 0,
        "tasks": ("cifar10",),
        "scale": "cpu",
        "seeds": 3,
        "budgets": (1000, 5000),
        "price": 0.01,
        "victim": figures(1.0),
        "untrained": figures(0.0),
        "rows": rows,
        "spend": Spend(calls=90, distinct=5000, money=50.0, retries=2),
        "manifest": {"versions": {"numpy": "2"}},
        **changes,
    }
    return Findings(**given)


WHOLE = found(row(1000, 0.2, 0.3, 0.4), row(5000, 0.6, 0.8, 0.7))


class Outline(HTMLParser):
    """Checks that every element is closed, and keeps what a page loads or links."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [name for name, _ in attrs if name in {"src", "href", "srcset", "xlink:href"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone() -> None:
    """It is well-formed, loads nothing and runs nothing."""
    text = page(WHOLE)
    outline = Outline()
    outline.feed(text)
    assert outline.open == []
    assert outline.loads == []
    assert not outline.tags & {"script", "link", "img", "iframe", "object"}
    assert "@import" not in text
    assert "url(" not in text
    assert {"svg", "table", "dl"} <= outline.tags


def test_the_page_tells_the_whole_story() -> None:
    """Cost, fidelity, floors, victim, price, limits and the technique are on it."""
    text = page(WHOLE)
    for named in (
        "5,000 queries for 50.00 bought a copy of fidelity 0.700 (0.600 to 0.800).",
        "0.300 (0.200 to 0.400)",
        "self-trained 5,000",
        "served, width 16",
        "0.01 an input",
        "90, 2 of them retries",
        "tiny_imagenet stands in for ImageNet",
        "AML.T0024.002: Extract AI Model",
        "Limits of this evidence",
    ):
        assert named in text, named
    assert text.count('<circle class="copy"') == 2


def test_what_the_target_says_of_itself_is_only_text() -> None:
    """Names that come from outside cannot add elements to the page."""
    hostile = '<script>alert("x")</script>'
    spoiled = row(1000, 0.2)
    run = replace(spoiled.runs[0], partial=hostile)
    text = page(found(replace(spoiled, runs=(run,)), model=hostile, target=hostile, pool=hostile))
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_the_file_holds_rows_runs_and_limits() -> None:
    """The result file has a schema, means with ranges, and every single run."""
    tree = json.loads(WHOLE.to_json())
    assert (tree["schema"], tree["complete"]) == (1, True)
    assert [one["budget"] for one in tree["rows"]] == [1000, 5000]
    last = tree["rows"][1]
    assert last["figures"]["fidelity"] == {"mean": pytest.approx(0.7), "interval": [0.6, 0.8]}
    assert [one["figures"]["fidelity"] for one in last["runs"]] == [0.6, 0.8, 0.7]
    assert (last["queries"], last["money"], last["self_trained"]["fidelity"]) == (5000, 50.0, 0.1)
    assert tree["spend"]["retries"] == 2
    assert tree["limits"] == limits(WHOLE)
    assert WHOLE.to_json().endswith(b"}\n")


def test_findings_grow_row_by_row() -> None:
    """News of a budget replace what was known of it, and verdicts follow."""
    start = found(spend=None)
    assert summary(start) == "No copy was made."
    page(start)
    condition = parse_condition("fidelity@1k>0.25", metrics=["fidelity"], budgets=[1000])
    once = start.with_row(row(1000, 0.2), Spend(calls=3)).judged([condition])
    assert once.verdicts[0].failed is None
    twice = once.with_row(row(1000, 0.2, 0.2), Spend(calls=5)).judged([condition])
    assert [len(one.runs) for one in twice.rows] == [2]
    whole = twice.with_row(row(1000, 0.2, 0.3, 0.4), Spend(calls=7)).judged([condition])
    assert whole.verdicts[0].failed is True
    assert whole.verdicts[0].value == pytest.approx(0.3)
    assert whole.spend == Spend(calls=7)
    assert not whole.is_complete
    assert whole.with_row(row(5000, 0.6, 0.7, 0.8), None).is_complete
    assert "Not everything was run" in summary(whole)


def test_partial_rows_are_marked_everywhere() -> None:
    """Table, picture, limits and file show that a row is not what was asked for."""
    cut = row(5000, 0.5)
    runs = (replace(cut.runs[0], queries=1200, partial="the target takes no more"),)
    spoiled = found(row(1000, 0.2, 0.3, 0.4), replace(cut, runs=runs, self_trained=None))
    assert cost_cells(spoiled, spoiled.rows[1])[:2] == ["5,000 (partial)", "1,200"]
    text = page(spoiled)
    assert '<circle class="copy partial"' in text
    assert "The row of 5,000 queries is partial: the target takes no more" in limits(spoiled)
    assert json.loads(spoiled.to_json())["rows"][1]["partial"] == "the target takes no more"
    assert not spoiled.is_complete


def test_a_copy_below_a_floor_is_no_theft() -> None:
    """The headline says so, whichever floor it is."""
    for floors in ({"untrained": figures(0.7)}, {}):
        own = {} if floors else figures(0.75)
        weak = found(row(5000, 0.6, 0.8, 0.7, self_trained=own), **floors)
        assert "which is no theft: its network has 0.7" in summary(weak)
    assert "no theft" not in summary(WHOLE)


def test_the_page_says_when_and_how() -> None:
    """Date, command and size of the test are stated where they are known."""
    told = page(replace(WHOLE, date="2026-11-22T10:00:00+00:00", command="tollkeeper attack run"))
    for named in ("2026-11-22T10:00", "tollkeeper attack run", "builtin:image, on 2,000 inputs"):
        assert named in told
    assert "begun" not in page(WHOLE)


def test_tables_have_a_cell_for_every_head() -> None:
    """Also for runs without a copy, and for text, where no floor is trained."""
    empty = Row(5000, (Run(0, partial="down"),))
    for findings in (WHOLE, found(row(1000, 0.2), empty), replace(WHOLE, copies="classifier")):
        for one in findings.rows:
            assert len(cost_cells(findings, one)) == len(cost_columns(findings))
        assert len(task_cells(findings, "cifar10")) == len(task_columns(findings))
    assert cost_cells(WHOLE, empty)[6:10] == ["-"] * 4


def test_classifiers_have_figures_of_their_own() -> None:
    """Neither table nor explanations speak of an embedding space, which classifiers lack."""
    copied = replace(WHOLE, copies="classifier", tasks=())
    assert "recall10" not in cost_columns(copied)
    assert "recall10" not in page(copied)
    assert "the same class" in page(copied)
    assert any("agreement" in one for one in limits(copied))


def test_limits_follow_what_was_done() -> None:
    """A weaker measurement owns up to more."""
    strong = limits(replace(WHOLE, scale="gpu", is_live=False, pool="mine"))
    weak = limits(replace(WHOLE, tasks=(), is_clean=False, seeds=2))
    assert len(strong) == 2
    for named in ("recall10", "target's own answers", "Fewer than 3 seeds", "Scale cpu", "share"):
        assert any(named in one for one in weak), named


def test_a_floor_that_could_not_be_trained_is_owned_up_to() -> None:
    """The row stands without it, in the page too."""
    spoiled = found(row(1000, 0.2, 0.3, 0.4, self_trained={}))
    assert any("could not be trained by itself" in one for one in limits(spoiled))
    assert "self-trained 1,000" not in page(spoiled)
    assert len(task_cells(spoiled, "cifar10")) == len(task_columns(spoiled))


def test_the_curve_is_to_scale() -> None:
    """Height is linear in fidelity and width logarithmic in queries."""
    dots = [Dot(100, 0.0), Dot(1000, 0.5, (0.25, 0.75), floor=0.1), Dot(10_000, 1.0, partial=True)]
    drawn = ET.fromstring(draw(dots, untrained=-0.1))  # noqa: S314 - our own text
    circles = [one for one in drawn.iter("circle") if "copy" in one.attrib["class"]]
    xs, ys = ([float(one.attrib[name]) for one in circles] for name in ("cx", "cy"))
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.2)
    (bar,) = (one.attrib["d"] for one in drawn.iter("path") if "V" in one.attrib["d"])
    across, low, high = map(float, re.findall(r"[\d.]+", bar))
    assert across == pytest.approx(xs[1])
    assert (low + high) / 2 == pytest.approx(ys[1], abs=0.2)
    heights = sorted(float(one.attrib["y"]) for one in drawn.iter("text") if _is_name(one))
    assert len(heights) == 4
    assert min(b - a for a, b in pairwise(heights)) >= 14


def _is_name(element: ET.Element) -> bool:
    return element.text in {"victim", "untrained", "copy", "self-trained"}


def test_one_point_and_none_are_drawn_too() -> None:
    """A single budget lies in the middle, and without a copy there is no picture."""
    drawn = draw([Dot(500, 0.4)], untrained=0.0)
    assert ET.fromstring(drawn).tag == "svg"  # noqa: S314 - our own text
    assert draw([], untrained=0.0) == ""
