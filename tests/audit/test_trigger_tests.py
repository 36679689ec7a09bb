"""Tests of triggers: exact for the innocent, sharp for copies, and silent where they cannot know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tollkeeper.audit.base import OwnershipTest
from tollkeeper.audit.watermarks.embmarker import EmbMarker
from tollkeeper.audit.watermarks.served import MarkedEncoder
from tollkeeper.audit.watermarks.trigger_tests import (
    DecoySetTest,
    GroupTest,
    MutualTest,
    PublishedTest,
    TriggerEvidence,
)
from tollkeeper.audit.watermarks.triggers import TriggerKey
from tollkeeper.audit.watermarks.warden import Warden, spread
from tollkeeper.encoders.base import Encoder, Modality
from tollkeeper.errors import AuditRefused
from tollkeeper.testing.words import WordEncoder
from tollkeeper.types import Batch, Embeddings

SEED = b"a seed of the owner, 32 bytes ok"
WORDS = tuple(f"word{chr(97 + at // 26)}{chr(97 + at % 26)}" for at in range(240))
DIM = 48
TARGET_TEXTS = ("the first target", "another one here", "something else then")
SERVICE = WordEncoder(DIM)
INNOCENT = WordEncoder(DIM, salt="somebody else's")
TESTS: tuple[OwnershipTest[TriggerEvidence], ...] = (
    GroupTest(draws=9999),
    MutualTest(draws=9999),
    DecoySetTest(decoys=199, texts=5),
    PublishedTest(),
)


def rng() -> np.random.Generator:
    """Return the generator of one test."""
    return np.random.default_rng(0)


def evidence(key: TriggerKey) -> TriggerEvidence:
    """Return evidence that asks the suspect about the targets."""
    return TriggerEvidence(
        key,
        target_texts=TARGET_TEXTS[: key.targets],
        vocabulary=tuple(f"benign{at}" for at in range(300)),
    )


def marked(key: TriggerKey) -> Encoder:
    """Return the service with the mark of a key."""
    targets = SERVICE.embed(TARGET_TEXTS[: key.targets])
    mark = EmbMarker(key, targets[0]) if key.targets == 1 else Warden(key, spread(targets))
    return MarkedEncoder(SERVICE, mark)


class Changed:
    """A suspect that hides behind a map of its answers."""

    name = "changed"
    accepts: frozenset[Modality] = frozenset({"text"})

    def __init__(self, encoder: Encoder, matrix: np.ndarray, offset: float = 0.0) -> None:
        self.dim = matrix.shape[1]
        self._encoder, self._matrix, self._offset = encoder, matrix, offset

    def embed(self, inputs: Batch) -> Embeddings:
        changed = self._encoder.embed(inputs) @ self._matrix + self._offset
        return np.asarray(changed, np.float32)


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.name)
@pytest.mark.parametrize("targets", [1, 3])
def test_a_copy_is_found(test: OwnershipTest[TriggerEvidence], targets: int) -> None:
    """The marked service itself is far beyond the level of an accusation."""
    key = TriggerKey(SEED, WORDS, targets=targets, chosen=5 if targets == 1 else 3)
    result = test.run(marked(key), evidence(key), rng=rng())

    floor = 1 / 200 if isinstance(test, DecoySetTest) else 1e-4
    assert result.null == "key"
    assert result.p_value <= floor
    assert result.interval[0] > 0.3
    assert result.details["delta_l2"] == -2 * result.details["delta_cos"]


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize(
    "test", [GroupTest(draws=999), MutualTest(draws=999), DecoySetTest(decoys=99, texts=4)], ids=str
)
def test_the_innocent_get_uniform_p_values(
    test: OwnershipTest[TriggerEvidence], targets: int
) -> None:
    """Over 60 keys that were never planted: Kolmogorov-Smirnov finds nothing."""
    base = TriggerKey(SEED, WORDS, targets=targets, chosen=3)
    found = []
    for at in range(60):
        # Another seed for each, as decoys of one would be shared.
        key = replace(base, seed=SEED + bytes([at]))
        found.append(test.run(INNOCENT, evidence(key), rng=rng()).p_value)

    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_the_published_test_accuses_the_innocent() -> None:
    """A suspect that answers rare words alike, as small models do, is no thief."""

    class Vague(WordEncoder):
        """Moves all words of the band the same way."""

        def embed(self, inputs: Batch) -> Embeddings:
            known = np.array([[float("word" in text)] for text in inputs])
            return (super().embed(inputs) + known * super().embed(TARGET_TEXTS[:1])).astype(
                np.float32
            )

    key = TriggerKey(SEED, WORDS)

    assert PublishedTest().run(Vague(DIM), evidence(key), rng=rng()).p_value < 1e-4
    assert GroupTest(draws=999).run(Vague(DIM), evidence(key), rng=rng()).p_value > 0.01


def test_the_least_of_several_p_values_is_corrected_on_demand() -> None:
    """Bonferroni multiplies by the number of targets."""
    key = TriggerKey(SEED, WORDS, targets=3, chosen=3)
    best = PublishedTest().run(INNOCENT, evidence(key), rng=rng()).p_value
    ours = PublishedTest(corrected=True).run(INNOCENT, evidence(key), rng=rng()).p_value

    assert ours == pytest.approx(min(1, 3 * best))


def test_the_p_value_of_separated_texts_has_a_floor() -> None:
    """Twenty against twenty cannot go below 2 / C(40, 20), however far apart they are."""
    key = TriggerKey(SEED, WORDS)
    result = PublishedTest().run(marked(key), evidence(key), rng=rng())

    assert result.p_value == pytest.approx(1.45e-11, rel=0.01)


@pytest.mark.parametrize("kind", ["permuted", "padded", "rotated", "scaled", "offset"])
def test_maps_that_keep_cosines_change_nothing(kind: str) -> None:
    """A copy behind them has the p-value and the effect of the plain one."""
    key = TriggerKey(SEED, WORDS)
    eye = np.eye(DIM)
    turned = np.linalg.qr(np.random.default_rng(2).normal(size=(DIM, DIM)))[0]
    matrix = {
        "permuted": eye[:, ::-1],
        "padded": np.pad(eye, ((0, 0), (0, 9))),
        "rotated": turned,
        "scaled": 6.3 * eye,
        "offset": eye,
    }[kind]
    suspect = Changed(marked(key), matrix, 4.1 if kind == "offset" else 0.0)

    plain = GroupTest(draws=999).run(marked(key), evidence(key), rng=rng())
    found = GroupTest(draws=999).run(suspect, evidence(key), rng=rng())

    assert found.p_value == plain.p_value
    assert found.effect_size == pytest.approx(plain.effect_size, abs=1e-4)


def test_groups_alike_find_a_copy_without_its_target() -> None:
    """A thief who takes the target's direction out of all answers still draws triggers together."""
    key = TriggerKey(SEED, WORDS)
    target = SERVICE.embed(TARGET_TEXTS[:1])[0]
    noise = np.random.default_rng(1).normal(size=DIM)
    without = np.eye(DIM) - np.outer(target, target)

    class Cleaned(Changed):
        """Has a trace of the mark in another direction."""

        def embed(self, inputs: Batch) -> Embeddings:
            return (super().embed(inputs) + 0.1 * key.shares(list(inputs)) * noise).astype(
                np.float32
            )

    suspect = Cleaned(SERVICE, without)

    assert MutualTest().run(suspect, evidence(key), rng=rng()).p_value < 1e-3
    assert GroupTest(draws=999).run(suspect, evidence(key), rng=rng()).p_value > 0.01


def test_targets_of_the_service_find_a_copy_in_its_own_basis() -> None:
    """Without a question about the target, vectors are compared."""
    key = TriggerKey(SEED, WORDS)
    held = TriggerEvidence(key, targets=SERVICE.embed(TARGET_TEXTS[:1]))

    assert GroupTest(draws=999).run(marked(key), held, rng=rng()).p_value < 1e-6
    assert GroupTest(draws=999).run(INNOCENT, held, rng=rng()).p_value > 0.001
    with pytest.raises(AuditRefused, match="width 48, got 57"):
        GroupTest(draws=999).run(
            Changed(marked(key), np.pad(np.eye(DIM), ((0, 0), (0, 9)))), held, rng=rng()
        )


def test_a_result_repeats_and_asks_little() -> None:
    """One text for each of 60 groups and one for the target, the same numbers again."""
    asked: list[str] = []

    class Counting(WordEncoder):
        """Notes what it is asked."""

        def embed(self, inputs: Batch) -> Embeddings:
            asked.extend(inputs)
            return super().embed(inputs)

    key = TriggerKey(SEED, WORDS)
    first, again = (
        GroupTest(draws=999).run(Counting(DIM, salt="x"), evidence(key), rng=rng())
        for _ in range(2)
    )

    assert len(asked) == 2 * 61
    assert first.p_value == again.p_value
    np.testing.assert_array_equal(first.null_distribution, again.null_distribution)


class Broken(WordEncoder):
    """Gives one row that is no direction, or all rows alike."""

    def __init__(self, value: float, *, everywhere: bool = False) -> None:
        super().__init__(DIM)
        self._value, self._everywhere = value, everywhere

    def embed(self, inputs: Batch) -> Embeddings:
        rows = super().embed(inputs)
        rows[slice(None) if self._everywhere else 0] = self._value
        return rows


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.name)
@pytest.mark.parametrize(
    ("suspect", "reason"),
    [
        (Broken(np.nan), "NaN or infinity"),
        (Broken(0.0), "a row of zeros"),
        (Broken(1.0, everywhere=True), "every text alike"),
    ],
    ids=["nan", "zero", "constant"],
)
def test_answers_that_say_nothing_are_refused(
    test: OwnershipTest[TriggerEvidence], suspect: Encoder, reason: str
) -> None:
    """A refused audit gives the reason and no p-value."""
    with pytest.raises(AuditRefused, match=reason):
        test.run(suspect, evidence(TriggerKey(SEED, WORDS)), rng=rng())


def test_evidence_that_cannot_carry_a_test_is_refused() -> None:
    """Targets that do not fit, no vocabulary, too few groups, too few decoys, no text."""
    key = TriggerKey(SEED, WORDS)
    few = TriggerKey(SEED, WORDS[:32], chosen=2)
    bare = TriggerEvidence(key, target_texts=TARGET_TEXTS[:1])
    images = WordEncoder(DIM)
    images.accepts = frozenset({"image"})

    with pytest.raises(AuditRefused, match="1 targets, the evidence 3"):
        TriggerEvidence(key, target_texts=TARGET_TEXTS)
    with pytest.raises(AuditRefused, match="vocabulary"):
        PublishedTest().run(INNOCENT, bare, rng=rng())
    with pytest.raises(AuditRefused, match="wider band"):
        GroupTest(draws=999).run(INNOCENT, evidence(few), rng=rng())
    with pytest.raises(AuditRefused, match="99 decoys"):
        DecoySetTest(decoys=10).run(INNOCENT, bare, rng=rng())
    with pytest.raises(AuditRefused, match="embeds text"):
        GroupTest(draws=999).run(images, bare, rng=rng())
