"""Who asks what in `toll-timelines`, and under which plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tollkeeper.bench.theft.pools import load_pool
from tollkeeper.bench.theft.tasks import load_task
from tollkeeper.encoders.base import Encoder
from tollkeeper.gateway.assembly import scale_of
from tollkeeper.gateway.calibrations import calibration_for
from tollkeeper.gateway.plans import BUILT_IN, Ladder
from tollkeeper.guard import profiles

PLAN = "toll"
ACCOUNTS = ("thief", "leaver", "wide", "narrow", "bulk")
THIEVES = ("thief", "leaver")


@dataclass(frozen=True, slots=True)
class Setting:
    """Who asks how much, and what is scaled.

    Attributes:
        encoder: spec.
        profile: of the guard.
        secrets: master keys, each with its own server and order of inputs.
        narrow: inputs of the customer of one subject (Banking77).
        wide: inputs of the customer of many (AG News).
        known: inputs of one subject that the bulk customer asked before.
        bulk: inputs of the bulk job (`broad_text`), all allowed.
        thief: inputs of the thieves (`broad_text`); they stop where nothing is answered.
        batch: inputs of a request.
        hash_rate: of the reference machine that the live server believes in.
        inputs_per_minute: of the live server's rations.
        per_second: inputs that accounts of the computed clock ask in a second.
        counts: inputs at which curves are read.
    """

    encoder: str = "builtin:text"
    profile: str = "recommended"
    secrets: int = 3
    narrow: int = 4000
    wide: int = 2400
    known: int = 300
    bulk: int = 4000
    thief: int = 4000
    batch: int = 16
    hash_rate: float = 10_000.0
    inputs_per_minute: float = 240.0
    per_second: float = 20.0
    counts: tuple[int, ...] = (400, 600, 800, 1000, 1200, 1400, 1600, 2000, 2400, 3200, 4000)


@dataclass(frozen=True, slots=True)
class Traffics:
    """What is asked with one secret.

    Attributes:
        asked: account to its inputs.
        known: what the bulk customer asked before.
    """

    asked: Mapping[str, list[str]]
    known: list[str]


def built_in() -> dict[str, Any]:
    """Return the built-in plan as a config file holds it."""
    return BUILT_IN[PLAN].model_dump(mode="json")


def ladder(setting: Setting, encoder: Encoder) -> Ladder:
    """Return the built-in plan under the guard.

    Raises:
        ConfigurationError: an unknown profile, or an encoder without calibration.
    """
    calibration = calibration_for(setting.encoder, encoder.dim, given=None, required=True)
    profile = profiles.get(setting.profile).with_knee(calibration.knee)
    return Ladder.of(BUILT_IN[PLAN], scale_of(profile, refuses=True))


def traffics(setting: Setting, rng: np.random.Generator, data: dict[str, str]) -> Traffics:
    """Load what every account asks: both thieves the same, and some news of the wide customer's.

    Raises:
        DataError: a data set is missing or damaged.
    """
    many = setting.narrow + setting.known
    narrow = load_task("banking77", train=many, test=1, rng=rng, data=data).train_inputs
    wide = load_task("ag_news", train=setting.wide, test=1, rng=rng, data=data).train_inputs
    pool = load_pool("broad_text", size=setting.bulk + setting.thief, rng=rng, data=data).inputs
    asked = {
        "narrow": list(narrow[: setting.narrow]),
        "wide": list(wide),
        "bulk": list(pool[: setting.bulk]),
        "thief": list(pool[setting.bulk :]),
        "leaver": list(pool[setting.bulk :]),
    }
    return Traffics(asked, known=list(narrow[setting.narrow :]))


def config(setting: Setting, secret: bytes) -> dict[str, Any]:
    """Return the live server's config: the built-in plan with scaled rations and puzzles."""
    plan = {**built_in(), "inputs_per_minute": setting.inputs_per_minute}
    return {
        "master_key": secret.hex(),
        "plan": PLAN,
        "plans": {PLAN: plan},
        "hash_rate": setting.hash_rate,
    }
