"""`tollkeeper calibrate`: the guard's view of an encoder, and a knee for its customers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tollkeeper.cli.lab import EncoderSpec, embedded, loader, write
from tollkeeper.cli.options import Config, Json
from tollkeeper.cli.output import emit, note, table
from tollkeeper.cli.samples import (
    SHORT,
    about_accounts,
    about_knee,
    about_sample,
    different,
    look,
)
from tollkeeper.errors import ConfigurationError

if TYPE_CHECKING:
    from tollkeeper.encoders.base import Encoder
    from tollkeeper.guard.calibration import Calibration
    from tollkeeper.guard.knee import Customer
    from tollkeeper.guard.profiles import Profile
    from tollkeeper.types import Embeddings


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
    from tollkeeper.guard.guard import Guard

    chosen = profiles.get(profile)
    _refuse_misfits(
        chosen, traffic=bool(traffic), plot=plot is not None, penalty=false_penalty != 0
    )
    load = loader(config, encoder)
    sample = embedded(inputs, load)
    rng = np.random.default_rng(seed)
    fitted = Calibration.fit(sample, rng=rng)
    Guard(chosen, fitted, secret=bytes(32))  # refuses a sample that is too small for the profile
    customers: list[Customer] = []
    accounts = [_account(path, load, dim=fitted.dim) for path in traffic or ()]
    if accounts:
        _refuse_short(accounts)
        customers = knee.follow(chosen, fitted, accounts, rng=rng)
        fitted = replace(fitted, knee=knee.choose(customers, false_penalty=false_penalty))
        _refuse_wide(customers, chosen.with_knee(fitted.knee))
    fitted = replace(fitted, probe=_probe([*inputs, *(traffic or ())], load))
    sight = look(sample, fitted, chosen, rng=rng)
    made: dict[str, Any] = {
        "file": str(output),
        "width": fitted.dim,
        "count": fitted.count,
        "feature_std": fitted.feature_std,
        "free_if_as_wide": sight.free,
    }
    if customers:
        made |= _told(customers, fitted, chosen, false_penalty)
        if plot is not None:
            from tollkeeper.cli.curves import draw

            write(plot, draw(customers, knee=fitted.knee or 0.0).encode(), mode=0o666)
    write(output, fitted.to_bytes())
    emit(made, as_json=as_json, prose=_prose)
    for warning in [
        *about_sample(fitted, sight, accounts=len(accounts)),
        *about_knee(customers, fitted, chosen, false_penalty),
        *about_accounts(accounts, customers, sight, fitted),
    ]:
        note(f"tollkeeper: {warning}")


def _refuse_misfits(profile: Profile, *, traffic: bool, plot: bool, penalty: bool) -> None:
    if plot and not traffic:
        raise ConfigurationError("--plot shows accounts: give each with --traffic")
    if penalty and not traffic:
        raise ConfigurationError("--false-penalty is a share of accounts: give each with --traffic")
    if traffic and profile.with_knee(0.5) is profile:
        raise ConfigurationError(
            f"profile {profile.name} has no knee that --traffic could choose; leave it out"
        )


def _probe(paths: Sequence[Path], load: Callable[[], Encoder]) -> Embeddings | None:
    """Return what a server will recognize the model by; None if no encoder was asked."""
    if all(path.suffix == ".npy" for path in paths):
        return None
    from tollkeeper.encoders.cached import answer_to_probe

    return answer_to_probe(load())


def _account(path: Path, load: Callable[[], Encoder], *, dim: int) -> tuple[str, Embeddings]:
    """Return an account's name and its (n, d) embeddings."""
    import numpy as np

    rows = embedded([path], load)
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise ConfigurationError(
            f"expected embeddings of shape (n, {dim}) in {path}, as in the sample, got {rows.shape}"
        )
    if not np.isfinite(rows).all():
        raise ConfigurationError(f"{path} holds NaN or infinity; embed its inputs again")
    return path.stem, rows


def _refuse_short(accounts: Sequence[tuple[str, Embeddings]]) -> None:
    """A knee below which nobody was ever seen to stay would make every customer pay."""
    longest = max(different(rows) for _, rows in accounts)
    if longest < SHORT:
        raise ConfigurationError(
            f"expected an account of at least {SHORT} different inputs to choose a knee by, got at "
            f"most {longest}: shorter logs end before their accounts do; give longer ones, or "
            "leave --traffic out to keep the profile's knee"
        )


def _refuse_wide(customers: Sequence[Customer], profile: Profile) -> None:
    """A knee above the first price step is one for accounts that no guard could slow."""
    from tollkeeper.guard.price import Geometric

    price = profile.price
    if isinstance(price, Geometric) and price.knee + price.step > 1:
        widest = max(customers, key=lambda customer: customer.end)
        raise ConfigurationError(
            f"account {widest.name!r} goes everywhere in the sample (price signal "
            f"{widest.end:.2f}), and a knee above it would never be passed: leave it out, raise "
            "--false-penalty, or give a sample that is wider than your customers"
        )


def _told(
    customers: Sequence[Customer], fitted: Calibration, profile: Profile, false_penalty: float
) -> dict[str, Any]:
    """Return the knee, and what each account would have paid at it."""
    import numpy as np

    knee, usual = fitted.knee or 0.0, profile.price.free_until
    profile = profile.with_knee(knee)
    ceiling = 2.0 if profile.ceiling is None else profile.ceiling
    return {
        "profile": profile.name,
        "knee": knee,
        "usual_knee": usual,
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
    knee = f"{made['knee']:.3f}, without --traffic {made['usual_knee']:.3f}"
    return f"{text}\nknee of {made['profile']}: {knee}\n\n{table(rows, columns)}"


def _fate(account: dict[str, Any]) -> str:
    if account["refused"]:
        return "nothing new answered"
    return f"noise of {account['noise']:g} std" if account["noise"] else "no noise"
