"""Copying classifiers at several budgets, for `attack run`: pools, figures and what is measured.

Fidelity is agreement: the share of test pictures on which copy and victim name the same class.
Of a live target, attacks that choose what to ask may choose from the whole pool, so their seeds
share only the answers to what they ask in common.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.attacks.base import Attack, Clock
from tollkeeper.bench.inputs import noted
from tollkeeper.bench.theft import victims
from tollkeeper.bench.theft.campaign import Campaign, Told, check_plan
from tollkeeper.bench.theft.gauge import hold_out
from tollkeeper.bench.theft.orders import Order, Ready, findings
from tollkeeper.bench.theft.pools import Pool, halved
from tollkeeper.bench.theft.tasks import stratified
from tollkeeper.bench.theft.tuning import part, prepared, scale_named
from tollkeeper.client import Tariff, open_classifier_target
from tollkeeper.data import load_images
from tollkeeper.encoders.base import Encoder, checked
from tollkeeper.encoders.classifiers.base import canonical
from tollkeeper.encoders.classifiers.load import load_classifier
from tollkeeper.encoders.metered import Meter, MeteredEncoder
from tollkeeper.errors import ConfigurationError, RefusalError, TollkeeperError
from tollkeeper.lab.progress import Step
from tollkeeper.types import Images

SETS: Mapping[str, int] = {
    **dict.fromkeys(("mnist", "fashion_mnist", "kmnist", "emnist_letters", "emnist_digits"), 1),
    **dict.fromkeys(("cifar10", "cifar100", "gtsrb32", "tiny_imagenet"), 3),
}
"""Data sets that can be asked, to their channels; Tiny ImageNet is halved to 32 pixels."""

MOST = 50_000
"""Pictures of a pool, unless a budget is larger."""

PROBES = 32
"""Pictures of the pool that are tried before a target is taken to refuse all."""

_UNTRAINED, _TEST = 1003, 2000  # Seeds of runs are below.

Shape = tuple[int, int, int]


def load_pool(name: str, *, most: int, rng: np.random.Generator, data: dict[str, str]) -> Pool:
    """Load the training part of a data set in random order, at most `most` pictures.

    Raises:
        ConfigurationError: unknown name.
        DataError: the data set is missing or damaged.
    """
    if name not in SETS:
        raise ConfigurationError(f"no pictures {name!r}; choose {', '.join(SETS)}")
    (found,) = noted(load_images, data, name, "train")
    chosen = rng.permutation(len(found.inputs))[:most]
    images = _halved_if_large(name, np.asarray(found.inputs)[..., : SETS[name]][chosen])
    return Pool(name, images, None if found.labels is None else found.labels[chosen])


def own_pool(name: str, images: Iterable[NDArray[np.uint8]], rng: np.random.Generator) -> Pool:
    """Make a pool of a user's images (h, w, 3) of any size: shuffled."""
    kept = list(images)
    return Pool(name, [kept[at] for at in rng.permutation(len(kept))], None)


def _halved_if_large(name: str, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return halved(images) if name == "tiny_imagenet" else images


def tensors(images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], shape: Shape) -> Images:
    """Return (h, w, 1 or 3) uint8 images as (n, *shape) float32 in [0, 1].

    Other sizes are scaled with Pillow's bilinear filter; color and gray become what is wanted.
    """
    channels, height, width = shape
    rows = np.empty((len(images), *shape), np.float32)
    for position, image in enumerate(images):
        small = np.asarray(image)
        if small.shape[:2] != (height, width):
            small = _scaled(small, width, height)
        rgb = np.repeat(small, 3, axis=2) if small.shape[2] == 1 else small
        rows[position] = canonical([rgb], (channels, height, width), name="the pool")[0]
    return rows


def _scaled(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    from PIL import Image

    flat = image[:, :, 0] if image.shape[2] == 1 else image
    picture = Image.fromarray(np.ascontiguousarray(flat))
    small = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    return small.reshape(height, width, -1)


@dataclass(frozen=True, slots=True, eq=False)
class Exam:
    """Pictures that copies are held against the victim on.

    Attributes:
        name: of the data set, or `held out`.
        inputs: (n, c, h, w).
        labels: (n,) true classes; None where there are none.
        answers: (n,) the victim's top classes.
    """

    name: str
    inputs: Images
    labels: NDArray[np.int64] | None
    answers: NDArray[np.intp]

    def figures(self, top: NDArray[np.intp]) -> dict[str, float]:
        """Return agreement with the victim, and accuracy where there are labels."""
        found = {f"agreement.{self.name}": float((top == self.answers).mean())}
        if self.labels is not None:
            found[f"accuracy.{self.name}"] = float((top == self.labels).mean())
        return found


@dataclass(frozen=True, slots=True)
class Marks:
    """Turns copies into figures."""

    exams: tuple[Exam, ...]

    @property
    def asked(self) -> int:
        """Pictures that the clean victim was asked."""
        return sum(len(exam.inputs) for exam in self.exams)

    def figures(self, encoder: Encoder) -> dict[str, float]:
        """Score a copy; its `fidelity`, which is mean agreement, comes first."""
        return self._named([_top(encoder, exam.inputs) for exam in self.exams])

    def victim(self) -> dict[str, float]:
        """Return the figures of the clean victim, which was asked already."""
        return self._named([exam.answers for exam in self.exams])

    def _named(self, tops: Sequence[NDArray[np.intp]]) -> dict[str, float]:
        found: dict[str, float] = {}
        for exam, top in zip(self.exams, tops, strict=True):
            found |= exam.figures(top)
        agreed = [value for name, value in found.items() if name.startswith("agreement.")]
        return {"fidelity": sum(agreed) / len(agreed), **found}


def _top(encoder: Encoder, inputs: Images) -> NDArray[np.intp]:
    found: NDArray[np.intp] = np.argmax(
        checked(encoder.embed(inputs), n=len(inputs), dim=encoder.dim), axis=1
    )
    return found


def figure_names(tasks: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all figures of a run."""
    named = (f"{family}.{task}" for task in tasks for family in ("accuracy", "agreement"))
    return ("fidelity", *named) if tasks else ("fidelity", "agreement.held out")


@contextmanager
def opened(order: Order, *, clock: Clock, told: Told) -> Iterator[Ready]:
    """Prepare a campaign against a classifier, as `orders.opened` does against an encoder.

    Raises:
        ConfigurationError: an order that makes no sense; torch is missing.
        DataError: a data set is missing.
        TollkeeperError: the target refused or failed when asked for its classes or for scoring.
    """
    del clock
    tasks = order.tasks or ()
    _check(order, tasks)
    scale = scale_named(order.scale)
    with ExitStack() as stack:
        local = (
            None
            if order.is_live
            else victims.in_process(order.target, accounts=order.accounts, load=load_classifier)
        )
        reference = load_classifier(order.reference) if order.reference else None
        shape = _shape(order, tasks, (local and local.clean, reference))
        told(order.pool.name, Step("reading", 0, 1))
        pool = Pool(order.pool.name, tensors(order.pool.inputs, shape), order.pool.labels)
        attack = _labeled(
            prepared(order.attack, scale=scale, text=False, settings=order.settings), pool
        )
        held_out: Any = ()
        if not tasks:
            pool, held_out = hold_out(pool)
            attack = _labeled(attack, pool)
        accounts = max(1, len(order.keys)) if order.is_live else order.accounts
        check_plan(attack, pool, order.budgets, accounts=accounts, seeds=order.seeds)
        victim = local or stack.enter_context(_live(order, pool, reference))
        campaign = Campaign(
            attack=attack,
            victim=victim,
            pool=pool,
            budgets=order.budgets,
            seeds=order.seeds,
            price=Tariff(per_input=order.price),
            whole_pool=_chooses(attack),
        )
        bare = _blank(attack, shape, victim.encoder.dim)
        told("the victim", Step("scoring", 0, 1))
        clean = reference or victim.clean
        marks = _marks(
            clean,
            shape,
            tasks,
            held_out,
            test=scale.test,
            data=order.data,
            may_refuse=order.is_live and reference is None,
        )
        untrained = marks.figures(bare)
        found = findings(
            order,
            attack,
            campaign,
            tasks,
            victim_figures=marks.victim(),
            untrained=untrained,
            asked=marks.asked,
            copies="classifier",
        )
        yield Ready(replace(campaign, untrained=untrained), marks, found)


def _check(order: Order, tasks: Sequence[str]) -> None:
    if order.profile is not None:
        raise ConfigurationError("--profile guards encoders; serve the classifier and name its URL")
    if isinstance(order.pool.inputs[0], str):
        raise ConfigurationError(f"{order.attack} asks pictures, got texts")
    for name in tasks:
        if name not in SETS:
            raise ConfigurationError(f"no pictures {name!r} to score on; choose {', '.join(SETS)}")


def _shape(order: Order, tasks: Sequence[str], known: Sequence[Any]) -> Shape:
    """Return what the victim takes: as it says itself, else as the pictures are."""
    for classifier in known:
        if classifier is not None:
            if classifier.input_shape is None:
                raise ConfigurationError(f"{classifier.name} takes no pictures")
            shape: Shape = classifier.input_shape
            return shape
    name = tasks[0] if tasks else order.pool.name
    side = {1: 28, 3: 32}
    channels = SETS.get(name, 3)
    return channels, side[channels], side[channels]


def _labeled(attack: Attack, pool: Pool) -> Attack:
    """Hand the pool's classes to an attack that can use them."""
    if "labels" not in {one.name for one in fields(attack)}:  # type: ignore[arg-type]
        return attack
    labeled: Attack = replace(attack, labels=pool.labels)  # type: ignore[type-var]
    return labeled


def _chooses(attack: Attack) -> bool:
    """Return whether an attack needs more pictures than it asks, to choose from."""
    from tollkeeper.attacks.classifier.knockoff import Knockoff

    return not isinstance(getattr(attack, "inner", attack), Knockoff)


def _live(order: Order, pool: Pool, reference: Encoder | None) -> Any:
    """Open the target; its classes are those of the reference, or told by the first answer."""
    first = min(PROBES, *order.budgets, len(pool.inputs))
    return victims.live(
        order.target,
        order.keys,
        folder=order.folder,
        price=order.price,
        caps=order.caps,
        concurrency=order.concurrency,
        probe=pool.inputs[0],
        spares=list(pool.inputs[1:first]),
        dim=None if reference is None else reference.dim,
        connect=open_classifier_target,
    )


def _marks(
    clean: Encoder,
    shape: Shape,
    tasks: Sequence[str],
    held_out: Images,
    *,
    test: int,
    data: dict[str, str],
    may_refuse: bool,
) -> Marks:
    """Ask the clean victim about the test parts of data sets, or about what was held out.

    What it refuses of them, where it may, is left out.
    """
    told = _told if may_refuse else _all_told
    exams = []
    for name in tasks:
        inputs, labels = _exam(name, shape, test, data)
        if labels.max() >= clean.dim:
            raise ConfigurationError(
                f"{clean.name} has {clean.dim} classes, and {name} has more: it cannot be scored on"
            )
        at, answers = told(clean, inputs)
        exams.append(Exam(name, inputs[at], labels[at], answers))
    if not tasks:
        at, answers = told(clean, held_out)
        exams.append(Exam("held out", held_out[at], None, answers))
    return Marks(tuple(exams))


_Heard = tuple[NDArray[np.intp], NDArray[np.intp]]


def _all_told(clean: Encoder, inputs: Images) -> _Heard:
    """Return the positions of all inputs, and the top classes of the answers to them."""
    return np.arange(len(inputs)), _top(clean, inputs)


def _told(clean: Encoder, inputs: Images) -> _Heard:
    """Do as `_all_told` with a target that may refuse some inputs, or from some time on all.

    Raises:
        RefusalError: it answered nothing.
    """
    from tollkeeper.attacks.classifier.transfer import Line

    try:
        found = Line(MeteredEncoder(clean, meter=Meter(len(inputs))))(inputs)
    except RefusalError as error:
        raise RefusalError(
            f"{error}; without its answers to test pictures copies cannot be scored: name a "
            "--reference"
        ) from error
    return found.index, np.argmax(found.answers, axis=1)


def _exam(
    name: str, shape: Shape, count: int, data: dict[str, str]
) -> tuple[Images, NDArray[np.int64]]:
    """Return test pictures of a data set with their labels, every class with its share."""
    split = "val" if name == "tiny_imagenet" else "test"
    (found,) = noted(load_images, data, name, split)
    assert found.labels is not None
    chosen = stratified(found.labels, count, rng=np.random.default_rng(_TEST))
    images = _halved_if_large(name, np.asarray(found.inputs)[..., : SETS[name]][chosen])
    return tensors(images, shape), found.labels[chosen]


def _blank(attack: Attack, shape: Shape, classes: int) -> Encoder:
    """Return the copy before training.

    Raises:
        ConfigurationError: the network cannot be built, or does not read such pictures.
    """
    from tollkeeper.encoders.lab.torch_classifier import TorchClassifier

    rng, names = np.random.default_rng(_UNTRAINED), tuple(map(str, range(classes)))
    try:
        network = part(attack, "network").build(shape, classes, rng)
        bare = TorchClassifier(network, input_shape=shape, classes=names, name="untrained")
        bare.embed(np.zeros((2, *shape), np.float32))
    except (TollkeeperError, ValueError, RuntimeError, ZeroDivisionError) as error:
        # Torch tells wrong sizes in many ways; all of them come from the settings.
        raise ConfigurationError(f"the copy's network cannot be used: {error}") from error
    return bare
