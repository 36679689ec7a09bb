"""How fast a live target is asked: at most so many calls at once, and so many a second."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tollkeeper.errors import ConfigurationError

_NAP_S = 1.0
"""Longest single sleep: a run that was stopped ends within it."""


class Pace:
    """Lets calls begin one after the other; share one among the accounts at one host.

    A target that asks to wait is not asked by anybody until the wait is over.

    Attributes:
        concurrency: calls that may run at once.
    """

    def __init__(
        self,
        *,
        concurrency: int = 4,
        calls_per_second: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Set the limits.

        Args:
            concurrency: calls at once.
            calls_per_second: calls that may begin in a second, evenly spaced; None for no limit.
            clock: monotonic seconds.
            sleep: waits some seconds.

        Raises:
            ConfigurationError: a limit that lets nothing pass.
        """
        if concurrency < 1:
            raise ConfigurationError(f"expected at least 1 call at once, got {concurrency}")
        if calls_per_second is not None and not 0 < calls_per_second < math.inf:
            raise ConfigurationError(
                f"expected more than 0 calls per second, got {calls_per_second}"
            )
        self.concurrency = concurrency
        self._interval_s = 0.0 if calls_per_second is None else 1.0 / calls_per_second
        self._clock = clock
        self._sleep = sleep
        self._places = threading.BoundedSemaphore(concurrency)
        self._lock = threading.Lock()
        self._next = -math.inf

    @contextmanager
    def turn(self, may_wait: Callable[[float], None]) -> Iterator[None]:
        """Hold one of the places, from the moment that a call may begin.

        Args:
            may_wait: called with the seconds still to wait, at last with 0; raises to give up.
        """
        with self._places:
            while (wait_s := self._begin(may_wait)) > 0:
                self._sleep(min(wait_s, _NAP_S))
            yield

    def hold_back(self, seconds: float) -> float:
        """Let no call begin for some seconds; return by how many that puts the next one off."""
        with self._lock:
            now = self._clock()
            due = max(self._next, now)
            self._next = max(due, now + seconds)
            return self._next - due

    def _begin(self, may_wait: Callable[[float], None]) -> float:
        """Return the seconds to wait; 0 means that the call begins now."""
        with self._lock:
            now = self._clock()
            wait_s = max(0.0, self._next - now)
            may_wait(wait_s)
            if wait_s == 0:
                self._next = now + self._interval_s
            return wait_s
