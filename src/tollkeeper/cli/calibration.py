"""`tollkeeper calibrate`: the guard's view of an encoder, and a knee for its customers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tollkeeper.cli.lab import EncoderSpec, embedded, write
from tollkeeper.cli.options import Config, Json
from tollkeeper.cli.output import emit, note, table
from tollkeeper.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np

    from tollkeeper.guard.calibration import Calibration
    from tollkeeper.guard.knee import Customer
    from tollkeeper.guard.profiles import Profile
    from tollkeeper.types import Embeddings

_STEADY = 1000
"""Embeddings from which landmarks are steady from one sample to the next."""

_NEARLY = 0.9


def calibrate(
    inputs: Annotated[
        list[Path], typer.Argument(help=".npy embeddings, text files, images or folders of images.")
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    encoder: EncoderSpec = None,
    traffic: Annotated[
        list[Path] | None,
        typer.Option(help="All inputs of one honest account, in order; repeat it. Sets the knee."),
    ] = None,
    false_penalty: Annotated[
        float, typer.Option(help="Share of those accounts that may ever pay.")
    ] = 0.0,
    profile: Annotated[str, typer.Option(help="Guard profile that the knee is for.")] = (
        "recommended"
    ),
    plot: Annotated[
        Path | None, typer.Option(help="SVG file: price signal of every account.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Chooses the rows that are kept.")] = 0,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Fit the guard's calibration from a sample of ordinary inputs, and choose its knee."""
    import numpy as np

    from tollkeeper.guard import knee, profiles
    from tollkeeper.guard.calibration import Calibration

    if plot is not None and not traffic:
        raise ConfigurationError("--plot shows accounts: give each with --traffic")
    chosen = profiles.get(profile)
    sample = embedded(inputs, config, encoder)
    rng = np.random.default_rng(seed)
    fitted = Calibration.fit(sample, rng=rng)
    made: dict[str, Any] = {
        "file": str(output),
        "width": fitted.dim,
        "count": fitted.count,
        "feature_std": fitted.feature_std,
    }
    warnings = list(_about_sample(fitted, chosen))
    if traffic:
        rows = [(path.stem, embedded([path], config, encoder)) for path in traffic]
        customers = knee.follow(chosen, fitted, rows, rng=rng)
        fitted = replace(fitted, knee=knee.choose(customers, false_penalty=false_penalty))
        made |= _told(customers, fitted, chosen, false_penalty)
        warnings += _about_traffic(customers, chosen, fitted, sample, false_penalty, rng=rng)
        if plot is not None:
            from tollkeeper.cli.curves import draw

            write(plot, draw(customers, knee=fitted.knee or 0.0).encode(), mode=0o666)
    write(output, fitted.to_bytes())
    emit(made, as_json=as_json, prose=_prose)
    for warning in warnings:
        note(f"tollkeeper: {warning}")


def _told(
    customers: Sequence[Customer], fitted: Calibration, profile: Profile, false_penalty: float
) -> dict[str, Any]:
    """Return the knee, and what each account would have paid at it."""
    import numpy as np

    knee = fitted.knee or 0.0
    profile = profile.with_knee(knee)
    ceiling = 2.0 if profile.ceiling is None else profile.ceiling
    return {
        "profile": profile.name,
        "knee": knee,
        "false_penalty": false_penalty,
        "accounts": [
            {
                "name": customer.name,
                "inputs": len(customer.curve),
                "signal": customer.end,
                "free": customer.free(knee),
                "noise": float(profile.price(np.array([customer.end]))[0]),
                "refused": customer.end >= ceiling,
            }
            for customer in customers
        ],
    }


def _about_sample(fitted: Calibration, profile: Profile) -> list[str]:
    found = []
    if len(fitted.sample) < profile.landmarks:
        found.append(
            f"profile {profile.name} needs a sample of at least {profile.landmarks} different "
            f"inputs, this one has {len(fitted.sample)}"
        )
    elif fitted.count < _STEADY:
        found.append(
            f"a sample of {fitted.count} is small: another one would give another knee; "
            f"{_STEADY:,} or more inputs are steady"
        )
    return found


def _about_traffic(
    customers: Sequence[Customer],
    profile: Profile,
    fitted: Calibration,
    sample: Embeddings,
    false_penalty: float,
    *,
    rng: np.random.Generator,
) -> list[str]:
    from tollkeeper.guard import knee
    from tollkeeper.guard.price import Geometric

    found = []
    if false_penalty * len(customers) < 1:
        found.append(
            f"{len(customers)} accounts cannot show a false-penalty rate below "
            f"{1 / len(customers):.2g}; the knee is just above the widest of them"
        )
    kept = {row.tobytes() for row in fitted.sample}
    # The others: each landmark is nearest to itself, so its own row would tell nothing.
    others = sample[[row.tobytes() not in kept for row in sample]]
    if not len(others):
        found.append(
            "all of the sample is kept, so that it cannot be told whether an account is as wide "
            "as the sample; give more inputs"
        )
    price = profile.price
    if isinstance(price, Geometric) and (fitted.knee or 0) + price.levels * price.step > 1:
        found.append(
            f"a knee of {fitted.knee:.2f} leaves no room for the price levels above it: the guard "
            "will hardly slow anyone; leave the widest account out"
        )
    for customer in customers if len(others) else ():
        mix = others[: len(customer.curve)]
        (broad,) = knee.follow(profile, fitted, [("the sample", mix)], rng=rng)
        if customer.curve[len(mix) - 1] >= _NEARLY * broad.end:
            found.append(
                f"{customer.name} is nearly as wide as the sample: a thief would look the same. "
                "Widen the sample, or leave the account out and give it an allowance"
            )
    return found


def _prose(made: dict[str, Any]) -> str:
    text = (
        f"{made['file']}: width {made['width']}, fitted on {made['count']} "
        f"embeddings, feature std {made['feature_std']:.4g}"
    )
    if "knee" not in made:
        return text
    rows = [
        {
            "account": one["name"],
            "inputs": one["inputs"],
            "price signal": f"{one['signal']:.3f}",
            "free inputs": one["free"],
            "at the end": _fate(one),
        }
        for one in made["accounts"]
    ]
    columns = ("account", "inputs", "price signal", "free inputs", "at the end")
    return f"{text}\nknee of {made['profile']}: {made['knee']:.3f}\n\n{table(rows, columns)}"


def _fate(account: dict[str, Any]) -> str:
    if account["refused"]:
        return "nothing new answered"
    return f"noise of {account['noise']:g} std" if account["noise"] else "no noise"
