"""On what terms an account is admitted."""

from __future__ import annotations

from dataclasses import dataclass

from tollkeeper.types import Sketch


@dataclass(frozen=True, slots=True)
class Terms:
    """What one account is granted beyond its profile, or spared.

    Attributes:
        forgiven: coverage that the price does not see.
        ceiling: coverage from which on nothing new is answered; None never refuses.
        spared: what of the sketch does not count; see `Layout.signal`.
        granted: whether what is asked now does not count either, and costs nothing.
        marked: whether answers carry the tenant's mark.
    """

    forgiven: float = 0.0
    ceiling: float | None = None
    spared: Sketch | None = None
    granted: bool = False
    marked: bool = False
