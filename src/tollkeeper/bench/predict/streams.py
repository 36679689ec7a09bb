"""What thieves ask: their queries in order, with the answers, and the copies they make of them.

A thief is run once for each data set, with the largest budget; what a smaller budget would have
asked is taken out of that. One stream is judged by all detectors, so that they can be compared in
pairs: it was asked of the plain victim, also where a detector brings a victim of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tollkeeper.attacks.base import Attack
from tollkeeper.attacks.classifier import presets
from tollkeeper.attacks.classifier.copies import Conv3Copy
from tollkeeper.attacks.classifier.copies import Copying as ClassifierAttack
from tollkeeper.attacks.classifier.dfme import DFME
from tollkeeper.attacks.classifier.jbda import JBDA, STEP, Augmenting, TRandom
from tollkeeper.attacks.classifier.knockoff import AdaptiveKnockoff, Knockoff
from tollkeeper.attacks.classifier.presets import for_two_cores
from tollkeeper.attacks.classifier.recorder import Recorder
from tollkeeper.attacks.classifier.rendering import Rendering
from tollkeeper.bench.predict.metrics import accuracy, agreement
from tollkeeper.bench.predict.rendering import leveled, like_emnist, like_mnist
from tollkeeper.bench.predict.scene import Scene
from tollkeeper.encoders.lab.torch_classifier import TorchClassifier
from tollkeeper.lab.fit import Adam, Schedule
from tollkeeper.lab.progress import silent
from tollkeeper.types import Images, Probabilities

View = Callable[[Images], Images]

_INK = 0.05
"""Above this value a pixel of MNIST is part of a stroke: .9 below white in [-1, 1]."""


@dataclass(frozen=True, slots=True)
class Copying:
    """How copies are trained.

    Attributes:
        width: of a copy's first layer.
        epochs: of the copy that a thief is left with.
        rounds: of each of JBDA's and T-RND's rounds.
        batch: answers per step.
        rate: of Adam.
    """

    width: int = 16
    epochs: int = 20
    rounds: int = 10
    batch: int = 32
    rate: float = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """What a thief has.

    Attributes:
        scene: its images.
        copying: how copies are trained.
        restore: images as the autoencoder of a named detector restores them, for the thief who
            got hold of it.
    """

    scene: Scene
    copying: Copying
    restore: Callable[[str, Images], Images]


@dataclass(frozen=True, slots=True)
class Thief:
    """A way to ask.

    Attributes:
        attack: makes the attack for a world.
        pool: what it is given.
        only: the data set on which it makes sense; empty for all.
        whole: whether it is judged at the largest budget alone, where smaller ones would not show
            what it does.
    """

    attack: Callable[[World], Attack]
    pool: Callable[[World], Images]
    only: str = ""
    whole: bool = False


def _schedule(world: World, epochs: int) -> Schedule:
    how = world.copying
    return Schedule(epochs=epochs, batch=how.batch, rate=how.rate, optimizer=Adam())


def _knockoff(world: World, view: View | None = None) -> Attack:
    return Knockoff(
        network=Conv3Copy(world.copying.width),
        schedule=_schedule(world, world.copying.epochs),
        view=view,
    )


def _stepping(
    kind: type[JBDA | TRandom],
    *,
    step: float = STEP,
    strokes: float | None = None,
    gray: bool = False,
) -> Callable[[World], Attack]:
    def make(world: World) -> Attack:
        return kind(
            network=Conv3Copy(world.copying.width),
            schedule=_schedule(world, world.copying.epochs),
            rounds=_schedule(world, world.copying.rounds),
            seeds=len(world.scene.seeds),
            step=step,
            strokes=strokes,
            gray=gray,
        )

    return make


def _data_free(world: World) -> Attack:
    # It keeps what it bought and learns it in the end; the game alone leaves an untrained copy.
    return DFME(
        network=Conv3Copy(world.copying.width),
        schedule=_schedule(world, world.copying.epochs),
        memory=20_000,
    )


def _pool(world: World) -> Images:
    return world.scene.pool


def _seeds(world: World) -> Images:
    return world.scene.seeds


def _insider(world: World) -> Images:
    return world.scene.insider


def _rendering(world: World) -> Rendering:
    return Rendering.fitted(world.scene.seeds, world.scene.pool)


def _projecting(detector: str, *, leveling: bool = False) -> Callable[[World], Attack]:
    """Return Knockoff through a detector's autoencoder, and at the levels of honest pixels."""

    def make(world: World) -> Attack:
        def view(images: Images) -> Images:
            restored = world.restore(detector, images)
            return leveled(restored, world.scene.seeds) if leveling else restored

        return _knockoff(world, view)

    return make


THIEVES: Mapping[str, Thief] = {
    "jbda": Thief(_stepping(JBDA), _seeds),
    "knockoff": Thief(_knockoff, _pool),
    "dfme_untrained": Thief(_data_free, _pool),
}
"""The thieves of tables 1 and 2. With less than some 100,000 queries DFME's generator
has learned nothing, and what is detected is noise; hence its name here."""

ADAPTIVE: Mapping[str, Thief] = {
    "jbda_half_step": Thief(_stepping(JBDA, step=STEP / 2), _seeds),
    "jbda_gray": Thief(_stepping(JBDA, gray=True), _seeds, only="cifar10"),
    "jbda_strokes": Thief(_stepping(JBDA, strokes=_INK), _seeds, only="mnist"),
    "knockoff_matched": Thief(
        lambda world: _knockoff(world, _rendering(world)), _pool, only="mnist"
    ),
    "knockoff_redrawn": Thief(
        _knockoff, lambda world: like_mnist(world.scene.pool, world.scene.seeds), only="mnist"
    ),
    "knockoff_projected": Thief(_projecting("same"), _pool),
    "knockoff_projected_fused": Thief(_projecting("fused"), _pool),
    "knockoff_projected_leveled": Thief(_projecting("fused", leveling=True), _pool),
    "knockoff_matched_projected_leveled": Thief(
        _projecting("fused", leveling=True),
        lambda world: _rendering(world)(world.scene.pool),
        only="mnist",
    ),
    "insider": Thief(_knockoff, _insider),
    "insider_emnist": Thief(
        _knockoff, lambda world: like_emnist(world.scene.insider), only="mnist"
    ),
}
"""Thieves who know the detector. `knockoff_matched` gives its images the size, place and pixel
values of the honest seeds, `knockoff_redrawn` draws them as MNIST was drawn. `_projected` is through
SAME's autoencoder, `_projected_fused` and `_leveled` through that of the fused score; the latter
gives the result the pixel levels of honest seeds, which is what else that score looks at. `insider`
asks images like the honest ones, which is where nothing can be told apart; `insider_emnist` asks the
same images drawn as EMNIST draws, which no thief needs, to show what of a detection is of the
drawing."""


def _preset(make: Callable[[], ClassifierAttack]) -> Callable[[World], Attack]:
    """Return an attack of the product as two cores train it."""

    def small(world: World) -> Attack:
        network = Conv3Copy(world.copying.width)
        found = for_two_cores(make(), epochs=world.copying.epochs, network=network)
        if isinstance(found, AdaptiveKnockoff):
            found = replace(found, labels=world.scene.pool_labels)
        if isinstance(found, Augmenting):
            found = replace(found, seeds=min(found.seeds, len(world.scene.seeds)))
        return found

    return small


OTHERS: Mapping[str, Thief] = {
    "t_rnd": Thief(_stepping(TRandom), _seeds),
    "knockoff_adaptive": Thief(_preset(presets.knockoff_adaptive), _pool, only="mnist"),
    "copycat": Thief(_preset(presets.copycat), _pool, only="mnist"),
    "jbda_papernot": Thief(_preset(presets.jbda_papernot), _seeds, only="mnist", whole=True),
    "t_rnd_iterated": Thief(_preset(presets.t_random_iterated), _seeds, only="mnist"),
    "maze_untrained": Thief(_preset(presets.maze), _pool, only="mnist"),
    "active_thief": Thief(_preset(presets.active_thief), _pool, only="mnist"),
    "active_thief_center": Thief(_preset(presets.active_thief_k_center), _pool, only="mnist"),
    "active_thief_dfal": Thief(_preset(presets.active_thief_dfal), _pool, only="mnist"),
    "active_thief_both": Thief(_preset(presets.active_thief_both), _pool, only="mnist"),
}
"""Published thieves whom the SAME paper does not judge, at one budget. Papernot's JBDA steps from a
reservoir after 800 queries and turns around after 1,600, so it is judged at the largest."""

EVERYONE: Mapping[str, Thief] = {**THIEVES, **ADAPTIVE, **OTHERS}


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """What one thief asked.

    Attributes:
        name: of the thief.
        images: (n, c, h, w) in asking order.
        answers: (n, k) the victim's.
        seeds: honest images at the beginning.
        copied: the copy's accuracy on the honest users' images.
        agreed: on how many of those it says what the victim says.
        whole: whether it is not cut.
    """

    name: str
    images: Images
    answers: Probabilities
    seeds: int
    copied: float
    agreed: float
    whole: bool = False

    @property
    def malicious(self) -> NDArray[np.intp]:
        """Return the places of all queries but the seeds."""
        return np.arange(self.seeds, len(self.images))

    def first(
        self, budget: int, *, rng: np.random.Generator, seeds: bool = False
    ) -> NDArray[np.intp]:
        """Return the places of what a thief with this budget would have asked.

        Rounds of JBDA and T-RND ask as many images as there were before them; of a round that the
        budget cuts, a random part is asked, as in the attack.

        Args:
            budget: queries, the seeds among them.
            rng: chooses of a round.
            seeds: whether the seeds are counted as the thief's.

        Raises:
            ValueError: a smaller budget, of a stream that cannot be cut.
        """
        budget, start = min(budget, len(self.images)), 0 if seeds else self.seeds
        if self.whole and budget < len(self.images):
            raise ValueError(
                f"{self.name} is judged at {len(self.images)} queries, not at {budget}"
            )
        if not self.seeds or budget == len(self.images):
            return np.arange(start, budget)
        begun = self.seeds
        while 2 * begun <= budget:
            begun *= 2
        rest = np.arange(begun, min(2 * begun, len(self.images)))
        cut = np.sort(rng.permutation(rest)[: budget - begun])
        return np.concatenate([np.arange(start, begun), cut])


def ask(
    name: str,
    thief: Thief,
    world: World,
    victim: TorchClassifier,
    *,
    budget: int,
    rng: np.random.Generator,
    clock: Callable[[], float],
) -> Stream:
    """Run a thief against a victim, and see what its copy is worth.

    Args:
        name: of the thief.
        thief: of `EVERYONE`.
        world: what it has.
        victim: whom it asks.
        budget: queries; a thief with fewer images asks those.
        rng: all randomness of the attack.
        clock: monotonic seconds.
    """
    attack, pool, recorder = thief.attack(world), thief.pool(world), Recorder(victim)
    most = min(budget, attack.most_queries(len(pool), 1))
    stolen = attack(recorder, pool, budget=most, rng=rng, clock=clock, progress=silent)
    scene = world.scene
    said = stolen.surrogate.embed(scene.honest)
    return Stream(
        name,
        recorder.images,
        recorder.probabilities,
        seeds=min(attack.seeds, len(pool)) if isinstance(attack, Augmenting) else 0,
        whole=thief.whole,
        copied=accuracy(said, scene.honest_labels),
        agreed=agreement(said, victim.embed(scene.honest)),
    )
