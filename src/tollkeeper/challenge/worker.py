"""A process that searches for another one: a line in, a line out.

In comes `[fields of the puzzle, part, start, stop]`, out goes `[evaluations, solution or null]`,
both as JSON. It ends when its input does, so no search outlives whoever asked for it.
"""

from __future__ import annotations

import json
import signal
import sys

from tollkeeper.challenge.puzzle import read_puzzle
from tollkeeper.challenge.solve import sweep


def main() -> None:
    """Answer until there is no more input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever asks
    for line in sys.stdin:
        sys.stdout.write(answer(line) + "\n")
        sys.stdout.flush()


def answer(line: str) -> str:
    """Search as a line says and return the line to answer."""
    fields, part, start, stop = json.loads(line)
    steps: list[int] = []
    found = sweep(read_puzzle(fields), part, start, stop, steps.append)
    return json.dumps([sum(steps), found])
