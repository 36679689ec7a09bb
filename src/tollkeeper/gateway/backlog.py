"""What waits for the encoder, and in which order: no tenant waits for another's bulk job.

Tenants take turns. A large request is embedded in slices, and other tenants' requests
go between them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from tollkeeper.gateway.asks import Ask


@dataclass(frozen=True, slots=True)
class Piece:
    """Some consecutive inputs of one ask.

    Attributes:
        ask: whose.
        rows: which of its inputs; an empty slice if it is embedded already.
    """

    ask: Ask
    rows: slice


class Backlog:
    """Asks that wait; used by one thread."""

    def __init__(self, *, divisible: bool) -> None:
        """Start empty; `divisible` allows slices and several asks in one encoder call."""
        self._divisible = divisible
        self._by_tenant: dict[str, deque[Ask]] = {}
        self._turns: deque[str] = deque()
        self._taken: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_tenant.values()))

    def __iter__(self) -> Iterator[Ask]:
        for asks in self._by_tenant.values():
            yield from asks

    def add(self, ask: Ask) -> None:
        """Put an ask behind those of its tenant."""
        tenant = ask.account.tenant
        if tenant not in self._by_tenant:
            self._by_tenant[tenant] = deque()
            self._turns.append(tenant)
        self._by_tenant[tenant].append(ask)

    def take(self, limit: int) -> list[Piece]:
        """Return the next pieces, at most `limit` inputs together; abandoned asks are dropped.

        An indivisible ask that has to be embedded comes whole, whatever its size, and is
        the last of its group; asks that are embedded already take no room.
        """
        pieces: list[Piece] = []
        room = limit
        while room > 0 and self._turns and len(pieces) < limit:
            piece = self._next(room)
            if piece is None:
                continue
            pieces.append(piece)
            if self._divisible:
                room -= piece.rows.stop - piece.rows.start
            elif piece.ask.embeddings is None:
                break
        return pieces

    def _next(self, room: int) -> Piece | None:
        """Take one piece from the tenant whose turn it is; None if nobody waits for it."""
        tenant = self._turns.popleft()
        asks = self._by_tenant[tenant]
        ask = asks[0]
        size = 0 if ask.embeddings is not None or ask.abandoned else len(ask.inputs)
        start = min(self._taken.pop(id(ask), 0), size)
        stop = min(size, start + room) if self._divisible else size
        if stop < size:
            self._taken[id(ask)] = stop
        else:
            asks.popleft()
        if asks:
            self._turns.append(tenant)
        else:
            del self._by_tenant[tenant]
        return None if ask.abandoned else Piece(ask, slice(start, stop))
