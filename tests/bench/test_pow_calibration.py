"""The parts of `pow-calibration`: teachers, users, rules, accounts, solvers; and `pow-logs`."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from tollkeeper.bench.experiment import BenchError, Context
from tollkeeper.bench.toll import hashing, pow_calibration, reference_logs, stage
from tollkeeper.bench.toll.models import Deployment, deploy
from tollkeeper.bench.toll.pow_calibration import EXPERIMENT, Setting
from tollkeeper.bench.toll.prices import CEILING, SECOND, Meter, Rules, calibrate, ratio
from tollkeeper.bench.toll.users import DFME_QUERIES, USERS, World
from tollkeeper.challenge.puzzle import HashPuzzle
from tollkeeper.data import Dataset
from tollkeeper.errors import ConfigurationError, DataError

pytestmark = pytest.mark.torch

TINY = replace(
    EXPERIMENT.scales["smoke"],
    users=("knockoff",),
    budget=160,
    train=640,
    teachers=10,
    steps=20,
    accounts=(2,),
)
METER = Meter(10.0, 1e-5)


def stripes(count: int, seed: int, side: int = 28) -> tuple[np.ndarray, np.ndarray]:
    """Return images whose class is where their bright stripe lies."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    images = rng.integers(0, 60, (count, side, side), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 2 : 2 * label + 5] += 180
    return images, labels


def load(name: str, split: str) -> Dataset:
    """Stand in for `load_images`."""
    images, labels = stripes(1000, len(name + split), 32 if name == "cifar10" else 28)
    rgb = np.repeat(images[..., np.newaxis], 3, axis=3)
    return Dataset(name, split, rgb, labels, tuple("0123456789"))


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    """A victim and ten teachers."""
    images, labels = stripes(1000, 0)
    pixels = torch.from_numpy(images[:, np.newaxis].astype(np.float32) / 255)
    rng = np.random.default_rng(0)
    return deploy(pixels, torch.from_numpy(labels), epochs=2, count=10, hidden=8, steps=30, rng=rng)


def world(deployment: Deployment, budget: int) -> World:
    """Return a user's world of stripes, for letters and photos too."""
    pixels = torch.from_numpy(stripes(2 * budget, 1)[0][:, np.newaxis].astype(np.float32) / 255)
    noise = torch.rand(budget, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    return World(deployment, pixels, noise, noise, budget, 1, 10.0, 1e-5, rng)


def votes(*counts: int, times: int) -> np.ndarray:
    """Return the same votes of ten classes many times."""
    return np.tile(np.array([*counts, *[0] * (10 - len(counts))]), (times, 1))


def mixture(count: int, split: float, seed: int = 0) -> np.ndarray:
    """Return votes of which a share is split in two and the rest is nearly unanimous."""
    drawn = np.random.default_rng(seed).random(count) < split
    return np.where(drawn[:, np.newaxis], votes(130, 120, times=1), votes(245, 5, times=1))


@pytest.fixture(scope="module")
def rules() -> Rules:
    """Both rules on an honest user of 3% split votes."""
    return calibrate(mixture(3000, 0.03), METER, unit=0.1, rng=np.random.default_rng(0))


def test_the_experiment_keeps_its_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a tiny size all kinds of metrics come out, for the honest user too, with no asking of it."""
    monkeypatch.setattr(stage, "load_images", load)
    steps: list[str] = []
    context = Context(0, lambda: 0.0, lambda _done, _total, what: steps.append(what))
    found = pow_calibration.measure(TINY, context)
    for kind in ("time_ratio", "time_ratio_reference", "cost_per_query", "accuracy", "leakage"):
        for user in ("standard", "knockoff"):
            assert f"{kind}.mnist.{user}" in found.metrics
    for name in ("knockoff_2_accounts", "knockoff_2_pooled"):
        assert found.metrics[f"time_ratio.mnist.{name}"].direction == "higher"
        assert f"time_ratio_gpu.mnist.{name}" not in found.metrics
    assert found.metrics["queries.mnist.knockoff"].value == 160
    assert found.metrics["time_ratio.mnist.standard"].direction == "lower"
    assert found.metrics["time_ratio.mnist.knockoff"].direction == "higher"
    assert found.metrics["hash_rate.python"].value > 1000
    assert set(found.data) >= {"mnist/train", "mnist/test", "cifar10/train"}
    assert steps[0] == "hash rates"
    assert steps[-1] == "mnist, seed 1"


def test_faster_hashing_shrinks_what_is_paid_in_proportion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thief with ten times the hash rate pays a tenth of the time above 1."""
    monkeypatch.setattr(stage, "load_images", load)
    monkeypatch.setattr(hashing, "rates", lambda **_: {"python": 1e6, "openssl": 1e7})
    found = pow_calibration.measure(TINY, Context(0, lambda: 0.0, lambda *_: None)).metrics
    slow, fast = (found[f"time_ratio{kind}.mnist.knockoff"].value for kind in ("", "_openssl"))
    assert fast - 1 == pytest.approx((slow - 1) / 10)
    assert found["puzzle_s.python.b20"].value == pytest.approx(2**20 / 1e6)


def test_a_deployment_is_the_same_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but times follows from the seed."""
    monkeypatch.setattr(stage, "load_images", load)
    monkeypatch.setattr(hashing, "rates", lambda **_: {"python": 1e6})
    one, other = (
        pow_calibration.measure(TINY, Context(0, lambda: 0.0, lambda *_: None)).metrics
        for _ in range(2)
    )
    for name, metric in one.items():
        if "service_ms" not in name:
            assert other[name] == metric


def test_settings_that_cannot_be_measured_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown user, shards that are too small and too few images are named."""
    monkeypatch.setattr(stage, "load_images", load)
    with pytest.raises(ConfigurationError, match="no user 'nobody'; choose from standard"):
        Setting(users=("nobody",)).check()
    with pytest.raises(ConfigurationError, match="640 images for 100 teachers"):
        replace(TINY, teachers=100).check()
    with pytest.raises(ConfigurationError, match="expected 1 to 2 accounts, 64 queries each"):
        replace(TINY, accounts=(3,)).check()
    with pytest.raises(ConfigurationError, match="expected 1,200 images of mnist"):
        stage.load_stage("mnist", {}, train=800, budget=200)


def test_teachers_learn_from_shards_of_their_own(deployment: Deployment) -> None:
    """Every vote is counted, teachers agree on what is clear, and all of them say the same alone."""
    images, labels = stripes(200, 5)
    pixels = torch.from_numpy(images[:, np.newaxis].astype(np.float32) / 255)
    counted = deployment.teachers.votes(pixels)
    assert (counted.sum(axis=1) == 10).all()
    assert (counted.argmax(axis=1) == labels).mean() > 0.8
    # Sums are made in another order for one image than for many, so a close vote may turn.
    alone = np.concatenate([deployment.teachers.votes(one) for one in pixels.split(1)])
    assert (alone == counted).mean() > 0.99


@pytest.mark.parametrize("name", [name for name in USERS if name != "data_free"])
def test_a_user_asks_its_budget_of_distinct_images(deployment: Deployment, name: str) -> None:
    """Every user but the data-free one asks exactly its budget, in range, and nothing twice."""
    mine = world(deployment, 300)
    copy = USERS[name](mine)
    asked = torch.cat(mine.asked)
    assert len(asked) == 300
    assert len({image.numpy().tobytes() for image in asked}) == 300
    assert 0 <= asked.min() <= asked.max() <= 1
    assert copy(asked[:2]).shape == (2, 10)


def test_data_free_extraction_asks_whole_iterations(deployment: Deployment) -> None:
    """An iteration is 1,792 images that the generator made, whatever is left of the budget."""
    mine = world(deployment, DFME_QUERIES + 100)
    USERS["data_free"](mine)
    asked = torch.cat(mine.asked)
    assert len(asked) == DFME_QUERIES == 1792
    assert 0 <= asked.min() <= asked.max() <= 1


def test_the_worst_case_asks_the_cheapest(deployment: Deployment) -> None:
    """Knowing the meter, it leaks less per query than the honest user of the same pool."""
    costs = {}
    for name in ("standard", "worst_case"):
        mine = world(deployment, 300)
        # Under more noise ten teachers' votes all cost the same.
        mine.sigma = 1.0
        USERS[name](mine)
        costs[name] = Meter(1.0, 1e-5).each(mine.votes()).sum()
    assert costs["worst_case"] < 0.95 * costs["standard"]


def test_honest_users_pay_the_unit_and_thieves_more(rules: Rules) -> None:
    """By our rule another honest user pays about the unit, one who asks what is unclear far more."""
    assert 1.1 <= ratio(rules.inputs(mixture(3000, 0.03, seed=1))) < 1.15
    assert ratio(rules.inputs(mixture(3000, 0.7))) > 100


def test_only_the_reference_punishes_who_is_cheaper(rules: Rules) -> None:
    """Clear votes alone cost less than honest traffic: ours is at the unit, the reference's not."""
    cheap = votes(245, 5, times=3000)
    assert ratio(rules.inputs(cheap)) == pytest.approx(1.1, abs=1e-9)
    charged = [ratio(rules.batches(one)) - 1.1 for one in (cheap, mixture(3000, 0.03, seed=1))]
    assert charged[0] > 3 * charged[1] > 0


def test_a_puzzle_a_row_is_less_than_one_a_batch(rules: Rules) -> None:
    """One puzzle a thousand queries is a fraction of one a batch, for the same stream."""
    thief = mixture(3000, 0.7)
    row, batch = (ratio(rules.batches(thief, unit=unit), unit=unit) - 1 for unit in (1000, 64))
    assert batch > 5 * row


def test_all_rules_have_one_ceiling_and_ours_one_unit(rules: Rules) -> None:
    """Compared rules differ in what they charge, and not in constants; the published has its own."""
    ours, reference, published = rules.ours, rules.reference, rules.published
    assert ours.ceiling_s == rules.line.ceiling_s == reference.ceiling_s == published.ceiling_s
    assert ours.unit_s == rules.line.unit_s == reference.unit_s == 0.1
    assert published.unit_s == SECOND == pytest.approx(1 / 0.46)


def test_the_steepest_honest_user_pays_twice_the_unit(rules: Rules) -> None:
    """What any honest user of the calibration is above the curve at most costs 0.2 batches."""
    spent = rules.ours.fit.expected(1000) + rules.excess
    assert rules.excess > 0
    assert rules.ours(1000, spent) == pytest.approx(0.2)
    assert rules.ours(1000, spent + 100) == pytest.approx(CEILING)


def test_accounts_hide_what_a_pool_shows(rules: Rules) -> None:
    """Over more accounts a stream pays less, above a line least; pooled it pays as from one."""
    thief = mixture(1280, 0.7)
    one = rules.inputs(thief)
    curve = [ratio(rules.inputs(thief, accounts=accounts)) for accounts in (1, 4, 20)]
    line = ratio(rules.inputs(thief, accounts=20, rule=rules.line))
    assert curve[0] > 2 * curve[1] > 4 * curve[2]
    assert curve[2] - 1 > 2 * (line - 1)
    np.testing.assert_allclose(rules.inputs(thief, accounts=20, pooled=True), one)
    assert len(rules.batches(thief, accounts=4)) == 4 * (1280 // 4 // 64)


def test_solvers_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Node, the JavaScript client and openssl Python is measured alone."""
    monkeypatch.setenv("PATH", "")
    assert hashing.node_rate(0.1) is None
    assert hashing.openssl_rate(0.1) is None
    assert hashing.python_rate(hashing.Task("one"), seconds=0.01) > 1000
    monkeypatch.undo()
    monkeypatch.setattr(hashing, "CLIENT", Path("nowhere.js"))
    assert hashing.node_rate(0.1) is None


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_node_runs_the_search_of_the_javascript_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the client's code that is timed: a client that finds at once is seen at once."""
    assert (hashing.node_rate(0.1) or 0) > 10_000
    fast = tmp_path / "fast.mjs"
    fast.write_text("export function search() { return -1; }")
    monkeypatch.setattr(hashing, "CLIENT", fast)
    assert (hashing.node_rate(0.1) or 0) > 1e8


def test_python_times_the_search_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is `HashPuzzle.search` that is timed, on a puzzle that it does not solve."""
    asked: list[tuple[int, int, int]] = []

    def slow(_puzzle: HashPuzzle, part: int, start: int, stop: int) -> None:
        asked.append((part, start, stop))
        time.sleep(0.01)

    monkeypatch.setattr(HashPuzzle, "search", slow)
    assert hashing.python_rate(hashing.Task("one"), seconds=0.02) < 2e6
    assert asked[:2] == [(0, 0, 10_000), (0, 10_000, 20_000)]


def test_what_openssl_says_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count and the seconds are those of its report, and anything else is an error."""
    line = "Doing sha256 ops for 1s on 40 size blocks: 8546190 sha256 ops in 0.98s\n"
    for said in (line, line.replace(" ops", "").replace("0 sha256 in", "0 sha256's in")):
        monkeypatch.setattr(hashing, "_said", lambda *_, said=said: said)
        assert hashing.openssl_rate(1) == pytest.approx(8546190 / 0.98)
    monkeypatch.setattr(hashing, "_said", lambda *_: "no such digest")
    with pytest.raises(BenchError, match="expected a count"):
        hashing.openssl_rate(1)


def test_logs_give_the_table_by_the_reference_rule(tmp_path: Path) -> None:
    """One puzzle a row or a batch, from the absolute difference to the honest line."""
    for dataset in reference_logs.DATASETS:
        (tmp_path / f"time_privacy_cost_{dataset}.csv").write_text(
            "time,privacy,queries\n" + "".join(f"{n},{250 * n},{1000 * n}\n" for n in range(1, 9))
        )
        (tmp_path / f"model_extraction_attack_accuracy_{dataset}.csv").write_text(
            "time (sec),mode,accuracy,diff queries,privacy cost\n"
            "0.2,data free,10,0,0\n10,data free,50,16,450\n20,data free,90,16,900\n"
        )
    setting = reference_logs.EXPERIMENT.setting("cpu", {"folder": str(tmp_path)})
    measured = reference_logs.measure(setting, Context(0, lambda: 0.0, lambda *_: None))
    assert len(measured.data) == 6
    found = measured.metrics
    assert found["logged_queries.svhn.data_free"].value == 2048
    assert found["logged_accuracy.svhn.data_free"].value == pytest.approx(0.9)
    assert found["logged_cost_per_query.svhn.data_free"].value == pytest.approx(900 / 2048)
    rows = 1.0075**200 + 1.0075**400
    assert found["logged_time_ratio.svhn.data_free"].value == pytest.approx(1 + rows / 20)
    batches = sum(1.0075 ** (12.5 * n) for n in range(1, 33))
    assert found["logged_time_ratio_batch.svhn.data_free"].value == pytest.approx(1 + batches / 20)


def test_logs_that_are_not_there_are_named(tmp_path: Path) -> None:
    """A missing or damaged log is told by its path."""
    with pytest.raises(DataError, match=r"time_privacy_cost_mnist.csv: expected the reference"):
        reference_logs.recomputed(tmp_path)
    (tmp_path / "time_privacy_cost_mnist.csv").write_text("time,privacy,queries\n1,2\n")
    with pytest.raises(DataError, match="expected 3 columns, got 2"):
        reference_logs.recomputed(tmp_path)
