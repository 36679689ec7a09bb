"""What verbs print: JSON for machines or prose on stdout, one error line on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

BAD_INPUT = 2


def fail(message: str) -> NoReturn:
    """Print one line to stderr and exit with status 2."""
    print(f"tollkeeper: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(BAD_INPUT)


def note(message: str) -> None:
    """Print a diagnostic to stderr."""
    print(message, file=sys.stderr)


def emit(value: Any, *, as_json: bool, prose: Callable[[Any], str]) -> None:
    """Print a result to stdout: as JSON, or as the text that `prose` makes of it."""
    text = json.dumps(value, ensure_ascii=False) if as_json else prose(value)
    # Flushed: a server goes on running after it has printed.
    print(text, flush=True)


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return rows as aligned text under a line of column names."""
    cells = [list(columns)] + [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
