"""The one figure: every encoder's effect size with its interval, and the line to exceed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tollkeeper.audit.evidence.findings import Findings, Role

WIDTH, ROW, MARGIN, LABELS = 640.0, 20.0, 24.0, 190.0
_NAME = 28  # characters that fit beside the axis


@dataclass(frozen=True, slots=True)
class Mark:
    """One encoder: where its interval lies, in units of the drawing.

    Attributes:
        label: its name.
        role: decides the color.
        y: of the line, from the top.
        low: x of the interval's lower end.
        at: x of the effect size.
        high: x of the upper end.
    """

    label: str
    role: Role
    y: float
    low: float
    at: float
    high: float


@dataclass(frozen=True, slots=True)
class Drawing:
    """Everything that HTML and PDF draw alike.

    Attributes:
        width: of the drawing.
        height: of the drawing.
        marks: one for each encoder.
        zero: x of effect size 0.
        floor: x of the line to exceed.
        ticks: x and text of the axis.
    """

    width: float
    height: float
    marks: Sequence[Mark]
    zero: float
    floor: float
    ticks: Sequence[tuple[float, str]]

    @property
    def bottom(self) -> float:
        """Where the lines end, above the text of the axis."""
        return self.height - MARGIN

    @property
    def caption(self) -> str:
        """What is to be seen."""
        return (
            "Effect sizes with their 99% intervals; the dashed line is the largest of a reference, "
            "which the suspect's whole interval must exceed."
        )


def draw(found: Findings) -> Drawing:
    """Lay the figure out; the suspect comes first, then control and references."""
    rows = [*found.of("suspect"), *found.of("control"), *found.of("reference")]
    ends = [0.0, found.floor, *(row.low for row in rows), *(row.high for row in rows)]
    lowest, highest = min(ends), max(ends)
    span = (highest - lowest) or 1.0

    def x(value: float) -> float:
        return LABELS + (value - lowest) / span * (WIDTH - LABELS - MARGIN)

    marks = [
        Mark(
            row.encoder if len(row.encoder) <= _NAME else row.encoder[: _NAME - 1] + "…",
            row.role,
            MARGIN + ROW * place,
            *map(x, (row.low, row.effect_size, row.high)),
        )
        for place, row in enumerate(rows)
    ]
    return Drawing(
        width=WIDTH,
        height=2 * MARGIN + ROW * len(rows),
        marks=marks,
        zero=x(0.0),
        floor=x(found.floor),
        ticks=[(x(value), f"{value:.2g}") for value in sorted({lowest, 0.0, highest})],
    )
