"""`tollkeeper attack`: what it costs to copy an encoder."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tollkeeper.cli.bars import bar
from tollkeeper.cli.lab import CHECK_FAILED, pairs
from tollkeeper.cli.options import Json
from tollkeeper.cli.output import emit, fail, note, table
from tollkeeper.errors import AuthenticationError, ConfigurationError

if TYPE_CHECKING:
    from tollkeeper.bench.theft.findings import Findings
    from tollkeeper.bench.theft.orders import Order
    from tollkeeper.bench.theft.pools import Pool

attack = typer.Typer(help="Copy encoders, and see what it costs.", no_args_is_help=True)

INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ended

_KEY_VARIABLE = "TOLLKEEPER_TARGET_KEY"


@attack.command("list")
def list_attacks(*, as_json: Json = False) -> None:
    """List the attacks."""
    from tollkeeper.attacks.names import ATTACKS

    rows = [
        {
            "name": name,
            "copies": entry.copies,
            "inputs": sorted(entry.accepts),
            "summary": entry.summary,
            "source": entry.source,
        }
        for name, entry in ATTACKS.items()
    ]
    emit(
        rows,
        as_json=as_json,
        prose=lambda rows: table(
            [{**row, "inputs": ",".join(row["inputs"])} for row in rows],
            ("name", "inputs", "summary", "source"),
        ),
    )


@attack.command("run")
def run_attack(
    name: Annotated[str, typer.Argument(help="As `attack list` shows it.")],
    *,
    target: Annotated[
        str,
        typer.Option(
            metavar="SPEC|URL", help="Encoder or classifier of this process, or http://host/v1."
        ),
    ],
    queries: Annotated[
        str,
        typer.Option(
            metavar="DATA",
            help="tiny_imagenet, cifar100, broad_text (of classifiers emnist_letters, kmnist, ...), "
            "a folder of images, or a text file.",
        ),
    ],
    budget: Annotated[str, typer.Option(help="Distinct queries, as in 1000,5k.")],
    task: Annotated[
        list[str] | None, typer.Option(help="Task to score on; repeat it. `none` for none.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(metavar="SPEC", help="The clean victim, for scoring.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each budget.")] = 3,
    scale: Annotated[str, typer.Option(help="cpu, or gpu for the published settings.")] = "cpu",
    price: Annotated[float, typer.Option(min=0, help="Money for one input.")] = 0.0,
    profile: Annotated[
        str | None, typer.Option(help="Guard an encoder of this process with this profile.")
    ] = None,
    accounts: Annotated[
        int | None, typer.Option(min=1, help="Accounts in this process; a URL has one a key.")
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help=f"API keys of a URL, one a line; default: {_KEY_VARIABLE}."),
    ] = None,
    max_money: Annotated[float | None, typer.Option(help="Cap for a URL; needs --price.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Cap for a URL, spent asking.")] = None,
    solve: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="Solve a URL's challenges for so long in all; default: none."
        ),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Requests to a URL at once; default 4.")
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(metavar="CONDITION", help="Exit with 1 if it holds: fidelity@5k>0.8."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of report and result; default: attack-NAME.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy an encoder at several budgets, and write report.html and result.json."""
    from tollkeeper.attacks import names
    from tollkeeper.bench.theft.orders import Order
    from tollkeeper.bench.theft.tuning import scale_named
    from tollkeeper.bench.theft.verdicts import parse_budgets
    from tollkeeper.bench.theft.victims import is_address
    from tollkeeper.client import Caps

    copies = names.find(name).copies  # before data sets are loaded
    scale_named(scale)
    live = is_address(target)
    of_urls = {
        "--api-key-file": api_key_file,
        "--max-money": max_money,
        "--max-seconds": max_seconds,
        "--solve": solve,
        "--concurrency": concurrency,
    }
    of_encoders = {"--profile": profile, "--accounts": accounts}
    _refuse(of_encoders if live else of_urls, "an encoder of this process" if live else "a URL")
    data: dict[str, str] = {}
    budgets = parse_budgets(budget)
    if max_money is not None and not price:
        raise ConfigurationError("--max-money needs --price, what one input costs")
    keys = _keys(api_key_file) if live else ()
    order = Order(
        attack=name,
        target=target,
        budgets=budgets,
        pool=_pool(queries, data, of_classifiers=copies == "classifier", most=max(budgets)),
        folder=(out or Path(f"attack-{name}")) / "transcripts",
        tasks=_tasks(task),
        reference=reference,
        seeds=seeds,
        scale=scale,
        settings=pairs(overrides or []),
        price=price,
        profile=profile,
        accounts=accounts or 1,
        keys=keys,
        caps=Caps(money=max_money, seconds=max_seconds, puzzle_seconds=solve),
        concurrency=concurrency or 4,
        data=data,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=shlex.join(["tollkeeper", *sys.argv[1:]]),
    )
    try:
        found = _run(order, fail_on or [], order.folder.parent)
    except AuthenticationError as error:
        hint = f"keys come from --api-key-file or {_KEY_VARIABLE}"
        hint += "" if keys else ", and none was given"
        raise AuthenticationError(f"{error}; {hint}") from error
    except KeyboardInterrupt:
        note(f"interrupted; what was finished is in {order.folder.parent}")
        raise typer.Exit(INTERRUPTED) from None
    emit(found.tree(), as_json=as_json, prose=lambda _: _prose(found, order.folder.parent))
    _judge(found)


def _run(order: Order, texts: Sequence[str], folder: Path) -> Findings:
    """Run a campaign; everything that is finished is on disk at any time."""
    from tollkeeper.attacks import names
    from tollkeeper.bench.theft.campaign import rows
    from tollkeeper.bench.theft.verdicts import parse_condition

    if names.find(order.attack).copies == "classifier":
        from tollkeeper.bench.predict.theft import figure_names, opened

        figures = figure_names(order.tasks or ())
    else:
        from tollkeeper.bench.theft.gauge import figure_names
        from tollkeeper.bench.theft.orders import opened

        figures = figure_names(order.task_names())
    conditions = [parse_condition(one, metrics=figures, budgets=order.budgets) for one in texts]
    with _made(folder), bar() as told, opened(order, clock=time.perf_counter, told=told) as ready:
        found = ready.findings
        victim = ready.campaign.victim
        for row in rows(ready.campaign, ready.gauge, clock=time.perf_counter, told=told):
            spend = None if victim.spend is None else victim.spend()
            found = found.with_row(row, spend).judged(conditions)
            _save(found, folder)
    return found


def _judge(found: Findings) -> None:
    """Tell what was cut short, and leave with the status of the conditions."""
    for row in found.rows:
        if row.partial:
            note(f"tollkeeper: {row.budget:,} queries: partial: {row.partial}")
    for verdict in found.verdicts:
        if verdict.failed:
            note(f"tollkeeper: {verdict.condition} holds: {verdict.value:.4g}")
    if any(verdict.failed for verdict in found.verdicts):
        raise typer.Exit(CHECK_FAILED)
    unknown = [verdict.condition for verdict in found.verdicts if verdict.failed is None]
    if unknown:
        fail(f"not measured to the end, so not known to pass: {', '.join(unknown)}")


def _prose(found: Findings, folder: Path) -> str:
    from tollkeeper.bench.theft import report

    def lines(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
        return table([dict(zip(columns, row, strict=True)) for row in rows], columns)

    costs = (report.cost_cells(found, row) for row in found.rows)
    parts = [lines(report.cost_columns(found), costs)]
    if found.tasks:
        cells = (report.task_cells(found, task) for task in found.tasks)
        parts.append(lines(report.task_columns(found), cells))
    parts.append(f"{report.summary(found)}\n{folder / 'report.html'}")
    return "\n\n".join(parts)


def _pool(name: str, data: dict[str, str], *, of_classifiers: bool, most: int) -> Pool:
    """Load the attacker's inputs: of a data set, or of the user."""
    import numpy as np

    from tollkeeper.bench.predict import theft
    from tollkeeper.bench.theft.orders import image_pool, text_pool
    from tollkeeper.bench.theft.pools import POOLS, load_pool
    from tollkeeper.cli import inputs

    rng = np.random.default_rng(0)
    if of_classifiers and name in theft.SETS:
        return theft.load_pool(name, most=max(theft.MOST, most), rng=rng, data=data)
    if not of_classifiers and name in POOLS:
        return load_pool(name, size=None, rng=rng, data=data)
    if not Path(name).exists():
        known = ", ".join(theft.SETS if of_classifiers else POOLS)
        raise ConfigurationError(
            f"no inputs {name!r}; choose {known}, a folder of images or a text file"
        )
    found = inputs.read([Path(name)])
    if found.embeddings:
        raise ConfigurationError("expected texts or images to ask about, got .npy embeddings")
    texts = [item for item in found.items if isinstance(item, str)]
    if texts:
        return text_pool(Path(name).name, texts, rng)
    images = (inputs.pixels(item) for item in found.items if not isinstance(item, str))
    make = theft.own_pool if of_classifiers else image_pool
    return make(Path(name).name, images, rng)


def _tasks(names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the tasks that were named; None for the usual ones."""
    if names is None:
        return None
    wanted = tuple(dict.fromkeys(name for part in names for name in part.split(",")))
    if "none" in wanted and len(wanted) > 1:
        raise ConfigurationError("expected tasks or `none`, got both")
    return () if wanted == ("none",) else wanted


def _keys(file: Path | None) -> list[str]:
    """Read the API keys of a live target, which are never printed."""
    if file is None:
        return os.environ.get(_KEY_VARIABLE, "").replace(",", " ").split()
    try:
        keys = file.read_text(encoding="utf-8").split()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read API keys from {file}") from error
    if not keys:
        raise ConfigurationError(f"there is no API key in {file}")
    if len(set(keys)) < len(keys):
        raise ConfigurationError(f"an API key is given twice in {file}; each is one account")
    return keys


def _refuse(options: Mapping[str, object], what: str) -> None:
    """Refuse options that are given and belong to another kind of target."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ConfigurationError(f"the target is not {what}: {', '.join(given)} cannot be used")


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make the folder of the results before anything is spent; left empty, it goes again."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / "result.json.new"
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise ConfigurationError(f"cannot write into {folder}: {error.strerror}") from error
    try:
        yield
    finally:
        with suppress(OSError):  # it holds something
            folder.rmdir()


def _save(found: Findings, folder: Path) -> None:
    """Write both files; whoever reads them meets whole ones."""
    from tollkeeper.bench.theft.report import page

    for name, content in (("result.json", found.to_json()), ("report.html", page(found).encode())):
        new = folder / f"{name}.new"
        try:
            new.write_bytes(content)
            new.replace(folder / name)
        except OSError as error:
            raise ConfigurationError(f"cannot write into {folder}: {error.strerror}") from error
