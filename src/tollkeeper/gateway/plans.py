"""Plans: what an account meets at which coverage, as the operator wrote it.

A plan is a ladder. Its rungs are placed by how far an account has come: `meter` by its share of
the guard's knee, all others by how far it is from the knee (0) to the ceiling (1). One plan so
fits every encoder and calibration. `docs/policy.md` shows how to choose.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tollkeeper.errors import ConfigurationError
from tollkeeper.gateway.predict_plan import Predictions

Place = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Mode = Literal["enforce", "shadow"]
Rung = Literal["free", "metered", "challenged", "throttled", "pays", "refused"]

VERSION_CHARS = 8
STEP: Final = 25
"""Percent: how coarsely a meter is shown."""


class Plan(BaseModel):
    """One plan; a rung that is None is not used.

    Attributes:
        mode: `shadow` decides and records, and asks, delays, perturbs and refuses nothing.
        canary: tenants for which a plan in shadow is enforced all the same.
        meter: from this share of the knee on, requests are recorded as metered.
        shows_meter: whether the account sees what is left to the knee, in steps of 25%.
        challenge: where puzzles begin.
        first_seconds: price of a new input there, in seconds of one core of the reference
            machine (`hash_rate`); it doubles on the way to the ceiling.
        last_seconds: price of a new input below the ceiling; of the doublings of the first,
            the largest that is no more than this.
        puzzle: which.
        unpaid_per_minute: challenges that an account may leave unsolved.
        throttle: where new inputs are rationed.
        inputs_per_minute: how many, for one server.
        noise: where the guard's first noise level begins.
        refuse: where nothing new is answered.
        predictions: what holds for predictions, in place of every rung above.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode = "enforce"
    canary: tuple[str, ...] = ()
    meter: Place | None = None
    shows_meter: bool = False
    challenge: Place | None = None
    first_seconds: float = Field(default=0.1, gt=0, le=3600)
    last_seconds: float = Field(default=6.4, gt=0, le=3600)
    puzzle: Literal["sha-256", "scrypt"] = "sha-256"
    unpaid_per_minute: int = Field(default=120, ge=1, le=10_000)
    throttle: Place | None = None
    inputs_per_minute: float = Field(default=60.0, ge=0.01, le=1e9, allow_inf_nan=False)
    noise: Place | None = 0.0
    refuse: Place | None = 1.0
    predictions: Predictions = Predictions()

    @model_validator(mode="after")
    def _check(self) -> Self:
        rungs = [
            one for one in (self.challenge, self.throttle, self.noise or None) if one is not None
        ]
        if self.refuse is not None and any(place >= self.refuse for place in rungs):
            raise ValueError("expected challenge, throttle and noise below refuse, to be reached")
        if self.last_seconds < self.first_seconds:
            raise ValueError("expected last_seconds to be at least first_seconds")
        if self.canary and self.mode == "enforce":
            raise ValueError("expected mode: shadow beside canary, which is for some tenants")
        return self


GUARD: Final = "guard"
DEFAULT: Final = "default"
BUILT_IN: Final[Mapping[str, Plan]] = {
    # What the guard does by itself: noise from the knee on, refusal at the ceiling.
    GUARD: Plan(),
    # Noise last. Where the rungs are is judgment; what they cost whom is measured:
    # `toll-timelines`: paid_seconds.*.
    "toll": Plan(
        meter=0.5,
        challenge=0.0,
        throttle=0.25,
        noise=0.5,
        refuse=1.0,
        predictions=Predictions(challenge_rank=0.95),
    ),
}
"""Plans that exist without being written."""


RANKS: Final = ("refuse_rank", "challenge_rank")
"""Fields of `Predictions` that mean nothing without a detector."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What places on a ladder mean under one guard.

    Attributes:
        knee: coverage up to which the guard's price is nothing.
        ceiling: where a ladder ends.
        refuses: whether anything is refused there.
    """

    knee: float
    ceiling: float
    refuses: bool


class Priced(Protocol):
    """What challenges are bound to."""

    @property
    def plan(self) -> Plan:
        """As the operator wrote it."""
        ...

    @property
    def version(self) -> str:
        """Changes with the prices."""
        ...

    @property
    def charges(self) -> bool:
        """Whether there are puzzles at all."""
        ...


@dataclass(frozen=True, slots=True)
class Ladder:
    """A plan under one guard, with its places turned into coverage.

    Attributes:
        plan: as the operator wrote it.
        scale: of the guard.
        version: changes with the plan and with the scale; challenges are bound to it.
    """

    plan: Plan
    scale: Scale
    version: str

    @classmethod
    def of(cls, plan: Plan, scale: Scale) -> Ladder:
        """Place a plan."""
        # Who is in canary and how patient we are changes no price.
        terms = plan.model_dump_json(exclude={"mode", "canary", "unpaid_per_minute", "predictions"})
        text = f"{terms}|{scale.knee}|{scale.ceiling}"
        return cls(plan, scale, hashlib.sha256(text.encode()).hexdigest()[:VERSION_CHARS])

    def rung(self, coverage: float) -> Rung:
        """Return the highest rung that an account has reached."""
        plan = self.plan
        above: list[tuple[Rung, float | None]] = [
            ("refused", self.refuses_at),
            ("pays", self._at(plan.noise)),
            ("throttled", self._at(plan.throttle)),
            ("challenged", self._at(plan.challenge)),
        ]
        for rung, at in above:
            # The guard's price begins above the knee, its ceiling is part of refusal.
            if at is not None and (coverage >= at if rung == "refused" else coverage > at):
                return rung
        metered = plan.meter is not None and coverage >= plan.meter * self.scale.knee
        return "metered" if metered else "free"

    @property
    def forgiven(self) -> float:
        """Return how much coverage the guard's price must not see."""
        place = self.plan.noise
        return 1.0 if place is None else place * self._room

    @property
    def refuses_at(self) -> float | None:
        """Return the coverage from which on nothing new is answered; None never."""
        if not self.scale.refuses or self.plan.refuse is None:
            return None
        # Not knee + 1 * room: rounding would move the ceiling.
        return self.scale.ceiling if self.plan.refuse == 1 else self._at(self.plan.refuse)

    def rationed(self, reached: Sequence[float]) -> int:
        """Return how many new inputs, which lead to these coverages, are rationed."""
        at = self._at(self.plan.throttle)
        return 0 if at is None else sum(coverage > at for coverage in reached)

    def seconds(self, coverage: float) -> float:
        """Return the price of a new input that leads to a coverage, in reference seconds.

        Prices double from level to level: an account learns from them where it stands, and no
        more than a doubling tells.
        """
        start, plan = self._at(self.plan.challenge), self.plan
        if start is None or coverage <= start:
            return 0.0
        end = self.scale.ceiling
        way = min(1.0, (coverage - start) / (end - start)) if end > start else 1.0
        doublings = math.floor(math.log2(plan.last_seconds / plan.first_seconds))
        level = min(doublings, math.floor(way * (doublings + 1)))
        return float(plan.first_seconds * 2**level)

    @property
    def charges(self) -> bool:
        """Return whether there are puzzles at all."""
        return self.plan.challenge is not None

    def left(self, coverage: float) -> int | None:
        """Return percent left to the knee in coarse steps, if the account may see that."""
        if not self.plan.shows_meter or not self.scale.knee:
            return None
        share = max(0.0, 1.0 - coverage / self.scale.knee)
        return STEP * math.ceil(share * 100 / STEP)

    @property
    def _room(self) -> float:
        return max(0.0, self.scale.ceiling - self.scale.knee)

    def _at(self, place: float | None) -> float | None:
        return None if place is None else self.scale.knee + place * self._room


def _completed(name: str, plan: Plan) -> Plan:
    base = BUILT_IN.get(name)
    if base is None:
        return plan
    # Validated anew: the fields of both may not go together.
    written = _written(plan)
    if "predictions" in written:
        merged = {**_written(base.predictions), **_written(plan.predictions)}
        written["predictions"] = Predictions(**merged)
    return Plan(**{**dict(base), **written})


def _written(model: BaseModel) -> dict[str, Any]:
    return {field: getattr(model, field) for field in model.model_fields_set}


class Plans:
    """All plans of a deployment, placed; replaced whole when the operator changes them."""

    def __init__(self, written: Mapping[str, Plan], default: str, scale: Scale) -> None:
        """Place the built-in plans and the operator's; `default` is for tenants without one.

        A plan with the name of a built-in one has its fields, but for those that are written.

        Raises:
            ConfigurationError: the default is not written, or a plan is called `default`.
        """
        if DEFAULT in written:
            raise ConfigurationError("expected another name than `default`, which means no plan")
        plans = {**BUILT_IN, **{name: _completed(name, plan) for name, plan in written.items()}}
        if default not in plans:
            raise ConfigurationError(
                f"expected plan to be one of {', '.join(plans)}, got {default!r}"
            )
        self.scale = scale
        self._ladders = {name: Ladder.of(plan, scale) for name, plan in plans.items()}
        self.default = default
        self._written = dict(written)

    @property
    def all(self) -> tuple[Plan, ...]:
        """Return all plans."""
        return tuple(one.plan for one in self._ladders.values())

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all plans."""
        return tuple(self._ladders)

    def of(self, name: str) -> Ladder:
        """Return a tenant's ladder; the default where its plan is not written any more."""
        return self._ladders.get(name or self.default) or self._ladders[self.default]

    def ranked(self) -> list[str]:
        """Return which plans the operator wants to rank queries, each with what needs it."""
        found = []
        for name in dict.fromkeys([*self._written, self.default]):
            written = self._written[name].predictions if name in self._written else None
            # Every plan has an alarm unless told otherwise, so only a written one is a wish.
            wished = {*RANKS, *(written.model_fields_set if written else ())}
            told = self._ladders[name].plan.predictions
            ranked = [one for one in (*RANKS, "alarm") if getattr(told, one) is not None]
            fields = ", ".join(one for one in ranked if one in wished)
            found += [f"{name} ({fields})"] if fields else []
        return found

    def mode(self, tenant: str, plan: str, mode: str) -> Mode:
        """Return whether a tenant's plan is enforced; its own mode goes before the plan's."""
        if mode == "enforce":
            return "enforce"
        if mode == "shadow":
            return "shadow"
        written = self.of(plan).plan
        return "enforce" if tenant in written.canary else written.mode

    def warnings(self) -> list[str]:
        """Return which of the operator's plans cannot do what they say, in a sentence each."""
        climbing = [
            name
            for name, one in self._ladders.items()
            if name not in BUILT_IN or name == self.default
            if one.charges or one.plan.throttle is not None
        ]
        if not climbing:
            return []
        names = ", ".join(climbing)
        if self.scale.knee >= self.scale.ceiling:
            return [
                f"{names}: this profile measures no coverage, so nothing is charged or rationed"
            ]
        if self.scale.knee == 0:
            return [f"{names}: this profile has no knee, so the first input pays already"]
        return []

    @property
    def uses_scrypt(self) -> bool:
        """Return whether a plan asks for puzzles of scrypt."""
        return any(
            plan.puzzle == "scrypt"
            for plan in self.all
            if (plan.challenge, plan.predictions.challenge_rank) != (None, None)
        )
