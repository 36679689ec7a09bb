"""Whom a campaign attacks: an open or guarded encoder in this process, or a live target."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tollkeeper.attacks.accounts import Accounts
from tollkeeper.attacks.base import Clock
from tollkeeper.bench.theft.guarded import GuardedVictim
from tollkeeper.client import Allowance, Caps, Pace, Solver, Spend, Target, Tariff, open_target
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.load import builtin_calibration_path, load_encoder
from tollkeeper.errors import ConfigurationError
from tollkeeper.gateway.calibrations import read_calibration
from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.types import Batch

REQUEST = 64
"""Inputs in one request to a live target: an attack's batch of 256 becomes four at once."""

_SAMPLE = 1000
"""Inputs that a guard is calibrated on where its encoder ships no calibration."""


@dataclass(frozen=True, slots=True, eq=False)
class Victim:
    """An encoder under attack.

    Attributes:
        spec: what the user named.
        encoder: whom an attack asks, or one just like it; `Accounts` if there are several.
        clean: whom scoring asks for the victim's own answers.
        begin: called with the seed of each run; returns whom that run asks.
        spend: what a live target has been sent in all; None in this process.
    """

    spec: str
    encoder: Encoder
    clean: Encoder
    begin: Callable[[int], Encoder]
    spend: Callable[[], Spend] | None = None

    @property
    def is_live(self) -> bool:
        """Whether it is asked over HTTP."""
        return self.spend is not None


def is_address(spec: str) -> bool:
    """Return whether a SPEC names a live target."""
    return spec.startswith(("http://", "https://"))


def in_process(
    spec: str, *, accounts: int = 1, load: Callable[[str], Encoder] = load_encoder
) -> Victim:
    """Load an open encoder of this process.

    Args:
        spec: the encoder.
        accounts: identities of the attacker; all see the same encoder.
        load: makes the encoder of its SPEC.

    Raises:
        ConfigurationError: an unknown SPEC, or too many accounts.
    """
    clean = load(spec)
    asked = clean if accounts == 1 else Accounts([clean] * accounts)
    return Victim(spec, asked, clean, begin=lambda seed: asked)  # noqa: ARG005 - open to all


def guarded(spec: str, profile: str, sample: Batch, *, accounts: int, clock: Clock) -> Victim:
    """Load an encoder of this process and put a guard before it, a new one for each run.

    Args:
        spec: the encoder.
        profile: name of the guard profile.
        sample: inputs to calibrate the guard on, unless the encoder ships a calibration.
        accounts: identities of the attacker, each a tenant of its own.
        clock: seconds, for the guard's records.

    Raises:
        ConfigurationError: an unknown SPEC or profile, or too many accounts.
        CalibrationError: the sample is too small.
    """
    clean, chosen = load_encoder(spec), profiles.get(profile)
    shipped = builtin_calibration_path(spec)
    calibration = (
        Calibration.fit(clean.embed(sample[:_SAMPLE]), rng=np.random.default_rng(0))
        if shipped is None
        else read_calibration(shipped)
    )

    def begin(seed: int) -> Encoder:
        # Not the attacker's generator: its draws would tell the deployment secret.
        rng = np.random.default_rng([seed, 1])
        deployed = GuardedVictim(
            clean, chosen, calibration, secret=rng.bytes(32), clock=clock, rng=rng
        )
        views = [deployed.account(f"account-{number}") for number in range(accounts)]
        return Accounts(views) if accounts > 1 else views[0]

    return Victim(spec, begin(0), clean, begin)


@contextmanager
def live(
    url: str,
    keys: Sequence[str],
    *,
    folder: Path,
    price: float,
    caps: Caps,
    concurrency: int,
    probe: Any,
    spares: Sequence[Any] = (),
    dim: int | None = None,
    connect: Callable[..., Target] = open_target,
) -> Iterator[Victim]:
    """Open one account a key at a live target, for as long as the block runs.

    Args:
        url: `http(s)://host/v1`, with `#model` where the service has several.
        keys: API keys; none for a service that asks for none.
        folder: of the transcripts; made if there is none. A run that is repeated with the same
            folder pays only for what is new.
        price: of one input.
        caps: the most that may be spent, over all accounts and all runs; without seconds for
            puzzles none are solved.
        concurrency: requests at once.
        probe: an input that the attack is going to ask anyway, to learn the width from.
        spares: further ones, for a target that refuses that one.
        dim: the width, where it is known; nothing is asked then.
        connect: opens one account.

    Raises:
        ConfigurationError: an unusable address, key, cap or folder.
        TollkeeperError: the target refused or failed.
    """
    allowance = Allowance(caps, Tariff(per_input=price))
    pace = Pace(concurrency=concurrency)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot make the folder {folder}: {error.strerror}") from error
    targets: list[Target] = []
    with ExitStack() as stack:
        solver = None
        if caps.puzzle_seconds:  # the cap is on all of them, not on each
            solver = stack.enter_context(Solver(max_seconds=math.inf))
        for key in keys or (None,):
            target = connect(
                url,
                api_key=key,
                transcript=folder / _file(url, key),
                allowance=allowance,
                pace=pace,
                dim=targets[0].dim if targets else dim,
                probe=probe,
                spares=spares,
                batch=REQUEST,
                solver=solver,
            )
            targets.append(stack.enter_context(target))

        encoder = Accounts(targets) if len(targets) > 1 else targets[0]

        def begin(seed: int) -> Encoder:
            del seed  # all runs share what is paid for
            for target in targets:
                target.rewind()
            return encoder

        yield Victim(url, encoder, targets[0], begin, allowance.spend)


def _file(url: str, key: str | None) -> str:
    """Return a transcript's name, another one for another target or account.

    Answers to one account are of no use to another, whose guard shows it another space.
    """
    digest = hashlib.blake2b(f"{url}\0{key or ''}".encode(), digest_size=8)
    return f"{digest.hexdigest()}.sqlite"
