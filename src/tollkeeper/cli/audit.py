"""`tollkeeper audit`: evidence that a copy is a copy, which the other side can check."""

from __future__ import annotations

import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tollkeeper.cli.include import include
from tollkeeper.cli.lab import CHECK_FAILED, write
from tollkeeper.cli.options import Json
from tollkeeper.cli.output import emit, note
from tollkeeper.cli.stamp import stamp
from tollkeeper.errors import AuditRefused, ConfigurationError

if TYPE_CHECKING:
    from tollkeeper.audit.evidence.findings import Findings

audit = typer.Typer(help="Prove that a copy is a copy.", no_args_is_help=True)


@audit.callback()
def _installed() -> None:
    missing = [name for name in ("cryptography", "jinja2", "scipy") if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"audits need an extra ({', '.join(missing)} missing): pip install 'tollkeeper[audit]'"
        )


audit.command("include")(include)
audit.command("stamp")(stamp)

_KEY_VARIABLE = "TOLLKEEPER_SUSPECT_KEY"
_SHARED = 0o666

Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="What `audit run` wrote.")]
Pinned = Annotated[
    str | None, typer.Option("--key", help="Public key that must have signed it, 64 hex digits.")
]


@audit.command("commit")
def commit(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="YAML file; see docs/audit.md.")],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="CASE", help="New folder of the case.")
    ],
    as_json: Json = False,
) -> None:
    """Fix a plan before release: seal it, sign it, and begin its log."""
    from tollkeeper.audit.evidence import case
    from tollkeeper.audit.evidence.plan import read_plan

    made = case.commit(read_plan(plan), output, clock=time.time, random=os.urandom).fixed
    told = {
        "case": str(output),
        "claim": made.claim,
        "commitment": made.digest,
        "root": made.roots["items"],
        "key": made.owner,
        "items": made.decision["items"],
        "alpha": made.alpha,
        "made_at": made.made_at,
    }
    emit(
        told,
        as_json=as_json,
        prose=lambda told: (
            f"{told['case']}: {told['items']} items of {told['claim']} are committed\n"
            f"commitment {told['commitment']}\nkey        {told['key']}\n"
            "Publish both lines before release, where their date can be proven; keep "
            f"{output / 'secret'} to yourself, and a copy of it."
        ),
    )


@audit.command("run")
def run(
    case: Annotated[Path, typer.Argument(metavar="CASE", help="What `audit commit` wrote.")],
    *,
    suspect: Annotated[
        str,
        typer.Option(metavar="SPEC|URL", help="Encoder of this process, or http://host/v1#model."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="BUNDLE", help="New folder, or that of a run that broke off."
        ),
    ],
    beacon: Annotated[
        str, typer.Option(help="Value named by the arbiter, or public; chooses among the items.")
    ] = "",
    account: Annotated[str, typer.Option(help="What to call the asking identity.")] = "unnamed",
    api_key_file: Annotated[
        Path | None, typer.Option(help=f"API key of a URL; default: {_KEY_VARIABLE}.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask a suspect, keep every call, and write a bundle that a third party can check."""
    from tollkeeper.audit.evidence import runner
    from tollkeeper.audit.evidence.case import open_case
    from tollkeeper.cli.bars import bar
    from tollkeeper.lab.progress import Step

    order = runner.Order(suspect, beacon, account, _api_key(api_key_file))
    with bar() as told:
        found = runner.run(
            open_case(case),
            order,
            output,
            clock=time.time,
            told=lambda what, done, total: told(suspect, Step(what, done, total)),
        )
    emit(_told(found), as_json=as_json, prose=lambda told: f"{_prose(told)}\n{output}")


@audit.command("verify")
def verify(bundle: Bundle, *, key: Pinned = None, as_json: Json = False) -> None:
    """Check a bundle and compute it again; exit with 1 if anything differs."""
    from tollkeeper.audit.evidence.verify import verify as check

    _exists(bundle)
    try:
        held = check(bundle, key=key)
    except AuditRefused as error:
        emit({"holds": False, "reason": str(error)}, as_json=as_json, prose=_failed)
        raise typer.Exit(CHECK_FAILED) from error
    told = {"holds": True, "key": held.key, "seal": held.seal, **_told(held.found)}
    emit(
        told,
        as_json=as_json,
        prose=lambda told: f"the bundle holds\n{_prose(told)}\nsigned by {told['key']}",
    )
    if key is None:
        note("tollkeeper: compare the key with the one that the owner published, or give --key")


@audit.command("report")
def report(
    bundle: Bundle,
    *,
    html: Annotated[
        Path | None, typer.Option(help="HTML file to write; default: BUNDLE.html.")
    ] = None,
    pdf: Annotated[
        Path | None, typer.Option(help="PDF file to write; default: BUNDLE.pdf.")
    ] = None,
    key: Pinned = None,
    as_json: Json = False,
) -> None:
    """Check a bundle and write what it shows as HTML and PDF."""
    from tollkeeper.audit.evidence.verify import verify as check
    from tollkeeper.audit.report.html import page
    from tollkeeper.audit.report.pdf import pdf as paper

    _exists(bundle)
    try:
        held = check(bundle, key=key)
    except AuditRefused as error:
        emit({"holds": False, "reason": str(error)}, as_json=as_json, prose=_failed)
        raise typer.Exit(CHECK_FAILED) from error
    beside = bundle.resolve()
    files = {
        html or beside.with_name(f"{beside.name}.html"): page(held.found, seal=held.seal).encode(),
        pdf or beside.with_name(f"{beside.name}.pdf"): paper(held.found, seal=held.seal),
    }
    for path, content in files.items():
        if path.resolve().is_relative_to(beside):
            raise ConfigurationError(f"{path} lies in the bundle, which must not change")
        write(path, content, mode=_SHARED)
    told = {"verdict": held.found.verdict, "files": [str(path) for path in files]}
    emit(
        told,
        as_json=as_json,
        prose=lambda told: "\n".join([told["verdict"], *told["files"]]),
    )


def _told(found: Findings) -> dict[str, Any]:
    """Return the figures that a script asks for."""
    row = found.suspect
    return {
        "claim": found.claim,
        "suspect": found.asking.endpoint,
        "verdict": found.verdict,
        "p_value": row.p_value,
        "corrected_p": found.corrected_p,
        "alpha": found.alpha,
        "effect_size": row.effect_size,
        "interval": [row.low, row.high],
        "floor": found.floor,
        "e_value": row.e_value,
        "calls": found.asking.calls,
        "inputs": found.asking.inputs,
        "reasons": list(found.reasons),
        "deviations": list(found.deviations),
    }


def _prose(told: dict[str, Any]) -> str:
    lines = [f"{told['verdict']}: {told['suspect']}", *told["reasons"]]
    return "\n".join([*lines, *(f"deviation: {each}" for each in told["deviations"])])


def _failed(told: dict[str, Any]) -> str:
    return f"the bundle does not hold: {told['reason']}"


def _exists(bundle: Path) -> None:
    if not bundle.is_dir():
        raise ConfigurationError(f"there is no bundle {bundle}; expected a folder of `audit run`")


def _api_key(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(_KEY_VARIABLE)
    try:
        return file.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read an API key from {file}") from error
