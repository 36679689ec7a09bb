"""The story of `tollkeeper demo`: an honest user, a thief and two sybils at two real gateways.

One gateway guards the encoder and one does not; both are processes of their own and are asked
over HTTP. Copies are scored against the encoder itself, which the scorer alone has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tollkeeper.attacks.accounts import Accounts
from tollkeeper.attacks.base import Attack, Clock
from tollkeeper.attacks.networks.ngram import NGram
from tollkeeper.attacks.sybil.mapped import Mapped
from tollkeeper.attacks.sybil.mappers import RidgeMapper
from tollkeeper.attacks.text import OnePassAdam, TextDistillation
from tollkeeper.bench.theft.floors import untrained
from tollkeeper.bench.theft.pools import load_pool
from tollkeeper.bench.theft.probes import linear_probe
from tollkeeper.bench.theft.scoring import (
    Scores,
    agreement,
    fidelity,
    recall_at_10,
    score,
    task_reference,
)
from tollkeeper.bench.theft.served import Served, Visit
from tollkeeper.bench.theft.tasks import TEXT_TASKS, load_task
from tollkeeper.client import Pace, Target, open_target
from tollkeeper.encoders.load import load_encoder
from tollkeeper.lab.fit import Schedule
from tollkeeper.lab.progress import Step
from tollkeeper.types import Embeddings

UNGUARDED = "none"
"""Profile of the gateway without a guard."""

HONEST, THIEF, SYBILS = "honest", "thief", ("sybil-1", "sybil-2")
"""Tenants."""

_POOL, _TASKS, _UNTRAINED, _THEFT = range(4)
"""Parts of the run that draw numbers of their own."""

_HONEST_BATCH = 256
_BATCH, _CALLS_AT_ONCE = 128, 2
_RETRIES, _MAX_WAIT_S = 2, 5.0

Told = Callable[[str, Step], None]
"""Called with the scene and where it stands."""


def _thief() -> TextDistillation:
    """Return the attack as wide as the victim, and as long as two minutes allow."""
    return TextDistillation(
        network=NGram(width=384),
        schedule=Schedule(epochs=4, batch=256, rate=2e-3, optimizer=OnePassAdam()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Who plays, and how large it is.

    Attributes:
        encoder: SPEC of the victim, which reads text.
        guard: profile of the guarded gateway.
        pool: what thief and sybils ask from.
        queries: distinct queries of the thief, and of both sybils together.
        tasks: what copies are scored on; the first is the honest user's.
        train: inputs that a probe is trained on.
        test: inputs that it is tested on.
        attack: the thief's; the sybils' too, once their answers are in one space.
        anchors: queries that both sybils ask, to learn the map between their answers.
    """

    encoder: str = "builtin:text"
    guard: str = "recommended"
    pool: str = "broad_text"
    queries: int = 20_000
    tasks: tuple[str, ...] = TEXT_TASKS
    train: int = 2_000
    test: int = 1_000
    attack: TextDistillation = field(default_factory=_thief)
    anchors: int = 500


TWO_MINUTES = Setting()
"""What fits into two minutes on two cores."""


@dataclass(frozen=True, slots=True)
class Honest:
    """What the honest user got.

    Attributes:
        guard: profile of the gateway.
        client: package that asked.
        queries: distinct inputs asked.
        seconds: that took.
        accuracy: of a linear probe on the answers.
        recall10: share of each test input's ten nearest others, by the encoder itself, that
            are among the ten nearest by the answers.
    """

    guard: str
    client: str
    queries: int
    seconds: float
    accuracy: float
    recall10: float


@dataclass(frozen=True, slots=True)
class Copy:
    """What an attacker got, and for how much.

    Attributes:
        guard: profile of the gateway.
        tenants: that asked, all of them the attacker.
        queries: answered, over all accounts.
        asking_s: seconds that took.
        training_s: seconds of everything else.
        partial: why the attacker was answered less than it wanted; empty if it was not.
        fidelity: 0 is an untrained copy, 1 the victim.
        scores: of the copy.
    """

    guard: str
    tenants: tuple[str, ...]
    queries: int
    asking_s: float
    training_s: float
    partial: str
    fidelity: float
    scores: Scores

    @property
    def who(self) -> str:
        """Who made it, as a reader says it."""
        return _attacker(self.tenants)


@dataclass(frozen=True, slots=True)
class Story:
    """All numbers of the demo.

    Attributes:
        seed: root of all randomness but the gateways' secrets.
        task: the honest user's.
        test: test inputs of each task.
        anchors: queries that both sybils asked.
        victim: scores of the encoder itself.
        untrained: scores of a copy that learned nothing.
        honest: the honest user without and with the guard.
        copies: the thief's without and with the guard, and the sybils' with it.
        visits: what the operator of the guarded gateway saw; the other keeps no books.
        seconds: in all.
    """

    seed: int
    task: str
    test: int
    anchors: int
    victim: Scores
    untrained: Scores
    honest: tuple[Honest, Honest]
    copies: tuple[Copy, Copy, Copy]
    visits: tuple[Visit, ...]
    seconds: float


def play(setting: Setting, *, seed: int, folder: Path, clock: Clock, told: Told) -> Story:
    """Play the whole story.

    Args:
        setting: who plays, and how large it is.
        seed: root of all randomness but the gateways' secrets.
        folder: an empty one for the gateways' data and the attackers' transcripts.
        clock: monotonic seconds.
        told: hears of each step.

    Raises:
        DataError: a data set is missing.
        TollkeeperError: a gateway did not start or failed.
    """
    began = clock()
    stage = _Stage(setting, seed=seed, folder=folder, clock=clock, told=told)
    together = Mapped(inner=setting.attack, mapper=RidgeMapper(), anchors=setting.anchors)
    with _gateways(setting, folder) as (bare, guarded):
        honest = (stage.honest(bare), stage.honest(guarded))
        copies = (
            stage.steal(bare, (THIEF,), setting.attack),
            stage.steal(guarded, (THIEF,), setting.attack),
            stage.steal(guarded, SYBILS, together),
        )
        visits = tuple(map(guarded.visit, (HONEST, THIEF, *SYBILS)))
    return Story(
        seed=seed,
        task=setting.tasks[0],
        test=setting.test,
        anchors=setting.anchors,
        victim=stage.victim,
        untrained=stage.untrained,
        honest=honest,
        copies=copies,
        visits=visits,
        seconds=clock() - began,
    )


class _Stage:
    """What all scenes share: texts, tasks, and the clean encoder's answers to score against.

    Attributes:
        victim: scores of the encoder itself.
        untrained: scores of the thief's network before training.
    """

    def __init__(
        self, setting: Setting, *, seed: int, folder: Path, clock: Clock, told: Told
    ) -> None:
        """Load everything and score both ends of the scale."""
        self._setting, self._seed, self._folder = setting, seed, folder
        self._clock, self._told = clock, told
        told("both ends of the scale", Step("scoring", 0, 1))
        self._pool = load_pool(setting.pool, size=setting.queries, rng=self._rng(_POOL), data={})
        encoder = load_encoder(setting.encoder)
        sizes = {"train": setting.train, "test": setting.test}
        self._references = [
            task_reference(encoder, load_task(name, **sizes, rng=self._rng(_TASKS, at), data={}))
            for at, name in enumerate(setting.tasks)
        ]
        self.victim = score(encoder, self._references)
        blank = untrained(setting.attack.network, encoder.dim, rng=self._rng(_UNTRAINED))
        self.untrained = score(blank, self._references)

    def honest(self, served: Served) -> Honest:
        """Let the honest user work on a task through a gateway."""
        reference = self._references[0]
        task = reference.task
        assert task is not None
        scene = f"honest user, profile {served.profile}"
        began = self._clock()
        with _stock_client(served, self._folder) as (client, ask):
            answers = self._in_batches(scene, ask, [*task.train_inputs, *task.test_inputs])
        seconds = self._clock() - began
        self._told(scene, Step("scoring", 0, 1))
        train, test = np.split(answers, [len(task.train_inputs)])
        return Honest(
            guard=served.profile,
            client=client,
            queries=len(answers),
            seconds=seconds,
            accuracy=agreement(linear_probe(train, task.train_labels, test), task.test_labels),
            recall10=recall_at_10(reference.embeddings, test),
        )

    def steal(self, served: Served, tenants: tuple[str, ...], attack: Attack) -> Copy:
        """Let an attacker with an account a tenant copy the encoder behind a gateway."""
        scene = f"{_attacker(tenants)}, profile {served.profile}"
        inputs = self._pool.inputs
        with ExitStack() as stack:
            accounts = [
                stack.enter_context(_account(served, tenant, self._folder, probe=inputs[0]))
                for tenant in tenants
            ]
            theft = attack(
                Accounts(accounts),
                inputs,
                budget=self._setting.queries,
                rng=self._rng(_THEFT),
                clock=self._clock,
                progress=lambda step: self._told(scene, step),
            )
        self._told(scene, Step("scoring", 0, 1))
        scores = score(theft.surrogate, self._references)
        return Copy(
            guard=served.profile,
            tenants=tenants,
            queries=theft.queries_spent,
            asking_s=theft.asking_s,
            training_s=theft.seconds - theft.asking_s,
            partial=theft.partial,
            fidelity=fidelity(scores, victim=self.victim, untrained=self.untrained),
            scores=scores,
        )

    def _in_batches(
        self, scene: str, ask: Callable[[list[str]], Embeddings], texts: list[str]
    ) -> Embeddings:
        """Ask for n texts: (n, d)."""
        parts: list[Embeddings] = []
        for start in range(0, len(texts), _HONEST_BATCH):
            parts.append(ask(texts[start : start + _HONEST_BATCH]))
            self._told(scene, Step("asking", start + len(parts[-1]), len(texts)))
        return np.concatenate(parts)

    def _rng(self, *part: int) -> np.random.Generator:
        """Return the generator of one part; both thieves have the same."""
        return np.random.default_rng([self._seed, *part])


def _attacker(tenants: Sequence[str]) -> str:
    return "thief" if len(tenants) == 1 else f"{len(tenants)} sybils"


@contextmanager
def _gateways(setting: Setting, folder: Path) -> Iterator[tuple[Served, Served]]:
    """Run a gateway without a guard and one with it."""
    with (
        Served(folder / "bare", profile=UNGUARDED, encoder=setting.encoder) as bare,
        Served(folder / "guarded", profile=setting.guard, encoder=setting.encoder) as guarded,
    ):
        yield bare, guarded


@contextmanager
def _stock_client(
    served: Served, folder: Path
) -> Iterator[tuple[str, Callable[[list[str]], Embeddings]]]:
    """Yield the honest user's client by name: the stock one if it is installed, else ours."""
    try:
        from openai import OpenAI
    except ModuleNotFoundError:
        with _account(served, HONEST, folder) as target:
            yield "tollkeeper", target.embed
        return
    with OpenAI(base_url=served.url, api_key=served.key(HONEST)) as client:

        def ask(texts: list[str]) -> Embeddings:
            reply = client.embeddings.create(model=served.model, input=texts)
            return np.array([row.embedding for row in reply.data], np.float32)

        yield "openai", ask


def _account(served: Served, tenant: str, folder: Path, *, probe: str = "a") -> Target:
    """Open an account at a gateway; it learns the embedding width by asking for `probe`."""
    return open_target(
        f"{served.url}#{served.model}",
        transcript=folder / f"{served.profile}-{tenant}.sqlite3",
        api_key=served.key(tenant),
        account=tenant,
        pace=Pace(concurrency=_CALLS_AT_ONCE),
        batch=_BATCH,
        retries=_RETRIES,
        max_wait_s=_MAX_WAIT_S,
        probe=probe,
    )
