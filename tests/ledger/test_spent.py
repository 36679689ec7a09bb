"""The stores of used proofs: which URL opens which, and what differs between them."""

from __future__ import annotations

import sqlite3
import stat
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tollkeeper.errors import ConfigurationError, LedgerError, SpentError
from tollkeeper.ledger import spent
from tollkeeper.ledger.spent import Fuse, MemorySpent, SqliteSpent, open_spent_store
from tollkeeper.ledger.sqlite import SqliteLedger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file is to be."""
    return tmp_path / "spent.db"


def test_memory_url_opens_a_store_in_memory() -> None:
    """`memory://` names a fresh store in memory."""
    assert isinstance(open_spent_store("memory://"), MemorySpent)


@pytest.mark.parametrize("form", ["{}", "sqlite://{}"])
def test_sqlite_url_and_plain_path_name_the_same_file(tmp_path: Path, form: str) -> None:
    """A SQLite file is named by URL or path, taken literally, odd characters included."""
    path = tmp_path / "100% sp?ent#1.db"
    store = open_spent_store(form.format(path))
    assert isinstance(store, SqliteSpent)
    store.close()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "memory://"),
        ("memory://x", "memory://"),
        ("sqlite://relative.db", "sqlite:///absolute"),
        ("sqlite://", "sqlite:///absolute"),
        ("reddis://:hush@host/db", "'reddis://'"),
        ("redis://host:port", "redis://user:password@host:port/db"),
        ("redis://host:99999", "redis://user:password@host:port/db"),
        ("redis://:hush/hush@host", "percent-encoded"),
    ],
)
def test_other_urls_are_refused_with_the_choices(url: str, told: str) -> None:
    """A URL that names no store raises ConfigurationError saying which there are."""
    with pytest.raises(ConfigurationError, match=told) as caught:
        open_spent_store(url)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_without_the_redis_extra_the_error_names_it(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """A Redis URL without the client says what to install."""
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "tollkeeper.ledger.spent_redis", raising=False)
    with pytest.raises(ConfigurationError, match=r"pip install 'tollkeeper\[redis\]'"):
        open_spent_store(f"{scheme}://localhost")


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """When too many names are kept a new one is refused; known ones and pruning still work."""
    monkeypatch.setattr(spent, "MOST_NAMES", 3)
    store = MemorySpent()
    for n in range(3):
        assert store.spend(f"p{n}", 1, limit=2, expires=float(n))
    with pytest.raises(LedgerError, match="prune"):
        store.spend("p3", 1, limit=2, expires=9.0)
    assert store.spend("p2", 1, limit=2, expires=2.0)
    assert store.prune(1.0) == 1
    assert store.spend("p3", 1, limit=2, expires=9.0)


def test_the_file_outlives_the_store(path: Path) -> None:
    """What was spent is spent after a restart; the file is readable by its owner only."""
    store = SqliteSpent(path)
    assert store.spend("proof", 1, limit=1, expires=9.0)
    modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    store.close()
    assert modes == {0o600}
    again = SqliteSpent(path)
    assert not again.spend("proof", 1, limit=1, expires=9.0)
    again.close()


def test_pruning_goes_in_steps(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More names than one transaction deletes are all deleted and counted."""
    monkeypatch.setattr(spent, "PRUNED_AT_ONCE", 4)
    store = SqliteSpent(path)
    for n in range(12):
        store.spend(f"p{n}", 1, limit=1, expires=float(n))
    assert store.prune(10.0) == 10
    store.close()


def test_a_file_locked_for_long_says_so(path: Path) -> None:
    """When another process holds the file the error says what to do, and nothing is spent."""
    store = SqliteSpent(path, busy_timeout_s=0.01)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="locked by another process; end that process"):
            store.spend("proof", 1, limit=1, expires=9.0)
    assert store.spend("proof", 1, limit=1, expires=9.0)
    store.close()


def test_a_damaged_file_says_what_its_loss_costs(path: Path) -> None:
    """A file that is no database is refused with what to do, and left as it was."""
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(LedgerError, match=r"not a SQLite file; .* used once more") as caught:
        SqliteSpent(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"no database " * 1000


def test_a_ledger_is_no_store_of_used_proofs(path: Path) -> None:
    """Neither kind of file opens as the other."""
    SqliteLedger(path).close()
    with pytest.raises(LedgerError, match="another kind, not a store of used proofs"):
        SqliteSpent(path)
    other = path.with_name("other.db")
    SqliteSpent(other).close()
    with pytest.raises(LedgerError, match="another kind, not a ledger"):
        SqliteLedger(other)


def test_a_missing_directory_is_refused(path: Path) -> None:
    """The directory of the file must exist."""
    with pytest.raises(LedgerError, match="cannot be opened; let this user"):
        SqliteSpent(path / "deeper.db")


class Hung(MemorySpent):
    """A fake store that fails, slowly as it were, and counts who asked."""

    asked = 0

    def spend(self, name: str, amount: int, *, limit: int, expires: float) -> bool:
        self.asked += 1
        raise LedgerError("no answer in time")


def test_a_store_that_failed_is_not_asked_for_a_while() -> None:
    """The first failure is waited for, the next ones come at once, and later it is asked again."""
    now, hung = [0.0], Hung()
    fuse = Fuse(hung, ticks=lambda: now[0])
    for _ in range(5):
        with pytest.raises(SpentError):
            fuse.spend("a", 1, limit=1, expires=9.0)
    assert hung.asked == 1
    now[0] += 2.1
    with pytest.raises(SpentError):
        fuse.spend("a", 1, limit=1, expires=9.0)
    assert hung.asked == 2


def test_a_fuse_passes_on_what_works() -> None:
    """A store behind a fuse spends, gives back, counts, forgets and closes as it does alone."""
    store = MemorySpent()
    fuse = Fuse(store, ticks=lambda: 0.0)
    assert fuse.spend("a", 2, limit=3, expires=9.0)
    assert not fuse.spend("a", 2, limit=3, expires=9.0)
    fuse.refund("a", 1)
    assert fuse.spent("a") == store.spent("a") == 1
    assert fuse.prune(10.0) == 1
    fuse.close()
    with pytest.raises(SpentError):
        fuse.spent("a")
