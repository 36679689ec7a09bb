"""Sketches in the ledger turn with their windows, alike on every replica."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollkeeper.gateway.archive import Archive, Kept
from tollkeeper.gateway.asks import Ask
from tollkeeper.gateway.assembly import make_service
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.pools import Deployment, pool_key
from tollkeeper.gateway.service import Guarded
from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.guard.windows import DAY_S, Windows
from tollkeeper.ledger.memory import MemoryLedger
from tollkeeper.testing.encoders import hash_encoder
from tollkeeper.types import Account

ENCODER = hash_encoder(32)
SAMPLE = ENCODER.embed([f"sample {i}" for i in range(600)])
CALIBRATION = Calibration.fit(SAMPLE, rng=np.random.default_rng(0))
GUARD = Guard(profiles.RECOMMENDED, CALIBRATION, secret=bytes(range(32)))
LAYOUT = GUARD.profile.layout
MONTH = Windows(30, 0.5)


class Clock:
    """A clock that is told the day."""

    day = 1.0

    def __call__(self) -> float:
        return self.day * DAY_S


def replica(ledger: Any, clock: Clock, windows: Windows | None = MONTH) -> Guarded:
    """A service with windows."""
    return make_service(
        ENCODER,
        GUARD,
        ledger,
        clock=clock,
        rng=np.random.default_rng(0),
        metrics=Metrics(),
        windows=windows,
    )


def ask(service: Guarded, *texts: str) -> None:
    """Let the only tenant ask."""
    service.answer(Ask(Account("acme", "k", "acme"), texts, "text"))


def kept(ledger: Any, clock: Clock, windows: Windows | None = MONTH) -> Kept:
    """The tenant's sketch as it is now."""
    archive = Archive(LAYOUT, windows, GUARD.fingerprint)
    return archive.load(ledger.read(pool_key("acme", GUARD.fingerprint)).sketch, at=clock())


def marks(some: Kept) -> int:
    """How many bits are set."""
    return int(np.unpackbits(LAYOUT.bitmap(some.sketch)).sum())


def test_a_served_pool_forgets_at_the_turn_and_not_before() -> None:
    """Half of the marks are gone in the next window, also without a restart; spend stays."""
    ledger, clock = MemoryLedger(), Clock()
    service = replica(ledger, clock)
    ask(service, *[f"text {i}" for i in range(100)])
    before = kept(ledger, clock)
    clock.day = 29.9
    ask(service, "text 0")
    assert marks(kept(ledger, clock)) == marks(before)
    clock.day = 31
    assert marks(kept(ledger, clock)) == pytest.approx(marks(before) / 2, rel=0.1)
    ask(service, "text 0")
    after = kept(ledger, clock)
    assert after.since == 30 * DAY_S
    assert marks(after) == pytest.approx(marks(before) / 2, rel=0.1)
    assert ledger.read(pool_key("acme", GUARD.fingerprint)).spent >= 100


def test_replicas_and_restarts_turn_alike() -> None:
    """Whoever looks first, every replica finds the same marks after turns."""
    found = []
    for order in ([0], [1], [0, 1], [1, 0, 1]):
        ledger, clock = MemoryLedger(), Clock()
        both = [replica(ledger, clock), replica(ledger, clock)]
        ask(both[0], *[f"text {i}" for i in range(100)])
        for day, who in zip(np.linspace(31, 95, len(order)), order, strict=True):
            clock.day = float(day)
            ask(both[who], "text 0")
        clock.day = 95
        ask(replica(ledger, clock), "text 0")
        found.append(kept(ledger, clock).sketch.tobytes())
    # What was asked between turns differs by one input; its marks alone may.
    sketches = [np.frombuffer(one, np.uint8) for one in found]
    for sketch in sketches[1:]:
        assert int(np.unpackbits(sketches[0] ^ sketch).sum()) <= 21
    assert found[0] == found[1]


def test_a_clock_that_goes_back_changes_nothing() -> None:
    """A replica whose clock is behind keeps the later window."""
    ledger, clock = MemoryLedger(), Clock()
    clock.day = 31
    ask(replica(ledger, clock), "a", "b")
    before = kept(ledger, clock)
    clock.day = 29
    ask(replica(ledger, clock), "a")
    clock.day = 31
    after = kept(ledger, clock)
    assert (after.since, after.sketch.tobytes()) == (before.since, before.sketch.tobytes())


def test_windows_can_be_turned_on_and_off() -> None:
    """A sketch from before windows counts as of the running one, and is read after them too."""
    ledger, clock = MemoryLedger(), Clock()
    ask(replica(ledger, clock, None), *[f"text {i}" for i in range(50)])
    whole = kept(ledger, clock, None)
    clock.day = 100
    assert marks(kept(ledger, clock)) == marks(whole)
    ask(replica(ledger, clock), "text 0")
    clock.day = 130
    assert 0 < marks(kept(ledger, clock)) < marks(whole)
    assert marks(kept(ledger, clock, None)) == marks(whole)
    ask(replica(ledger, clock, None), "text 0")
    assert marks(kept(ledger, clock, None)) == marks(whole)


def test_a_quiet_pool_from_before_windows_turns_too() -> None:
    """Who asked before windows were turned on, and not since, forgets from then on like others."""
    ledger, clock = MemoryLedger(), Clock()
    ask(replica(ledger, clock, None), *[f"text {i}" for i in range(100)])
    whole = kept(ledger, clock, None)
    archive = Archive(LAYOUT, MONTH, GUARD.fingerprint, 30 * DAY_S)
    data = ledger.read(pool_key("acme", GUARD.fingerprint)).sketch
    for day, share in ((31, 1.0), (61, 0.5), (91, 0.25)):
        found = archive.load(data, at=day * DAY_S)
        assert marks(found) == pytest.approx(marks(whole) * share, rel=0.15)


def test_the_first_window_is_remembered(start_gateway: Any, tmp_path: Path) -> None:
    """Restarts keep when windows were turned on; turning them off and on begins anew."""
    day = [100.0]
    clock = lambda: day[0] * DAY_S  # noqa: E731
    found = []
    for at, window in ((100, 30), (170, 30), (180, None), (190, 30)):
        day[0] = at
        served = start_gateway(ENCODER, window=window, clock=clock)
        served.stop()
        deployment = Deployment.load(tmp_path / "data")
        assert deployment is not None
        found.append(deployment.window_since / DAY_S)
    assert found == [90, 90, 0, 180]
