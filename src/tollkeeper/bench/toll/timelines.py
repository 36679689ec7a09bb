"""Experiment `toll-timelines`: who pays how many puzzle seconds, side by side at a live gateway.

One real server with the built-in plan `toll`, and five accounts that ask it at the same time,
each a process with the stock OpenAI client: a customer of one subject, a customer of all the
news, a bulk job under an operator's allowance, a thief who pays as told, and one that leaves at
its first challenge. What was paid is read from the server's records.

Two things are scaled so that hours fit into minutes. Puzzles are as hard as for a reference
machine of `hash_rate`, which changes no price in reference seconds. And rations are
`inputs_per_minute`, which changes how long accounts wait, but not what they pay; the clock of
the timelines is computed from the records at the rations of the built-in plan (`replay`).
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import yaml

from tollkeeper.bench.experiment import (
    BenchError,
    Context,
    Direction,
    Experiment,
    Measurement,
    Metric,
)
from tollkeeper.bench.guard_coverage import Samples
from tollkeeper.bench.isolate import ONE_THREAD, run_apart
from tollkeeper.bench.theft.scoring import recall_at_10
from tollkeeper.bench.theft.served import Served
from tollkeeper.bench.toll import replay, scene
from tollkeeper.bench.toll.account import Walk, Walked
from tollkeeper.bench.toll.scene import ACCOUNTS, THIEVES, Setting, Traffics
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.load import load_encoder
from tollkeeper.gateway.plans import Ladder
from tollkeeper.gateway.settings import Settings
from tollkeeper.types import Record

RATE = float(Settings.model_fields["hash_rate"].default)
"""Hashes of a reference second, where nothing else is set."""

_FOLLOWED_S = 1.5
"""A running server follows an operator within a second."""

_DAYS = 7.0
_WALK = "tollkeeper.bench.toll.account:walk"
_FAST = 1e9
"""Hashes a second, a round number to compute with: see the hash rates of `pow-calibration`."""


_Row = tuple[str, float, str, Direction]
"""Name, value, unit, and which way is better; for a thief that is the other than for a customer."""

_OPPOSITE: Mapping[Direction, Direction] = {"lower": "higher", "higher": "lower"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One account with one secret.

    Attributes:
        name: of the account.
        client: what its client saw.
        records: the server's, of this walk, the oldest first.
        recall10: of its answers.
    """

    name: str
    client: Walked
    records: list[Record]
    recall10: float


@dataclass(frozen=True, slots=True)
class Standing:
    """What the operator sees of the bulk customer.

    Attributes:
        reached: coverage, without what its allowance paid for.
        name: of the rung.
        price_s: of its next new input.
    """

    reached: float
    name: str
    price_s: float


@dataclass(frozen=True, slots=True)
class Round:
    """Everything with one secret; the standings are before and after the bulk job."""

    outcomes: tuple[Outcome, ...]
    before: Standing
    after: Standing


def measure(setting: Setting, context: Context) -> Measurement:
    """Run all secrets at the same time: most of it is waiting for rations.

    Raises:
        BenchError: a server or a client failed.
        ConfigurationError: an unknown encoder or profile.
        DataError: a data set is missing or damaged.
    """
    data: dict[str, str] = {}
    encoder = load_encoder(setting.encoder)
    ladder = scene.ladder(setting, encoder)
    scenes = [
        (scene.traffics(setting, context.rng(number), data), context.rng(number, 1).bytes(32))
        for number in range(setting.secrets)
    ]
    tables = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(setting.secrets) as pool:
        running = [
            pool.submit(_round, setting, traffics, secret, encoder, Path(folder) / str(number))
            for number, (traffics, secret) in enumerate(scenes)
        ]
        for number, future in enumerate(running):
            context.progress(number, setting.secrets, "side by side")
            tables.append(list(_rows(future.result(), setting, ladder)))
    return Measurement(_metrics(tables), data=data, diagnostics={"plan": scene.built_in()})


def _round(
    setting: Setting, traffics: Traffics, secret: bytes, encoder: Encoder, folder: Path
) -> Round:
    """Let all accounts ask one server side by side."""
    folder.mkdir()
    config = folder / "tollkeeper.yaml"
    config.write_text(yaml.safe_dump(scene.config(setting, secret)))
    with Served(
        folder / "data", profile=setting.profile, encoder=setting.encoder, config=config
    ) as server:
        keys = {name: server.key(name) for name in ACCOUNTS}

        def ask(name: str, inputs: Sequence[str]) -> Walked:
            return _walk(server, keys[name], inputs, setting, folder / f"{name}.npy")

        ask("bulk", traffics.known)
        before = _standing(server)
        past = len(server.records("bulk"))
        allowed = {"inputs": setting.bulk, "days": _DAYS, "note": "bulk job, as agreed"}
        server.ask("POST", "/tenants/bulk/allow", json=allowed)
        time.sleep(_FOLLOWED_S)
        with ThreadPoolExecutor(len(ACCOUNTS)) as pool:
            walks = list(pool.map(lambda name: ask(name, traffics.asked[name]), ACCOUNTS))
        outcomes = []
        for name, walked in zip(ACCOUNTS, walks, strict=True):
            records = server.records(name)[past if name == "bulk" else 0 :]
            clean = _embedded(encoder, traffics.asked[name][: walked.answered])
            recall10 = recall_at_10(clean, np.load(folder / f"{name}.npy"))
            ours = [record for record in records if record.request_id != "operator"]
            outcomes.append(Outcome(name, walked, ours, recall10))
        return Round(tuple(outcomes), before, _standing(server))


def _walk(
    server: Served, key: str, inputs: Sequence[str], setting: Setting, answers: Path
) -> Walked:
    pays = answers.stem != "leaver"
    plan = Walk(server.url, key, server.model, list(inputs), setting.batch, pays, str(answers))
    found = run_apart(_WALK, asdict(plan), environment=ONE_THREAD, progress=_silent)
    walked = msgspec.convert(found, Walked)
    if walked.ended not in {"", "challenge_required", "insufficient_quota"}:
        raise BenchError(f"account {answers.stem} ended with {walked.ended!r}")
    return walked


def _standing(server: Served) -> Standing:
    known = server.ask("GET", "/tenants/bulk")
    return Standing(known["coverage"], known["standing"], known["price_s"])


def _embedded(encoder: Encoder, inputs: Sequence[str]) -> Any:
    rows = [encoder.embed(inputs[at : at + 1024]) for at in range(0, len(inputs), 1024)]
    return np.concatenate(rows)


def _metrics(tables: Sequence[Sequence[_Row]]) -> Mapping[str, Metric]:
    """Return means over secrets of what there is with every secret.

    Of a rung that some accounts never reached, the mean would be of the others.
    """
    everywhere = set.intersection(*({name for name, *_ in rows} for rows in tables))
    samples = Samples()
    for rows in tables:
        for name, value, unit, better in rows:
            if name in everywhere:
                samples.add(name, float(value), better, unit)
    return samples.metrics()


def _rows(found: Round, setting: Setting, ladder: Ladder) -> Iterator[_Row]:
    """Yield the numbers of one secret."""
    for outcome in found.outcomes:
        steps = replay.steps(outcome.records, ladder, per_second=setting.per_second)
        for name, value, unit, for_user in (
            *_got(outcome, steps),
            *_gave(outcome, setting.hash_rate),
            *_clock(outcome, steps, ladder, setting),
        ):
            better = _OPPOSITE[for_user] if outcome.name in THIEVES else for_user
            yield name, value, unit, better
    for when, standing in (("before", found.before), ("after", found.after)):
        yield f"bulk_{when}.reached", standing.reached, "share", "lower"
        yield f"bulk_{when}.price_seconds", standing.price_s, "s", "lower"


def _got(outcome: Outcome, steps: Sequence[replay.Step]) -> Iterator[_Row]:
    """Yield what the account was answered."""
    name, records = outcome.name, outcome.records
    answers = [record for record in records if record.decision in replay.ANSWERED]
    answered = sum(record.inputs for record in answers)
    if answered != outcome.client.answered:
        raise BenchError(
            f"account {name} got {outcome.client.answered} answers, the records say {answered}"
        )
    paid = sum(record.inputs for record in answers if record.paid_s)
    noised = sum(record.inputs for record in answers if record.noise_scale)
    yield f"answered.{name}", answered, "inputs", "higher"
    yield f"free_inputs.{name}", replay.free_inputs(steps), "inputs", "higher"
    yield f"paid_inputs.{name}", paid, "inputs", "lower"
    yield f"noised_inputs.{name}", noised, "inputs", "lower"
    yield f"refused.{name}", _count(records, "refused"), "requests", "lower"
    yield f"coverage.{name}", max(record.coverage for record in answers), "share", "lower"
    yield f"recall10.{name}", outcome.recall10, "share", "higher"


def _gave(outcome: Outcome, hash_rate: float) -> Iterator[_Row]:
    """Yield what the account paid and how long it was held up."""
    name, client, records = outcome.name, outcome.client, outcome.records
    paid_s = replay.paid(records)
    yield f"paid_seconds.{name}", paid_s, "s", "lower"
    yield f"paid_seconds_per_1000.{name}", 1000 * paid_s / client.answered, "s", "lower"
    yield f"computed_seconds.{name}", paid_s * RATE / _FAST, "s", "lower"
    if paid_s:
        share = client.evaluations / (paid_s * hash_rate)
        yield f"hashes_over_price.{name}", share, "ratio", "lower"
    yield f"challenges.{name}", _count(records, "challenged"), "requests", "lower"
    yield f"throttled.{name}", _count(records, "throttled"), "requests", "lower"
    yield f"waited_seconds.{name}", client.waited_s, "s", "lower"
    yield f"cpu_seconds.{name}", client.cpu_s, "s", "lower"
    yield f"wall_seconds.{name}", client.wall_s, "s", "lower"


def _clock(
    outcome: Outcome, steps: Sequence[replay.Step], ladder: Ladder, setting: Setting
) -> Iterator[_Row]:
    """Yield when the account would have been where, and what it had paid by then."""
    name, records = outcome.name, outcome.records
    for event, step in replay.events(steps):
        yield f"inputs_at.{name}.{event}", step.inputs, "inputs", "higher"
        yield f"minutes_at.{name}.{event}", step.minutes, "min", "higher"
        yield f"seconds_at.{name}.{event}", step.paid_s, "s", "lower"
    unhashed = replay.steps(records, ladder, per_second=setting.per_second, speed=math.inf)
    yield f"minutes_unhashed.{name}", unhashed[-1].minutes, "min", "lower"
    for count in setting.counts:
        stood = replay.at(steps, count)
        if stood is not None:
            yield f"paid.{name}.n{count}", stood.paid_s, "s", "lower"
            yield f"covered.{name}.n{count}", stood.coverage, "share", "lower"


def _count(records: Sequence[Record], decision: str) -> int:
    return sum(record.decision == decision for record in records)


def _silent(done: int, total: int, what: str) -> None:
    """Take progress and say nothing: clients report when they are done."""


EXPERIMENT = Experiment(
    id="toll-timelines",
    title="puzzle seconds that honest users and thieves pay, side by side at a live gateway",
    scales={
        "smoke": Setting(
            secrets=1,
            narrow=800,
            wide=320,
            known=160,
            bulk=1200,
            thief=2400,
            hash_rate=500.0,
            inputs_per_minute=100_000.0,
            counts=(400, 800),
        ),
        "cpu": Setting(),
    },
    measure=measure,
    promises=(
        "paid_seconds.*",
        "free_inputs.*",
        "answered.*",
        "noised_inputs.*",
        "wall_seconds.*",
        "minutes_at.*",
        "paid.*",
        "bulk_after.*",
    ),
    covers=("recommended",),
)
