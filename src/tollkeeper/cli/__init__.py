"""The command line: `tollkeeper VERB`. Rooms are imported inside the verbs, so help is quick."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated

import typer

from tollkeeper import __version__
from tollkeeper.cli import (
    attack,
    audit,
    calibration,
    demo,
    detectors,
    lab,
    operate,
    serve,
    solve,
    tenants,
)
from tollkeeper.cli.output import fail
from tollkeeper.errors import TollkeeperError

# One thread per matrix product: the server's threads are busy with other requests, and
# answers must not depend on how a BLAS splits its sums.
_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

app = typer.Typer(
    help="Keep an encoder from being copied through its own API.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # loading rich would double the time to the help text
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.add_typer(operate.keys, name="keys")
app.add_typer(tenants.tenants, name="tenants")
app.add_typer(operate.records, name="records")
app.add_typer(operate.settings_verbs, name="config")
app.command("calibrate")(calibration.calibrate)
app.command("embed")(lab.embed)
app.add_typer(attack.attack, name="attack")
app.add_typer(audit.audit, name="audit")
app.add_typer(detectors.detectors, name="detectors")
app.add_typer(lab.bench, name="bench")
app.command("demo")(demo.demo)
app.command("solve")(solve.solve)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer's callback signature
    if wanted:
        typer.echo(f"tollkeeper {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Keep an encoder from being copied through its own API."""
    del version  # its callback has done the work


def main(args: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 success, 1 a failed check, 2 bad usage or input.

    Args:
        args: the command's words; None takes them from the process.
    """
    for name in _THREAD_VARIABLES:
        os.environ.setdefault(name, "1")
    try:
        app(args=None if args is None else list(args), prog_name="tollkeeper")
    except TollkeeperError as error:
        fail(str(error))
