"""The toll-timelines experiment: arithmetic on made-up records, and one real smoke run."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("openai")

from tollkeeper.bench.experiment import BenchError
from tollkeeper.bench.runner import run
from tollkeeper.bench.theft.served import Served
from tollkeeper.bench.toll import replay, scene, timelines
from tollkeeper.bench.toll.account import Walked
from tollkeeper.bench.toll.scene import Setting
from tollkeeper.bench.toll.timelines import Outcome
from tollkeeper.errors import DataError
from tollkeeper.gateway.plans import BUILT_IN, Ladder, Plan, Scale
from tollkeeper.types import Record

LADDER = Ladder.of(Plan(meter=0.5, challenge=0.0, throttle=0.25), Scale(0.8, 1.0, refuses=True))


def record(
    decision: str, *, coverage: float, paid_s: float = 0.0, inputs: int = 60, noise: float = 0.0
) -> Record:
    """Return a record of one request whose inputs are all new."""
    return Record(
        at=0.0,
        tenant="t",
        key_id="k",
        request_id="r",
        model="m",
        inputs=inputs,
        tokens=0,
        charge=float(inputs),
        coverage=coverage,
        noise_scale=noise,
        profile="p",
        decision=decision,
        paid_s=paid_s,
    )


RECORDS = [
    record("answered", coverage=0.3),
    record("metered", coverage=0.5),
    record("challenged", coverage=0.8),
    record("paid", coverage=0.82, paid_s=30.0),
    record("paid", coverage=0.9, paid_s=120.0),
    record("throttled", coverage=0.9),
    record("paid", coverage=0.91, paid_s=6.0),
    record("noised", coverage=0.95, paid_s=60.0, noise=0.2),
    record("refused", coverage=1.0),
]


def test_the_clock_counts_asking_solving_and_waiting() -> None:
    """A minute's ration is free at first; later ones wait for it, less what solving took."""
    steps = replay.steps(RECORDS, LADDER, per_second=60.0)
    seconds = [60 * step.minutes for step in steps]
    # Each request takes a second to ask. The first ration is full. At the second it is empty
    # since second 154, so that it is full again at 214; six seconds of solving follow. At the
    # third it is empty since 220, and sixty seconds of solving follow the wait.
    assert seconds == pytest.approx([1, 2, 2, 33, 154, 154, 220, 340, 340])
    assert [step.inputs for step in steps] == [60, 120, 120, 180, 240, 240, 300, 360, 360]
    assert steps[-1].paid_s == replay.paid(RECORDS) == 216.0
    at_once = replay.steps(RECORDS, LADDER, per_second=60.0, speed=math.inf)
    # The ration of second 4 is over at 64, and that of then at 124.
    assert 60 * at_once[-1].minutes == pytest.approx(4 + 60 + 60)


def test_events_are_the_first_on_each_rung() -> None:
    """Rungs that were not reached are left out; the end is always there."""
    steps = replay.steps(RECORDS, LADDER, per_second=60.0)
    found = {name: step.inputs for name, step in replay.events(steps)}
    assert found == {
        "metered": 120,
        "challenged": 120,
        "rationed": 240,
        "noised": 360,
        "refused": 360,
        "done": 360,
    }
    quiet = replay.steps(RECORDS[:1], LADDER, per_second=60.0)
    assert [name for name, _ in replay.events(quiet)] == ["done"]
    assert list(replay.events([])) == []


def test_free_inputs_end_where_anything_is_asked_for() -> None:
    """Neither what follows a challenge is free, nor noise, nor an answer that was paid."""
    steps = replay.steps(RECORDS, LADDER, per_second=60.0)
    assert replay.free_inputs(steps) == 120
    assert replay.free_inputs(steps[3:]) == 0
    noised = replay.steps([record("answered", coverage=0.1, noise=1.0)], LADDER, per_second=60.0)
    assert replay.free_inputs(noised) == 0


def test_curves_are_read_where_there_is_something() -> None:
    """What stood at a number of inputs is that of the last request up to it."""
    steps = replay.steps(RECORDS, LADDER, per_second=60.0)
    stood = [replay.at(steps, count) for count in (60, 190, 360, 361)]
    assert [one and one.paid_s for one in stood] == [0.0, 30.0, 216.0, None]
    assert replay.at([], 0) is None


def test_answers_that_the_records_do_not_know_are_an_error() -> None:
    """A client that was answered more than the server wrote down fails the experiment."""
    client = Walked(400, "", 1.0, 1.0, 1, 1, 0, 0.0)
    outcome = Outcome("thief", client, RECORDS, 0.5)
    steps = replay.steps(RECORDS, LADDER, per_second=60.0)
    with pytest.raises(BenchError, match="got 400 answers, the records say 360"):
        list(timelines._got(outcome, steps))
    named = {
        name: value
        for name, value, *_ in timelines._got(
            replace(outcome, client=replace(client, answered=360)), steps
        )
    }
    assert (named["paid_inputs.thief"], named["noised_inputs.thief"]) == (240, 60)


def test_what_is_bad_for_a_thief_is_good() -> None:
    """Directions of a thief's metrics are the customer's turned round."""
    client = Walked(360, "", 1.0, 1.0, 4, 200, 1, 2.0)
    standing = timelines.Standing(0.2, "free", 0.0)
    outcomes = tuple(Outcome(name, client, RECORDS, 0.5) for name in ("narrow", "thief"))
    found = timelines.Round(outcomes, standing, standing)
    rows = list(timelines._rows(found, Setting(hash_rate=1.0), LADDER))
    metrics = timelines._metrics([rows])
    assert metrics["paid_seconds.narrow"].direction == "lower"
    assert metrics["paid_seconds.thief"].direction == "higher"
    assert metrics["hashes_over_price.thief"].value == pytest.approx(200 / 216)


def test_what_some_secrets_lack_has_no_mean() -> None:
    """A rung that only some accounts reached is left out; what all have is a mean with a range."""
    rows: list[timelines._Row] = [("a", 1.0, "s", "lower"), ("b", 5.0, "s", "lower")]
    metrics = timelines._metrics([rows, [("a", 3.0, "s", "lower")]])
    assert set(metrics) == {"a"}
    assert (metrics["a"].value, metrics["a"].interval) == (2.0, (1.0, 3.0))


def test_the_live_plan_differs_from_the_built_in_one_in_rations_alone() -> None:
    """What is measured is the plan that people get, but for how long accounts wait."""
    setting = Setting()
    written = scene.config(setting, bytes(32))["plans"]["toll"]
    live = Plan.model_validate(written)
    rations = {"inputs_per_minute": setting.inputs_per_minute}
    assert live == BUILT_IN["toll"].model_copy(update=rations)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """The smoke scale's metrics, once for all tests."""
    try:
        result = run("toll-timelines", "smoke", seed=1)
    except DataError as error:
        pytest.skip(str(error))
    return {name: metric.value for name, metric in result.metrics.items()}


def test_the_thief_pays_and_the_customer_does_not(smoke: dict[str, float]) -> None:
    """Of accounts side by side only those that crawl are charged."""
    assert smoke["paid_seconds.narrow"] == smoke["challenges.narrow"] == 0
    assert smoke["noised_inputs.narrow"] == smoke["refused.narrow"] == 0
    assert smoke["answered.narrow"] == smoke["free_inputs.narrow"] == 800
    assert smoke["recall10.narrow"] == 1
    assert smoke["paid_seconds.thief"] > 600
    assert smoke["challenges.thief"] > 10
    assert smoke["refused.thief"] == 1
    assert smoke["noised_inputs.thief"] > 0
    assert smoke["recall10.thief"] < 0.95


def test_who_leaves_gets_what_is_free(smoke: dict[str, float]) -> None:
    """A thief that solves nothing has the free inputs of the one that pays, exactly answered."""
    assert smoke["answered.leaver"] == smoke["free_inputs.thief"] < smoke["answered.thief"]
    assert smoke["challenges.leaver"] == 1
    assert smoke["paid_seconds.leaver"] == 0
    assert smoke["recall10.leaver"] == 1


def test_an_allowance_pays_for_all_of_the_job(smoke: dict[str, float]) -> None:
    """The bulk job asks as broadly as the thief, pays nothing and stands where it stood."""
    assert smoke["answered.bulk"] == smoke["free_inputs.bulk"] == 1200
    assert smoke["paid_seconds.bulk"] == smoke["noised_inputs.bulk"] == 0
    assert smoke["coverage.bulk"] == pytest.approx(smoke["bulk_before.reached"])
    assert smoke["bulk_after.reached"] == pytest.approx(smoke["bulk_before.reached"])
    assert smoke["bulk_before.reached"] < 0.42
    assert smoke["bulk_after.price_seconds"] == 0


def test_client_and_records_agree(smoke: dict[str, float]) -> None:
    """What the solver hashed is what the server charged, as far as chance lets it."""
    assert 0.7 < smoke["hashes_over_price.thief"] < 1.4
    assert smoke["seconds_at.thief.done"] == pytest.approx(smoke["paid_seconds.thief"])
    assert smoke["inputs_at.thief.done"] == smoke["answered.thief"]
    assert smoke["minutes_at.thief.done"] > smoke["minutes_unhashed.thief"] > 0
    assert smoke["minutes_at.thief.done"] > smoke["paid_seconds.thief"] / 60


def test_a_config_file_reaches_the_server(tmp_path: Path) -> None:
    """A server started with a plan in a file serves under it."""
    config = tmp_path / "tollkeeper.yaml"
    config.write_text("plan: toll\n")
    with Served(
        tmp_path / "data", profile="recommended", encoder="builtin:text", config=config
    ) as served:
        served.key("acme")
        assert served.ask("GET", "/tenants/acme")["plan"] == "toll"
        assert served.records("acme") == []
