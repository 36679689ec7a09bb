"""`tollkeeper solve`: a proof for one challenge, by hand."""

from __future__ import annotations

import math
import sys
from typing import Annotated

import typer

from tollkeeper.cli.bars import counting
from tollkeeper.cli.options import Json
from tollkeeper.cli.output import emit, fail


def solve(
    challenge: Annotated[
        str, typer.Argument(help="Value of WWW-Authenticate; `-` reads it from stdin.")
    ],
    *,
    max_seconds: Annotated[
        float, typer.Option(min=0, help="Decline what is expected to take longer.")
    ] = math.inf,
    processes: Annotated[
        int | None, typer.Option(min=0, help="Processes to search in; default: one a core.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Solve a challenge and print the value of the header Tollkeeper-Proof."""
    from tollkeeper.client.offers import offered
    from tollkeeper.client.solver import Solver

    header = sys.stdin.read() if challenge == "-" else challenge
    offer = offered(" ".join(header.split()))
    if offer is None:
        fail(
            'expected the value of WWW-Authenticate of a 402, like Payment id="...", '
            "realm=..., with a puzzle within reason; see docs/challenge.md"
        )
    with (
        counting("solving", total=offer.puzzle.work) as told,
        Solver(processes=processes, max_seconds=max_seconds, progress=told) as solver,
    ):
        solved = solver.solve(offer.puzzle)
    result = {
        "proof": offer.proof(solved.solution),
        "evaluations": solved.evaluations,
        "seconds": solved.seconds,
    }
    emit(result, as_json=as_json, prose=lambda result: str(result["proof"]))
