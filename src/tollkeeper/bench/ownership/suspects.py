"""Everybody who may be suspected: victims, thieves, independents, and how each came about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tollkeeper.attacks.surrogate import Surrogate
from tollkeeper.bench.ownership.networks import KINDS, Kind, Small
from tollkeeper.bench.ownership.scene import Block, Scene
from tollkeeper.bench.ownership.simclr import Recipe, train_simclr, train_supervised, untrained
from tollkeeper.bench.ownership.thieves import Means, steal
from tollkeeper.bench.theft.guarded import GuardedVictim
from tollkeeper.encoders.base import Encoder
from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration

Role = Literal["victim", "thief", "independent", "same_data", "reference"]
"""What an encoder is to a claim.

`same_data` was trained on D_P by somebody else, with another seed: dataset inference is right to
find the data in it, and similarity and watermarks are right not to find the victim.
"""

How = Literal["simclr", "supervised", "untrained"]


@dataclass(frozen=True, slots=True)
class Trained:
    """An encoder that somebody trained.

    Attributes:
        source: `private` or `held` of a claim, `reference`, `world`, or another data set.
        number: of the block there; of a claim the claim's own.
        how: contrastive, by labels, or not at all.
        network: its architecture.
        blocks: how many blocks of the source it was trained on; the steps stay the same.
    """

    source: str
    number: int = 0
    how: How = "simclr"
    network: Kind = "mlp"
    blocks: int = 1


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy of a victim.

    Attributes:
        attack: of `tollkeeper.bench.ownership.thieves.THIEVES`.
        budget: queries.
        asks: `pool`, another data set, or the claim's `private` or `held` images.
        profile: of the guard in front of the victim; empty for an open one.
        network: architecture of the copy.
    """

    attack: str
    budget: int
    asks: str = "pool"
    profile: str = ""
    network: Kind = "mlp"


@dataclass(frozen=True, slots=True)
class Suspect:
    """One encoder.

    Attributes:
        name: group and what tells it from the rest of it, for example `mse.2000`.
        role: what it is to `claim`, or to all.
        claim: number of the claim that it belongs to; -1 for all alike.
        made: how.
    """

    name: str
    role: Role
    claim: int
    made: Trained | Copied

    def role_in(self, claim: int) -> Role:
        """Return what it is to a claim: to that of another owner everybody is independent."""
        return self.role if self.claim in (-1, claim) else "independent"


@dataclass(frozen=True, slots=True)
class Training:
    """How long encoders are trained.

    Attributes:
        epochs: of victims, references and independents.
        copy_epochs: of thieves.
        width: hidden units of every network.
    """

    epochs: int = 100
    copy_epochs: int = 50
    width: int = 512


# -- who there is ----------------------------------------------------------------


def victims(claims: int) -> list[Suspect]:
    """Return the victim of each claim."""
    return [
        Suspect("victim", "victim", claim, Trained("private", claim)) for claim in range(claims)
    ]


def references(count: int) -> list[Suspect]:
    """Return the owners' reference encoders."""
    return [
        Suspect(f"reference.{number}", "reference", -1, Trained("reference", number))
        for number in range(count)
    ]


def independents(same: int, others: Sequence[str], each: int = 2) -> list[Suspect]:
    """Return encoders that met neither a victim nor its data.

    Args:
        same: encoders like the victim, of the same distribution.
        others: other data sets.
        each: encoders of every further kind.
    """
    kinds: dict[str, list[Trained]] = {
        "same": [Trained("world", number) for number in range(same)],
        "conv": [Trained("world", number, network="conv") for number in range(each)],
        "supervised": [Trained("world", number, how="supervised") for number in range(each)],
        "large": [Trained("world", 0, blocks=4)],
        **{name: [Trained(name, number) for number in range(each)] for name in others},
        "random": [Trained("world", 0, "untrained", kind) for kind in KINDS[:each]],
    }
    return [
        Suspect(f"{kind}.{number}", "independent", -1, made)
        for kind, some in kinds.items()
        for number, made in enumerate(some)
    ]


def insiders(claims: int) -> Iterator[Suspect]:
    """Yield encoders trained on one side of each claim by somebody else."""
    for claim in range(claims):
        yield Suspect("held", "independent", claim, Trained("held", claim))
        yield Suspect("same_data", "same_data", claim, Trained("private", claim))


def thieves(
    claims: int, budgets: Sequence[int], *, block: int, others: Sequence[str], profile: str
) -> list[Suspect]:
    """Return copies of every claim's victim.

    Args:
        claims: of as many owners.
        budgets: queries, ascending; attacks other than the plainest ask the last.
        block: images on either side of a claim.
        others: data sets that some thieves ask.
        profile: of the guard that some victims have.
    """
    most = budgets[-1]
    copies = [Copied("mse", budget) for budget in budgets]
    copies += [
        Copied(attack, most) for attack in ("infonce", "cont_steal", "stolen_encoder", "rda")
    ]
    named = {f"{one.attack}.{one.budget}": one for one in copies}
    named[f"conv.{most}"] = Copied("mse", most, network="conv")
    named |= {f"{name}.{most // 2}": Copied("mse", most // 2, asks=name) for name in others}
    named |= {f"{side}.{block}": Copied("mse", block, asks=side) for side in ("private", "held")}
    named |= {
        f"guarded.{budget}": Copied("mse", budget, profile=profile) for budget in (most // 4, most)
    }
    return [
        Suspect(f"stolen.{name}", "thief", claim, copy)
        for claim in range(claims)
        for name, copy in named.items()
    ]


# -- how they are made -----------------------------------------------------------


def make(
    suspect: Suspect,
    scene: Scene,
    owners: Sequence[Encoder],
    training: Training,
    *,
    rng: np.random.Generator,
) -> Encoder:
    """Return the encoder of a suspect.

    Args:
        suspect: which.
        scene: whose images.
        owners: victims by claim; empty where no victim is asked.
        training: how long.
        rng: all its randomness.
    """
    made = suspect.made
    if isinstance(made, Trained):
        return _trained(made, scene, training, rng)
    claim = scene.claims[suspect.claim]
    asked = {"pool": scene.pool, "private": claim.private, "held": claim.held, **scene.others}
    return steal(
        made.attack,
        _asked(owners[suspect.claim], made.profile, claim.held.images, rng),
        asked[made.asks].images,
        budget=made.budget,
        rng=rng,
        means=Means(Small(made.network, training.width), epochs=training.copy_epochs),
    )


def _trained(
    made: Trained, scene: Scene, training: Training, rng: np.random.Generator
) -> Surrogate:
    images = images_of(made, scene)
    recipe = Recipe(Small(made.network, training.width), epochs=training.epochs)
    recipe = replace(recipe, epochs=max(1, recipe.epochs // made.blocks))
    if made.how == "untrained":
        return untrained(recipe, rng=rng)
    if made.how == "supervised":
        return train_supervised(images.images, images.labels, recipe, rng=rng)
    return train_simclr(images.images, recipe, rng=rng)


def images_of(made: Trained, scene: Scene) -> Block:
    """Return what an encoder was trained on."""
    if made.source in ("private", "held"):
        claim = scene.claims[made.number]
        return claim.private if made.source == "private" else claim.held
    if made.source == "reference":
        return scene.references[made.number]
    size = scene.sizes.block
    whole = scene.world if made.source == "world" else scene.others[made.source]
    return whole[slice(made.number * size, (made.number + made.blocks) * size)]


def _asked(
    victim: Encoder, profile: str, sample: NDArray[np.uint8], rng: np.random.Generator
) -> Encoder:
    """Return the victim, or one account of a guard of it that was calibrated on a sample."""
    if not profile:
        return victim
    calibration = Calibration.fit(victim.embed(sample), rng=rng)
    service = GuardedVictim(
        victim,
        profiles.get(profile),
        calibration,
        secret=rng.bytes(32),
        clock=_still,
        rng=rng.spawn(1)[0],
    )
    return service.account("thief")


def _still() -> float:
    """Stand for a clock whose seconds only records would show."""
    return 0.0
