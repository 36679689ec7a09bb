"""The capability of forgetting old records."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Prunes(Protocol):
    """Capability: delete old records so that the store does not grow for ever.

    Totals and sketches live in the entry and are never recomputed from records,
    so pruning changes neither what a pool spent nor what it covers.
    """

    def prune(self, before: float) -> int:
        """Delete the records older than `before`, in seconds since the epoch; return how many."""
        ...
