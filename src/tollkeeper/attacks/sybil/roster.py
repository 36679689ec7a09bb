"""Who is asked what: inputs dealt to several accounts, around those that refuse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tollkeeper.attacks.accounts import Accounts
from tollkeeper.attacks.asking import BATCH, SMALL, take
from tollkeeper.encoders.base import Encoder, checked
from tollkeeper.encoders.inputs import digest, modality
from tollkeeper.errors import (
    BudgetExhausted,
    ConfigurationError,
    EncoderError,
    RefusalError,
    TollkeeperError,
)
from tollkeeper.types import Batch, Embeddings


class Share(NamedTuple):
    """What one account answered of a batch.

    Attributes:
        account: its number.
        positions: (m,) of the inputs in the batch.
        embeddings: (m, d) in that account's space.
    """

    account: int
    positions: NDArray[np.intp]
    embeddings: Embeddings


class Roster:
    """Deals inputs to accounts and remembers who answered which.

    A new input goes to the account whose turn it is; an input asked before goes to the account
    that answered it, where it is a repeat. An account that refuses or fails twice in a row is
    asked no more, and what it did not answer goes to the others.

    Attributes:
        accounts: the k encoders.
        answered: (k,) inputs answered by each, repeats included.
        refusals: why accounts are out, by number.
    """

    def __init__(self, accounts: Sequence[Encoder], *, turn: int = 1) -> None:
        """Take 1 to 25 accounts.

        Args:
            accounts: whom to ask.
            turn: new inputs that an account gets before it is the next one's turn. 1 deals them
                out singly, so that all accounts see the same mix; more gives contiguous shards.

        Raises:
            ConfigurationError: too few or too many accounts, or a turn below 1.
        """
        if turn < 1:
            raise ConfigurationError(f"expected turns of at least 1 input, got {turn}")
        self.accounts = Accounts(accounts).accounts
        self.answered = np.zeros(len(self.accounts), dtype=np.int64)
        self.refusals: dict[int, TollkeeperError] = {}
        self._turn = turn
        self._dealt = 0
        self._owners: dict[bytes, int] = {}
        self._kept: dict[bytes, NDArray[np.float32]] = {}  # Collected, and not yet given out.

    @property
    def collected(self) -> int:
        """Answers that wait for the next `ask`."""
        return len(self._kept)

    @property
    def left(self) -> list[int]:
        """Numbers of the accounts that have not refused."""
        return [number for number in range(len(self.accounts)) if number not in self.refusals]

    def new(self, inputs: Batch) -> NDArray[np.intp]:
        """Return the first positions of the distinct inputs among n that nobody has answered."""
        first: dict[bytes, int] = {}
        for position, mark in enumerate(_marks(inputs)):
            first.setdefault(mark, position)
        return np.array([at for mark, at in first.items() if mark not in self._owners], np.intp)

    def collect(self, inputs: Batch) -> NDArray[np.bool_]:
        """Ask for n inputs and keep the answers for the next `ask`.

        Returns:
            (n,) whether the answer is there; all of them unless every account refuses.
        """
        marks = _marks(inputs)
        positions = {mark: at for at, mark in enumerate(marks) if mark not in self._kept}
        while positions and self.left:
            for number, dealt in self._deal(positions).items():
                index = np.array([positions[mark] for mark in dealt], dtype=np.intp)
                rows = self.ask_one(number, take(inputs, index))
                self._keep(number, dealt, rows)
                for mark in dealt[: len(rows)]:
                    del positions[mark]
        return np.array([mark in self._kept for mark in marks], dtype=bool)

    def ask(self, inputs: Batch) -> list[Share]:
        """Ask for n inputs; those collected before are not asked again this once.

        Returns:
            A share for each account. An input that comes twice in the call is asked once.

        Raises:
            TollkeeperError: no account is left and something is unanswered. The other answers
                stay collected.
        """
        if not self.collect(inputs).all():
            raise list(self.refusals.values())[-1]
        marks = _marks(inputs)
        owners = np.array([self._owners[mark] for mark in marks], dtype=np.intp)
        shares = []
        for number in np.unique(owners).tolist():
            positions = np.flatnonzero(owners == number)
            rows = np.stack([self._kept[marks[at]] for at in positions])
            shares.append(Share(number, positions, rows))
        for mark in set(marks):
            del self._kept[mark]
        return shares

    def ask_one(self, number: int, inputs: Batch) -> Embeddings:
        """Ask one account for n inputs until it refuses; then it is out.

        Returns:
            (m, d) answers to the first m of them.
        """
        rows = [np.empty((0, self.accounts[number].dim), dtype=np.float32)]
        for start in range(0, len(inputs), BATCH):
            rows += self._answers(number, inputs[start : start + BATCH])
        found: Embeddings = np.concatenate(rows)
        self.answered[number] += len(found)
        return found

    def _answers(self, number: int, inputs: Batch, *, again: bool = False) -> list[Embeddings]:
        """Return an account's answers to the first of n inputs, part by part.

        What failed is asked once more in small parts: the account may be back, and a live target
        answers from its transcript what it answered before the failure.
        """
        if number in self.refusals:
            return []
        account = self.accounts[number]
        try:
            return [checked(account.embed(inputs), n=len(inputs), dim=account.dim)]
        except (RefusalError, EncoderError) as error:
            spent = isinstance(error, BudgetExhausted)
            hopeless = len(inputs) == 1 if spent else again
            if hopeless:
                self.refusals[number] = error
                return []
        size = len(inputs) // 2 if spent else SMALL  # A part may still fit into a budget.
        parts = (inputs[start : start + size] for start in range(0, len(inputs), size))
        again = again or not spent
        return [rows for part in parts for rows in self._answers(number, part, again=again)]

    def keep(self, number: int, inputs: Batch, rows: Embeddings) -> None:
        """Take one account's answers (n, d) to n inputs as collected."""
        self._keep(number, _marks(inputs), rows)

    def _keep(self, number: int, marks: Sequence[bytes], rows: Embeddings) -> None:
        for mark, row in zip(marks, rows, strict=False):
            self._kept[mark] = row
            self._owners[mark] = number

    def _deal(self, marks: Iterable[bytes]) -> dict[int, list[bytes]]:
        """Return for each account left the inputs that it is asked."""
        dealt: dict[int, list[bytes]] = {}
        left = self.left
        for mark in marks:
            owner = self._owners.get(mark)
            if owner is None or owner in self.refusals:
                owner = left[self._dealt // self._turn % len(left)]
                self._dealt += 1
            dealt.setdefault(owner, []).append(mark)
        return dealt


def _marks(inputs: Batch) -> list[bytes]:
    """Return 16 bytes for each input that are equal for equal inputs."""
    if len(inputs) == 0:
        return []
    kind = modality(inputs)
    return [digest(item, kind) for item in inputs]
