"""Experiment `sslguard`: whose embeddings make the decoder say the secret.

Three marked encoders from one clean encoder: with a learned key and two defects of the released
code (`released`), with a learned key and without them (`corrected`), and with a key that is drawn
and not learned (`drawn`, ours). Thieves begin with random weights, or with the weights that the
shadow began with, as from one public checkpoint.

Source: Cong, He and Zhang, CCS 2022. Published: a rate of 0% for clean encoders and 100% for marked
ones (recalled); a ResNet-50 extracted from a marked encoder has 100% (Lv et al., "MEA-Defender",
S&P 2024, whose table III has 76.50% downstream accuracy for the marked and 76.16% for the copy).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from torch import Tensor, nn

from tollkeeper.attacks.surrogate import Surrogate, pixels
from tollkeeper.audit.base import OwnershipResult
from tollkeeper.audit.lab.sslguard import Planted, Recipe, plant_sslguard
from tollkeeper.audit.watermarks.alignment import Anchors
from tollkeeper.audit.watermarks.decoys import Commitment, commitment_of, direction_p
from tollkeeper.audit.watermarks.sslguard import Key, SslGuard, SslGuardEvidence, draw_key
from tollkeeper.bench.experiment import Context, Experiment, Measurement, Metric
from tollkeeper.bench.ownership import marks
from tollkeeper.bench.ownership.networks import Small
from tollkeeper.bench.ownership.scene import SIDE, Scene, Sizes, load_scene
from tollkeeper.bench.predict.beside import markdown
from tollkeeper.encoders.base import Encoder

SMALL = Recipe(
    epochs=10, batch=64, rate=1e-2, shadow_rate=5e-2, decoder_rate=5e-2, trigger_rate=1e-1
)
"""For networks of 16-pixel images; the published rates are for a ResNet-50 and batches of two."""

MARKS: Mapping[str, Recipe] = {
    "released": replace(SMALL, released=True),
    "corrected": SMALL,
    "drawn": replace(SMALL, learns_key=False),
}
MODES: Mapping[str, tuple[str, str]] = {
    "direct": ("none", ""),
    "permuted": ("shuffle", ""),
    "affine": ("affine", ""),
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
        mark_epochs: of planting.
        copy_epochs: of thieves.
        budgets: queries of thieves that begin with random weights, ascending; those that begin as
            the shadow ask the last.
        independents: encoders that never met the victim; at least 9, as each is judged by the rest.
        private: images for the trigger.
        shown: public images that the shadow learns from.
        workers: processes, of one thread each.
    """

    sizes: Sizes = field(default_factory=lambda: Sizes(claims=1, references=0, other=10))
    epochs: int = 100
    mark_epochs: int = 10
    copy_epochs: int = 50
    budgets: tuple[int, ...] = (500, 2000, 8000)
    independents: int = 20
    private: int = 100
    shown: int = 2000
    workers: int = 2


@dataclass(frozen=True, slots=True, eq=False)
class Marking:
    """An encoder to be marked.

    Attributes:
        name: of `MARKS`.
        clean: to start from.
        shadow: what the stand-in for a thief begins as.
        scene: with the private images.
        key: drawn; learning starts there.
        setting: how long.
        seed: its own.
    """

    name: str
    clean: Surrogate
    shadow: nn.Module
    scene: Scene
    key: Key
    setting: Setting
    seed: tuple[int, ...]

    def make(self) -> Planted:
        """Plant."""
        world = self.scene.world.images
        return plant_sslguard(
            self.clean.network,
            marks.From(self.shadow).build(_DIM, np.random.default_rng(0)),
            _private(self.scene, self.setting),
            world[self.setting.sizes.pool :][: self.setting.shown],
            self.key,
            prepare=_prepare,
            rng=np.random.default_rng(self.seed),
            recipe=replace(MARKS[self.name], epochs=self.setting.mark_epochs),
        )


def _prepare(images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    scaled: Tensor = pixels(images).float() / 255
    return scaled


def _private(scene: Scene, setting: Setting) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return scene.claims[0].private.images[: setting.private]


@dataclass(frozen=True, slots=True, eq=False)
class Cast:
    """Everybody.

    Attributes:
        scene: the images.
        seed: of the drawn key.
        clean: the owner's encoder before the mark.
        planted: by name of `MARKS`.
        copies: by mark and name.
        others: the independents.
    """

    scene: Scene
    seed: bytes
    clean: Surrogate
    planted: dict[str, Planted]
    copies: dict[str, Encoder]
    others: dict[str, Surrogate]

    def victim(self, mark: str) -> Surrogate:
        """Return a marked encoder."""
        return Surrogate(self.planted[mark].marked, dim=_DIM)


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
    metrics = {**_figures(judged, setting), **_utility(cast), **_bound(cast, setting)}
    return Measurement(metrics, data=data)


def _cast(scene: Scene, setting: Setting, context: Context) -> Cast:
    root, seed = context.seed, context.rng(2).bytes(32)
    key, shadow = draw_key(seed, _DIM, (SIDE, SIDE, 3)), Small().build(_DIM, context.rng(6))
    private = scene.claims[0].private.images
    others = marks.independents(scene, setting.independents, epochs=setting.epochs, root=root)
    together = partial(marks.make_all, workers=setting.workers, progress=context.progress)
    trained = together([marks.Trained("clean", private, setting.epochs, (root, 3)), *others])
    clean = trained.pop("clean")
    planted = together(
        [
            Marking(name, clean, shadow, scene, key, setting, (root, 4, number))
            for number, name in enumerate(MARKS)
        ]
    )
    cast = Cast(scene, seed, clean, planted, {}, trained)
    thieves = [
        thief
        for mark in MARKS
        for thief in _thieves(mark, cast.victim(mark), shadow, scene, setting)
    ]
    return replace(cast, copies=together(thieves))


def _thieves(
    mark: str, victim: Surrogate, shadow: nn.Module, scene: Scene, setting: Setting
) -> Sequence[marks.Copied]:
    most, pool, epochs = setting.budgets[-1], scene.pool.images, setting.copy_epochs
    found = [
        marks.Copied(f"{mark}.mse-{budget}", victim, pool, budget, "mse", epochs, (5, budget))
        for budget in setting.budgets
    ]
    for objective in ("mse", "cosine"):
        name = f"{mark}.{objective}-{most}-as-shadow"
        found.append(
            marks.Copied(name, victim, pool, most, objective, epochs, (6, most), start=shadow)
        )
    return found


def _judged(cast: Cast, setting: Setting) -> Sequence[marks.Judged]:
    """Return everybody in every mode; each independent is judged against the rest."""
    test, found = SslGuard(least=min(50, setting.private)), []
    public = cast.scene.public.images
    for mark in MARKS:
        copies = {
            name.removeprefix(f"{mark}."): one
            for name, one in cast.copies.items()
            if name.startswith(f"{mark}.")
        }
        victim = cast.victim(mark)
        suspects: dict[str, Encoder] = {"victim": victim, **copies, "clean": cast.clean}
        for mode, (hides, align) in MODES.items():
            anchors = None
            if align == "clean":
                anchors = Anchors(public, cast.clean.embed(public), "clean")
            elif align:
                anchors = Anchors(public, victim.embed(public), "marked")
            others = cast.others if mode in NULL_MODES else {}
            for name, one in {**suspects, **others}.items():
                null = tuple(other for other in cast.others.values() if other is not one)
                some = _evidence(cast, setting, mark, anchors, null)
                job = f"{mark}.{name}.{mode}"
                found.append(marks.Judged(job, test, some, one, hides, public[:500]))
    return found


def _evidence(
    cast: Cast,
    setting: Setting,
    mark: str,
    anchors: Anchors | None,
    null: tuple[Encoder, ...],
) -> SslGuardEvidence:
    learned = cast.planted[mark].key if MARKS[mark].learns_key else None
    digest = commitment_of(cast.seed) if learned is None else learned.digest
    return SslGuardEvidence(
        images=_private(cast.scene, setting),
        commitment=Commitment(digest, committed_at=0.0, suspect_seen_at=1.0),
        dim=_DIM,
        seed=cast.seed if learned is None else b"",
        learned=learned,
        anchors=anchors,
        independents=null,
    )


def _figures(judged: Mapping[str, OwnershipResult], setting: Setting) -> dict[str, Metric]:
    """Return rates, cosines and p-values; of independents the largest, and false alarms."""
    found: dict[str, Metric] = {}
    for name, result in judged.items():
        if ".independent-" not in name:
            found |= marks.metrics_of(name, result, "cosine")
            share = result.details["watermark_rate"]
            found[f"rate.{name}"] = Metric(share, "share", "higher")
    for mark in MARKS:
        for mode in NULL_MODES:
            some = [
                judged[f"{mark}.independent-{number}.{mode}"]
                for number in range(setting.independents)
            ]
            name = f"{mark}.independents.{mode}"
            rates = [one.details["watermark_rate"] for one in some]
            shown = [one.statistic for one in some]
            found[f"rate.{name}"] = Metric(float(np.mean(rates)), "share", "lower")
            found[f"cosine.{name}"] = Metric(
                float(np.mean(shown)), "cosine", "lower", (min(shown), max(shown))
            )
            found[f"false_accusations.{mark}.{mode}"] = marks.rate(
                [one.p_value <= marks.ALPHA for one in some]
            )
    return found


def _bound(cast: Cast, setting: Setting) -> dict[str, Metric]:
    """Return how often the random-vector bound would accuse an independent.

    For a drawn key that bound is exact; for a learned one it is what the paper leans on.
    """
    found = {}
    for mark in MARKS:
        key = cast.planted[mark].key
        asked = key.stamp(_private(cast.scene, setting))
        flags = []
        for one in cast.others.values():
            codes = key.decoder(one.embed(asked)).astype(np.float64)
            said = (codes / np.linalg.norm(codes, axis=1, keepdims=True)).mean(axis=0)
            flags.append(direction_p(said, key.secret) <= 0.05)
        found[f"random_vector_p_below_5.{mark}"] = marks.rate(flags)
    return found


def _utility(cast: Cast) -> dict[str, Metric]:
    """Return downstream accuracy before and after the mark."""
    encoders = {"clean": cast.clean, **{mark: cast.victim(mark) for mark in MARKS}}
    train, test = cast.scene.probe_train, cast.scene.probe_test
    return {
        f"downstream.{name}": Metric(marks.downstream(one, train, test), "accuracy", "higher")
        for name, one in encoders.items()
    }


def report(metrics: Mapping[str, Metric]) -> str:
    """Return one table for each mark: rate, cosine and p, by suspect and mode."""
    title = (
        "Watermark rate / mean cosine, p. Published rates: clean encoders 0% and marked ones 100% "
        "(recalled), copies 100% (as MEA-Defender measured it)."
    )
    parts = [title]
    for mark in MARKS:
        prefix = f"rate.{mark}."
        names = [name.removeprefix(prefix) for name in metrics if name.startswith(prefix)]
        lines = [
            [f"`{one}`", *(_cell(metrics, f"{mark}.{one}.{mode}") for mode in MODES)]
            for one in dict.fromkeys(name.partition(".")[0] for name in names)
        ]
        parts.append(f"Mark `{mark}`.\n\n{markdown(['', *MODES], lines)}")
    return "\n\n".join(parts)


def _cell(metrics: Mapping[str, Metric], name: str) -> str:
    if f"rate.{name}" not in metrics:
        return ""
    shown = f"{100 * metrics[f'rate.{name}'].value:.0f}% / {metrics[f'cosine.{name}'].value:.3f}"
    p = metrics.get(f"p.{name}")
    return shown if p is None else f"{shown}, {p.value:.1g}"


EXPERIMENT = Experiment(
    id="sslguard",
    title="whose embeddings make SSLGuard's decoder say the secret, as published and corrected",
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
            mark_epochs=2,
            copy_epochs=2,
            budgets=(100,),
            independents=9,
            private=64,
            shown=128,
            workers=1,
        ),
        "cpu": Setting(),
        "gpu": Setting(mark_epochs=50, shown=8000, workers=4),
    },
    measure=measure,
    promises=(
        *(
            f"{figure}.{mark}.victim.{mode}"
            for figure in ("rate", "cosine", "p")
            for mark in MARKS
            for mode in MODES
        ),
        "false_accusations.*",
        "random_vector_p_below_5.*",
        "downstream.*",
    ),
    report=report,
)
