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

MOST_A_MINUTE: Final = 60
"""Refusals of one tenant and kind that are kept; more are counted."""

MINUTE_S: Final = 60.0
MOST_WAITING: Final = 10_000
"""Records kept while the ledger fails."""


class Journal:
    """Gathers records from any thread."""

    def __init__(self, ledger: Notes) -> None:
        """Write to `ledger`."""
        self._ledger = ledger
        self._lock = threading.Lock()
        self._gathered: list[Record] = []
        self._minute = 0
        self._counts: Counter[tuple[str, str]] = Counter()
        self._last: dict[tuple[str, str], Record] = {}

    def note(self, record: Record) -> None:
        """Keep a record until the next flush, if its tenant had not too many of them."""
        with self._lock:
            minute = int(record.at // MINUTE_S)
            if minute != self._minute:
                self._sum_up()
                self._minute = minute
            kind = (record.tenant, record.decision)
            self._counts[kind] += 1
            if self._counts[kind] <= MOST_A_MINUTE:
                self._gathered.append(record)
            else:
                self._last[kind] = record

    def flush(self, *, last: bool = False) -> None:
        """Write what was gathered.

        Args:
            last: whether what was only counted is summed up now, for there is no next time.

        Raises:
            LedgerError: the ledger failed; what was gathered is kept for the next flush.
        """
        with self._lock:
            if last:
                self._sum_up()
            gathered, self._gathered = self._gathered, []
        if not gathered:
            return
        try:
            self._ledger.note(gathered)
        except BaseException:
            with self._lock:
                self._gathered = (gathered + self._gathered)[:MOST_WAITING]
            raise

    def _sum_up(self) -> None:
        """Say of each tenant that was only counted in the end how often it was refused beside."""
        for kind, record in self._last.items():
            more = self._counts[kind] - MOST_A_MINUTE
            reason = f"{record.reason} (the last of {more} more in a minute)"
            self._gathered.append(replace(record, reason=reason))
        self._counts, self._last = Counter(), {}
