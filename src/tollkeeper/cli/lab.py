"""`tollkeeper embed` and `bench`, and what `calibrate` shares with them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tollkeeper.cli.options import Config, Json
from tollkeeper.cli.output import emit, note, table
from tollkeeper.errors import ConfigurationError

if TYPE_CHECKING:
    from tollkeeper.bench import Comparison, Result
    from tollkeeper.bench.experiment import Metric
    from tollkeeper.encoders.base import Encoder
    from tollkeeper.types import Embeddings

bench = typer.Typer(help="Run, compare and audit experiments.", no_args_is_help=True)

EncoderSpec = Annotated[str | None, typer.Option("--encoder", help="SPEC of the encoder.")]
CHECK_FAILED = 1

_PRIVATE, _SHARED = 0o600, 0o666


def embed(
    inputs: Annotated[list[Path], typer.Argument(help="Text files, images or folders of images.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help=".npy file to write.")],
    encoder: EncoderSpec = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Keeps embeddings between runs; default: the user's cache.")
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Embed inputs with the bare encoder, unguarded, and write (n, d) float32."""
    import io

    import numpy as np

    from tollkeeper.cli import inputs as files
    from tollkeeper.cli.cache import Cache, default_folder

    found = files.read(inputs)
    if found.embeddings:
        raise ConfigurationError("expected texts or images to embed, got .npy embeddings")
    loaded, spec = _load_encoder(config, encoder)
    with Cache(cache_dir or default_folder(), loaded, spec=spec) as cache:
        rows = _embed(found.items, loaded, cache.embed)
    buffer = io.BytesIO()
    np.save(buffer, rows)
    write(output, buffer.getvalue())
    emit(
        {"file": str(output), "count": len(rows), "width": rows.shape[1], "cached": cache.hits},
        as_json=as_json,
        prose=lambda made: (
            f"{made['file']}: {made['count']} embeddings of width {made['width']}, "
            f"{made['cached']} of them from the cache"
        ),
    )


@bench.command("list")
def list_experiments(*, as_json: Json = False) -> None:
    """List the experiments."""
    from tollkeeper.bench import main_list

    rows = [
        {"id": each.id, "scales": sorted(each.scales), "title": each.title} for each in main_list()
    ]
    emit(
        rows,
        as_json=as_json,
        prose=lambda rows: table(
            [{**row, "scales": ",".join(row["scales"])} for row in rows], ("id", "scales", "title")
        ),
    )


@bench.command("run")
def run_experiment(
    experiment: Annotated[str, typer.Argument(metavar="ID", help="As `bench list` shows it.")],
    *,
    scale: Annotated[str, typer.Option(help="smoke, cpu or gpu.")] = "smoke",
    seed: Annotated[int, typer.Option(min=0, help="Root of all randomness.")] = 0,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the result file.")
    ] = None,
) -> None:
    """Run one experiment and print its metrics, or its tables where it has any."""
    from tollkeeper.bench import progress_bar, run
    from tollkeeper.bench.registry import find

    changes = pairs(overrides or [])
    with progress_bar(experiment) as progress:
        result = run(experiment, scale, seed=seed, overrides=changes, progress=progress)
    if json_file is not None:
        write(json_file, result.to_json(), mode=_SHARED)
    report = find(experiment).report
    emit(
        result,
        as_json=False,
        prose=lambda made: _reported(made, report) if report else _metrics(made),
    )
    if scale == "smoke":
        note("smoke scale: it runs; its figures mean nothing")


@bench.command("compare")
def compare_results(
    before: Annotated[Path, typer.Argument(metavar="A", help="Result file.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="Later result file.")],
    *,
    fail: Annotated[
        bool, typer.Option("--fail", help="Exit with 1 if a metric got worse or is missing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare two results of one experiment, metric by metric."""
    from tollkeeper.bench import compare

    comparison = compare(before, after)
    emit(asdict(comparison), as_json=as_json, prose=lambda _: _changes(comparison))
    if fail and comparison.regressions:
        raise typer.Exit(CHECK_FAILED)


@bench.command("audit")
def audit_results(
    *,
    results: Annotated[Path, typer.Option(help="Folder of the committed results.")] = Path(
        "benchmarks/results"
    ),
    as_json: Json = False,
) -> None:
    """Check that every experiment has fresh results; exit with 1 if not."""
    from tollkeeper.bench import audit

    problems = audit(results)
    emit(problems, as_json=as_json, prose=lambda problems: "\n".join(problems) or "all is well")
    if problems:
        raise typer.Exit(CHECK_FAILED)


@bench.command("plot")
def plot_result(
    result: Annotated[Path, typer.Argument(help="Result file.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="SVG file to write.")],
) -> None:
    """Draw the result of an experiment that has a picture."""
    from tollkeeper.bench.experiment import read_result
    from tollkeeper.bench.plots import draw

    try:
        draw(read_result(result), output)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"pictures need the lab tools ({error.name} is missing): pip install 'tollkeeper[lab]'"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"cannot write {output}: {error.strerror}") from error


@bench.command("tables")
def write_tables(
    document: Annotated[Path, typer.Argument(help="Markdown page with the two markers.")],
    results: Annotated[Path, typer.Option(help="Folder of result files.")] = Path(
        "benchmarks/results"
    ),
) -> None:
    """Write the tables of committed results into a page of the documentation."""
    from tollkeeper.bench.tables import insert

    try:
        document.write_text(insert(document.read_text(encoding="utf-8"), results), encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot write tables into {document}: {error}") from error


def _load_encoder(config: Path | None, spec: str | None) -> tuple[Encoder, str]:
    """Load the encoder that the flag, the environment or the config file names."""
    from tollkeeper.gateway.assembly import make_encoder
    from tollkeeper.gateway.settings import load

    settings = load(config, encoder=spec)
    return make_encoder(settings), settings.encoder


def _embed(
    items: Sequence[str | Path],
    encoder: Encoder,
    embed: Callable[[list[Any]], Embeddings],
) -> Embeddings:
    """Embed all items in batches, with a progress bar on stderr: (n, d)."""
    import numpy as np
    from rich.console import Console
    from rich.progress import track

    from tollkeeper.cli import inputs as files

    console = Console(stderr=True)
    bar = track(
        files.batches(items, encoder),
        description="embedding",
        total=-(-len(items) // files.BATCH),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    return np.concatenate([embed(batch) for batch in bar])


def loader(config: Path | None, spec: str | None) -> Callable[[], Encoder]:
    """Return what loads the encoder that is named, when it is first asked for and only then."""
    return functools.cache(lambda: _load_encoder(config, spec)[0])


def embedded(inputs: list[Path], load: Callable[[], Encoder]) -> Embeddings:
    """Return the embeddings (n, d) of files: their own, or an encoder's of what they hold."""
    import numpy as np

    from tollkeeper.cli import inputs as files

    found = files.read(inputs)
    parts = list(found.embeddings)
    if found.items:
        loaded = load()
        parts.append(_embed(found.items, loaded, loaded.embed))
    widths = sorted({part.shape[1:] for part in parts})
    if len(widths) > 1:
        raise ConfigurationError(
            "expected inputs of one width, got rows of shapes "
            f"{' and '.join(map(str, widths))}; give those of one encoder"
        )
    whole: Embeddings = np.concatenate(parts)
    return whole


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """Return `key=value` texts as a dict."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise ConfigurationError(f"expected --set KEY=VALUE, got {text!r}")
        found[key] = value
    return found


def write(path: Path, data: bytes, *, mode: int = _PRIVATE) -> None:
    """Write a file; a new one gets `mode` less the umask, an old one keeps its own.

    Private by default: clean embeddings, and calibrations with a sample of them, are what
    the guard protects.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error


def _metrics(result: Result) -> str:
    rows = [
        {
            "metric": name,
            "value": metric.value,
            "unit": metric.unit,
            "interval": "{:.4g} to {:.4g}".format(*metric.interval) if metric.interval else None,
            "better": metric.direction,
        }
        for name, metric in result.metrics.items()
    ]
    return table(rows, ("metric", "value", "unit", "interval", "better"))


def _reported(result: Result, report: Callable[[Mapping[str, Metric]], str]) -> str:
    """Return an experiment's tables, and where the rest is."""
    rest = f"{len(result.metrics):,} metrics in all; --json FILE writes them"
    return f"{report(result.metrics)}\n\n{rest}"


def _changes(comparison: Comparison) -> str:
    rows = [
        {
            "metric": row.name,
            "before": row.before and row.before.value,
            "after": row.after and row.after.value,
            "change": row.change,
        }
        for row in comparison.rows
    ]
    text = table(rows, ("metric", "before", "after", "change"))
    if comparison.same_hardware:
        return text
    return f"{text}\nThe machines differ: absolute numbers say nothing about the code."
