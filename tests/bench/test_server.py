"""Starting the real server as a subprocess."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest

from tollkeeper.bench.experiment import BenchError
from tollkeeper.bench.server import Server
from tollkeeper.guard.calibration import Calibration

HASH = "python:tollkeeper.testing.encoders:hash_encoder_384"


@pytest.mark.slow
def test_serves_until_the_block_ends(tmp_path: Path) -> None:
    """Inside the block the server answers on its port; afterwards nobody listens there."""
    calibration = tmp_path / "calibration"
    sample = np.random.default_rng(0).standard_normal((300, 384)).astype(np.float32)
    calibration.write_bytes(Calibration.fit(sample, rng=np.random.default_rng(1)).to_bytes())
    with Server(
        tmp_path / "data", profile="recommended", encoder=HASH, calibration=calibration
    ) as server:
        assert server.model == "hash-384"
        memory = server.peak_memory_mb()
        assert memory is None or memory > 10
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port), timeout=5)


@pytest.mark.slow
def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """A wrong encoder ends in one line, taken from the server's own log."""
    with pytest.raises(BenchError, match=r"stopped at once.*encoder"):
        Server(tmp_path, profile="recommended", encoder="nonsense")
