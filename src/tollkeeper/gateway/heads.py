"""The newest state of every pool that was served lately, and its commit under way."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, replace

from tollkeeper.errors import ConflictError, LedgerError, TollkeeperError
from tollkeeper.gateway.archive import Keeper, Kept
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.ledger.base import Ledger
from tollkeeper.types import Entry

CACHED_POOLS = 2048  # of at most 16 KiB each, 32 MiB


@dataclass(slots=True)
class Head:
    """The newest state of a pool, as submitted.

    Attributes:
        version: in the ledger.
        kept: its state.
        spent: inputs charged.
        owed: what was answered and could not be stored; a later commit stores it.
        lost: whether its commit did not land.
    """

    version: int
    kept: Kept
    spent: float = 0.0
    owed: Kept | None = None
    lost: bool = False


class Heads:
    """Remembers heads; the caller guards it against concurrent use.

    No method but `wait` waits for a commit.
    """

    def __init__(
        self, ledger: Ledger, archive: Keeper, metrics: Metrics, *, fail_open: bool
    ) -> None:
        """Read what is not remembered from `ledger`.

        Args:
            ledger: durable state.
            archive: how states lie in it.
            metrics: count fallbacks.
            fail_open: whether a ledger that cannot be read is no reason to refuse.
        """
        self._ledger = ledger
        self._archive = archive
        self._metrics = metrics
        self._open = fail_open
        self._heads: OrderedDict[str, Head] = OrderedDict()
        self._in_flight: dict[str, Future[Entry]] = {}

    def wait(self, pools: Iterable[str]) -> None:
        """Wait for the commits of these pools that are under way; needs no guarding."""
        for pool in pools:
            pending = self._in_flight.get(pool)
            if pending is not None:
                failure(pending)

    def take(self, pool: str, *, at: float) -> Head:
        """Return a copy of a pool's newest state; its commit in flight has settled.

        Raises:
            LedgerError: the ledger cannot be read, and that is a reason to refuse.
        """
        pending = self._in_flight.pop(pool, None)
        head = self._heads.get(pool)
        if pending is not None and head is not None:
            _settled(head, failure(pending))
        if head is not None and not head.lost:
            return replace(head, kept=self._archive.turned(head.kept, at=at))
        return self._read(pool, head if self._open else None, at=at)

    def _read(self, pool: str, lost: Head | None, *, at: float) -> Head:
        """Read a pool from the ledger, keeping what was answered but could not be stored."""
        try:
            entry = self._ledger.read(pool)
        except LedgerError:
            if not self._open:
                raise
            self._metrics.fallbacks.labels("ledger", "open").inc()
            # A version that no ledger has: this can only conflict, and is then read again.
            known = self._archive.load(b"", at=at) if lost is None else lost.kept
            owed = None if lost is None else lost.owed
            return Head(-1, known, 0.0 if lost is None else lost.spent, owed)
        kept = self._archive.load(entry.sketch, at=at)
        owed = None if lost is None else lost.owed
        if owed is not None:
            kept = self._archive.united(kept, self._archive.turned(owed, at=at))
        return Head(entry.version, kept, entry.spent, owed)

    def put(self, pool: str, head: Head) -> None:
        """Remember what was just handed to the ledger."""
        self._heads[pool] = head
        self._heads.move_to_end(pool)
        while len(self._heads) > CACHED_POOLS:
            oldest, _ = self._heads.popitem(last=False)
            self._in_flight.pop(oldest, None)

    def drop(self, pool: str) -> None:
        """Read a pool anew when it is next asked for: an operator may have changed it."""
        head = self._heads.get(pool)
        if pool not in self._in_flight and head is not None and head.owed is None:
            del self._heads[pool]

    def sent(self, pools: Iterable[str], future: Future[Entry]) -> None:
        """Note whose commit is under way."""
        for pool in pools:
            self._in_flight[pool] = future

    def failed(self, pools: Iterable[str], future: Future[Entry]) -> None:
        """After a failed commit: what it would have stored is not the state of these pools."""
        for pool in pools:
            if self._in_flight.get(pool) is future:
                del self._in_flight[pool]
                if pool in self._heads:
                    _settled(self._heads[pool], failure(future))


def _settled(head: Head, error: TollkeeperError | None) -> None:
    """Note how a head's commit ended: what conflicted is charged again, and not owed."""
    head.lost = error is not None
    if error is None:
        head.owed = None
    elif not isinstance(error, ConflictError):
        head.owed = head.kept


def failure(future: Future[Entry]) -> TollkeeperError | None:
    """Wait for a commit; return its error, or None."""
    error = future.exception()
    if error is None or isinstance(error, TollkeeperError):
        return error
    return LedgerError(f"the ledger failed with {type(error).__name__}")
