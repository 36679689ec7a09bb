"""The experiment on the cost of ownership tests."""

from __future__ import annotations

import time

import numpy as np
import pytest

from tollkeeper.bench.experiment import Context
from tollkeeper.bench.ownership.audit_speed import EXPERIMENT, FAMILIES, OneLayer, time_family

pytest.importorskip("sklearn")

SETTING = EXPERIMENT.setting(
    "smoke", {"rows": "120", "width": "12", "public": "40", "repetitions": "2"}
)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_contest_is_timed(family: str) -> None:
    """Test and core of each contest take every turn, and the peak is that of a process."""
    said: list[str] = []
    context = Context(1, time.thread_time, lambda _, __, what: said.append(what))
    found = time_family(family, SETTING, context)

    for taken in found["times"].values():
        assert all(len(taken[who]) == 2 and min(taken[who]) > 0 for who in ("test", "core"))
    assert 10 < found["peak_mb"] < 100_000
    assert len(said) == 2 * len(found["times"])


def test_the_encoder_is_one_layer() -> None:
    """Its embeddings are the positive parts of one matrix product."""
    encoder = OneLayer(5, np.random.default_rng(0))
    images = np.random.default_rng(1).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    whole = encoder.embed(images)

    assert whole.shape == (3, 5)
    assert (whole >= 0).all()
    assert np.allclose(2 * whole, encoder.embed(2 * images.astype(np.int64)))
