"""Every attack on classifiers copies a toy victim, at both levels of output."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from tollkeeper.attacks import names, presets  # noqa: E402
from tollkeeper.attacks.accounts import Accounts  # noqa: E402
from tollkeeper.attacks.classifier.active_thief import ActiveThief, macro_f1  # noqa: E402
from tollkeeper.attacks.classifier.copies import Conv3Copy, Copying  # noqa: E402
from tollkeeper.attacks.classifier.data_free import DataFree  # noqa: E402
from tollkeeper.attacks.classifier.knockoff import AdaptiveKnockoff, Knockoff  # noqa: E402
from tollkeeper.attacks.classifier.maze import MAZE  # noqa: E402
from tollkeeper.attacks.classifier.recorder import Recorder  # noqa: E402
from tollkeeper.attacks.classifier.sybils import Rotating  # noqa: E402
from tollkeeper.encoders.classifiers.base import Classifier  # noqa: E402
from tollkeeper.errors import ConfigurationError, SuspendedError  # noqa: E402
from tollkeeper.lab.torching import seeded_init  # noqa: E402
from tollkeeper.testing import FakeClock  # noqa: E402
from tollkeeper.testing.classifiers import ToyClassifier, spots  # noqa: E402
from tollkeeper.types import Batch, Probabilities  # noqa: E402

POOL, LABELS = spots(400)
TEST, TRUTH = spots(300, seed=1)
BUDGET = 160
NAMES = tuple(names.of("classifier"))


@dataclass(frozen=True)
class Tiny:
    """Two layers on a thumbnail: enough for the toy, and trained in no time."""

    def build(self, shape: tuple[int, int, int], classes: int, rng: np.random.Generator) -> Any:
        """Return a new network."""
        with seeded_init(rng):
            return nn.Sequential(
                nn.AvgPool2d(4), nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, classes)
            )


def small(attack: Any, *, labels_only: bool = False) -> Any:
    """Return an attack at the size of a toy."""
    if isinstance(attack, Rotating):
        return replace(attack, inner=small(attack.inner, labels_only=labels_only))
    made = presets.for_two_cores(attack, epochs=15, network=Tiny())
    changes: dict[str, Any] = {"schedule": replace(made.schedule, rate=0.02)}
    if hasattr(made, "rounds"):
        changes["rounds"] = changes["schedule"]
    if labels_only:
        changes["labels_only"] = True
    if hasattr(made, "seeds"):
        changes["seeds"] = 40
    if isinstance(made, DataFree):
        changes |= {"game_batch": 10, "filters": 8}
    if isinstance(made, MAZE):
        changes |= {"directions": 2, "replays": 2}
    return replace(made, **changes)


def steal(attack: Any, victim: Any, seed: int = 0, budget: int = BUDGET) -> Any:
    """Run an attack."""
    rng = np.random.default_rng(seed)
    return attack(victim, POOL, budget=budget, rng=rng, clock=FakeClock())


def accuracy(theft: Any) -> float:
    """Return how often the copy is right."""
    return float((theft.surrogate.embed(TEST).argmax(axis=1) == TRUTH).mean())


@pytest.mark.parametrize("labels_only", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_every_attack_copies_a_classifier(name: str, labels_only: bool) -> None:
    """Its copy is far above chance, which is .25, and its budget is spent to the last query."""
    attack = small(names.load(name), labels_only=labels_only)
    count = attack.least_accounts
    recorders = [Recorder(ToyClassifier()) for _ in range(count)]
    theft = steal(attack, Accounts(recorders) if count > 1 else recorders[0])
    assert theft.partial == ""
    assert (theft.queries_spent, theft.repeats) == (BUDGET, 0)
    assert isinstance(theft.surrogate, Classifier)
    assert [len(each.images) for each in recorders] == [BUDGET // count] * count
    distinct = {picture.tobytes() for each in recorders for picture in each.images}
    assert len(distinct) == BUDGET
    # A game of generated pictures gives few labels of each class at this budget.
    assert accuracy(theft) > (0.4 if labels_only and isinstance(attack, DataFree) else 0.8)


def test_an_untrained_copy_is_at_chance() -> None:
    """The bars above mean something."""
    attack = small(names.load("knockoff"))
    idle = replace(attack, schedule=replace(attack.schedule, epochs=0))
    assert accuracy(steal(idle, ToyClassifier())) < 0.35


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_asks_and_copies_the_same(name: str) -> None:
    """All randomness comes from the generator handed in."""
    attack = small(names.load(name))
    found = []
    for seed in (3, 3, 4):  # The last one is another.
        recorder = Recorder(ToyClassifier())
        victim: Any = Accounts([recorder, recorder]) if attack.least_accounts > 1 else recorder
        theft = steal(attack, victim, seed, budget=60)
        found.append((recorder.images, theft.surrogate.embed(TEST)))
    assert np.array_equal(found[0][0], found[1][0])
    assert np.array_equal(found[0][1], found[1][1])
    assert not np.array_equal(found[0][1], found[2][1])


def inside(attack: Any) -> Copying:
    """Return the attack that asks."""
    found = attack.inner if isinstance(attack, Rotating) else attack
    assert isinstance(found, Copying)
    return found


def test_published_settings_are_loaded() -> None:
    """Each name is an attack of its room; `for_two_cores` narrows the copy of all."""
    for name in NAMES:
        attack = inside(names.load(name))
        assert attack.network == Conv3Copy(width=32)
        assert attack.labels_only == (name == "copycat")
        made = inside(presets.for_two_cores(names.load(name)))
        assert made == presets.for_two_cores(attack)
        assert made.network == Conv3Copy(width=16)
    assert not set(NAMES) & set(names.of("encoder"))
    assert {*NAMES, *names.of("encoder")} == set(names.ATTACKS)


def test_the_bandit_goes_where_the_rewards_are() -> None:
    """Where one class of the pool alone is answered with certainty, it is asked most."""

    class FakeSure(ToyClassifier):
        def embed(self, inputs: Batch) -> Probabilities:
            rows = super().embed(inputs)
            rows[rows.argmax(axis=1) != 2] = 0.25
            return rows

    attack = replace(
        small(names.load("knockoff-adaptive")), labels=LABELS, diversity=False, loss=False
    )
    recorder = Recorder(FakeSure(sharpness=40))
    steal(attack, recorder, budget=60)
    asked = [LABELS[(picture == POOL).all(axis=(1, 2, 3)).argmax()] for picture in recorder.images]
    assert np.mean(np.array(asked) == 2) > 0.35


def test_labels_must_fit_the_pool() -> None:
    """A label for each picture, or none at all."""
    attack = replace(small(names.load("knockoff-adaptive")), labels=LABELS[:9])
    with pytest.raises(ConfigurationError, match="one label for each of 400 pictures, got 9"):
        steal(attack, ToyClassifier())


def test_a_bandit_needs_a_reward() -> None:
    """Without one there is nothing to learn from."""
    with pytest.raises(ConfigurationError, match="expected a reward"):
        AdaptiveKnockoff(certainty=False, diversity=False, loss=False)


@pytest.mark.parametrize(
    ("pool", "told"),
    [
        (np.zeros((5, 16, 16, 3), np.uint8), "uint8"),
        (np.full((5, 1, 16, 16), 2, np.float32), "0, 1"),
        (np.full((5, 1, 16, 16), np.nan, np.float32), "nan"),
    ],
)
def test_other_pools_are_refused(pool: Any, told: str) -> None:
    """Pictures as bytes, out of range or not numbers end in one line, before anything is asked."""
    victim = Recorder(ToyClassifier())
    with pytest.raises(ConfigurationError, match=told):
        Knockoff()(victim, pool, budget=5, rng=np.random.default_rng(0), clock=FakeClock())
    assert victim.asked == []


def test_a_pool_limits_those_who_ask_it() -> None:
    """Knockoff cannot ask more than there is; steps and generators can."""
    assert Knockoff().most_queries(9, 2) == 9
    with pytest.raises(ConfigurationError, match="between 1 and 400 queries"):
        steal(Knockoff(), ToyClassifier(), budget=401)
    for name in ("jbda", "t-random", "dfme", "maze", "jbda-rotating"):
        assert names.load(name).most_queries(9, 2) > 10**9


def test_a_break_leaves_a_partial_copy() -> None:
    """What was answered is learned, and the theft says why it ended."""

    class FakeBarred(ToyClassifier):
        left = 2

        def embed(self, inputs: Batch) -> Probabilities:
            self.left -= 1
            if self.left < 0:
                raise SuspendedError("barred")
            return super().embed(inputs)

    for name in ("jbda", "dfme", "active-thief"):
        theft = steal(small(names.load(name)), FakeBarred())
        assert theft.partial == "barred"
        assert 0 < theft.queries_spent < BUDGET
        assert theft.surrogate.embed(TEST).shape == (300, 4)


def test_accounts_take_turns_and_refusals_go_around() -> None:
    """Three accounts get a third each; when one is barred, the others answer for it."""
    attack = small(names.load("knockoff-rotating"))

    class FakeBarred(ToyClassifier):
        def embed(self, inputs: Batch) -> Probabilities:
            raise SuspendedError("barred")

    fine = [Recorder(ToyClassifier()) for _ in range(3)]
    theft = steal(attack, Accounts(fine), budget=150)
    assert [len(each.images) for each in fine] == [50, 50, 50]
    fine = [Recorder(ToyClassifier()) for _ in range(2)]
    theft = steal(attack, Accounts([fine[0], FakeBarred(), fine[1]]), budget=150)
    assert theft.queries_spent == 150
    assert "account 2 of 3: barred" in theft.partial
    assert sum(len(each.images) for each in fine) == 150


def test_macro_f1_by_hand() -> None:
    """Two of three of one class, one of two of the other; classes that never occur are left out."""
    wanted, said = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 0])
    assert macro_f1(wanted, said, 5) == pytest.approx((2 * 2 / 6 + 2 * 1 / 4) / 2)


def test_validation_counts_and_picks() -> None:
    """A fifth of the budget validates and is asked, first of all, in one call."""
    recorder = Recorder(ToyClassifier())
    attack = small(names.load("active-thief"))
    steal(attack, recorder, budget=100)
    assert [len(call) for call in recorder.asked] == [20, 10, 14, 14, 14, 14, 14]
    wrong: dict[str, Any]
    for wrong in ({"seed": 0.0}, {"seed": 0.5, "validation": 0.5}, {"iterations": 0}):
        with pytest.raises(ConfigurationError, match="a seed above 0"):
            ActiveThief(**wrong)
