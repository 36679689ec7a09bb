"""Refusing before the model is called, where the state of a pool tells already."""

from __future__ import annotations

from typing import Final

from tollkeeper.errors import RefusalError, TollkeeperError
from tollkeeper.gateway.admits import BaseAdmission
from tollkeeper.gateway.archive import Keeper, Kept
from tollkeeper.gateway.asks import Ask
from tollkeeper.ledger.base import Ledger

MOST_POOLS: Final = 10_000


class Screen:
    """Looks at pools whose last request was refused, so that others pay nothing for it.

    Any thread may ask: adding to a set and looking into it needs no lock.
    """

    def __init__(self, admission: BaseAdmission, archive: Keeper, ledger: Ledger) -> None:
        """Refuse for `admission`, from the states in `ledger`."""
        self._admission = admission
        self._archive = archive
        self._ledger = ledger
        self._refused: set[str] = set()

    def note(self, pool: str) -> None:
        """Note that a pool's request was refused, by the ledger's name of the pool."""
        if self._admission.screens and len(self._refused) < MOST_POOLS:
            self._refused.add(pool)

    def refusal(self, ask: Ask, *, at: float) -> tuple[RefusalError, Kept] | None:
        """Return why a request is refused whatever its embeddings, and the state of its pool."""
        pool = self._archive.key(ask.account.pool)
        if pool not in self._refused:
            return None
        try:
            # What is durable, for an operator may have changed it since.
            entry = self._ledger.read(pool)
            kept = self._archive.load(entry.sketch, at=at)
        except TollkeeperError:
            return None  # and charging it will say so
        try:
            self._admission.screen(kept, ask, spent=entry.spent)
        except RefusalError as error:
            return error, kept
        except TollkeeperError:
            return None
        self._refused.discard(pool)
        return None
