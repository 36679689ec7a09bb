"""The contract checks pass what is right and catch what is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tollkeeper.errors import ConflictError
from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.ledger.memory import MemoryLedger
from tollkeeper.testing.checks import check_coverage_laws, check_encoder, check_ledger
from tollkeeper.testing.encoders import HashEncoder
from tollkeeper.types import Batch, Embeddings, Entry, Record, Sketch, Verdict

TEXTS = ["one", "two", "three", "four"]
Spoil = Callable[[Embeddings, Batch], Any]

SPOILED: dict[str, Spoil] = {
    "expected shape": lambda x, _: x[:, :-1],
    "expected float32": lambda x, _: x.astype(np.float64),
    "expected finite": lambda x, _: np.where(x == x[0, 0], np.float32("inf"), x),
    "alone and": lambda x, _: x + np.float32(len(x)),
    "place in a batch": lambda x, inputs: x[np.argsort([str(i) for i in inputs])],
    "no input": lambda x, _: x if len(x) else np.zeros((1, 8), np.float32),
}


class Spoiled(HashEncoder):
    """A hash encoder whose answers pass through `spoil`."""

    def __init__(self, spoil: Spoil) -> None:
        """Keep what spoils the answers."""
        super().__init__(8)
        self._spoil = spoil

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed, then spoil."""
        spoiled: Embeddings = self._spoil(super().embed(inputs), inputs)
        return spoiled


@pytest.mark.parametrize("complaint", SPOILED)
def test_check_encoder_catches(complaint: str) -> None:
    """Each way to break the encoder contract is named."""
    with pytest.raises(AssertionError, match=complaint):
        check_encoder(Spoiled(SPOILED[complaint]), TEXTS)


def rounds_by_batch(x: Embeddings, inputs: Batch) -> Embeddings:
    """Change the last bit of every row of a large batch."""
    return np.nextafter(x, np.float32(9)) if len(inputs) > 4 else x


def test_check_encoder_catches_a_broken_promise_of_bytes() -> None:
    """One bit that depends on the batch's size is caught if independence is declared, else not."""
    encoder = Spoiled(rounds_by_batch)
    with pytest.raises(AssertionError, match="same bytes alone and in a batch of 40"):
        check_encoder(encoder, TEXTS)
    encoder.rows_independent = False
    check_encoder(encoder, TEXTS)


def test_check_encoder_catches_chance() -> None:
    """An encoder that answers differently the second time is caught."""
    rng = np.random.default_rng(0)
    noisy = Spoiled(lambda x, _: x + rng.standard_normal(x.shape).astype(np.float32))
    with pytest.raises(AssertionError, match="another answer"):
        check_encoder(noisy, TEXTS)


EMBEDDINGS = np.random.default_rng(1).standard_normal((40, 16)).astype(np.float32)


def make_guard(name: str, kind: type[Guard] = Guard) -> Guard:
    """Return a guard over 16-d embeddings."""
    calibration = Calibration.fit(
        np.random.default_rng(2).standard_normal((500, 16)).astype(np.float32),
        rng=np.random.default_rng(3),
    )
    return kind(profiles.get(name), calibration, secret=bytes(32))


@pytest.mark.parametrize("name", profiles.NAMES)
def test_every_profile_keeps_the_coverage_laws(name: str) -> None:
    """All shipped profiles pass the check that third parties run."""
    guard = make_guard(name)
    check_coverage_laws(guard, EMBEDDINGS, key=guard.tenant_key("t"))


class Forgets(Guard):
    """Breaks the union: merging keeps only one side."""

    def merge(self, one: Sketch, other: Sketch) -> Sketch:
        """Return the first sketch."""
        return one


class Meddles(Guard):
    """Breaks purity: admitting scales the caller's embeddings."""

    def admit(self, sketch: Sketch, embeddings: Embeddings, **rest: Any) -> Verdict:
        """Scale in place, then admit."""
        embeddings *= 2
        return super().admit(sketch, embeddings, **rest)


class Loses(Guard):
    """Breaks growth: the verdict's sketch is empty again."""

    def admit(self, sketch: Sketch, embeddings: Embeddings, **rest: Any) -> Verdict:
        """Admit, then forget."""
        return replace(super().admit(sketch, embeddings, **rest), sketch=self.empty())


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [(Forgets, "union"), (Meddles, "changed the embeddings"), (Loses, "not its sketch")],
)
def test_check_coverage_laws_catches(kind: type[Guard], complaint: str) -> None:
    """A guard that breaks a law is caught, with the law named."""
    guard = make_guard("recommended", kind)
    with pytest.raises(AssertionError, match=complaint):
        check_coverage_laws(guard, EMBEDDINGS.copy(), key=guard.tenant_key("t"))


def test_memory_ledger_passes() -> None:
    """The shipped memory ledger keeps the contract."""
    check_ledger(MemoryLedger())


class NoConflicts(MemoryLedger):
    """Takes every commit, whatever version was expected."""

    def commit(self, pool: str, record: Record, sketch: bytes, *, expected: int) -> Entry:
        """Commit on whatever version is stored."""
        return super().commit(pool, record, sketch, expected=self.read(pool).version)


class StoresThenRefuses(MemoryLedger):
    """Reports a conflict only after it has stored the commit."""

    def commit(self, pool: str, record: Record, sketch: bytes, *, expected: int) -> Entry:
        """Commit, then raise if it was stale."""
        found = self.read(pool).version
        entry = super().commit(pool, record, sketch, expected=found)
        if found != expected:
            raise ConflictError(pool, expected=expected, found=found)
        return entry


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [(NoConflicts, "must raise ConflictError"), (StoresThenRefuses, "must change nothing")],
)
def test_check_ledger_catches(kind: type[MemoryLedger], complaint: str) -> None:
    """A ledger that loses the optimistic lock is caught."""
    with pytest.raises(AssertionError, match=complaint):
        check_ledger(kind())
