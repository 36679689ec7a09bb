"""Who is run in `b4b-theft`, and behind what: thieves and defenses by name.

Thieves are the public attacks with the network and the schedule of the experiment; what else a
row changes stands beside its name in `USERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tollkeeper.attacks import names
from tollkeeper.attacks.base import Attack
from tollkeeper.attacks.networks.convnet import ConvNet
from tollkeeper.attacks.recovery.averages import AverageRepeats
from tollkeeper.attacks.recovery.standardized import Standardized
from tollkeeper.attacks.sybil.network_mappers import ThreeLayerMapper, Training
from tollkeeper.bench.theft.guarded import scaled_b4b
from tollkeeper.bench.theft.stage import Scene
from tollkeeper.errors import ConfigurationError
from tollkeeper.guard import profiles
from tollkeeper.guard.profiles import Profile
from tollkeeper.guard.transform import AffinePadShuffle
from tollkeeper.lab.fit import Adam, Schedule

NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting(Scene):
    """What is run.

    Attributes:
        cells: user and defense, for example `sybil2/b4b-2023`; users are the keys of `USERS`,
            with a number of accounts for sybils.
        defenses: what legitimate users face.
        budget: queries of every attacker, over all its accounts.
        anchors: inputs that sybils ask through every account.
        mapper_steps: most steps of the paper's mapper; as published 32,500 at this budget.
        seeds: of attacker, guard and secrets alike.
        epochs: passes over the answers.
        rate: learning rate.
        width: channels of the surrogate's first stage.
        side: pixels that the surrogate sees.
        workers: processes.
    """

    cells: tuple[str, ...] = (
        "attack/none",
        "attack_standardized/none",
        "sybil2/none",
        "sybil10/none",
        "attack/b4b-2023",
        "attack/b4b-scaled",
        "attack/recommended",
        "attack_averaging/b4b-scaled",
        "sybil2/b4b-2023",
        "sybil2/b4b-scaled",
        "sybil2/recommended",
        "sybil5/b4b-scaled",
        "sybil10/b4b-scaled",
        "sybil2_paper/b4b-scaled",
        "sybil2_rotation/recommended",
        "sybil2_matching/b4b-2023-shuffled",
        "sybil10_trunk/b4b-scaled",
    )
    defenses: tuple[str, ...] = (NONE, "b4b-2023", "b4b-scaled", "recommended")
    budget: int = 5000
    anchors: int = 100
    mapper_steps: int = 4000
    seeds: int = 3
    epochs: int = 10
    rate: float = 3e-3
    width: int = 16
    side: int = 24
    workers: int = 2

    def network(self) -> ConvNet:
        """Return the surrogate's architecture."""
        return ConvNet(width=self.width, side=self.side)

    def schedule(self) -> Schedule:
        """Return the surrogate's training."""
        return Schedule(epochs=self.epochs, batch=64, rate=self.rate, optimizer=Adam())


# -- thieves -----------------------------------------------------------------------


def _made(name: str, setting: Setting, **changes: Any) -> Attack:
    """Return a public attack that trains the setting's network as the setting has it."""
    attack: Attack = replace(_fitted(names.load(name), setting), **changes)
    return attack


def _fitted(attack: Any, setting: Setting) -> Any:
    if hasattr(attack, "inner"):
        return replace(attack, inner=_fitted(attack.inner, setting))
    return replace(attack, network=setting.network(), schedule=setting.schedule())


def _overlap(setting: Setting) -> Attack:
    return _made("sybil-overlap", setting, anchors=setting.anchors)


def _paper(setting: Setting) -> Attack:
    """Spend a fifth of the budget on the map, as the paper does, on the paper's network."""
    mapper = ThreeLayerMapper(training=Training(rate=1e-4, max_steps=setting.mapper_steps))
    return _made("sybil-overlap", setting, mapper=mapper, anchors=setting.budget // 5)


USERS: Mapping[str, Callable[[Setting], Attack]] = {
    "attack": partial(_made, "direct-infonce"),
    # Ask everything eight times: fresh noise shrinks, and repeats visit no new bucket.
    "attack_averaging": partial(_made, "direct-infonce", recovery=AverageRepeats(8)),
    # What `sybil_matching` does to answers, without the sybils.
    "attack_standardized": partial(_made, "direct-infonce", recovery=Standardized()),
    "sybil": _overlap,
    "sybil_paper": _paper,
    "sybil_rotation": partial(_made, "sybil-rotation"),
    "sybil_matching": partial(_made, "sybil-matching"),
    "sybil_trunk": partial(_made, "sybil-trunk"),
}
"""Thieves by name; a number behind `sybil` is that of its accounts."""


def thief(user: str, setting: Setting) -> tuple[Attack, int]:
    """Return a user's attack and the number of its accounts.

    Raises:
        ConfigurationError: no such user.
    """
    kind = "".join(letter for letter in user if not letter.isdigit())
    count = "".join(letter for letter in user if letter.isdigit())
    if kind not in USERS or (kind.startswith("sybil") != bool(count)):
        known = ", ".join(USERS)
        raise ConfigurationError(f"expected a user of {known} (sybils as sybil2), got {user!r}")
    return USERS[kind](setting), int(count or 1)


# -- defenses ----------------------------------------------------------------------

EXTRA_DEFENSES: Mapping[str, Callable[[], Profile]] = {
    "b4b-scaled": scaled_b4b,
    # The transform of the paper's remapping study instead of its dense one.
    "b4b-2023-shuffled": lambda: replace(profiles.B4B_2023, transform=AffinePadShuffle()),
}
"""Defenses that only experiments have."""


def profile(name: str) -> Profile:
    """Return a defense by name: a public profile without its ceiling, or an extra one.

    At a ceiling there is no answer to score; `guard-figures` has it.
    """
    if name in EXTRA_DEFENSES:
        return EXTRA_DEFENSES[name]()
    return replace(profiles.get(name), ceiling=None)
