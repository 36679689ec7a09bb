"""The journal: refusals reach the records, bounded, and survive a ledger that fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tollkeeper.errors import LedgerError
from tollkeeper.gateway.journal import MOST_A_MINUTE, Journal
from tollkeeper.types import Record


class Notes:
    """A fake ledger that takes notes, unless it is told to fail."""

    def __init__(self) -> None:
        self.taken: list[Record] = []
        self.fails = False

    def note(self, records: Sequence[Record]) -> None:
        if self.fails:
            raise LedgerError("down")
        self.taken += records


def record(tenant: str = "acme", reason: str = "why") -> Record:
    """A refusal."""
    return Record(1.0, tenant, "k", "r", "m", 0, 0, 0.0, 0.5, 0.0, "p/1", reason=reason)


def test_refusals_are_written_in_order_and_once() -> None:
    """A flush writes what was noted since the last one."""
    notes = Notes()
    journal = Journal(notes)
    journal.note(record(reason="a"))
    journal.note(record(reason="b"))
    journal.flush()
    journal.flush()
    assert [row.reason for row in notes.taken] == ["a", "b"]


def test_a_tenant_that_hammers_is_counted() -> None:
    """Beyond some records a minute a tenant's refusals are a number in one more; others lose none."""
    notes = Notes()
    journal = Journal(notes)
    for number in range(MOST_A_MINUTE + 5):
        journal.note(record(reason=f"r{number}"))
    journal.note(record("other"))
    journal.flush()
    assert len(notes.taken) == MOST_A_MINUTE + 1
    journal.note(replace(record("other"), at=61.0))
    journal.flush()
    summary = f"r{MOST_A_MINUTE + 4} (the last of 5 more in a minute)"
    assert [row.reason for row in notes.taken[-2:]] == [summary, "why"]


def test_the_last_flush_sums_up() -> None:
    """What was only counted is told when the server stops."""
    notes = Notes()
    journal = Journal(notes)
    for _ in range(MOST_A_MINUTE + 1):
        journal.note(record())
    journal.flush(last=True)
    assert notes.taken[-1].reason == "why (the last of 1 more in a minute)"


def test_a_failed_flush_loses_nothing() -> None:
    """What the ledger did not take is written with the next flush, still bounded."""
    notes = Notes()
    journal = Journal(notes)
    journal.note(record(reason="first"))
    notes.fails = True
    with pytest.raises(LedgerError):
        journal.flush()
    for _ in range(2 * MOST_A_MINUTE):
        journal.note(record(reason="later"))
    notes.fails = False
    journal.flush()
    assert notes.taken[0].reason == "first"
    assert len(notes.taken) == MOST_A_MINUTE
