"""B4B's main table: who is run, behind what, and what its committed result must show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("torch")

from tollkeeper.attacks.direct import Direct  # noqa: E402
from tollkeeper.attacks.sybil.mapped import Mapped  # noqa: E402
from tollkeeper.attacks.sybil.shared_trunk import SharedTrunk  # noqa: E402
from tollkeeper.bench.experiment import Context, read_result  # noqa: E402
from tollkeeper.bench.theft import b4b_theft  # noqa: E402
from tollkeeper.bench.theft.b4b_theft import EXPERIMENT, Setting, profile, thief  # noqa: E402
from tollkeeper.data.folders import locate  # noqa: E402
from tollkeeper.errors import ConfigurationError, DataError  # noqa: E402
from tollkeeper.testing import FakeClock  # noqa: E402

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
    """10,000 of 50,000 in the paper."""
    attack, _ = thief("sybil2_paper", Setting(budget=500))
    assert isinstance(attack, Mapped)
    assert attack.anchors == 100


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
