"""Refusals on their way into the records: gathered, bounded, written by a quiet thread.

What is answered is recorded with its charge, before the reply. A refusal changes no entry; losing
the last moments of them in a crash loses no charge, and a client that hammers must not fill the
disk.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from typing import Final

from tollkeeper.ledger.base import Notes
from tollkeeper.types import Record

MOST_AT_ONCE: Final = 20
"""Refusals of one tenant that one flush keeps; more are counted."""


class Journal:
    """Gathers records from any thread."""

    def __init__(self, ledger: Notes) -> None:
        """Write to `ledger`."""
        self._ledger = ledger
        self._lock = threading.Lock()
        self._gathered: list[Record] = []
        self._counts: Counter[str] = Counter()

    def note(self, record: Record) -> None:
        """Keep a record until the next flush."""
        with self._lock:
            self._counts[record.tenant] += 1
            if self._counts[record.tenant] <= MOST_AT_ONCE:
                self._gathered.append(record)

    def flush(self) -> None:
        """Write what was gathered.

        Raises:
            LedgerError: the ledger failed; what was gathered is kept for the next flush.
        """
        with self._lock:
            gathered, counts = self._gathered, self._counts
            self._gathered, self._counts = [], Counter()
        if not gathered:
            return
        try:
            self._ledger.note(_with_rest(gathered, counts))
        except BaseException:
            with self._lock:
                self._gathered = gathered + self._gathered
                self._counts += counts
            raise


def _with_rest(gathered: list[Record], counts: Counter[str]) -> list[Record]:
    """Say in a tenant's last record how many more there were."""
    last = {record.tenant: number for number, record in enumerate(gathered)}
    records = list(gathered)
    for tenant, number in last.items():
        more = counts[tenant] - MOST_AT_ONCE
        if more > 0:
            reason = f"{records[number].reason} (and {more} more)"
            records[number] = replace(records[number], reason=reason)
    return records
