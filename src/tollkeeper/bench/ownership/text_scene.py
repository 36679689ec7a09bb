"""A text service, its marks, those who copy it and those who do not."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tollkeeper.attacks.text import OnePassAdam, TextDistillation
from tollkeeper.audit.watermarks.embmarker import EmbMarker
from tollkeeper.audit.watermarks.espew import ESpeW
from tollkeeper.audit.watermarks.served import TextMark
from tollkeeper.audit.watermarks.trigger_tests import TriggerEvidence
from tollkeeper.audit.watermarks.triggers import TriggerKey, band
from tollkeeper.audit.watermarks.warden import Warden, spread
from tollkeeper.audit.watermarks.wet import Wet, WetEvidence, WetKey
from tollkeeper.bench.figures.encoders import lsa
from tollkeeper.bench.inputs import noted
from tollkeeper.bench.ownership.text_attacks import (
    Cse,
    Recorded,
    Rewriter,
    Rewritten,
    affine,
    permuted,
    truncated,
)
from tollkeeper.bench.theft.probes import Labels, linear_probe
from tollkeeper.bench.theft.tasks import stratified
from tollkeeper.data import load_text
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.callable_encoder import CallableEncoder
from tollkeeper.encoders.load import load_encoder
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.fit import Schedule
from tollkeeper.types import Embeddings

MARKS = ("embmarker", "warden", "espew", "wet")
TARGETS = 5
"""Of WARDEN: the R of the released scripts."""

_PUBLIC = 128
"""Width of the public encoder of CSE; .3 seconds to fit, no better for CSE if wider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is measured.

    Attributes:
        datasets: `ag_news`, `sst2`.
        victim: SPEC of the service's encoder.
        pool: texts a thief asks.
        probe: texts, of those, that the linear probe is fitted on.
        test: texts that it is judged on.
        epochs: of a copy.
        seeds: owner's seeds, each with copies of its own.
        chosen: groups of four triggers for EmbMarker and ESpeW.
        warden_chosen: for each target of WARDEN.
        directions: that CSE projects out.
        rewrites: of a text, by the thief who averages them.
        decoys: sets of the test that asks decoys.
        set_texts: of each of those sets.
        maps: of the test of WET.
        draws: of tests by permutation.
        keys: never planted, by which innocent suspects are tested.
        workers: processes, of one thread each.
    """

    datasets: tuple[str, ...] = ("ag_news", "sst2")
    victim: str = "builtin:text"
    pool: int = 6000
    probe: int = 3000
    test: int = 1800
    epochs: int = 10
    seeds: int = 2
    chosen: int = 5
    warden_chosen: int = 2
    directions: int = 50
    rewrites: int = 5
    decoys: int = 199
    set_texts: int = 20
    maps: int = 999
    draws: int = 9999
    keys: int = 400
    workers: int = 2


@dataclass(frozen=True, eq=False)
class Scene:
    """One data set and its service.

    Attributes:
        setting: of the experiment.
        service: without a mark.
        public: texts that the owner takes frequencies from; nobody asks them.
        pool: n texts of the thief.
        labels: (n,).
        test: m texts.
        test_labels: (m,).
    """

    setting: Setting
    service: Encoder
    public: tuple[str, ...]
    pool: tuple[str, ...]
    labels: Labels
    test: tuple[str, ...]
    test_labels: Labels

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The band that triggers are of."""
        return band(self.public)

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """All words, of which the published test makes its benign texts."""
        return band(self.public, low=0, high=1, shortest=1)

    @property
    def target_texts(self) -> tuple[str, ...]:
        """Secret texts whose embeddings are the targets."""
        return self.public[:TARGETS]

    @cached_property
    def targets(self) -> Embeddings:
        """Embeddings of those, (R, d)."""
        return self.service.embed(self.target_texts)

    def key(self, seed: bytes, *, several: bool) -> TriggerKey:
        """Return the trigger key of a seed, for one target or several."""
        if several:
            return TriggerKey(seed, self.words, targets=TARGETS, chosen=self.setting.warden_chosen)
        return TriggerKey(seed, self.words, chosen=self.setting.chosen)

    def mark(self, name: str, seed: bytes) -> TextMark:
        """Return a mark of `MARKS`.

        Raises:
            ConfigurationError: there is none of that name.
        """
        if name == "wet":
            return Wet(WetKey(seed, self.service.dim))
        key = self.key(seed, several=name == "warden")
        if name == "warden":
            return Warden(key, spread(self.targets))
        if name not in MARKS:
            raise ConfigurationError(f"no mark {name!r}; choose {', '.join(MARKS)}")
        return (EmbMarker if name == "embmarker" else ESpeW)(key, self.targets[0])

    def asked(self, key: TriggerKey) -> TriggerEvidence:
        """Return evidence for a test that asks the suspect about the targets."""
        texts = self.target_texts[: key.targets]
        return TriggerEvidence(key, target_texts=texts, vocabulary=self.vocabulary)

    def held(self, key: TriggerKey) -> TriggerEvidence:
        """Return evidence for a test that compares with the owner's vectors."""
        targets: NDArray[np.floating] = self.targets[: key.targets]
        if key.targets > 1:
            targets = spread(targets)
        return TriggerEvidence(key, targets=targets, vocabulary=self.vocabulary)

    @cached_property
    def clean(self) -> Embeddings:
        """What the service answers to the test texts without a mark, (m, d)."""
        return self.service.embed(self.test)

    def mapped(self, key: WetKey, *, texts: int | None = None) -> WetEvidence:
        """Return evidence for the test of WET, on texts that the thief did not ask, or some."""
        return WetEvidence(key, self.test[:texts], self.clean[:texts])

    def accuracy(self, encoder: Encoder) -> float:
        """Return the accuracy of a linear probe on an encoder's embeddings."""
        count = self.setting.probe
        known = encoder.embed(self.pool[:count])
        predicted = linear_probe(known, self.labels[:count], encoder.embed(self.test))
        return float((predicted == self.test_labels).mean())


def load_scene(
    name: str, setting: Setting, *, rng: np.random.Generator, data: dict[str, str]
) -> Scene:
    """Load a data set: what the owner knows, what thieves ask and what copies are judged on.

    Of AG News the first half of the test split is the owner's, of SST-2 the validation split.

    Raises:
        ConfigurationError: an unknown data set, or too few texts.
        DataError: it is missing or damaged.
    """
    splits = {"ag_news": ("train", "test"), "sst2": ("train", "validation", "test")}.get(name)
    if splits is None:
        raise ConfigurationError(f"no text scene {name!r}; choose ag_news, sst2")
    parts = list(noted(load_text, data, name, *splits))
    first, last = parts[0], parts[-1]
    half = len(last.inputs) // 2 if len(parts) == 2 else 0
    public = last.inputs[:half] if half else parts[1].inputs
    assert first.labels is not None
    assert last.labels is not None
    pool = _different(list(first.inputs), stratified(first.labels, setting.pool, rng=rng))
    test = half + stratified(last.labels[half:], setting.test, rng=rng)
    if len(pool) < setting.probe:
        raise ConfigurationError(f"{name}: expected {setting.probe} texts, got {len(pool)}")
    return Scene(
        setting,
        load_encoder(setting.victim),
        tuple(public),
        tuple(first.inputs[at] for at in pool),
        first.labels[pool],
        tuple(last.inputs[at] for at in test),
        last.labels[test],
    )


def _different(inputs: Sequence[str], chosen: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the chosen positions without those that repeat a text."""
    first = {inputs[at]: at for at in reversed(chosen.tolist())}
    return np.array([at for at in chosen.tolist() if first[inputs[at]] == at], np.intp)


def copied(scene: Scene, service: Encoder, rng: np.random.Generator) -> Encoder:
    """Return a thief's copy of a service: a network of n-grams, trained on its answers."""
    attack = TextDistillation(
        schedule=Schedule(
            epochs=scene.setting.epochs, batch=128, rate=2e-3, optimizer=OnePassAdam()
        )
    )
    pool = scene.pool
    return attack(service, pool, budget=len(pool), rng=rng, clock=time.perf_counter).surrogate


def thieves(
    scene: Scene, service: Encoder, rng: np.random.Generator
) -> Iterator[tuple[str, Encoder]]:
    """Yield who copies a marked service, by name.

    `none` trains on answers as they are; `cse` cleans them first; `paraphrase` asks about rewrites
    and averages. The others hide the copy of `none`, or of `cse`, behind a map of its answers.
    """
    pool, setting = list(scene.pool), scene.setting
    answers = service.embed(pool)
    plain = copied(scene, Recorded(pool, answers), rng)
    yield "none", plain
    yield "permuted", permuted(plain, rng=rng)
    yield "truncated", truncated(plain, kept=0.5)
    yield "affine", affine(plain, rng=rng)
    seed = int(rng.integers(2**31))
    public = lsa(pool, dim=min(_PUBLIC, len(pool) // 4), seed=seed)(pool)
    cleaned = Cse(directions=setting.directions)(answers, public, seed=seed)
    copy = copied(scene, Recorded(pool, cleaned), rng)
    yield "cse", copy
    yield "cse_permuted", permuted(copy, rng=rng)
    rewriter = Rewriter(pool, seed=seed)
    asked = Rewritten(service, rewriter, rewrites=setting.rewrites, rng=rng)
    yield "paraphrase", copied(scene, asked, rng)


def innocents(scene: Scene, rng: np.random.Generator) -> Iterator[tuple[str, Encoder]]:
    """Yield suspects that never met a mark.

    `service` is the encoder itself without one, `copy` was stolen from it, and `lsa` is somebody's
    own, made of the same texts.
    """
    yield "service", scene.service
    yield "copy", copied(scene, scene.service, rng)
    dim = min(scene.service.dim, len(scene.pool) // 4)
    embed = lsa(scene.pool, dim=dim, seed=int(rng.integers(2**31)))

    def answer(texts: Sequence[str]) -> Embeddings:
        # A text of unknown words has no direction; a small constant gives it one.
        return np.pad(embed(texts), ((0, 0), (0, 1)), constant_values=0.01)

    yield "lsa", CallableEncoder(answer, dim=dim + 1, name="lsa")
