"""One commit, and the rule by which commits land or conflict.

The rule is a pure function that every ledger shares, so all of them agree on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from tollkeeper.errors import ConflictError, LedgerError
from tollkeeper.ledger.base import Beside, Submission
from tollkeeper.ledger.rows import RecordRow, amount, record_row, text
from tollkeeper.types import Entry


@dataclass(frozen=True, slots=True, eq=False)
class Commit:
    """A commit that waits for its turn.

    Attributes:
        rows: the records, checked.
        parts: the entries that it changes, the pool's first.
        future: ends as `Ledger.commit` would.
    """

    rows: Sequence[RecordRow]
    parts: Sequence[Beside]
    future: Future[Entry] = field(default_factory=Future)

    @property
    def pool(self) -> str:
        """Whose commit it is."""
        return self.parts[0].pool


def new_commit(submission: Submission) -> Commit:
    """Return a checked commit; raises LedgerError if no ledger could store it."""
    rows = [record_row(record) for record in submission.records]
    if not rows:
        raise LedgerError("a commit holds at least one record, got none")
    charge, inputs = sum(row[7] for row in rows), sum(row[5] for row in rows)
    first = Beside(submission.pool, submission.sketch, submission.expected, charge, inputs)
    parts = [_checked(part) for part in (first, *submission.beside)]
    if len({part.pool for part in parts}) < len(parts):
        raise LedgerError("a commit changes each entry once; join what belongs to one")
    return Commit(rows, parts)


def _checked(part: Beside) -> Beside:
    return Beside(
        text("pool", part.pool),
        bytes(part.sketch),
        int(part.expected),
        amount("charge", part.charge),
        int(amount("inputs", part.inputs)),
    )


def settle(heads: dict[str, Entry], commits: Iterable[Commit]) -> list[Entry | ConflictError]:
    """Apply commits in order to `heads` and return what became of each.

    Args:
        heads: the newest entry of every pool among `commits`; updated in place.
        commits: in the order of submission.
    """
    outcomes: list[Entry | ConflictError] = []
    for commit in commits:
        conflict = _conflict(heads, commit)
        if conflict is not None:
            outcomes.append(conflict)
            continue
        for part in commit.parts:
            heads[part.pool] = _after(heads[part.pool], part)
        outcomes.append(heads[commit.pool])
    return outcomes


def _conflict(heads: dict[str, Entry], commit: Commit) -> ConflictError | None:
    """Return why a commit cannot land: the first of its entries that has moved on."""
    for part in commit.parts:
        found = heads[part.pool].version
        if found != part.expected:
            return ConflictError(part.pool, expected=part.expected, found=found)
    return None


def _after(head: Entry, part: Beside) -> Entry:
    return Entry(
        head.pool,
        version=head.version + 1,
        sketch=part.sketch,
        spent=head.spent + part.charge,
        queries=head.queries + part.inputs,
    )
