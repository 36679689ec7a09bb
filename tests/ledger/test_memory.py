"""The ledger in memory: what differs from one on disk."""

from __future__ import annotations

import pytest

from tollkeeper.ledger import memory
from tollkeeper.ledger.memory import MemoryLedger
from tollkeeper.types import Record

RECORD = Record(
    at=1.0,
    tenant="acme",
    key_id="k",
    request_id="r",
    model="m",
    inputs=2,
    tokens=3,
    charge=1.0,
    coverage=0.1,
    noise_scale=0.0,
    profile="none/1",
)


def test_records_are_bounded_and_totals_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the last records are kept, also after pruning, but spend counts them all."""
    monkeypatch.setattr(memory, "MAX_RECORDS", 10)
    with MemoryLedger() as ledger:
        for version in range(25):
            ledger.commit("acme", RECORD, b"", expected=version)
            if version == 12:
                assert ledger.prune(0.0) == 0
        assert len(list(ledger.records(limit=100))) == 10
        assert ledger.read("acme").spent == 25.0
