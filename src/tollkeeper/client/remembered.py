"""Things to remember for a while, and not too many of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

V = TypeVar("V")

_MOST: Final = 1024
"""The oldest is forgotten for the next one."""


class Remembered(Generic[V]):
    """A dictionary whose entries expire; not for several threads at once."""

    def __init__(self, seconds: float, *, clock: Callable[[], float]) -> None:
        """Remember nothing yet.

        Args:
            seconds: for which each entry is remembered.
            clock: monotonic seconds.
        """
        self._seconds = seconds
        self._clock = clock
        self._entries: dict[Hashable, tuple[float, V]] = {}

    def put(self, key: Hashable, value: V) -> None:
        """Remember a value from now on, instead of what is remembered."""
        self._entries.pop(key, None)
        while len(self._entries) >= _MOST:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = (self._clock() + self._seconds, value)

    def get(self, key: Hashable) -> V | None:
        """Return what is remembered, or None."""
        until, value = self._entries.get(key, (None, None))
        return value if until is not None and self._clock() < until else None

    def take(self, key: Hashable) -> V | None:
        """Return what is remembered, or None, and forget it."""
        value = self.get(key)
        self._entries.pop(key, None)
        return value
