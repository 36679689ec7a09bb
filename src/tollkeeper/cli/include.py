"""`tollkeeper audit include`: coins decide what a model is trained on, and the log shows it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tollkeeper.cli.options import Json
from tollkeeper.cli.output import emit, note
from tollkeeper.errors import ConfigurationError

if TYPE_CHECKING:
    from tollkeeper.audit.evidence.pool import Pool
    from tollkeeper.types import Embeddings

_USEFUL = 500
"""Pairs below which only a close copy is found (method spec, 10.2: 275 to 720 for thieves)."""


def include(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(help="Private items: .npy pictures, images, folders or text files."),
    ] = None,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the pool.")],
    encoder: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="Public encoder: finds near copies and like twins."),
    ] = None,
    others: Annotated[
        list[Path] | None,
        typer.Option(help="Items that are trained on anyway; repeat it. Needs --encoder."),
    ] = None,
    near: Annotated[float, typer.Option(help="Cosine from which two items are copies.")] = 0.995,
    beacon: Annotated[
        str | None, typer.Option(help="Public value issued after the first step was published.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Pair private items and commit to them; then, with --beacon, toss a coin for each pair."""
    from tollkeeper.audit.evidence import pool

    if (beacon is None) != bool(inputs):
        raise ConfigurationError(
            "expected inputs to make a pool, or --beacon to toss the coins of one; not both"
        )
    if beacon is not None:
        made = pool.toss_coins(output, beacon, clock=time.time)
        emit(_tossed(made), as_json=as_json, prose=_about_coins)
        return
    if others and encoder is None:
        raise ConfigurationError("--others are compared by embeddings: give --encoder")
    items, names = _read(inputs or [])
    made = pool.enroll(
        output,
        items,
        names,
        clock=time.time,
        random=os.urandom,
        embeddings=None if encoder is None else _embedded(encoder, items),
        others=_embedded(encoder, _read(others)[0]) if others and encoder else None,
        near=near,
    )
    told = _enrolled(made, len(items))
    emit(told, as_json=as_json, prose=_about_pool)
    if told["pairs"] < _USEFUL:
        note(
            f"tollkeeper: {told['pairs']} pairs find the model itself; a copy of it usually takes "
            f"{_USEFUL} or more"
        )


def _read(paths: Sequence[Path]) -> tuple[list[Any], list[str]]:
    """Return items and their names: a path, or a path and the line or row in it."""
    from tollkeeper.cli import inputs as files

    items: list[Any] = []
    names: list[str] = []
    for path in paths:
        if path.suffix == ".npy":
            found = _pictures(path)
            names += [f"{path}:{row}" for row in range(len(found))]
            items += list(found)
            continue
        for item in files.read([path]).items:
            items.append(item if isinstance(item, str) else files.pixels(item))
            names.append("" if isinstance(item, str) else str(item))
        if names and not names[-1]:
            lines = path.read_text(encoding="utf-8").splitlines()
            places = [f"{path}:{at}" for at, line in enumerate(lines, 1) if line.strip()]
            names[-len(places) :] = places
    return items, names


def _pictures(path: Path) -> Any:
    import numpy as np

    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from error
    if not isinstance(found, np.ndarray) or found.dtype != np.uint8 or found.ndim != 4:
        what = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else "several arrays"
        raise ConfigurationError(f"expected (n, h, w, 3) uint8 pictures in {path}, got {what}")
    return found


def _embedded(spec: str, items: Sequence[Any]) -> Embeddings:
    import numpy as np

    from tollkeeper.cli.inputs import BATCH
    from tollkeeper.encoders.load import load_encoder

    encoder = load_encoder(spec)
    parts = [encoder.embed(items[at : at + BATCH]) for at in range(0, len(items), BATCH)]
    rows: Embeddings = np.concatenate(parts)
    return rows


def _enrolled(made: Pool, count: int) -> dict[str, Any]:
    from tollkeeper.audit.evidence.log import read
    from tollkeeper.audit.evidence.pool import LOG

    entry = read(made.folder / LOG)[-1]
    return {
        "folder": str(made.folder),
        "pairs": len(made.names) // 2,
        "left_out": count - len(made.names),
        "pool": entry.body["pool"],
        "head": entry.hash,
        "key": made.signer.public,
    }


def _tossed(made: Pool) -> dict[str, Any]:
    from tollkeeper.audit.evidence.pool import HELD, LEFT_OUT, TRAIN

    assert made.draw is not None
    return {
        "folder": str(made.folder),
        "pairs": made.draw.pairs,
        "beacon": made.draw.beacon,
        "root": made.draw.root,
        "train": str(made.folder / TRAIN),
        "held": str(made.folder / HELD),
        "left_out": str(made.folder / LEFT_OUT),
    }


def _about_pool(told: dict[str, Any]) -> str:
    return (
        f"{told['folder']}: {told['pairs']} pairs are committed, {told['left_out']} items are left "
        f"out\nhead       {told['head']}\nkey        {told['key']}\n"
        "Publish both lines where their date can be proven. Then give --beacon a public random "
        "value that is issued later, and train on nothing of the pool before."
    )


def _about_coins(told: dict[str, Any]) -> str:
    return (
        f"{told['folder']}: the coins of {told['pairs']} pairs are tossed\n"
        f"train on   {told['train']}\n"
        f"never use  {told['held']} and {told['left_out']}, not even to choose a model"
    )
