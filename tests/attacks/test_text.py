"""The text surrogate and what trains it."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tollkeeper.attacks.networks.ngram import NGram  # noqa: E402
from tollkeeper.attacks.surrogate import Surrogate  # noqa: E402
from tollkeeper.attacks.text import OnePassAdam  # noqa: E402
from tollkeeper.lab.fit import Adam  # noqa: E402


def test_a_text_said_twice_is_the_same_text() -> None:
    """The sum of n-grams is scaled, so its length does not matter."""
    surrogate = Surrogate(NGram(buckets=64, width=8).build(6, np.random.default_rng(0)), dim=6)
    once, twice, other = surrogate.embed(["lost card", "lost card lost card", "card"])
    np.testing.assert_allclose(once, twice, atol=1e-5)
    assert not np.allclose(once, other, atol=1e-3)


def test_one_pass_takes_the_steps_of_adam() -> None:
    """Five steps from one start end where the plain optimizer ends."""
    ends = []
    for optimizer in (Adam(), OnePassAdam()):
        value = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
        steps = optimizer([value], 0.1)
        for _ in range(5):
            steps.zero_grad()
            (value**4).sum().backward()
            steps.step()
        ends.append(value.detach().numpy())
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-5)
    assert not np.allclose(ends[0], [1, -2, 3], atol=0.1)
