"""The attack on several accounts asks as much as it says, and no less."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from tollkeeper.attacks.accounts import Accounts
from tollkeeper.attacks.asking import Asker, remaining
from tollkeeper.attacks.base import Attack
from tollkeeper.attacks.recovery.base import AsAnswered
from tollkeeper.attacks.sybil.mapped import Mapped
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.metered import Meter, MeteredEncoder
from tollkeeper.errors import ConfigurationError
from tollkeeper.lab.progress import Progress, silent
from tollkeeper.testing import FakeClock, hash_encoder
from tollkeeper.types import Batch


@dataclass(frozen=True)
class AskAll(Attack):
    """Asks for the whole pool as far as the budget goes."""

    def run(
        self, victim: Encoder, queries: Batch, *, rng: np.random.Generator, progress: Progress
    ) -> Encoder:
        asker = Asker(victim, queries, recovery=AsAnswered(), rng=rng, progress=progress)
        asker.ask(np.arange(min(len(queries), remaining(victim))))
        return victim


def spent(attack: Attack, pool: Batch, *, budget: int, accounts: int) -> int:
    """Return how many queries an attack spends that nobody refuses a budget."""
    meter = Meter(budget)
    metered = [
        MeteredEncoder(hash_encoder(4), meter=meter, account=number) for number in range(accounts)
    ]
    attack.run(Accounts(metered), pool, rng=np.random.default_rng(0), progress=silent)
    return meter.queries_spent


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("size", [3, 8, 40])
@pytest.mark.parametrize("anchors", [1, 5, 30])
def test_the_largest_budget_is_what_can_be_asked(count: int, size: int, anchors: int) -> None:
    """It is spent to the last query, and whoever allows more gets no more."""
    pool = [f"text {number}" for number in range(size)]
    attack = Mapped(inner=AskAll(), anchors=anchors)
    most = attack.most_queries(size, count)
    assert spent(attack, pool, budget=most, accounts=count) == most
    for budget in (most + 1, most + 2, most + 30):
        assert spent(attack, pool, budget=budget, accounts=count) < budget
    victim = Accounts([hash_encoder(4)] * count)
    with pytest.raises(ConfigurationError, match=f"between 1 and {most} queries"):
        attack(victim, pool, budget=most + 1, rng=np.random.default_rng(0), clock=FakeClock())
