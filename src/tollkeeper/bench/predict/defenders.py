"""The detectors under comparison: each fitted from nothing, and timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import nn

from tollkeeper.bench.predict.scene import Scene
from tollkeeper.bench.predict.victims import Training
from tollkeeper.detectors.base import Detector
from tollkeeper.detectors.edm import Edm
from tollkeeper.detectors.floors import ColorDetail, Energy, MaxSoftmax, PixelShare
from tollkeeper.detectors.fused import Fused
from tollkeeper.detectors.lab.edm import fit_edm
from tollkeeper.detectors.lab.fdinet import fit_fdinet
from tollkeeper.detectors.lab.layers import Layers
from tollkeeper.detectors.lab.mae import MaeLayout
from tollkeeper.detectors.lab.mae_fit import MaeRecipe, train_mae
from tollkeeper.detectors.lab.outlier_exposure import fit_outlier_exposure
from tollkeeper.detectors.lab.same import SameRecipe, fit_same, same_x
from tollkeeper.detectors.outlier_exposure import OutlierExposure
from tollkeeper.detectors.same import RESTORED, Same
from tollkeeper.encoders.lab.torch_classifier import TorchClassifier
from tollkeeper.graphs import Graph
from tollkeeper.lab.conv3 import Conv3
from tollkeeper.lab.fit import AdamW, Schedule
from tollkeeper.lab.progress import silent
from tollkeeper.types import Images, Probabilities

SAME_FORMS: Mapping[str, float] = {"same": 0.99, "same-x": 1.0, "same-y": 0.0}
"""Names to alpha."""


@dataclass(frozen=True, slots=True)
class Fitting:
    """How long detectors are trained, and how large they are.

    OE's victim, EDM's members and SAME's auxiliary model are classifiers of the victim's task, and
    are trained as the victim is: network, epochs, rate and augmentation. What a defense loses in
    accuracy is then the defense's.

    Attributes:
        mae_epochs: of the autoencoder.
        mae_warmup: of these.
        mae_rate: its learning rate.
        mae_width: of its tokens.
        mae_patch: pixels a side.
        mae_encoder: blocks.
        mae_decoder: blocks.
        mae_heads: of attention.
        mae_ratios: mask ratios of its batches.
        fused_patch: pixels a side in the fused score's own autoencoder.
        edm_members: of EDM's ensemble.
        anchors: of FDINet, for each class.
    """

    mae_epochs: int = 40
    mae_warmup: int = 3
    mae_rate: float = 2e-3
    mae_width: int = 64
    mae_patch: int = 4
    mae_encoder: int = 3
    mae_decoder: int = 1
    mae_heads: int = 4
    mae_ratios: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    fused_patch: int = 7
    edm_members: int = 3
    anchors: int = 100

    def recipe(self, training: Training) -> SameRecipe:
        """Return how SAME is fitted to a victim that was trained so."""
        layout = MaeLayout(
            patch=self.mae_patch,
            width=self.mae_width,
            encoder=self.mae_encoder,
            decoder=self.mae_decoder,
            heads=self.mae_heads,
        )
        schedule = Schedule(
            epochs=self.mae_epochs,
            batch=128,
            rate=self.mae_rate,
            optimizer=AdamW(),
            warmup=self.mae_warmup,
        )
        return SameRecipe(
            mae=MaeRecipe(layout=layout, ratios=self.mae_ratios, schedule=schedule),
            schedule=training.schedule(),
        )


@dataclass(slots=True)
class Defense:
    """Fitted detectors of one victim.

    Attributes:
        detectors: by name.
        seconds: that each took to train, from nothing; those that share networks share them.
        own: what answers where a detector brings a victim of its own, by its name.
    """

    detectors: dict[str, Detector] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    own: dict[str, Callable[[Images], Probabilities]] = field(default_factory=dict)

    def autoencoder(self, name: str) -> Graph:
        """Return the autoencoder inside SAME or the fused score: images to `restored`."""
        detector = self.detectors[name]
        assert isinstance(detector, Same | Fused)
        return Graph(detector.pack()[1]["reconstruction"], name=f"{name}'s autoencoder")

    @property
    def same(self) -> Same:
        """Return SAME as published."""
        found = self.detectors["same"]
        assert isinstance(found, Same)
        return found

    def restore(self, name: str, images: Images) -> Images:
        """Return (n, c, h, w) images as a detector's autoencoder restores them three times over."""
        autoencoder = self.autoencoder(name)
        for _ in range(3):
            parts = [images[start : start + 256] for start in range(0, len(images), 256)]
            made = [autoencoder.run(part)[RESTORED] for part in parts]
            images = np.clip(np.concatenate(made), 0, 1)
        return images


LOGITS = "logits"
FLOORS = ("max-softmax", "energy", "pixel-share", "color-detail")
"""What a learned detector must beat to be worth its cost; the last of colored pictures alone."""

Fit = Callable[["Fitter"], Iterator[Detector]]


@dataclass(frozen=True, slots=True, eq=False)
class Fitter:
    """What detectors are fitted on.

    Attributes:
        scene: its training images, and those from outside.
        victim: who answers.
        graph: its network to `logits`.
        answers: (n, k) the victim's, to the training images.
        training: of the victim.
        fitting: sizes.
        rng: all randomness of one detector.
    """

    scene: Scene
    victim: TorchClassifier
    graph: Graph
    answers: Probabilities
    training: Training
    fitting: Fitting
    rng: np.random.Generator

    def network(self, rng: np.random.Generator) -> nn.Module:
        """Return an untrained classifier of the victim's kind."""
        return self.training.build(self.scene, rng)


def _same(fitter: Fitter) -> Iterator[Detector]:
    scene = fitter.scene
    found = fit_same(
        scene.train,
        scene.train_labels,
        fitter.answers,
        classes=len(scene.classes),
        make_network=fitter.network,
        recipe=fitter.fitting.recipe(fitter.training),
        rng=fitter.rng,
        progress=silent,
    )
    yield from (found.weighted(alpha) for alpha in SAME_FORMS.values())


def _fused(fitter: Fitter) -> Iterator[Detector]:
    """Fit as `tollkeeper detectors fit` does: an autoencoder of larger patches, honest data only."""
    scene, fitting, victim = fitter.scene, fitter.fitting, fitter.victim
    coarse = replace(fitting, mae_patch=fitting.fused_patch).recipe(fitter.training).mae
    network = train_mae(scene.train, recipe=coarse, rng=fitter.rng, progress=silent)
    middle = len(scene.reference) * 3 // 5
    known, tails = scene.reference[:middle], scene.reference[middle:]
    yield Fused.fitted(
        same_x(network, classes=len(scene.classes)),
        known,
        victim.embed(known),
        calibration_images=tails,
        calibration_answers=victim.embed(tails),
    )


def _oe(fitter: Fitter) -> Iterator[Detector]:
    scene = fitter.scene
    yield fit_outlier_exposure(
        scene.train,
        scene.train_labels,
        scene.outside,
        classes=len(scene.classes),
        make_network=fitter.network,
        rng=fitter.rng,
        schedule=fitter.training.schedule(),
    )


def _edm(fitter: Fitter) -> Iterator[Detector]:
    scene = fitter.scene
    yield fit_edm(
        scene.train,
        scene.train_labels,
        scene.outside,
        # Classes of the other set beyond the victim's are folded: any function of the input hashes.
        scene.outside_labels % len(scene.classes),
        classes=len(scene.classes),
        make_network=fitter.network,
        rng=fitter.rng,
        members=fitter.fitting.edm_members,
        schedule=fitter.training.schedule(),
    )


def _floors(fitter: Fitter) -> Iterator[Detector]:
    scene, classes = fitter.scene, len(fitter.scene.classes)
    yield MaxSoftmax(scene.shape, classes)
    yield Energy(fitter.graph, classes=classes)
    yield PixelShare.fitted(scene.train, classes=classes)
    if scene.shape[0] > 1:
        yield ColorDetail(scene.shape, classes)


def _fdinet(fitter: Fitter) -> Iterator[Detector]:
    scene, network = fitter.scene, fitter.victim.network
    # Its layers are those of this architecture.
    if isinstance(network, Conv3):
        yield fit_fdinet(
            scene.train,
            fitter.answers,
            scene.outside,
            fitter.victim.embed(scene.outside),
            layers=Layers(network),
            rng=fitter.rng,
            anchors=fitter.fitting.anchors,
        )


FITS: Mapping[str, Fit] = {
    "floors": _floors,
    "same": _same,
    "oe": _oe,
    "edm": _edm,
    "fdinet": _fdinet,
    "fused": _fused,
}
"""What is fitted; `same` gives all of `SAME_FORMS`."""


def fit_all(
    scene: Scene,
    victim: TorchClassifier,
    graph: Graph,
    training: Training,
    fitting: Fitting,
    *,
    rng: np.random.Generator,
    clock: Callable[[], float],
    progress: Callable[[str], None],
    names: Sequence[str] = tuple(FITS),
) -> Defense:
    """Fit detectors from nothing.

    Args:
        scene: its images.
        victim: who answers.
        graph: its network to `logits`.
        training: how it was trained.
        fitting: sizes.
        rng: all randomness; each detector's is its own.
        clock: monotonic seconds.
        progress: told what is fitted next.
        names: of `FITS`; one detector's randomness does not depend on which others there are.
    """
    defense, answers = Defense(), victim.embed(scene.train)
    for (name, fit), draws in zip(FITS.items(), rng.spawn(len(FITS)), strict=True):
        if name not in names:
            continue
        progress(f"fitting {name}")
        began = clock()
        for detector in fit(Fitter(scene, victim, graph, answers, training, fitting, draws)):
            defense.detectors[detector.name] = detector
            defense.seconds[detector.name] = clock() - began
            if isinstance(detector, OutlierExposure | Edm):
                defense.own[detector.name] = detector.answer
    return defense
