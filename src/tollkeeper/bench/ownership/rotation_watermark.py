"""Experiment `rotation-watermark`: who answers to the heads, of copies and of independents.

Two marked encoders: one fine-tuned from a clean encoder (`tuned`), one trained with epochs of the
mark in between, as published (`alternated`). Copies of both ask 250 to 8,000 public images. Every
suspect is judged as it is, and behind a permutation and an affine map of its outputs, without an
alignment, with one to the clean encoder, and with one to the marked encoder.

Source: Dziedzic et al., ICML 2022. It has no table of accuracies that we could see; it states near
50% for encoders that were trained legitimately, and above 50%, rising with queries, for copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from tollkeeper.attacks.objectives import InfoNCE
from tollkeeper.attacks.surrogate import Surrogate, pixels
from tollkeeper.audit.base import OwnershipResult
from tollkeeper.audit.lab.rotation import Loss, alternate, plant_rotation
from tollkeeper.audit.watermarks.alignment import Anchors
from tollkeeper.audit.watermarks.decoys import Commitment, KeyStream, commitment_of
from tollkeeper.audit.watermarks.layers import Layers
from tollkeeper.audit.watermarks.rotation import (
    HEADS,
    RotationEvidence,
    RotationWatermark,
    draw_heads,
)
from tollkeeper.bench.experiment import Context, Experiment, Measurement, Metric
from tollkeeper.bench.ownership import marks
from tollkeeper.bench.ownership.scene import Scene, Sizes, load_scene
from tollkeeper.bench.ownership.simclr import Recipe, view
from tollkeeper.bench.predict.beside import markdown
from tollkeeper.encoders.base import Encoder
from tollkeeper.lab.fit import Schedule
from tollkeeper.lab.torching import generator, seeded_init

MARKS = ("tuned", "alternated")
MODES: Mapping[str, tuple[str, str]] = {
    "direct": ("none", ""),
    "permuted": ("shuffle", ""),
    "permuted-clean": ("shuffle", "clean"),
    "affine-clean": ("affine", "clean"),
    "affine-marked": ("affine", "marked"),
}
"""What the suspect does to its outputs, and whose embeddings it is aligned to."""

NULL_MODES = ("direct", "affine-clean", "affine-marked")
"""Modes in which independents are judged."""

_DIM = 64


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured.

    Attributes:
        sizes: of the scene.
        epochs: of contrastive training.
        mark_epochs: of fine-tuning.
        copy_epochs: of thieves.
        budgets: queries of thieves, ascending.
        objectives: of thieves, of `marks.OBJECTIVES`; the first asks every budget, others the last.
        independents: encoders that never met the victim; at least 8.
        images: for verification, that nobody was trained on.
        decoys: heads, at most.
        workers: processes, of one thread each.
    """

    sizes: Sizes = field(default_factory=lambda: Sizes(claims=1, references=0, other=10))
    epochs: int = 100
    mark_epochs: int = 25
    copy_epochs: int = 50
    budgets: tuple[int, ...] = (250, 500, 1000, 2000, 8000)
    objectives: tuple[str, ...] = ("mse", "infonce")
    independents: int = 20
    images: int = 1000
    decoys: int = 999
    workers: int = 2


@dataclass(frozen=True, slots=True, eq=False)
class Marking:
    """An encoder to be marked.

    Attributes:
        name: of `MARKS`.
        clean: to start from; not used by the published way, which starts from random weights.
        scene: with the private images.
        heads: of the key.
        setting: how long.
        seed: its own.
    """

    name: str
    clean: Surrogate
    scene: Scene
    heads: tuple[Layers, ...]
    setting: Setting
    seed: tuple[int, ...]

    def make(self) -> Surrogate:
        """Plant."""
        rng = np.random.default_rng(self.seed)
        images = self.scene.claims[0].private.images
        recipe = Recipe(epochs=self.setting.epochs)
        batch = recipe.schedule(len(images)).batch
        if self.name == "tuned":
            schedule = Schedule(self.setting.mark_epochs, min(128, batch), rate=1e-3)
            network = plant_rotation(
                self.clean.network,
                images,
                self.heads,
                prepare=pixels,
                rng=rng,
                schedule=schedule,
            )
            return Surrogate(network, dim=_DIM)
        network = recipe.network.build(_DIM, rng)
        schedule = Schedule(2 * self.setting.epochs, batch, rate=recipe.rate)
        training, beside = _contrastive(network, pixels(images), recipe, rng)
        alternate(
            network,
            images,
            self.heads,
            training=training,
            beside=beside,
            prepare=pixels,
            rng=rng,
            schedule=schedule,
        )
        return Surrogate(network, dim=_DIM)


def _contrastive(
    network: nn.Module, inputs: Tensor, recipe: Recipe, rng: np.random.Generator
) -> tuple[Loss, list[nn.Module]]:
    """Return the contrastive loss of a network, and its projector."""
    with seeded_init(rng):
        projector = nn.Sequential(nn.Linear(_DIM, _DIM), nn.ReLU(), nn.Linear(_DIM, _DIM))
    draws, objective = generator(rng), InfoNCE(recipe.temperature)

    def loss(index: Tensor) -> Tensor:
        some = inputs[index].float() / 255
        z = projector(network(torch.cat([view(some, draws), view(some, draws)])))
        found: Tensor = objective(z[: len(some)], z[len(some) :])
        return found

    return loss, [projector]


@dataclass(frozen=True, slots=True, eq=False)
class Cast:
    """Everybody.

    Attributes:
        scene: the images.
        seed: of the key.
        clean: the owner's encoder before the mark.
        marked: by name of `MARKS`.
        copies: by mark and name.
        others: the independents.
    """

    scene: Scene
    seed: bytes
    clean: Surrogate
    marked: dict[str, Surrogate]
    copies: dict[str, Encoder]
    others: dict[str, Surrogate]


def measure(setting: Setting, context: Context) -> Measurement:
    """Train, mark, steal and judge.

    Raises:
        ConfigurationError: more images are asked for than there are.
        BenchError: a part failed.
    """
    data: dict[str, str] = {}
    scene = load_scene(setting.sizes, rng=context.rng(1), data=data)
    cast = _cast(scene, setting, context)
    judged = marks.make_all(
        list(_judged(cast, setting)), workers=setting.workers, progress=context.progress
    )
    return Measurement(
        {**_figures(judged, setting), **_utility(cast)},
        diagnostics={"null_max": {name: one.details["null_max"] for name, one in judged.items()}},
        data=data,
    )


def _cast(scene: Scene, setting: Setting, context: Context) -> Cast:
    root, seed = context.seed, context.rng(2).bytes(32)
    heads = draw_heads(KeyStream(seed, HEADS).planted(), _DIM)
    private = scene.claims[0].private.images
    owners = [marks.Trained("clean", private, setting.epochs, (root, 3))]
    others = marks.independents(scene, setting.independents, epochs=setting.epochs, root=root)
    together = partial(marks.make_all, workers=setting.workers, progress=context.progress)
    trained = together([*owners, *others])
    clean = trained.pop("clean")
    marked = together(
        [
            Marking(name, clean, scene, heads, setting, (root, 4, number))
            for number, name in enumerate(MARKS)
        ]
    )
    copies = together(list(_thieves(marked, scene, setting, root)))
    return Cast(scene, seed, clean, marked, copies, trained)


def _thieves(
    marked: Mapping[str, Surrogate], scene: Scene, setting: Setting, root: int
) -> Sequence[marks.Copied]:
    wanted = [(setting.objectives[0], budget) for budget in setting.budgets]
    wanted += [(other, setting.budgets[-1]) for other in setting.objectives[1:]]
    return [
        marks.Copied(
            f"{mark}.{objective}-{budget}",
            victim,
            scene.pool.images,
            budget,
            objective,
            setting.copy_epochs,
            (root, 5, budget),
        )
        for mark, victim in marked.items()
        for objective, budget in wanted
    ]


def _judged(cast: Cast, setting: Setting) -> Sequence[marks.Judged]:
    """Return everybody in every mode.

    Independents are judged as they are and behind an affine map; where they are the null of
    others, each is judged against the rest.
    """
    test, found = RotationWatermark(decoys=setting.decoys, least=min(250, setting.images)), []
    for mark, victim in cast.marked.items():
        copies = {
            name.removeprefix(f"{mark}."): one
            for name, one in cast.copies.items()
            if name.startswith(f"{mark}.")
        }
        suspects: dict[str, Encoder] = {"victim": victim, **copies, "clean": cast.clean}
        for mode, (hides, align) in MODES.items():
            anchors = _anchors(cast, mark, align)
            others = cast.others if mode in NULL_MODES else {}
            for name, one in {**suspects, **others}.items():
                null = tuple(other for other in cast.others.values() if other is not one)
                some = _evidence(cast, setting, anchors, null if align == "marked" else ())
                job = f"{mark}.{name}.{mode}"
                public = cast.scene.public.images[:500]
                found.append(marks.Judged(job, test, some, one, hides, public))
    return found


def _anchors(cast: Cast, mark: str, align: str) -> Anchors | None:
    images = cast.scene.public.images
    if align == "clean":
        return Anchors(images, cast.clean.embed(images), "clean")
    return Anchors(images, cast.marked[mark].embed(images), "marked") if align else None


def _evidence(
    cast: Cast, setting: Setting, anchors: Anchors | None, null: tuple[Encoder, ...]
) -> RotationEvidence:
    return RotationEvidence(
        images=cast.scene.claims[0].held.images[: setting.images],
        seed=cast.seed,
        commitment=Commitment(commitment_of(cast.seed), committed_at=0.0, suspect_seen_at=1.0),
        dim=_DIM,
        anchors=anchors,
        independents=null,
    )


def _figures(judged: Mapping[str, OwnershipResult], setting: Setting) -> dict[str, Metric]:
    """Return accuracies and p-values; of independents their mean, range and false alarms."""
    found: dict[str, Metric] = {}
    for name, result in judged.items():
        if ".independent-" not in name:
            found |= marks.metrics_of(name, result, "accuracy")
    for mark in MARKS:
        for mode in NULL_MODES:
            some = [
                judged[f"{mark}.independent-{number}.{mode}"]
                for number in range(setting.independents)
            ]
            shown = [one.statistic for one in some]
            found[f"accuracy.{mark}.independents.{mode}"] = Metric(
                float(np.mean(shown)), "accuracy", "lower", (min(shown), max(shown))
            )
            false = marks.rate([one.p_value <= marks.ALPHA for one in some])
            found[f"false_accusations.{mark}.{mode}"] = false
            five = marks.rate([one.p_value <= 0.05 for one in some])
            found[f"p_below_5.{mark}.{mode}"] = five
    return found


def _utility(cast: Cast) -> dict[str, Metric]:
    """Return downstream accuracy before and after the mark."""
    encoders = {"clean": cast.clean, **cast.marked}
    train, test = cast.scene.probe_train, cast.scene.probe_test
    return {
        f"downstream.{name}": Metric(marks.downstream(one, train, test), "accuracy", "higher")
        for name, one in encoders.items()
    }


def report(metrics: Mapping[str, Metric]) -> str:
    """Return one table for each mark: accuracy in percent and p, by suspect and mode."""
    parts = []
    for mark in MARKS:
        prefix = f"accuracy.{mark}."
        names = [name.removeprefix(prefix) for name in metrics if name.startswith(prefix)]
        suspects = dict.fromkeys(name.partition(".")[0] for name in names)
        lines = [
            [f"`{one}`", *(_cell(metrics, f"{mark}.{one}.{mode}") for mode in MODES)]
            for one in suspects
        ]
        parts.append(f"Mark `{mark}`.\n\n{markdown(['', *MODES], lines)}")
    title = (
        "Accuracy of the planted head in percent, and p. Published: near 50 for legitimate "
        "encoders; above 50, rising with queries, for copies (no exact figures)."
    )
    return "\n\n".join([title, *parts])


def _cell(metrics: Mapping[str, Metric], name: str) -> str:
    metric, p = metrics.get(f"accuracy.{name}"), metrics.get(f"p.{name}")
    if metric is None:
        return ""
    if p is None:
        low, high = metric.interval or (metric.value, metric.value)
        return f"{100 * metric.value:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    return f"{100 * metric.value:.1f}, {p.value:.2g}"


EXPERIMENT = Experiment(
    id="rotation-watermark",
    title="who answers to the heads of the rotation mark, by queries and obfuscation",
    scales={
        "smoke": Setting(
            sizes=Sizes(
                block=120,
                claims=1,
                references=0,
                public=150,
                probe_train=100,
                probe_test=60,
                pool=200,
                other=10,
            ),
            epochs=2,
            mark_epochs=4,
            copy_epochs=2,
            budgets=(100,),
            objectives=("mse",),
            independents=9,
            images=60,
            decoys=99,
            workers=1,
        ),
        "cpu": Setting(),
        "gpu": Setting(decoys=9999, workers=4),
    },
    measure=measure,
    promises=(
        *(
            f"{figure}.{mark}.victim.{mode}"
            for figure in ("accuracy", "p")
            for mark in MARKS
            for mode in MODES
        ),
        *(f"p.{mark}.mse-*.direct" for mark in MARKS),
        "false_accusations.*",
        "downstream.*",
    ),
    report=report,
)
