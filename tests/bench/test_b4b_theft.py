"""B4B's main table: who is run, behind what, and what its committed result must show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch")

from tollkeeper.attacks import names  # noqa: E402
from tollkeeper.attacks.direct import Direct  # noqa: E402
from tollkeeper.attacks.recovery.standardized import Standardized  # noqa: E402
from tollkeeper.attacks.sybil.mapped import Mapped  # noqa: E402
from tollkeeper.attacks.sybil.network_mappers import ThreeLayerMapper  # noqa: E402
from tollkeeper.attacks.sybil.shared_trunk import SharedTrunk  # noqa: E402
from tollkeeper.bench.experiment import Context, read_result  # noqa: E402
from tollkeeper.bench.theft import b4b_theft  # noqa: E402
from tollkeeper.bench.theft.b4b_theft import EXPERIMENT, answered  # noqa: E402
from tollkeeper.bench.theft.b4b_users import Setting, profile, thief  # noqa: E402
from tollkeeper.bench.theft.tasks import Task  # noqa: E402
from tollkeeper.data.folders import locate  # noqa: E402
from tollkeeper.errors import ConfigurationError, DataError  # noqa: E402
from tollkeeper.testing import FakeClock  # noqa: E402
from tollkeeper.testing.victims import ToyImageVictim, blobs  # noqa: E402
from tollkeeper.types import Batch, Embeddings  # noqa: E402

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "b4b-theft-cpu.json"


@pytest.mark.parametrize(
    ("user", "kind", "accounts"),
    [("attack", Direct, 1), ("sybil2", Mapped, 2), ("sybil10_trunk", SharedTrunk, 10)],
)
def test_users_are_attacks_with_accounts(user: str, kind: type, accounts: int) -> None:
    """The number in a sybil's name is that of its accounts."""
    attack, count = thief(user, Setting())
    assert isinstance(attack, kind)
    assert count == accounts


@pytest.mark.parametrize("user", ["sybil", "attack2", "burglar", ""])
def test_unknown_users_are_refused(user: str) -> None:
    """Sybils need a number, others have none."""
    with pytest.raises(ConfigurationError, match="expected a user of attack"):
        thief(user, Setting())


def test_every_cell_names_a_user_and_a_defense() -> None:
    """No scale has a typo that would only show after minutes."""
    for setting in EXPERIMENT.scales.values():
        for cell in setting.cells:
            user, defense = cell.split("/")
            thief(user, setting)
            profile(defense)
        for defense in setting.defenses:
            profile(defense)


def test_the_paper_spends_a_fifth_on_its_map() -> None:
    """10,000 of 50,000 in the paper; the steps of its mapper are the setting's."""
    attack, _ = thief("sybil2_paper", Setting(budget=500, mapper_steps=7))
    assert isinstance(attack, Mapped)
    assert attack.anchors == 100
    assert isinstance(attack.mapper, ThreeLayerMapper)
    assert attack.mapper.training.max_steps == 7


@pytest.mark.parametrize(
    ("user", "name"),
    [
        ("sybil2_matching", "sybil-matching"),
        ("sybil2_rotation", "sybil-rotation"),
        ("sybil2_trunk", "sybil-trunk"),
        ("attack", "direct-infonce"),
    ],
)
def test_thieves_are_the_public_attacks(user: str, name: str) -> None:
    """Network and schedule are the setting's, nothing else differs."""
    setting = Setting()
    public: Any = names.load(name)
    expected = getattr(public, "inner", public)
    expected = replace(expected, network=setting.network(), schedule=setting.schedule())
    if hasattr(public, "inner"):
        expected = replace(public, inner=expected)
    assert thief(user, setting)[0] == expected


def test_standardizing_has_a_row_without_sybils() -> None:
    """The control of `sybil_matching` is the plain attack on standardized answers."""
    attack, count = thief("attack_standardized", Setting())
    assert isinstance(attack, Direct)
    assert attack.recovery == Standardized()
    assert count == 1
    assert "attack_standardized/none" in EXPERIMENT.scales["cpu"].cells


@pytest.mark.parametrize("sybils", ["sybil2", "sybil10"])
def test_sybils_run_without_a_guard_too(sybils: str) -> None:
    """Else the price of the method would look like that of the guard."""
    assert f"{sybils}/none" in EXPERIMENT.scales["cpu"].cells


class Tired(ToyImageVictim):
    """Adds to every answer how many inputs it has been asked before."""

    asked = 0

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed n inputs."""
        found = super().embed(inputs) + np.arange(self.asked, self.asked + len(inputs))[:, None]
        self.asked += len(inputs)
        return found.astype(np.float32)


def test_an_honest_user_is_scored_on_what_a_charged_account_gets() -> None:
    """Training inputs are asked first, then test inputs, all once; the answers are kept."""
    images, labels = blobs(30, side=32), np.arange(30) % 2
    task = Task("toy", images[:20], labels[:20], images[20:], labels[20:])
    account, clean = Tired(), ToyImageVictim().embed(images)
    kept = answered(account, task)
    for inputs, asked in ((task.test_inputs, slice(20, 30)), (task.train_inputs, slice(20))):
        expected = clean[asked] + np.arange(30)[asked, None]
        np.testing.assert_allclose(kept.embed(inputs), expected, rtol=1e-6)
    assert account.asked == 30


@pytest.mark.slow
def test_the_smallest_scale_runs_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every promise of users and floors is measured, and the guard saw the thief's queries."""
    try:
        locate("tiny_imagenet")
        locate("cifar10")
    except DataError:
        pytest.skip("the data sets are not here")
    setting = replace(EXPERIMENT.scales["smoke"], workers=1, budget=300, epochs=1)
    found = b4b_theft.measure(setting, Context(0, FakeClock(step=0.1), lambda *_: None))
    rows = found.diagnostics["rows"]
    assert rows["attack.none"]["coverage"] == [0.0]
    assert rows["attack.b4b-scaled"]["coverage"][0] > 0.1
    assert rows["sybil2.b4b-scaled"]["queries"] <= 300
    assert not {"floor.untrained", "floor.ssl"} & set(found.diagnostics["not_above_floors"])
    single, double = rows["attack.b4b-scaled"], rows["sybil2.b4b-scaled"]
    assert double["coverage"][0] < single["coverage"][0]
    assert {"legit.none.cifar10", "floor.ssl.cifar10", "attack.none.cifar10"} <= set(found.metrics)


@pytest.mark.skipif(not RESULT.exists(), reason="no result is committed")
@pytest.mark.parametrize("task", Setting().tasks)
def test_the_undefended_thief_beat_both_floors(task: str) -> None:
    """In the committed result, on every task; else the attack is no attack."""
    metrics = read_result(RESULT).metrics
    floors = [metrics[f"floor.{floor}.{task}"].value for floor in ("untrained", "ssl")]
    assert metrics[f"attack.none.{task}"].value > np.max(floors)
