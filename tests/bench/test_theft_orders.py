"""Orders: what is refused before a target is asked anything, and what is scored on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tollkeeper.bench.theft.findings import Findings  # noqa: E402
from tollkeeper.bench.theft.orders import Order, Ready, image_pool, opened, text_pool  # noqa: E402
from tollkeeper.bench.theft.tasks import IMAGE_TASKS, TEXT_TASKS  # noqa: E402
from tollkeeper.errors import ConfigurationError  # noqa: E402
from tollkeeper.testing import FakeClock, HashEncoder  # noqa: E402
from tollkeeper.testing.victims import sentences  # noqa: E402

RNG = np.random.default_rng
TEXTS = text_pool("toy", sentences(400), RNG(0))
IMAGES = image_pool("pictures", RNG(0).integers(0, 256, (60, 8, 8, 3), np.uint8), RNG(0))
TOY = "python:tollkeeper.testing.victims:ToyTextVictim"
SMALL = {"network.buckets": "64", "network.width": "8", "network.hidden": "8", "epochs": "1"}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Leave the cores to other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def order(folder: Path, **changes: Any) -> Order:
    """Return a small order."""
    given: dict[str, Any] = {
        "attack": "text-distillation",
        "target": TOY,
        "pool": TEXTS,
        "budgets": (20, 50),
        "folder": folder,
        "tasks": (),
        "settings": SMALL,
        **changes,
    }
    return Order(**given)


@contextmanager
def ready(made: Order) -> Iterator[Ready]:
    """Open an order in silence."""
    with opened(made, clock=FakeClock(), told=lambda label, step: None) as found:
        yield found


def test_own_inputs_become_a_pool() -> None:
    """Texts come once and shuffled; images are shuffled and scaled to 32x32."""
    texts = ["b", "a", "b", "c", "d", "e"]
    pool = text_pool("mine", texts, RNG(1))
    assert sorted(pool.inputs) == ["a", "b", "c", "d", "e"]
    assert list(pool.inputs) != ["b", "a", "c", "d", "e"]
    mixed = [np.full((side, side, 3), side, np.uint8) for side in (8, 40, 32)]
    images = image_pool("mine", mixed, RNG(0)).inputs
    assert np.asarray(images).shape == (3, 32, 32, 3)
    assert sorted(np.asarray(images)[:, 0, 0, 0]) == [8, 32, 40]


def test_usual_tasks_are_those_of_the_modality(tmp_path: Path) -> None:
    """A live target without a reference is not asked about tasks that nobody named."""
    url = "http://127.0.0.1:1/v1"
    for changes, wanted in (
        ({"tasks": None}, TEXT_TASKS),
        ({"tasks": None, "pool": IMAGES}, IMAGE_TASKS),
        ({"tasks": None, "target": url}, ()),
        ({"tasks": None, "target": url, "reference": TOY}, TEXT_TASKS),
        ({"tasks": ("sst2",), "target": url}, ("sst2",)),
    ):
        assert order(tmp_path, **changes).task_names() == wanted
    with pytest.raises(ConfigurationError, match="no text task 'cifar10'"):
        order(tmp_path, tasks=("cifar10",)).task_names()


def test_findings_say_what_was_ordered(tmp_path: Path) -> None:
    """Before the first run everything but the rows is known."""
    with ready(order(tmp_path, price=0.25, seeds=2, profile="cheapest", accounts=2)) as found:
        told: Findings = found.findings
        assert (told.attack, told.target, told.model) == ("text-distillation", TOY, "toy-text")
        assert (told.dim, told.accounts, told.is_live) == (16, 2, False)
        assert (told.profile, told.price, told.seeds, told.budgets) == (
            "cheapest",
            0.25,
            2,
            (20, 50),
        )
        assert told.pool_size == len(TEXTS.inputs) - len(TEXTS.inputs) // 5
        assert told.settings["network.buckets"] == 64
        assert told.scoring_queries == 0
        assert told.victim["recall10"] == 1
        assert 0 < told.untrained["recall10"] < 1
        assert not told.is_complete


def test_scoring_a_live_target_by_itself_is_counted_apart(
    start_gateway: Any, tmp_path: Path
) -> None:
    """Without a reference the target is asked for the held-out inputs, and for no other."""
    gateway = start_gateway(HashEncoder(8), profile="none")
    made = order(tmp_path, target=gateway.url, keys=[gateway.key], price=1.0)
    with ready(made) as found:
        held = len(TEXTS.inputs) // 5
        assert found.findings.scoring_queries == held
        assert not found.findings.is_clean
        spend = found.campaign.victim.spend
        assert spend is not None
        assert spend().distinct == held + 1  # the probe is the attack's first query
    with ready(order(tmp_path, target=gateway.url, keys=[gateway.key], reference=TOY)) as found:
        assert (found.findings.scoring_queries, found.findings.is_clean) == (0, True)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"attack": "theft"}, "no attack 'theft'"),
        ({"attack": "stolen-encoder"}, "copies image encoders, got text inputs"),
        ({"scale": "smoke"}, "no scale 'smoke'"),
        ({"tasks": ("cifar10",)}, "no text task"),
        ({"settings": {"color": "red"}}, "no setting 'color'"),
        ({"settings": {"network.buckets": "0"}}, "network cannot be used"),
        ({"budgets": (20, 5000)}, "got 5,000"),
        ({"seeds": 0}, "got 0"),
        ({"pool": text_pool("few", sentences(20), RNG(0))}, "at least 55 inputs in few"),
        ({"price": -1.0}, "price to be at least 0"),
        ({"accounts": 26}, "1 to 25 accounts"),
        ({"profile": "strong"}, "guard profile"),
        ({"target": "python:tollkeeper.testing.victims:ToyImageVictim"}, "takes image, got text"),
        ({"reference": "python:tollkeeper.testing.victims:ToyImageVictim"}, "takes image"),
        ({"target": "builtin:sound"}, "unknown encoder spec"),
    ],
)
def test_bad_orders_are_refused(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    """Whatever makes no sense ends in one line that names it."""
    with pytest.raises(ConfigurationError, match=named), ready(order(tmp_path, **changes)):
        pass


def test_nothing_is_asked_of_a_target_for_a_bad_order(start_gateway: Any, tmp_path: Path) -> None:
    """Budget, settings and attack are checked before the target hears of anything."""
    gateway = start_gateway(HashEncoder(8), profile="none")
    live: dict[str, Any] = {"target": gateway.url, "keys": [gateway.key]}
    for changes in ({"budgets": (0,)}, {"settings": {"color": "red"}}, {"attack": "rda"}):
        with pytest.raises(ConfigurationError), ready(order(tmp_path, **live, **changes)):
            pass
    assert gateway.entry().queries == 0
