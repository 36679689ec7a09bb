"""Promises of the border between numpy and torch."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tollkeeper.lab import torching  # noqa: E402

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")


def test_a_generator_follows_the_rng_it_is_made_of() -> None:
    """Equal rngs give equal draws, and each call takes one draw from the rng."""
    rng, same = np.random.default_rng(3), np.random.default_rng(3)
    first, again = torching.generator(rng), torching.generator(same)
    second = torching.generator(rng)

    draws = torch.rand(5, generator=first)

    assert torch.equal(draws, torch.rand(5, generator=again))
    assert not torch.equal(draws, torch.rand(5, generator=second))
    same.integers(2**63 - 1)
    assert rng.integers(1000) == same.integers(1000)


def test_networks_built_inside_follow_the_rng_and_touch_nothing_else() -> None:
    """Equal rngs give equal weights, and the global generator goes on as if nothing happened."""
    before = torch.random.get_rng_state()
    weights = []
    for seed in (1, 1, 2):
        with torching.seeded_init(np.random.default_rng(seed)):
            weights.append(torch.nn.Linear(4, 3).weight)

    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_global_generator_survives_a_failed_construction() -> None:
    """An exception inside restores the global generator and comes through."""
    before = torch.random.get_rng_state()

    with pytest.raises(ZeroDivisionError), torching.seeded_init(np.random.default_rng(0)):
        torch.rand(1 // 0)

    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_device_is_the_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch reports decides."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert torching.device() == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert torching.device() == CPU


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_the_cpu_is_fast_only_if_it_multiplies_bfloat16(
    monkeypatch: pytest.MonkeyPatch, *, native: bool, expected: Any
) -> None:
    """Products are bfloat16 inside if the CPU has the instructions, and float32 outside."""
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native}, raising=False
    )
    x = torch.eye(2)
    with torching.autocast(CPU):
        assert (x @ x).dtype == expected
    assert (x @ x).dtype == torch.float32


def test_an_old_torch_that_knows_no_capabilities_stays_at_full_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without `torch.cpu.get_capabilities` nothing is cast."""
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert isinstance(torching.autocast(CPU), nullcontext)


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_is_asked_for_native_bfloat16(
    monkeypatch: pytest.MonkeyPatch, *, native: bool
) -> None:
    """A GPU that would emulate bfloat16 keeps float32."""

    def supported(*, including_emulation: bool) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert torching._multiplies_bfloat16(torch.device("cuda")) == native
