"""Every public attack copies a toy victim: one table, one assertion."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tollkeeper.attacks.accounts import Accounts  # noqa: E402
from tollkeeper.attacks.direct import Direct  # noqa: E402
from tollkeeper.attacks.names import ATTACKS, load  # noqa: E402
from tollkeeper.attacks.networks.convnet import ConvNet  # noqa: E402
from tollkeeper.attacks.networks.ngram import NGram  # noqa: E402
from tollkeeper.attacks.objectives.barlow import Barlow  # noqa: E402
from tollkeeper.attacks.presets import for_two_cores  # noqa: E402
from tollkeeper.attacks.surrogate import Surrogate  # noqa: E402
from tollkeeper.attacks.sybil.mapped import Mapped  # noqa: E402
from tollkeeper.errors import ConfigurationError, EncoderError  # noqa: E402
from tollkeeper.testing import FakeClock  # noqa: E402
from tollkeeper.testing.victims import (  # noqa: E402
    ToyImageVictim,
    ToyTextVictim,
    blobs,
    sentences,
)
from tollkeeper.types import Batch, Embeddings  # noqa: E402

POOL, HELD_OUT = 400, 200
CONV = ConvNet(width=4, side=16)
NGRAM = NGram(buckets=256, width=32, hidden=64)
LABELS = np.random.default_rng(8).integers(0, 5, POOL)

# What a copy keeps of its victim's nearest neighbors at this size, at least. An untrained
# network keeps .15 of images and .25 of texts, and so do copies of a victim whose answers are
# mixed up. Attacks without a number need more images and steps than a test has, or labels:
# `test_wiring.py` computes their losses by hand.
KEEPS_IMAGES = {
    "direct-mse": 0.5,
    "direct-cosine": 0.5,
    "direct-infonce": 0.5,
    "direct-softnn": 0.4,
    "direct-barlow-cross": 0.4,
    "direct-bce": 0.3,
    "direct-wasserstein": 0.25,
    "cont-steal": 0.25,
    "sybil-overlap": 0.4,
    "sybil-trunk": 0.4,
    "sybil-stop": 0.4,
    "stop-at-noise": 0.5,
    "merged-inputs": 0.3,
    "direct-supcon": None,
    "direct-barlow": None,
    "direct-symmetrized": None,
    "head-recreation": 0.3,
    "stolen-encoder": 0.25,
    "rda": None,
    "sybil-matching": 0.7,
    "sybil-rotation": 0.5,
}
TWICE = {"head-recreation", "stolen-encoder", "sybil-matching", "sybil-rotation"}  # so many images
KEEPS_TEXTS = {
    "text-distillation": 0.35,
    "direct-cosine": 0.35,
    "direct-infonce": 0.35,
    "merged-inputs": 0.35,
    "stop-at-noise": 0.35,
}


def neighbors_kept(victim: Embeddings, copy: Embeddings) -> float:
    """Return how often a row's nearest other row is among the copy's ten nearest ones."""
    kept = 0
    for row in range(len(victim)):
        wanted = int(np.argsort(distances(victim, row))[1])
        kept += wanted in np.argsort(distances(copy, row))[1:11]
    return kept / len(victim)


def distances(rows: Embeddings, at: int) -> Any:
    """Return cosine distances of all centered rows to one; itself first."""
    centered = rows - rows.mean(axis=0)
    unit = centered / np.linalg.norm(centered, axis=1)[:, None]
    away = 1 - unit @ unit[at]
    away[at] = -1
    return away


def attack_named(name: str, *, text: bool = False, epochs: int = 12) -> Any:
    """Return an attack at the size of a toy."""
    attack: Any = for_two_cores(
        load(name), text=text, epochs=epochs, network=NGRAM if text else CONV
    )
    return replace(attack, labels=LABELS) if name == "direct-supcon" else attack


def steal(name: str, victim: Any, pool: Batch, *, text: bool = False, epochs: int = 12) -> Any:
    """Run an attack with the largest budget that its pool allows."""
    attack = attack_named(name, text=text, epochs=epochs)
    return attack(
        victim,
        pool,
        budget=len(pool) * attack.asks_per_input,
        rng=np.random.default_rng(0),
        clock=FakeClock(),
    )


def dense(rng: np.random.Generator) -> Any:
    """Return a secret matrix that mixes everything."""
    return rng.normal(size=(16, 16))


def shuffle(rng: np.random.Generator) -> Any:
    """Return a secret order of coordinates, with scales that differ a hundredfold."""
    return np.eye(16)[rng.permutation(16)] * 10 ** rng.uniform(-1, 1, 16)


def rotation(rng: np.random.Generator) -> Any:
    """Return a secret rotation."""
    return np.linalg.qr(dense(rng))[0]


SECRETS = {"sybil-matching": shuffle, "sybil-rotation": rotation}


def sybils(secret: Callable[[np.random.Generator], Any]) -> Accounts:
    """Return two accounts that see the toy victim through secret matrices."""
    rng = np.random.default_rng(5)
    return Accounts([ToyImageVictim(view=secret(rng).astype(np.float32)) for _ in range(2)])


def test_the_table_is_complete() -> None:
    """Every bar belongs to a public attack; an attack without one is still run."""
    assert {*KEEPS_IMAGES, *KEEPS_TEXTS} <= set(ATTACKS)


@pytest.mark.parametrize(
    ("name", "least"),
    [(name, KEEPS_IMAGES.get(name)) for name in ATTACKS if "image" in ATTACKS[name].accepts],
)
def test_attacks_copy_an_image_encoder(name: str, least: float | None) -> None:
    """Each runs within its budget, and its copy keeps the victim's neighbors."""
    many = name.startswith("sybil")
    victim = sybils(SECRETS.get(name, dense)) if many else ToyImageVictim()
    epochs = 3 if least is None else 15
    size = 2 * POOL if name in TWICE else POOL
    theft = steal(name, victim, blobs(size), epochs=epochs)
    budget = size * ATTACKS_PER_INPUT.get(name, 1)
    assert theft.partial == ""
    assert budget * 0.9 <= theft.queries_spent <= budget
    held_out = blobs(HELD_OUT, seed=1)
    copied = theft.surrogate.embed(held_out)
    assert copied.shape == (HELD_OUT, 512 if name in {"sybil-trunk", "sybil-stop"} else 16)
    if least is not None:
        assert neighbors_kept(ToyImageVictim().embed(held_out), copied) >= least


ATTACKS_PER_INPUT = {
    "direct-barlow": 2,
    "direct-symmetrized": 2,
    "head-recreation": 2,
    "cont-steal": 2,
    "rda": 10,
}


def classes(embeddings: Embeddings) -> Any:
    """Return which of four directions each clean row leans to most."""
    center = ToyImageVictim().embed(blobs(POOL)).mean(axis=0)
    return ((embeddings - center) @ np.random.default_rng(2).normal(size=(16, 4))).argmax(axis=1)


def test_supervised_contrast_brings_classes_together() -> None:
    """More images than by chance are nearest to one of their class; with mixed labels not."""
    held_out = blobs(HELD_OUT, seed=1)
    labels, truth = (classes(ToyImageVictim().embed(each)) for each in (blobs(POOL), held_out))

    def alike(given: Any) -> float:
        attack = replace(attack_named("direct-supcon", epochs=15), labels=given)
        rng, clock = np.random.default_rng(0), FakeClock()
        theft = attack(ToyImageVictim(), blobs(POOL), budget=POOL, rng=rng, clock=clock)
        copied = theft.surrogate.embed(held_out)
        nearest = [int(np.argsort(distances(copied, row))[1]) for row in range(HELD_OUT)]
        return float(np.mean(truth[nearest] == truth))

    assert alike(labels) >= 0.55
    assert alike(np.random.default_rng(1).permutation(labels)) < 0.5


@pytest.mark.parametrize(("name", "least"), KEEPS_TEXTS.items())
def test_attacks_copy_a_text_encoder(name: str, least: float) -> None:
    """The same attacks take a text network; the copy keeps neighbors of unseen sentences."""
    theft = steal(name, ToyTextVictim(), sentences(POOL), text=True, epochs=30)
    held_out = sentences(HELD_OUT, seed=1)
    kept = neighbors_kept(ToyTextVictim().embed(held_out), theft.surrogate.embed(held_out))
    assert kept >= least


def test_an_untrained_network_is_below_every_bar() -> None:
    """The bars above mean something: the same network without training misses all of them."""
    held_out = blobs(HELD_OUT, seed=1)
    network = Surrogate(CONV.build(16, np.random.default_rng(0)), dim=16)
    kept = neighbors_kept(ToyImageVictim().embed(held_out), network.embed(held_out))
    assert kept < min(least for least in KEEPS_IMAGES.values() if least is not None)
    texts = sentences(HELD_OUT, seed=1)
    reader = Surrogate(NGRAM.build(16, np.random.default_rng(0)), dim=16)
    assert neighbors_kept(ToyTextVictim().embed(texts), reader.embed(texts)) < 0.35


def test_the_same_seed_is_the_same_copy() -> None:
    """All randomness comes from the generator handed in."""
    one, two = (
        steal("direct-cosine", ToyImageVictim(), blobs(POOL), epochs=2).surrogate for _ in range(2)
    )
    assert np.array_equal(one.embed(blobs(9)), two.embed(blobs(9)))


class FakeStopping(ToyImageVictim):
    """Answers its first calls and then is gone."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = calls

    def embed(self, inputs: Batch) -> Embeddings:
        self.left -= 1
        if self.left < 0:
            raise EncoderError("connection reset")
        return super().embed(inputs)


@pytest.mark.parametrize("name", ["direct-mse", "stolen-encoder", "cont-steal", "rda"])
def test_a_break_leaves_a_partial_copy(name: str) -> None:
    """What was answered before the break is trained on, and the theft says so."""
    theft = steal(name, FakeStopping(1), blobs(POOL), epochs=2)
    assert theft.partial == "connection reset"
    assert 0 < theft.queries_spent < POOL
    assert theft.surrogate.embed(blobs(3)).shape == (3, 16)


@pytest.mark.parametrize("budget", [9, POOL * 10 + 1])
@pytest.mark.parametrize("accounts", [1, 2])
def test_views_that_cannot_be_asked_are_refused(budget: int, accounts: int) -> None:
    """Nine queries are no image with ten views, and a second account has nothing to add."""
    victim = FakeStopping(0)
    with pytest.raises(ConfigurationError, match="between 10 and 4,000 queries"):
        attack_named("rda")(
            Accounts([victim] * accounts),
            blobs(POOL),
            budget=budget,
            rng=np.random.default_rng(0),
            clock=FakeClock(),
        )


def test_sybils_need_a_budget_of_one_image_beside_their_anchors() -> None:
    """Where shared inputs leave less than ten queries there is no prototype to be had."""
    victim = FakeStopping(0)
    attack = Mapped(inner=attack_named("rda"))
    with pytest.raises(ConfigurationError, match="at least 10 queries"):
        attack(
            Accounts([victim] * 3),
            blobs(POOL),
            budget=10,
            rng=np.random.default_rng(0),
            clock=FakeClock(),
        )


def test_two_view_objectives_are_not_for_direct() -> None:
    """Rows of one view would be paired with other images."""
    with pytest.raises(ConfigurationError, match="use TwoViews"):
        Direct(objective=Barlow())


def test_unknown_attacks_are_named() -> None:
    """A typo lists what there is."""
    with pytest.raises(ConfigurationError, match=r"no attack 'mse'; choose direct-mse"):
        load("mse")


def test_every_entry_says_what_it_is() -> None:
    """Summary, source and modality are there, in one line each."""
    for name, entry in ATTACKS.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
        assert entry.summary
        assert entry.source
        assert entry.accepts
        assert "\n" not in entry.summary + entry.source
