"""Price signals of accounts as an SVG picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tollkeeper.guard.knee import Customer

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 360, 48, 150, 16, 40
_COLORS = ("#175cd3", "#b42318", "#027a48", "#8a6100", "#6941c6", "#475467")
_POINTS = 200


def draw(customers: Sequence[Customer], *, knee: float) -> str:
    """Return an SVG file: what the price reads after each account's inputs, and the knee."""
    most = max(len(customer.curve) for customer in customers)
    parts = [*_frame(most, knee)]
    for number, customer in enumerate(customers):
        color = _COLORS[number % len(_COLORS)]
        top = len(customer.curve)
        at = sorted({round(top ** (step / _POINTS)) for step in range(_POINTS + 1)})
        path = " ".join(f"{_x(n, most):.1f},{_y(customer.curve[n - 1]):.1f}" for n in at)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        end = _y(customer.end)
        parts.append(_text(_x(len(customer.curve), most) + 6, end + 4, customer.name, color))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="sans-serif" font-size="12">{"".join(parts)}</svg>\n'
    )


def _frame(most: int, knee: float) -> list[str]:
    """Return axes with their labels, and the knee."""
    right = _WIDTH - _RIGHT
    parts = [f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>']
    for level in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(_line(_LEFT, _y(level), right, _y(level), "#d9dee6"))
        parts.append(_text(8, _y(level) + 4, f"{level:.2f}", "#475467"))
    counts = (count for count in (1, 10, 100, 1000, 10_000, 100_000) if count <= most)
    parts += [_text(_x(one, most), _HEIGHT - 22, f"{one:,}", "#475467") for one in counts]
    parts.append(_text(_LEFT, _HEIGHT - 6, "inputs asked; left: price signal", "#475467"))
    parts.append(_line(_LEFT, _y(knee), right, _y(knee), "#1c2330", dashed=True))
    parts.append(_text(_LEFT + 4, _y(knee) - 4, f"knee {knee:.2f}", "#1c2330"))
    return parts


def _x(count: float, most: int) -> float:
    share = math.log(count) / math.log(max(2, most))
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(level: float) -> float:
    return _TOP + (1 - level) * (_HEIGHT - _TOP - _BOTTOM)


def _line(x1: float, y1: float, x2: float, y2: float, color: str, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"{dash}/>'


def _text(x: float, y: float, words: str, color: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}">{escape(words)}</text>'
