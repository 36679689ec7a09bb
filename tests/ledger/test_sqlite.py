"""SqliteLedger against crashes, other processes, and MemoryLedger as its model."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tollkeeper.errors import LedgerError
from tollkeeper.ledger.base import Submission
from tollkeeper.ledger.memory import MemoryLedger
from tollkeeper.ledger.sqlite import SqliteLedger
from tollkeeper.types import KeyInfo, Record, Tenant

RECORD = Record(7.0, "acme", "k1", "r1", "m", 1, 17, 0.5, 0.25, 0.5, "recommended/1")

COMMON = """
import os, random, sys
from tollkeeper.errors import ConflictError
from tollkeeper.ledger.base import Submission
from tollkeeper.ledger.sqlite import SqliteLedger
from tollkeeper.types import Record

def record(name):
    return Record(7.0, "acme", "k1", name, "m", 1, 17, 0.5, 0.25, 0.5, "recommended/1")
"""

COMMITS_UNTIL_KILLED = (
    COMMON
    + """
ledger, rng = SqliteLedger(sys.argv[1]), random.Random(int(sys.argv[2]))
versions = {pool: ledger.read(pool).version for pool in "abc"}
while True:
    futures = []
    for _ in range(rng.randint(1, 12)):
        pool = rng.choice("abc")
        name = f"{pool}:{versions[pool] + 1}"
        sketch = (name.encode() * 3000)[:10_240]
        futures.append((name, ledger.submit([Submission(pool, [record(name)], sketch, versions[pool])])[0]))
        versions[pool] += 1
    for name, future in futures:
        future.result()
        os.write(1, name.encode() + b"\\n")
"""
)

SETS_ITS_BITS = (
    COMMON
    + """
ledger, worker = SqliteLedger(sys.argv[1]), int(sys.argv[2])
for i in range(40):
    while True:
        entry = ledger.read("shared")
        bits = int.from_bytes(entry.sketch, "big") | 1 << (2 * i + worker)
        try:
            ledger.commit("shared", record(f"{worker}:{i}"), bits.to_bytes(10, "big"),
                          expected=entry.version)
        except ConflictError:
            continue
        break
ledger.close()
"""
)


def start(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Run a script in a Python of its own that imports what this one imports."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_kill_9_loses_no_acknowledged_commit(tmp_path: Path) -> None:
    """After each of 15 kills at a random instant every acknowledged commit is in the file."""
    path = tmp_path / "ledger.db"
    rng = np.random.default_rng(2)
    acknowledged: set[str] = set()
    for kill in range(15):
        child = start(COMMITS_UNTIL_KILLED, path, kill)
        assert child.stdout is not None
        for _ in range(rng.integers(1, 80)):
            acknowledged.add(child.stdout.readline().decode().strip())
        child.kill()
        acknowledged.update(child.stdout.read().decode().split())
        child.wait()
        child.stdout.close()
        with SqliteLedger(path) as ledger:
            ledger.check()
            stored = [record.request_id for record in ledger.records(limit=100_000)]
            entries = {pool: ledger.read(pool) for pool in "abc"}
        assert acknowledged <= set(stored)
        # Entry and records are of one transaction: none is ahead of the other.
        expected = {f"{p}:{i + 1}" for p, entry in entries.items() for i in range(entry.version)}
        assert sorted(stored) == sorted(expected)
        for pool, entry in entries.items():
            assert entry.queries == entry.version == 2 * entry.spent
            name = f"{pool}:{entry.version}".encode()
            assert entry.sketch == ((name * 3000)[:10_240] if entry.version else b"")
    assert len(acknowledged) > 100


def test_two_processes_on_one_pool_lose_nothing(tmp_path: Path) -> None:
    """Two processes that read again after a conflict keep every bit, charge and record."""
    path = tmp_path / "ledger.db"
    workers = [start(SETS_ITS_BITS, path, worker) for worker in range(2)]
    for worker in workers:
        worker.communicate()
        assert worker.returncode == 0
    with SqliteLedger(path) as ledger:
        entry = ledger.read("shared")
        assert entry.version == entry.queries == 80
        assert entry.sketch == b"\xff" * 10
        assert len({record.request_id for record in ledger.records()}) == 80


def test_another_ledger_sees_changes_of_standing(tmp_path: Path) -> None:
    """`standing_version` changes for a reader when another opened ledger writes."""
    path = tmp_path / "ledger.db"
    with SqliteLedger(path) as mine, SqliteLedger(path) as theirs:
        before = mine.standing_version()
        theirs.add_tenant(Tenant("acme", "acme"))
        assert mine.standing_version() != before
        assert mine.find_tenant("acme") is not None


names = st.sampled_from(["a", "b", "ü"])
times = st.integers(0, 9).map(float)


class LedgersAgree(RuleBasedStateMachine):
    """Whatever is done, in any order, the file answers as the ledger in memory does."""

    def __init__(self) -> None:
        """Open both empty."""
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "ledger.db"
        self.model, self.real = MemoryLedger(), SqliteLedger(self.path)
        self.made = 0

    def both(self, use: Callable[[Any], Any]) -> None:
        """Do the same to both and compare what comes back or is raised."""
        outcomes: list[Any] = []
        for ledger in (self.model, self.real):
            try:
                outcomes.append(use(ledger))
            except LedgerError as error:
                outcomes.append((type(error), str(error)))
        assert outcomes[0] == outcomes[1]

    @rule(pool=names, tenant=names, at=times, off=st.sampled_from([0, 0, 0, -1, 1]))
    def commit(self, pool: str, tenant: str, at: float, off: int) -> None:
        """Commit on the version that is there, or on another."""
        self.made += 1
        record = replace(RECORD, at=at, tenant=tenant, request_id=str(self.made))
        expected = self.model.read(pool).version + off
        self.both(
            lambda ledger: ledger.commit(pool, record, str(self.made).encode(), expected=expected)
        )

    @rule(group=st.lists(st.tuples(names, st.integers(0, 3), st.integers(1, 3)), max_size=6))
    def submit(self, group: list[tuple[str, int, int]]) -> None:
        """Queue commits together; some build on the one before, some are stale."""
        versions = {pool: self.model.read(pool).version for pool, _, _ in group}

        def use(ledger: Any) -> list[Any]:
            futures = [
                ledger.submit(
                    [Submission(pool, [RECORD] * size, bytes([i]), versions[pool] + ahead)]
                )[0]
                for i, (pool, ahead, size) in enumerate(group)
            ]
            return [str(f.exception()) if f.exception() else f.result() for f in futures]

        self.both(use)

    @rule(at=times, tenant=names, charge=st.sampled_from([0.0, 1.0, -1.0]))
    def note(self, at: float, tenant: str, charge: float) -> None:
        """Note something beside all commits, which may not be storable."""
        record = replace(RECORD, at=at, tenant=tenant, charge=charge, decision="refused")
        self.both(lambda ledger: ledger.note([RECORD, record]))

    @rule(before=times)
    def prune(self, before: float) -> None:
        """Forget old records."""
        self.both(lambda ledger: ledger.prune(before))

    @rule(name=names, pool=names, suspended=st.booleans(), budget=st.none() | times)
    def add_tenant(self, name: str, pool: str, suspended: bool, budget: float | None) -> None:
        """Add a tenant, which may be there already."""
        tenant = Tenant(name, pool, suspended, budget)
        self.both(lambda ledger: ledger.add_tenant(tenant))

    @rule(name=names, pool=names, note=st.text(max_size=3), plan=names)
    def update_tenant(self, name: str, pool: str, note: str, plan: str) -> None:
        """Change a tenant, which may not be there."""
        self.both(lambda ledger: ledger.update_tenant(Tenant(name, pool, note=note, plan=plan)))

    @rule(key_id=names, tenant=names, digest=names, at=times)
    def add_key(self, key_id: str, tenant: str, digest: str, at: float) -> None:
        """Add a key, which may clash with another or have no tenant."""
        self.both(lambda ledger: ledger.add_key(KeyInfo(key_id, tenant, digest, created_at=at)))

    @rule(key_id=names, at=times)
    def revoke_key(self, key_id: str, at: float) -> None:
        """Revoke a key, perhaps again, perhaps one that is not there."""
        self.both(lambda ledger: ledger.revoke_key(key_id, at=at))

    @rule()
    def reopen(self) -> None:
        """Close the file and open it again."""
        self.real.close()
        self.real = SqliteLedger(self.path)

    @rule(tenant=st.none() | names, since=st.none() | times, limit=st.integers(0, 5))
    def records(self, tenant: str | None, since: float | None, limit: int) -> None:
        """List records."""
        self.both(lambda ledger: list(ledger.records(tenant=tenant, since=since, limit=limit)))

    @invariant()
    def same(self) -> None:
        """All that can be read is the same."""
        self.both(
            lambda ledger: [
                (
                    ledger.read(name),
                    ledger.find_key(name),
                    ledger.find_tenant(name),
                    list(ledger.keys(tenant=name)),
                )
                for name in ("a", "b", "ü")
            ]
        )
        self.both(lambda ledger: (list(ledger.keys()), list(ledger.tenants())))
        self.both(lambda ledger: ledger.standing_version())

    def teardown(self) -> None:
        """Check the file a last time."""
        self.real.check()
        self.real.close()
        self.directory.cleanup()


TestLedgersAgree = LedgersAgree.TestCase
TestLedgersAgree.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
