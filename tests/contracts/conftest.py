"""The table of ledgers that every contract runs over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tollkeeper.ledger.memory import MemoryLedger
from tollkeeper.ledger.sqlite import SqliteLedger

LEDGERS: dict[str, Callable[[Path], MemoryLedger | SqliteLedger]] = {
    "memory": lambda _: MemoryLedger(),
    "sqlite": lambda directory: SqliteLedger(directory / "ledger.db"),
}


@pytest.fixture(params=LEDGERS)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MemoryLedger | SqliteLedger]:
    """Each ledger of the table, open and empty."""
    made = LEDGERS[request.param](tmp_path)
    yield made
    made.close()
