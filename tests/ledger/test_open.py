"""Which URL opens which ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from tollkeeper.errors import ConfigurationError
from tollkeeper.ledger.memory import MemoryLedger
from tollkeeper.ledger.open import open_ledger
from tollkeeper.ledger.sqlite import SqliteLedger


def test_memory_url_opens_a_memory_ledger() -> None:
    """`memory://` names a fresh ledger in memory."""
    assert isinstance(open_ledger("memory://"), MemoryLedger)


@pytest.mark.parametrize("form", ["{}", "sqlite://{}"])
def test_sqlite_url_and_plain_path_name_the_same_file(tmp_path: Path, form: str) -> None:
    """A SQLite file is named by URL or path, taken literally, odd characters included."""
    path = tmp_path / "100% led?ger#1.db"
    with open_ledger(form.format(path)) as ledger:
        assert isinstance(ledger, SqliteLedger)
    assert path.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "memory://"),
        ("memory://x", "memory://"),
        ("sqlite://relative.db", "sqlite:///absolute"),
        ("sqlite://", "sqlite:///absolute"),
        ("postgres://host/db", "postgres://host/db"),
        ("redis://localhost", "not shipped yet"),
    ],
)
def test_other_urls_are_refused_with_the_choices(url: str, told: str) -> None:
    """A URL that names no ledger raises ConfigurationError saying which there are."""
    with pytest.raises(ConfigurationError, match=told):
        open_ledger(url)
