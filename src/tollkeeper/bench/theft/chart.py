"""The cost-fidelity curve as inline SVG: no library, no script, colors from the page's style."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 108, 16, 48
_STEP = 0.25
_APART = 48
"""Least pixels between two labels of the axis."""

_LINE = 15
"""Pixels of a line of text."""


@dataclass(frozen=True, slots=True)
class Dot:
    """One point of the curve.

    Attributes:
        queries: spent.
        value: fidelity.
        interval: (low, high) around it, or None.
        floor: fidelity of the self-trained floor at this point, or None.
        partial: whether the victim stopped early; drawn hollow.
    """

    queries: float
    value: float
    interval: tuple[float, float] | None = None
    floor: float | None = None
    partial: bool = False


Place = Callable[[float], float]


def draw(dots: Sequence[Dot], *, untrained: float) -> str:
    """Return an `<svg>` element with the curve, its floors and the victim at 1.

    Args:
        dots: by rising queries; none gives an empty text.
        untrained: fidelity of the untrained network.
    """
    if not dots:
        return ""
    x, y = _across([dot.queries for dot in dots]), _upwards(dots, untrained)
    floors = [(x(dot.queries), y(dot.floor)) for dot in dots if dot.floor is not None]
    names = {"victim": y(1.0), "untrained": y(untrained), "copy": y(dots[-1].value)}
    if floors:
        names["self-trained"] = floors[-1][1]
    parts = [
        *_grid(dots, untrained, x, y),
        _level("victim", y(1.0)),
        _level("untrained", y(untrained)),
        *_floor(floors),
        *_curve(dots, x, y),
        *_names(names),
    ]
    title = escape("Fidelity of the copy against queries spent")
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}">'
        f"<title>{title}</title>{''.join(parts)}</svg>"
    )


def _across(queries: Sequence[float]) -> Place:
    """Return where a number of queries lies, on a logarithmic axis."""
    logs = [math.log10(max(1.0, one)) for one in queries]
    low, span = min(logs), max(logs) - min(logs)
    inner = _WIDTH - _LEFT - _RIGHT

    def place(one: float) -> float:
        share = (math.log10(max(1.0, one)) - low) / span if span else 0.5
        return _LEFT + inner * (0.04 + 0.92 * share)

    return place


def _upwards(dots: Sequence[Dot], untrained: float) -> Place:
    low, high = _range(dots, untrained)
    inner = _HEIGHT - _TOP - _BOTTOM
    return lambda value: _TOP + inner * (high - value) / (high - low)


def _range(dots: Sequence[Dot], untrained: float) -> tuple[float, float]:
    """Return whole steps that hold everything that is drawn."""
    values = [0.0, 1.0, untrained, *(dot.value for dot in dots)]
    values += [end for dot in dots for end in dot.interval or ()]
    values += [dot.floor for dot in dots if dot.floor is not None]
    return math.floor(min(values) / _STEP) * _STEP, math.ceil(max(values) / _STEP) * _STEP


def _grid(dots: Sequence[Dot], untrained: float, x: Place, y: Place) -> Iterator[str]:
    low, high = _range(dots, untrained)
    end = _WIDTH - _RIGHT
    for number in range(round((high - low) / _STEP) + 1):
        value = low + number * _STEP
        yield f'<path class="grid" d="M{_LEFT} {y(value):.1f}H{end}"/>'
        yield _text(_LEFT - 8, y(value) + 4, f"{value:g}", anchor="end")
    free = -math.inf
    for dot in dots:
        if x(dot.queries) - free >= _APART:
            free = x(dot.queries)
            yield _text(free, _HEIGHT - _BOTTOM + 20, f"{dot.queries:,.0f}", anchor="middle")
    middle = (_LEFT + end) / 2
    yield _text(middle, _HEIGHT - 8, "queries spent, logarithmic", anchor="middle")
    yield (
        f'<text transform="translate(14 {(_HEIGHT - _BOTTOM + _TOP) / 2}) rotate(-90)" '
        'text-anchor="middle">fidelity</text>'
    )


def _level(kind: str, height: float) -> str:
    return f'<path class="{kind}" d="M{_LEFT} {height:.1f}H{_WIDTH - _RIGHT}"/>'


def _floor(places: Sequence[tuple[float, float]]) -> Iterator[str]:
    if places:
        yield f'<path class="floor" d="{_path(places)}"/>'
    yield from (f'<circle class="floor" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in places)


def _names(heights: Mapping[str, float]) -> Iterator[str]:
    """Write names at the right end of their lines, pushed apart where they would overlap."""
    free = -math.inf
    for name, height in sorted(heights.items(), key=lambda one: one[1]):
        free = max(height, free + _LINE)
        yield _text(_WIDTH - _RIGHT + 8, free + 4, name)


def _curve(dots: Sequence[Dot], x: Place, y: Place) -> Iterator[str]:
    places = [(x(dot.queries), y(dot.value)) for dot in dots]
    yield f'<path class="copy" d="{_path(places)}"/>'
    for dot, (across, height) in zip(dots, places, strict=True):
        if dot.interval is not None:
            low, high = dot.interval
            yield f'<path class="copy" d="M{across:.1f} {y(low):.1f}V{y(high):.1f}"/>'
        kind = "copy partial" if dot.partial else "copy"
        told = escape(f"{dot.queries:,.0f} queries: fidelity {dot.value:.3f}")
        yield (
            f'<circle class="{kind}" cx="{across:.1f}" cy="{height:.1f}" r="5">'
            f"<title>{told}</title></circle>"
        )


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places)


def _text(across: float, height: float, text: str, *, anchor: str = "start") -> str:
    return f'<text x="{across:.1f}" y="{height:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
