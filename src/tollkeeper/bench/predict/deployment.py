"""A victim, its honest users and the detectors around it, made from nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.bench.predict.defenders import FITS, LOGITS, Defense, fit_all
from tollkeeper.bench.predict.plan import Plan
from tollkeeper.bench.predict.scene import Scene, load_scene
from tollkeeper.bench.predict.streams import EVERYONE, Stream, Thief, World, ask
from tollkeeper.bench.predict.victims import train_victim
from tollkeeper.detectors.same import Same
from tollkeeper.encoders.lab.torch_classifier import TorchClassifier
from tollkeeper.graphs import Graph
from tollkeeper.lab.exporting import export_graph
from tollkeeper.types import Images, Probabilities, Scores

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Deployment:
    """What is attacked, and what watches it.

    Attributes:
        scene: whose images are whose.
        plan: sizes.
        victim: who answers.
        graph: its network to `logits`, as it is served.
        defense: fitted detectors.
        victim_s: seconds that the victim took to train.
        answers: (n, k) of the victim to the honest users.
        thieves: generators of thieves, by name.
        clock: monotonic seconds.
    """

    scene: Scene
    plan: Plan
    victim: TorchClassifier
    graph: Graph
    defense: Defense
    victim_s: float
    answers: Probabilities
    thieves: dict[str, np.random.Generator]
    clock: Callable[[], float]

    def scores(self, images: Images, answers: Probabilities) -> dict[str, Scores]:
        """Return every detector's scores of the same queries; SAME's forms share one pass."""
        found: dict[str, Scores] = {}
        signs = None
        for name, detector in self.defense.detectors.items():
            if isinstance(detector, Same):
                signs = signs or self.defense.same.signs(images, answers)
                assert signs.deviation is not None
                found[name] = detector.alpha * signs.error + (1 - detector.alpha) * signs.deviation
            else:
                found[name] = detector.score(images, answers)
        return found

    def stream(self, name: str, budget: int) -> Stream:
        """Run a thief of `EVERYONE`."""
        world = World(self.scene, self.plan.copying, self.defense.restore)
        return ask(
            name,
            EVERYONE[name],
            world,
            self.victim,
            budget=budget,
            rng=self.thieves[name],
            clock=self.clock,
        )

    def honest_scores(self) -> dict[str, Scores]:
        """Return every detector's scores of the honest users' queries."""
        return self.scores(self.scene.honest, self.answers)

    def present(self, thieves: Mapping[str, Thief]) -> list[str]:
        """Return the thieves that make sense on this data set."""
        return [name for name, one in thieves.items() if one.only in {"", self.scene.dataset}]


def deploy(
    dataset: str,
    plan: Plan,
    *,
    rng: np.random.Generator,
    clock: Callable[[], float],
    tell: Tell,
    data: dict[str, str],
    names: Sequence[str] = tuple(FITS),
) -> Deployment:
    """Train a victim and fit detectors.

    Args:
        dataset: of the scene.
        plan: sizes.
        rng: all randomness; what is left out does not change the rest.
        clock: monotonic seconds.
        tell: told what is done next.
        data: gets the checksums of the data sets.
        names: of `defenders.FITS`.
    """
    plan.check(dataset)
    dealing, training, fitting, stealing = rng.spawn(4)
    tell("data")
    scene = load_scene(dataset, plan.sizes, rng=dealing, data=data)
    tell("training the victim")
    began = clock()
    victim = train_victim(scene, plan.training, rng=training)
    victim_s = clock() - began
    graph = Graph(export_graph(victim.network, scene.shape, outputs=(LOGITS,)), name="victim")
    defense = fit_all(
        scene,
        victim,
        graph,
        plan.training,
        plan.fitting,
        rng=fitting,
        clock=clock,
        progress=tell,
        names=names,
    )
    return Deployment(
        scene,
        plan,
        victim,
        graph,
        defense,
        victim_s,
        victim.embed(scene.honest),
        dict(zip(EVERYONE, stealing.spawn(len(EVERYONE)), strict=True)),
        clock,
    )


def places(stream: Stream, budget: int, *, seeds: bool = False) -> NDArray[np.intp]:
    """Return the places of a smaller budget's queries; the same ones each time."""
    return stream.first(budget, rng=np.random.default_rng(budget), seeds=seeds)
