"""One table of ledgers; every behavior is run against each of them.

A `check_*` function takes an open, empty ledger and nothing else, so that the
author of another ledger can run them all.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tollkeeper.errors import ConflictError, LedgerError
from tollkeeper.ledger.base import (
    Beside,
    Changes,
    GroupCommits,
    KeepsKeys,
    KeepsTenants,
    Ledger,
    MovesTenants,
    Notes,
    Remembers,
    Submission,
)
from tollkeeper.ledger.memory import MemoryLedger
from tollkeeper.ledger.retention import Prunes
from tollkeeper.ledger.sqlite import SqliteLedger
from tollkeeper.types import Entry, KeyInfo, Record, Tenant

AnyLedger = MemoryLedger | SqliteLedger

RECORD = Record(
    at=1_000.0,
    tenant="acme",
    key_id="k1",
    request_id="r1",
    model="builtin:text",
    inputs=3,
    tokens=17,
    charge=2.0,
    coverage=0.25,
    noise_scale=0.5,
    profile="recommended/1",
    decision="paid",
    reason="past the knee",
    paid_s=1.5,
)
CAPABILITIES: tuple[type, ...] = (
    Ledger,
    GroupCommits,
    KeepsKeys,
    KeepsTenants,
    MovesTenants,
    Changes,
    Notes,
    Prunes,
    Remembers,
)
TENANT = Tenant("acme", "acme")
KEY = KeyInfo("k1", "acme", "d1", created_at=6.0)


def check_has_every_capability(ledger: AnyLedger) -> None:
    """A shipped ledger implements the protocol and all capabilities."""
    for protocol in CAPABILITIES:
        assert isinstance(ledger, protocol), protocol.__name__


def check_unknown_pool_reads_as_empty(ledger: AnyLedger) -> None:
    """A pool nobody committed to has version 0 and no sketch."""
    assert ledger.read("nobody") == Entry("nobody")


def check_commit_stores_sketch_totals_and_record(ledger: AnyLedger) -> None:
    """A commit raises the version by one, adds to the totals and keeps the record."""
    first = ledger.commit("acme", RECORD, b"one", expected=0)
    assert first == Entry("acme", version=1, sketch=b"one", spent=2.0, queries=3)
    second = replace(RECORD, request_id="r2", charge=0.5, inputs=1, shadow=True)
    entry = ledger.commit("acme", second, b"two", expected=1)
    assert entry == Entry("acme", version=2, sketch=b"two", spent=2.5, queries=4)
    assert ledger.read("acme") == entry
    assert list(ledger.records()) == [second, RECORD]


def check_pools_are_independent(ledger: AnyLedger) -> None:
    """A commit to one pool does not touch another."""
    ledger.commit("a", RECORD, b"a", expected=0)
    ledger.commit("b", RECORD, b"b", expected=0)
    assert [ledger.read(pool).sketch for pool in "ab"] == [b"a", b"b"]
    assert [ledger.read(pool).version for pool in "ab"] == [1, 1]


def check_stale_commit_conflicts_and_stores_nothing(ledger: AnyLedger) -> None:
    """A commit that expects another version raises, names both and leaves no trace."""
    stored = ledger.commit("acme", RECORD, b"one", expected=0)
    for expected in (0, 2):
        with pytest.raises(ConflictError) as caught:
            ledger.commit("acme", RECORD, b"bad", expected=expected)
        assert (caught.value.expected, caught.value.found) == (expected, 1)
    assert ledger.read("acme") == stored
    assert len(list(ledger.records())) == 1
    assert ledger.commit("acme", RECORD, b"two", expected=1).version == 2


def check_a_commit_may_hold_several_requests(ledger: AnyLedger) -> None:
    """All records of one commit are stored in order under one version; none is refused."""
    records = [replace(RECORD, request_id=f"r{i}") for i in range(5)]
    entry = ledger.submit([Submission("acme", records, b"s", 0)])[0].result()
    assert entry == Entry("acme", version=1, sketch=b"s", spent=10.0, queries=15)
    assert list(ledger.records()) == records[::-1]
    bad = [RECORD, replace(RECORD, charge=math.nan)]
    for unfit in (bad, []):
        assert isinstance(
            ledger.submit([Submission("acme", unfit, b"", 1)])[0].exception(), LedgerError
        )
    assert ledger.read("acme") == entry
    assert len(list(ledger.records())) == 5


def check_queued_commits_apply_in_order(ledger: AnyLedger) -> None:
    """Commits queued together, many of one pool, land in order, each with its own entry."""
    futures = [
        ledger.submit([Submission("acme", [replace(RECORD, request_id=f"r{i}")], bytes([i]), i)])[0]
        for i in range(20)
    ]
    entries = [future.result() for future in futures]
    assert [entry.version for entry in entries] == list(range(1, 21))
    assert [entry.sketch for entry in entries] == [bytes([i]) for i in range(20)]
    assert [entry.spent for entry in entries] == [2.0 * i for i in range(1, 21)]
    assert ledger.read("acme") == entries[-1]
    stored = [record.request_id for record in ledger.records()]
    assert stored == [f"r{i}" for i in range(19, -1, -1)]


def check_conflict_spares_its_neighbors(ledger: AnyLedger) -> None:
    """Of commits queued together only those with a wrong version fail."""
    good = ledger.submit([Submission("a", [RECORD], b"a", 0)])[0]
    bad = ledger.submit([Submission("a", [RECORD], b"stale", 0)])[0]
    also_good = ledger.submit([Submission("b", [RECORD], b"b", 0)])[0]
    assert good.result().version == also_good.result().version == 1
    assert isinstance(bad.exception(), ConflictError)
    assert ledger.read("a").sketch == b"a"


def check_unstorable_values_are_refused(ledger: AnyLedger) -> None:
    """A value that no store can keep raises LedgerError and stores nothing."""
    bad = (
        replace(RECORD, charge=math.nan),
        replace(RECORD, noise_scale=math.inf),
        replace(RECORD, charge=-1.0),
        replace(RECORD, inputs=2**70),
        replace(RECORD, tokens=-1),
        replace(RECORD, model="\ud800"),
        replace(RECORD, decision="\ud800"),
        replace(RECORD, reason="\ud800"),
        replace(RECORD, paid_s=-1.0),
    )
    for record in bad:
        assert isinstance(
            ledger.submit([Submission("acme", [record], b"", 0)])[0].exception(), LedgerError
        ), record
    assert ledger.read("acme") == Entry("acme")
    assert not list(ledger.records())


def check_numpy_numbers_are_stored_as_plain_ones(ledger: AnyLedger) -> None:
    """Scalars as the guard computes them come back as Python's own."""
    scalars: dict[str, Any] = {
        "charge": np.float32(2.0),
        "coverage": np.float64(0.25),
        "inputs": np.int64(3),
        "shadow": np.bool_(False),
    }
    ledger.commit("acme", replace(RECORD, **scalars), b"", expected=0)
    (stored,) = ledger.records()
    assert stored == RECORD
    kinds = [
        type(value) for value in (stored.charge, stored.coverage, stored.inputs, stored.shadow)
    ]
    assert kinds == [float, float, int, bool]


def check_records_newest_first_and_filtered(ledger: AnyLedger) -> None:
    """Records come newest first, by time and then by order, cut by tenant, time and limit."""
    times = [5.0, 1.0, 3.0, 3.0, 2.0]
    for i, at in enumerate(times):
        record = replace(RECORD, at=at, tenant="ab"[i % 2], request_id=str(i))
        ledger.commit("pool", record, b"", expected=i)

    def ids(tenant: str | None = None, since: float | None = None, limit: int = 1000) -> str:
        found = ledger.records(tenant=tenant, since=since, limit=limit)
        return "".join(record.request_id for record in found)

    assert ids() == "03241"
    assert ids(tenant="a") == "024"
    assert ids(since=3.0) == "032"
    assert ids(tenant="b", since=2.0) == "3"
    assert ids(limit=2) == "03"
    assert not ids(limit=0)
    assert not ids(tenant="nobody")


def check_notes_change_no_entry(ledger: AnyLedger) -> None:
    """Records that belong to no commit are appended in order; entries and standing stay."""
    ledger.commit("acme", RECORD, b"s", expected=0)
    before = ledger.read("acme"), ledger.standing_version()
    refusal = replace(RECORD, request_id="r2", decision="refused", reason="budget spent")
    appeal = replace(RECORD, request_id="", decision="let in again", inputs=0, paid_s=0.0)
    ledger.note([refusal, appeal])
    ledger.note([])
    assert list(ledger.records()) == [appeal, refusal, RECORD]
    assert (ledger.read("acme"), ledger.standing_version()) == before
    assert ledger.prune(RECORD.at + 1) == 3


def check_notes_are_stored_together_or_not_at_all(ledger: AnyLedger) -> None:
    """One record that cannot be stored keeps those beside it out."""
    with pytest.raises(LedgerError, match="paid_s"):
        ledger.note([RECORD, replace(RECORD, paid_s=math.nan)])
    assert not list(ledger.records())


def check_prune_deletes_records_but_not_totals(ledger: AnyLedger) -> None:
    """Pruning deletes records before a time, says how many, and leaves the entry alone."""
    for i in range(10):
        ledger.commit("acme", replace(RECORD, at=float(i)), b"s", expected=i)
    before = ledger.read("acme")
    assert ledger.prune(4.0) == 4
    assert ledger.prune(4.0) == 0
    assert [record.at for record in ledger.records()] == [9.0, 8.0, 7.0, 6.0, 5.0, 4.0]
    assert ledger.read("acme") == before


def check_threads_on_one_pool_lose_nothing(ledger: AnyLedger) -> None:
    """Writers that read again after a conflict lose no bit, no charge and no record."""
    threads, each = 6, 8

    def work(worker: int) -> None:
        for i in range(each):
            bit = 1 << (worker * each + i)
            record = replace(RECORD, request_id=f"{worker}-{i}")
            while True:
                entry = ledger.read("shared")
                merged = int.from_bytes(entry.sketch, "big") | bit
                try:
                    ledger.commit(
                        "shared", record, merged.to_bytes(6, "big"), expected=entry.version
                    )
                except ConflictError:
                    continue
                break

    workers = [threading.Thread(target=work, args=(worker,)) for worker in range(threads)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    entry = ledger.read("shared")
    assert entry.version == threads * each
    assert entry.sketch == b"\xff" * 6
    assert entry.spent == 2.0 * threads * each
    assert len({record.request_id for record in ledger.records()}) == threads * each


def check_healthy_store_passes(ledger: AnyLedger) -> None:
    """`check` returns on an empty store and on one in use."""
    ledger.check()
    ledger.commit("acme", RECORD, b"one", expected=0)
    ledger.check()


def check_closed_ledger_refuses_everything(ledger: AnyLedger) -> None:
    """After `close`, which may be called twice, each method raises LedgerError."""
    ledger.close()
    ledger.close()
    uses: tuple[Callable[[], object], ...] = (
        lambda: ledger.read("acme"),
        lambda: ledger.commit("acme", RECORD, b"", expected=0),
        ledger.submit([Submission("acme", [RECORD], b"", 0)])[0].result,
        lambda: ledger.note([RECORD]),
        lambda: list(ledger.records()),
        lambda: ledger.prune(0.0),
        ledger.check,
        ledger.keys,
        lambda: ledger.find_key("d1"),
        lambda: ledger.add_key(KEY),
        lambda: ledger.revoke_key("k1", at=0.0),
        ledger.tenants,
        lambda: ledger.find_tenant("acme"),
        lambda: ledger.add_tenant(TENANT),
        lambda: ledger.update_tenant(TENANT),
        ledger.standing_version,
        lambda: ledger.remember("fact", "value"),
    )
    for use in uses:
        with pytest.raises(LedgerError, match="closed"):
            use()


def check_entries_change_together_or_not_at_all(ledger: AnyLedger) -> None:
    """A commit with others beside it changes all of them, and none if one has moved on."""
    beside = [Beside("b", b"own", 0, 1.5, 2), Beside("c", b"third", 0, 0.0, 0)]
    (done,) = ledger.submit([Submission("a", [RECORD], b"joint", 0, beside)])
    assert done.result() == Entry("a", 1, b"joint", RECORD.charge, RECORD.inputs)
    assert ledger.read("b") == Entry("b", 1, b"own", 1.5, 2)
    assert ledger.read("c") == Entry("c", 1, b"third")
    late = Submission("a", [RECORD], b"x", 1, [Beside("b", b"x", 0, 1.0, 1)])
    (refused,) = ledger.submit([late])
    with pytest.raises(ConflictError) as conflict:
        refused.result()
    assert (conflict.value.expected, conflict.value.found) == (0, 1)
    assert ledger.read("a") == done.result()
    assert len(list(ledger.records())) == 1
    # In one group, the second builds on what the first left.
    group = [
        Submission("a", [RECORD], b"2", 1, [Beside("b", b"2", 1, 1.0, 1)]),
        Submission("b", [RECORD], b"3", 2),
        Submission("a", [RECORD], b"4", 1),
    ]
    first, second, third = ledger.submit(group)
    assert first.result().version == 2
    assert second.result() == ledger.read("b") == Entry("b", 3, b"3", 4.5, 6)
    with pytest.raises(ConflictError):
        third.result()


def check_an_entry_is_changed_once_by_a_commit(ledger: AnyLedger) -> None:
    """A commit that names an entry twice, or would lower a total, is refused whole."""
    for beside in (Beside("a", b"", 0, 0.0, 0), Beside("b", b"", 0, -1.0, 0)):
        (refused,) = ledger.submit([Submission("a", [RECORD], b"", 0, [beside])])
        with pytest.raises(LedgerError):
            refused.result()
    assert ledger.read("a") == Entry("a")


def check_with_statement_closes(ledger: AnyLedger) -> None:
    """A ledger is its own context manager."""
    with ledger as inner:
        assert inner is ledger
    with pytest.raises(LedgerError, match="closed"):
        ledger.read("acme")


CHECKS: list[Callable[[AnyLedger], None]] = [
    check for name, check in list(globals().items()) if name.startswith("check_")
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Callable[[AnyLedger], None], ledger: AnyLedger) -> None:
    """Each ledger keeps each promise of the contract."""
    check(ledger)
