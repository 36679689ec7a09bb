"""`tollkeeper detectors`: fitting what guards a classifier, and looking at it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tollkeeper.cli.options import Json
from tollkeeper.cli.output import emit, note, table
from tollkeeper.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.random import Generator

    from tollkeeper.detectors.bundle import Bundle
    from tollkeeper.encoders.classifiers.base import Classifier
    from tollkeeper.types import Images

detectors = typer.Typer(help="Fit and look at detectors of extraction.", no_args_is_help=True)

_RANKS = (0.5, 0.95, 0.99)
_DATA = "A .npy file, a folder of images, or a data set as mnist or mnist:train."


@detectors.command("fit")
def fit(
    *,
    classifier: Annotated[str, typer.Option(metavar="SPEC", help="SPEC of the classifier.")],
    honest: Annotated[
        str,
        typer.Option(metavar="DATA", help=f"Inputs that it was not trained on. {_DATA}"),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    labels: Annotated[
        Path | None, typer.Option(help="True classes of the honest inputs, (n,) as .npy.")
    ] = None,
    auxiliary: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Other inputs, to see how suspicious they look."),
    ] = None,
    recommend: Annotated[
        str | None, typer.Option(metavar="NAME", help="Detector to use unless told otherwise.")
    ] = None,
    responses: Annotated[
        bool,
        typer.Option("--responses", help="Add what mad and adaptive_misinformation need."),
    ] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Of the autoencoders.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Root of all randomness.")] = 0,
    as_json: Json = False,
) -> None:
    """Fit detectors on honest inputs to a classifier; needs the lab tools."""
    import numpy as np

    from tollkeeper.cli.bars import bar
    from tollkeeper.cli.pictures import read_labels, read_pictures
    from tollkeeper.detectors.bundle import load_bundle, save_bundle
    from tollkeeper.detectors.choosing import chosen
    from tollkeeper.encoders.classifiers.load import load_classifier

    if not output.resolve().parent.is_dir():  # Told before minutes of work.
        raise ConfigurationError(f"cannot write {output}: there is no such folder")
    victim = load_classifier(classifier)
    shape = victim.input_shape
    if shape is None:
        raise ConfigurationError(f"{victim.name} takes no pictures, so nothing can be fitted")
    images, known = read_pictures(honest, shape, model=victim.name)
    if labels is not None:
        known = read_labels(labels, count=len(images), classes=victim.dim)
    elif known is not None and known.max() >= victim.dim:
        known = None  # A data set of other classes than the classifier's.
    others = None if auxiliary is None else read_pictures(auxiliary, shape, model=victim.name)[0]
    try:
        from tollkeeper.detectors.lab.bundling import fit_bundle, recipe_for
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"fitting needs the lab tools ({error.name} is missing): pip install 'tollkeeper[lab]'"
        ) from error
    rng = np.random.default_rng(seed)
    with bar() as told:
        bundle = fit_bundle(
            victim,
            images,
            known,
            recipe=recipe_for(shape, epochs=epochs, labels=known is not None),
            rng=rng,
            progress=lambda step: told(victim.name, step),
        )
        bundle = chosen(bundle, recommend or "")
        if responses:
            graphs = _responses(victim, images, known, others, rng)
            bundle = replace(bundle, graphs={**bundle.graphs, **graphs})
    save_bundle(output, bundle)
    made = _told(load_bundle(output), output)
    if others is not None:
        made["auxiliary"] = _seen(bundle, others, victim.embed(others))
        _warn(made["auxiliary"], bundle.recommended)
    emit(made, as_json=as_json, prose=_prose)


@detectors.command("show")
def show(
    file: Annotated[
        str, typer.Argument(help="What `detectors fit` wrote, or a built-in classifier's SPEC.")
    ],
    *,
    as_json: Json = False,
) -> None:
    """Show what a detector file holds."""
    from tollkeeper.detectors.bundle import load_bundle
    from tollkeeper.detectors.choosing import chosen, located

    path, name = located(file)
    emit(_told(chosen(load_bundle(path), name), path), as_json=as_json, prose=_prose)


def _responses(
    victim: Classifier, images: Images, labels: Any, others: Images | None, rng: Generator
) -> dict[str, bytes]:
    """Return the networks that outputs of a plan need; see `docs/responses.md`."""
    from tollkeeper.lab.conv3 import conv3
    from tollkeeper.responses.lab.mad import random_surrogate
    from tollkeeper.responses.lab.misinformation import fit_misinformer

    shape = victim.input_shape
    assert shape is not None
    return {
        "surrogate": random_surrogate(shape, victim.dim, rng),
        "misinformer": fit_misinformer(
            conv3(shape, victim.dim, rng, width=16),
            images,
            victim.embed(images).argmax(axis=1) if labels is None else labels,
            outliers=others,
            answers=None if others is None else victim.embed(others),
            rng=rng,
        ),
    }


def _warn(seen: dict[str, float], recommended: str) -> None:
    """Say so where another detector tells the auxiliary inputs better than the recommended one."""
    best = max(seen, key=lambda name: seen[name])
    if seen[best] > seen[recommended]:
        note(
            f"tollkeeper: {recommended} is recommended, and ranks {100 * seen[recommended]:.1f} % of "
            f"the auxiliary inputs above 99 % of honest ones; {best} does so with "
            f"{100 * seen[best]:.1f} %: consider --recommend {best}, more epochs or more honest inputs"
        )


def _told(bundle: Bundle, path: Path) -> dict[str, Any]:
    import numpy as np

    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "victim": bundle.victim,
        "input_shape": list(bundle.input_shape),
        "classes": bundle.classes,
        "recommended": bundle.recommended,
        "account": None if bundle.account is None else bundle.account.name,
        "graphs": sorted(bundle.graphs),
        "detectors": [
            {
                "name": name,
                "kind": getattr(one, "kind", name),
                "honest": len(bundle.honest[name]),
                "thresholds": {
                    f"{rank:g}": float(np.quantile(bundle.honest[name], rank)) for rank in _RANKS
                },
            }
            for name, one in bundle.detectors.items()
        ],
    }


def _seen(bundle: Bundle, images: Images, answers: Any) -> dict[str, Any]:
    """Return how much of other inputs each detector ranks above 99 % of honest ones."""
    return {
        name: float((bundle.rank(one.score(images, answers), name) >= _RANKS[-1]).mean())
        for name, one in bundle.detectors.items()
    }


def _prose(made: dict[str, Any]) -> str:
    shape = " x ".join(map(str, made["input_shape"]))
    graphs = ", ".join(made["graphs"]) or "none"
    seen = made.get("auxiliary")
    rows = [
        {
            "detector": ("* " if one["name"] == made["recommended"] else "  ") + one["name"],
            "honest": one["honest"],
            **{f"{100 * float(rank):g} %": at for rank, at in one["thresholds"].items()},
            **({} if seen is None else {"other inputs": f"{100 * seen[one['name']]:.1f} %"}),
        }
        for one in made["detectors"]
    ]
    told = "" if seen is None else "; other inputs: share that ranks above 99 % of honest ones"
    return (
        f"{made['file']}: {made['bytes']:,} bytes, for {made['victim']} "
        f"({shape}, {made['classes']} classes)\n"
        f"accounts are followed by: {made['account'] or 'nothing'}\n"
        f"networks for responses: {graphs}\n\n"
        f"{table(rows, tuple(rows[0]))}\n\n"
        f"* recommended; scores below which that share of honest inputs lies{told}"
    )
