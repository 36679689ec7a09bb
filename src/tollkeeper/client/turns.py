"""Waiting for one's turn: one puzzle at a time, and nobody waits longer than allowed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Final

from tollkeeper.errors import BudgetExhausted

_LOOK_S: Final = 0.1
"""Seconds after which somebody who waits looks whether anybody still waits for them."""


class _Ticket:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.called = threading.Event()
        self.is_void = False


class Turns:
    """A line of puzzles, the first of which is being solved; any thread may join."""

    def __init__(self) -> None:
        """Begin with nobody in line."""
        self._lock = threading.Lock()
        self._line: deque[_Ticket] = deque()

    @contextmanager
    def turn(self, seconds: float, *, most: float, stop: threading.Event) -> Iterator[None]:
        """Have a turn, as soon as all before had theirs.

        Args:
            seconds: that it is expected to take.
            most: seconds to wait, those of the turn and of all before it.
            stop: ends the waiting when it is set.

        Raises:
            BudgetExhausted: it is expected to take longer.
            CancelledError: `stop` was set, or `close` called.
        """
        ticket = self._join(seconds, most)
        try:
            while not ticket.called.wait(_LOOK_S):
                if stop.is_set():
                    raise CancelledError
            if ticket.is_void:
                raise CancelledError
            yield
        finally:
            self._leave(ticket)

    def close(self) -> None:
        """Send away all who wait; whoever has the turn keeps it."""
        with self._lock:
            for ticket in list(self._line)[1:]:
                ticket.is_void = True
                ticket.called.set()

    def _join(self, seconds: float, most: float) -> _Ticket:
        ticket = _Ticket(seconds)
        with self._lock:
            before = sum(one.seconds for one in self._line)
            if before + seconds > most:
                queue = f" after {before:,.0f} s of others" if before else ""
                raise BudgetExhausted(
                    f"the challenge takes about {seconds:,.0f} s to solve{queue}, and the cap is "
                    f"{most:g} s; raise the cap to pay it"
                )
            self._line.append(ticket)
            self._line[0].called.set()
        return ticket

    def _leave(self, ticket: _Ticket) -> None:
        with self._lock:
            self._line.remove(ticket)
            if self._line:
                self._line[0].called.set()
