"""A live target in front of the real command: every pixel arrives, and the bill is right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollkeeper.client import Allowance, Caps, open_target
from tollkeeper.encoders.builtin_image import ImageEncoder
from tollkeeper.encoders.builtin_text import TextEncoder
from tollkeeper.errors import AuthenticationError, BudgetExhausted
from tollkeeper.testing import HashEncoder

_RNG = np.random.default_rng(0)
SIZES = [(32, 32), (28, 28), (96, 96), (1, 1), (33, 17), (224, 160)]
IMAGES = [_RNG.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]
EXTREME = [np.full((32, 32, 3), value, np.uint8) for value in (0, 255)]


def test_pixels_that_are_decoded_are_those_that_were_sent(
    start_gateway: Any, tmp_path: Path
) -> None:
    """An encoder that hashes shape and pixels behind the gateway agrees with it in front."""
    live = start_gateway(HashEncoder(64), profile="none")
    with open_target(live.url, transcript=tmp_path / "t", api_key=live.key, dim=64) as target:
        images = [*IMAGES, *EXTREME]
        np.testing.assert_array_equal(target.embed(images), HashEncoder(64).embed(images))
        gray = np.repeat(IMAGES[0][:, :, :1], 3, axis=2)
        np.testing.assert_array_equal(target.embed([gray]), HashEncoder(64).embed([gray]))


def test_the_builtin_image_encoder_is_asked_as_if_it_were_here(serve: Any, tmp_path: Path) -> None:
    """`builtin:image`, served without a guard, answers images of any size as it does locally."""
    served = serve("--encoder", "builtin:image", "--profile", "none")
    key = served.key("red-team")
    local = ImageEncoder()
    images = [*IMAGES, *EXTREME]
    with open_target(served.url, transcript=tmp_path / "t", api_key=key, probe=images[0]) as target:
        assert (target.name, target.dim) == (local.name, local.dim)
        np.testing.assert_array_equal(target.embed(images), local.embed(images))
        spend = target.spend()
        assert (spend.distinct, spend.repeats, spend.tokens) == (len(images), 0, len(images))
    with pytest.raises(AuthenticationError):
        open_target(served.url, transcript=tmp_path / "other", api_key="sk-wrong")


def test_texts_are_embedded_as_if_they_were_here(serve: Any, tmp_path: Path) -> None:
    """`builtin:text`, served without a guard, gives the bytes that it gives locally."""
    served = serve("--encoder", "builtin:text", "--profile", "none")
    texts = ["bank", "I still have not received my card", "Füße 北京"]
    key = served.key("red-team")
    with open_target(served.url, transcript=tmp_path / "t", api_key=key) as target:
        np.testing.assert_array_equal(target.embed(texts), TextEncoder().embed(texts))


def test_a_spent_budget_of_the_gateway_is_a_refusal(start_gateway: Any, tmp_path: Path) -> None:
    """The target's own hard budget ends the run after one call, and what was answered is kept."""
    # Under one secret in 25, two of eleven inputs of so few dimensions share a bucket.
    live = start_gateway(HashEncoder(8), master_key="5f" * 32)
    store = live.gateway.store
    store.update_tenant(replace(store.find_tenant("default"), budget=10))
    with open_target(
        live.url,
        transcript=tmp_path / "t",
        api_key=live.key,
        dim=8,
        batch=5,
        allowance=Allowance(Caps(distinct=100)),
    ) as target:
        target.embed([f"query {i}" for i in range(10)])
        with pytest.raises(BudgetExhausted, match="takes no more from this account"):
            target.embed(["one more"])
        spend = target.spend()
        assert (spend.distinct, spend.calls, spend.retries) == (10, 3, 0)
