"""An account is left at its first changed answer, and only clean answers are used."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tollkeeper.attacks.accounts import Accounts  # noqa: E402
from tollkeeper.attacks.direct import Direct  # noqa: E402
from tollkeeper.attacks.networks.ngram import NGram  # noqa: E402
from tollkeeper.attacks.presets import for_two_cores  # noqa: E402
from tollkeeper.attacks.sybil.canary import Canary, StopAtNoise  # noqa: E402
from tollkeeper.attacks.sybil.mapped import Mapped  # noqa: E402
from tollkeeper.encoders.metered import Meter, MeteredEncoder  # noqa: E402
from tollkeeper.errors import ConfigurationError, RefusalError  # noqa: E402
from tollkeeper.testing import FakeClock  # noqa: E402
from tollkeeper.testing.victims import ToyTextVictim, sentences  # noqa: E402
from tollkeeper.types import Batch, Embeddings  # noqa: E402


class Noisy(ToyTextVictim):
    """Answers `knee` distinct inputs cleanly; then all answers, old ones too, move by one."""

    def __init__(self, knee: int) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.knee = knee

    def embed(self, inputs: Batch) -> Embeddings:
        self.seen |= set(inputs)
        return super().embed(inputs) + np.float32(len(self.seen) > self.knee)


def watched(knee: int, budget: int = 1000) -> tuple[Canary, Noisy, Meter]:
    """Return a canary over a metered account."""
    victim, meter = Noisy(knee), Meter(budget)
    return Canary(MeteredEncoder(victim, meter=meter)), victim, meter


def test_only_clean_answers_come_out() -> None:
    """The call that meets noise is refused; what was answered before is still given, for free."""
    canary, victim, meter = watched(knee=100)
    texts = sentences(300)
    clean = ToyTextVictim().embed(texts)
    with pytest.raises(RefusalError, match="have changed"):
        canary.embed(texts)
    assert canary.tripped
    assert 96 <= meter.queries_spent <= 112
    asked = meter.queries_spent
    np.testing.assert_array_equal(canary.embed(texts[:96]), clean[:96])
    with pytest.raises(RefusalError):
        canary.embed(texts[200:201])
    assert (meter.queries_spent, len(victim.seen)) == (asked, asked)


def test_looking_at_the_canary_costs_repeats_only() -> None:
    """A clean account answers everything in order; each look is one repeat."""
    canary, _, meter = watched(knee=1000)
    texts = sentences(50)
    np.testing.assert_array_equal(canary.embed(texts), ToyTextVictim().embed(texts))
    assert (meter.queries_spent, meter.repeats) == (50, 4)
    assert canary.remaining == 950
    assert canary.embed([]).shape == (0, 16)


def test_rounding_is_no_noise() -> None:
    """An answer that wobbles within the share stays clean, and beyond it does not."""

    class Wobbling(ToyTextVictim):
        calls = 0

        def embed(self, inputs: Batch) -> Embeddings:
            self.calls += 1
            return super().embed(inputs) * np.float32(1 + 1e-4 * (self.calls % 2))

    def asked(rounding: float) -> int:
        meter = Meter(100)
        canary = Canary(MeteredEncoder(Wobbling(), meter=meter), rounding=rounding)
        with suppress(RefusalError):
            canary.embed(sentences(50))
        return meter.queries_spent

    assert (asked(1e-3), asked(1e-5)) == (50, 16)


@pytest.mark.parametrize("bad", [{"rounding": 1.0}, {"rounding": -0.1}, {"every": 0}])
def test_a_canary_that_never_sings_is_refused(bad: Any) -> None:
    """No look, or none that could see anything, is a mistake."""
    with pytest.raises(ConfigurationError, match="a look every 1 input or more"):
        StopAtNoise(inner=Direct(), **bad)


def test_sybils_collect_what_one_account_would_not_get() -> None:
    """Three accounts with a knee of 150 give a clean copy of nearly three times as many."""
    small = for_two_cores(Direct(), text=True, epochs=2, network=NGram(buckets=64, width=8))
    attack = StopAtNoise(inner=Mapped(inner=small, anchors=20))
    accounts = [Noisy(150) for _ in range(3)]
    theft = attack(
        Accounts(accounts),
        sentences(600),
        budget=600,
        rng=np.random.default_rng(0),
        clock=FakeClock(),
    )
    assert 380 <= theft.queries_spent <= 500
    assert all(len(account.seen) <= 150 + 16 for account in accounts)
