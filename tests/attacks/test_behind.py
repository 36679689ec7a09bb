"""What the attacks of the table that stand behind something do to accounts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tollkeeper.attacks.accounts import Accounts  # noqa: E402
from tollkeeper.attacks.names import load  # noqa: E402
from tollkeeper.attacks.networks.ngram import NGram  # noqa: E402
from tollkeeper.attacks.presets import for_two_cores  # noqa: E402
from tollkeeper.bench.theft.guarded import GuardedVictim  # noqa: E402
from tollkeeper.encoders.base import Encoder  # noqa: E402
from tollkeeper.errors import ConfigurationError  # noqa: E402
from tollkeeper.guard import Calibration, profiles  # noqa: E402
from tollkeeper.testing import FakeClock  # noqa: E402
from tollkeeper.testing.victims import ToyTextVictim, sentences  # noqa: E402
from tollkeeper.types import Batch, Embeddings  # noqa: E402

TEXTS = sentences(400)
TINY = NGram(buckets=64, width=8, hidden=8)


class Listening(ToyTextVictim):
    """Remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def embed(self, inputs: Batch) -> Embeddings:
        self.asked.extend(inputs)
        return super().embed(inputs)


def steal(name: str, victim: Encoder) -> Any:
    """Run an attack of the table with its own settings but for the size of its network."""
    attack: Any = for_two_cores(load(name), text=True, epochs=1, network=TINY)
    rng, clock = np.random.default_rng(0), FakeClock()
    return attack(victim, TEXTS, budget=300, rng=rng, clock=clock)


def guarded(rng: np.random.Generator) -> GuardedVictim:
    """Return the toy behind a guard whose knee a few dozen inputs reach."""
    clean = ToyTextVictim()
    calibration = Calibration.fit(clean.embed(sentences(500, seed=3)), rng=rng)
    profile = profiles.CHEAPEST.with_knee(0.55)
    return GuardedVictim(clean, profile, calibration, secret=bytes(32), clock=FakeClock(), rng=rng)


def test_merged_inputs_needs_no_filler_of_its_own() -> None:
    """`merged-inputs` asks distinct inputs, each behind the pool's first one, and no plain one."""
    victim = Listening()
    theft = steal("merged-inputs", victim)
    assert theft.queries_spent == len(set(victim.asked)) == 300
    assert all(text.startswith(f"{TEXTS[0]} ") for text in victim.asked)
    assert {text.removeprefix(f"{TEXTS[0]} ") for text in victim.asked} <= set(TEXTS)


def test_stop_at_noise_leaves_where_a_greedy_thief_goes_on() -> None:
    """`stop-at-noise` spends what is free; the attack inside it, left alone, spends everything."""
    with guarded(np.random.default_rng(1)) as victim:
        stopped = steal("stop-at-noise", victim.account("a"))
        greedy = steal("direct-infonce", victim.account("b"))
        assert 32 <= stopped.queries_spent < 150 < greedy.queries_spent == 300
        assert victim.noise("a") <= 0.5 < victim.noise("b")


def test_sybil_stop_gets_clean_answers_from_each_account() -> None:
    """`sybil-stop` leaves every account at its knee, and three give more than one."""
    with guarded(np.random.default_rng(1)) as victim:
        names = ("a", "b", "c")
        alone = steal("stop-at-noise", victim.account("d")).queries_spent
        joined = steal("sybil-stop", Accounts([victim.account(name) for name in names]))
        assert 2 * alone < joined.queries_spent < 300
        assert all(victim.noise(name) <= 0.5 for name in names)


def test_what_needs_sybils_inside_needs_them_outside() -> None:
    """A single account is refused before it is asked anything, as for the attack inside."""
    victim = Listening()
    with pytest.raises(ConfigurationError, match="at least 2 accounts, got 1"):
        steal("sybil-stop", victim)
    assert not victim.asked
