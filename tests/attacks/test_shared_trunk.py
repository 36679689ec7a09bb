"""One trunk learns from all accounts, whatever linear maps stand before them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tollkeeper.attacks.accounts import Accounts  # noqa: E402
from tollkeeper.attacks.networks.convnet import ConvNet  # noqa: E402
from tollkeeper.attacks.presets import for_two_cores, sybil_trunk  # noqa: E402
from tollkeeper.encoders.base import Encoder  # noqa: E402
from tollkeeper.errors import EncoderError, ThrottledError  # noqa: E402
from tollkeeper.testing import FakeClock  # noqa: E402
from tollkeeper.testing.victims import ToyImageVictim, blobs  # noqa: E402
from tollkeeper.types import Batch, Embeddings  # noqa: E402


class FakeAccount(ToyImageVictim):
    """Answers so many inputs, in their order or not, and then refuses."""

    def __init__(self, view: Any = None, *, most: int = 10_000, mixed: bool = False) -> None:
        super().__init__(view=view)
        self.left, self.mixed = most, mixed
        self.asked: list[bytes] = []

    def embed(self, inputs: Batch) -> Embeddings:
        if len(inputs) > self.left:
            raise ThrottledError("slow down", retry_after_s=1.0)
        self.left -= len(inputs)
        self.asked += [image.tobytes() for image in inputs]
        rows = super().embed(inputs)
        return np.random.default_rng(4).permutation(rows) if self.mixed else rows


def steal(accounts: Sequence[Encoder], *, queries: int, epochs: int = 15) -> Any:
    """Copy accounts through a toy trunk."""
    attack = for_two_cores(sybil_trunk(), epochs=epochs, network=ConvNet(width=4, side=16))
    return replace(attack, width=64)(
        Accounts(accounts),
        blobs(queries),
        budget=queries,
        rng=np.random.default_rng(0),
        clock=FakeClock(),
    )


def dense(rng: np.random.Generator) -> Any:
    """Return a matrix that mixes everything."""
    return rng.normal(size=(16, 16)).astype(np.float32)


def rotation(rng: np.random.Generator) -> Any:
    """Return a rotation."""
    return np.linalg.qr(dense(rng))[0]


def wide(rng: np.random.Generator) -> Any:
    """Return a matrix to another width for each account."""
    return rng.normal(size=(16, int(rng.integers(20, 40)))).astype(np.float32)


def explained(surrogate: Encoder) -> float:
    """Return the share of the clean victim's variance that is linear in a copy, on new images."""
    fitted, held_out = blobs(800, seed=1), blobs(300, seed=2)
    design = [np.c_[surrogate.embed(images), np.ones(len(images))] for images in (fitted, held_out)]
    solved, *_ = np.linalg.lstsq(design[0], ToyImageVictim().embed(fitted), rcond=None)
    truth = ToyImageVictim().embed(held_out)
    away = np.square(design[1] @ solved - truth).sum()
    return float(1 - away / np.square(truth - truth.mean(axis=0)).sum())


@pytest.mark.parametrize("secret", [dense, rotation, wide])
def test_the_trunk_holds_what_the_victim_knows(
    secret: Callable[[np.random.Generator], Any],
) -> None:
    """Behind secret matrices of four accounts; answers that are mixed up teach nothing."""
    rng = np.random.default_rng(5)
    secrets = [secret(rng) for _ in range(4)]
    theft = steal([FakeAccount(one) for one in secrets], queries=800)
    assert theft.partial == ""
    assert theft.surrogate.dim == 64
    assert explained(theft.surrogate) > 0.75
    mixed = steal([FakeAccount(one, mixed=True) for one in secrets], queries=800)
    assert explained(mixed.surrogate) < 0.5


@pytest.mark.parametrize("most", [0, 50])
def test_what_an_account_refuses_the_others_are_asked(most: int) -> None:
    """Every image of the budget is answered once, and the theft says who stopped."""
    accounts = [FakeAccount(), FakeAccount(most=most), FakeAccount()]
    theft = steal(accounts, queries=400, epochs=1)
    asked = [mark for account in accounts for mark in account.asked]
    assert theft.queries_spent == len(asked) == len(set(asked)) == 400
    assert len(accounts[1].asked) == most // 32 * 32
    assert abs(len(accounts[0].asked) - len(accounts[2].asked)) <= 2
    assert theft.partial == "account 2 of 3: slow down"


def test_when_all_stop_there_is_a_copy_of_what_they_said() -> None:
    """The theft ends when nobody answers any more."""
    theft = steal([FakeAccount(most=64), FakeAccount(most=32)], queries=400, epochs=1)
    assert theft.queries_spent == 96
    assert theft.partial == "account 1 of 2: slow down"


def test_accounts_that_never_answer_are_an_error() -> None:
    """The last refusal is told."""
    down = FakeAccount()
    down.embed = _down  # type: ignore[method-assign]  # a stub
    with pytest.raises(ThrottledError, match="slow down"):
        steal([down, FakeAccount(most=0)], queries=400)


def _down(inputs: Batch) -> Embeddings:
    raise EncoderError("down")
