"""A key and a clock for logs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from tollkeeper.audit.evidence.keys import Signer, create


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    """Return a fresh key."""
    return create(Path(tmp_path_factory.mktemp("keys")) / "owner.pem")


@pytest.fixture
def clock() -> Callable[[], float]:
    """Return a clock that ticks once a look."""
    ticks = itertools.count(1_800_000_000)
    return lambda: float(next(ticks))
