"""One commit, and the rule by which commits land or conflict.

The rule is a pure function that every ledger shares, so all of them agree on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from tollkeeper.errors import ConflictError, LedgerError
from tollkeeper.ledger.base import Submission
from tollkeeper.ledger.rows import RecordRow, record_row, text
from tollkeeper.types import Entry


@dataclass(frozen=True, slots=True, eq=False)
class Commit:
    """A commit that waits for its turn.

    Attributes:
        pool: whose sketch.
        rows: the records, checked.
        sketch: the guard's bytes after the last record.
        expected: the version it builds on.
        charge: sum over the records.
        inputs: sum over the records.
        future: ends as `Ledger.commit` would.
    """

    pool: str
    rows: Sequence[RecordRow]
    sketch: bytes
    expected: int
    charge: float
    inputs: int
    future: Future[Entry] = field(default_factory=Future)


def new_commit(submission: Submission) -> Commit:
    """Return a checked commit; raises LedgerError if no ledger could store it."""
    rows = [record_row(record) for record in submission.records]
    if not rows:
        raise LedgerError("a commit holds at least one record, got none")
    return Commit(
        text("pool", submission.pool),
        rows,
        bytes(submission.sketch),
        int(submission.expected),
        charge=sum(row[7] for row in rows),
        inputs=sum(row[5] for row in rows),
    )


def settle(heads: dict[str, Entry], commits: Iterable[Commit]) -> list[Entry | ConflictError]:
    """Apply commits in order to `heads` and return what became of each.

    Args:
        heads: the newest entry of every pool among `commits`; updated in place.
        commits: in the order of submission.
    """
    outcomes: list[Entry | ConflictError] = []
    for commit in commits:
        head = heads[commit.pool]
        if head.version != commit.expected:
            outcomes.append(
                ConflictError(commit.pool, expected=commit.expected, found=head.version)
            )
            continue
        heads[commit.pool] = Entry(
            commit.pool,
            version=head.version + 1,
            sketch=commit.sketch,
            spent=head.spent + commit.charge,
            queries=head.queries + commit.inputs,
        )
        outcomes.append(heads[commit.pool])
    return outcomes
