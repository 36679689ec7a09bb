"""The promise of resuming, with a real gateway and a process that is really killed."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tollkeeper.client import open_target
from tollkeeper.testing import HashEncoder

BATCH, CONCURRENCY, STEP = 4, 4, 24
POOL = [f"query {i}" for i in range(100 * STEP)]

RUN = """
import hashlib, sys
from tollkeeper.client import Pace, open_target
url, key, path, batch, concurrency, step, pool = sys.argv[1:]
inputs = [f"query {i}" for i in range(int(pool))]
target = open_target(url, transcript=path, api_key=key, dim=8, batch=int(batch),
                     pace=Pace(concurrency=int(concurrency)))
for start in range(0, len(inputs), int(step)):
    rows = target.embed(inputs[start : start + int(step)])
    print(hashlib.sha256(rows.tobytes()).hexdigest(), flush=True)
"""


def run_until_killed(live: Any, path: Path, *, steps: int) -> list[str]:
    """Ask from a process of its own and kill it after some steps; return what it printed."""
    numbers = [str(number) for number in (BATCH, CONCURRENCY, STEP, len(POOL))]
    with subprocess.Popen(
        [sys.executable, "-c", RUN, live.url, live.key, str(path), *numbers],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        printed = [process.stdout.readline().strip() for _ in range(steps)]
        process.send_signal(signal.SIGKILL)
        printed += process.stdout.read().split()
        assert process.wait() == -signal.SIGKILL, "it was killed before it was done"
    return printed


def test_a_killed_run_goes_on_where_it_was(start_gateway: Any, tmp_path: Path) -> None:
    """Whatever the killed run returned is answered to the bit and not asked again.

    The guard adds fresh noise, so an answer that was asked again would differ. At most the
    calls that were in flight are asked twice.
    """
    live = start_gateway(HashEncoder(8), profile="b4b-2023")
    path = tmp_path / "transcript.sqlite"
    printed = run_until_killed(live, path, steps=5)
    with open_target(live.url, transcript=path, api_key=live.key) as target:
        kept = target.spend().distinct
        assert STEP * len(printed) <= kept < len(POOL)
        for step, expected in enumerate(printed):
            rows = target.embed(POOL[step * STEP : (step + 1) * STEP])
            assert hashlib.sha256(rows.tobytes()).hexdigest() == expected
        assert target.spend().distinct == kept
        target.rewind()
        assert np.isfinite(target.embed(POOL)).all()
        assert target.spend().distinct == len(POOL)
    in_flight = BATCH * CONCURRENCY
    assert 0 <= live.entry().queries - len(POOL) <= in_flight < STEP * len(printed)


def test_the_guard_of_this_test_is_noisy(start_gateway: Any, tmp_path: Path) -> None:
    """Asking the gateway of the test above again gives other bytes, so replays are proven."""
    live = start_gateway(HashEncoder(8), profile="b4b-2023")
    with open_target(live.url, transcript=tmp_path / "t", api_key=live.key, dim=8) as target:
        first, second = target.embed(POOL[:STEP]), target.embed(POOL[:STEP])
    assert not np.array_equal(first, second)
