"""The picture of `tollkeeper demo`: what the copies can do, and what the operator saw."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tollkeeper.bench.theft.demo import SYBILS, THIEF, Story
from tollkeeper.bench.theft.scoring import Scores

_SIZE_IN = (11.0, 4.6)
_DOTS_PER_INCH = 130
_GROUP = 0.8
"""Width of a group of bars; groups are 1 apart."""

_STYLES = {THIEF: "C2-", SYBILS[0]: "C3-", SYBILS[1]: "k:"}
"""Lines of the attackers; the first two have the color of their copies' bars."""


def draw(story: Story, path: Path) -> None:
    """Write the picture; the ending of `path` chooses the format.

    Raises:
        OSError: it cannot be written.
    """
    from matplotlib.figure import Figure  # a figure of its own touches no global state

    figure = Figure(figsize=_SIZE_IN, dpi=_DOTS_PER_INCH, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _bars(left, story)
    _courses(right, story)
    figure.savefig(path)


def _bars(axes: Any, story: Story) -> None:
    """Draw a group of bars for each figure: victim, copies, untrained copy."""
    shown = {
        "the encoder itself": story.victim,
        **{f"{copy.who}, profile {copy.guard}": copy.scores for copy in story.copies},
        "untrained copy": story.untrained,
    }
    figures = {label: _figures(scores) for label, scores in shown.items()}
    labels = list(_figures(story.victim))
    width = _GROUP / len(figures)
    for number, (label, values) in enumerate(figures.items()):
        places = np.arange(len(labels)) - _GROUP / 2 + (number + 0.5) * width
        bars = axes.bar(places, [values[each] for each in labels], width, label=label)
        axes.bar_label(bars, fmt="%.2f", fontsize=6)
    axes.set_xticks(np.arange(len(labels)), labels)
    axes.set_ylim(0, 1.3)  # room for the legend above the bars
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_title("What a copy can do")
    axes.legend(fontsize=7, ncols=2, loc="upper left")


def _figures(scores: Scores) -> Mapping[str, float]:
    tasks = {f"{task}\nprobe accuracy": value for task, value in scores.accuracy.items()}
    return {**tasks, "neighbors kept\nrecall@10": scores.recall10}


def _courses(axes: Any, story: Story) -> None:
    """Draw coverage against inputs for each tenant of the guarded gateway."""
    for visit in story.visits:
        inputs = [0, *(step.inputs for step in visit.course)]
        coverage = [0.0, *(step.coverage for step in visit.course)]
        label = f"{visit.tenant}: noise {visit.noise:.3g} in the end"
        (line,) = axes.plot(inputs, coverage, _STYLES.get(visit.tenant, "C5-"), label=label)
        if visit.free < visit.queries:
            reached = coverage[inputs.index(visit.free)]
            axes.plot(visit.free, reached, "o", color=line.get_color())
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("inputs answered")
    axes.set_ylabel("share of the embedding space visited")
    axes.set_ylim(0, 1)
    axes.set_title("What the operator saw (dot: noise starts)")
    axes.legend(fontsize=7, loc="lower right")
