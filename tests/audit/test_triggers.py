"""Trigger keys are drawn by a committed seed, bit by bit, and say how far a text is marked."""

from __future__ import annotations

import pytest

from tollkeeper.audit.watermarks.triggers import (
    TriggerKey,
    band,
    group_texts,
    set_texts,
    words_of,
)
from tollkeeper.errors import ConfigurationError, EvidenceError

SEED = b"a seed of the owner, 32 bytes ok"
WORDS = tuple(f"word{chr(97 + at // 26)}{chr(97 + at % 26)}" for at in range(240))


def test_a_band_holds_words_of_its_share_of_texts() -> None:
    """The lower end counts, the upper one does not, and a word twice in a text counts once."""
    corpus = ["rare rare common middle", "common middle", "common", "common 12 x"]

    assert band(corpus, low=0.25, high=0.5) == ("rare",)
    assert band(corpus, low=0.25, high=0.51) == ("middle", "rare")


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.5), (-0.1, 0.5), (0.1, 1.1)])
def test_an_empty_band_is_refused(low: float, high: float) -> None:
    """Shares that select nothing, or are no shares, are a mistake of whoever asks."""
    with pytest.raises(ConfigurationError, match="0 <= low < high"):
        band(["one text"], low=low, high=high)


def test_no_corpus_is_refused() -> None:
    """Frequencies of nothing are not frequencies."""
    with pytest.raises(ConfigurationError, match="0 texts"):
        band([])


def test_a_key_is_the_same_everywhere() -> None:
    """The triggers of a seed are fixed for good: a court redraws them on another machine."""
    key = TriggerKey(SEED, WORDS)

    assert key.groups[0] == ("wordgb", "wordhs", "wordak", "wordgx")
    assert key.digest() == TriggerKey(SEED, WORDS).digest()


def test_groups_share_no_word_and_the_first_are_triggers() -> None:
    """Each word is in one group, and each target has groups of its own."""
    key = TriggerKey(SEED, WORDS, targets=3, chosen=2)
    words = [word for group in key.groups for word in group]

    assert len(words) == len(set(words)) == 240
    assert [len(one) for one in key.triggers] == [8, 8, 8]
    assert key.triggers[1] == set(key.groups[2]) | set(key.groups[3])


def test_decoys_are_other_keys_of_the_same_size() -> None:
    """A decoy differs in its words and in nothing else."""
    key = TriggerKey(SEED, WORDS)
    decoy = key.decoy(1)

    assert decoy.triggers != key.triggers
    assert len(decoy.triggers[0]) == len(key.triggers[0]) == 20
    assert decoy == TriggerKey(SEED, WORDS, index=1)


def test_shares_count_different_triggers_up_to_m() -> None:
    """Q is min(|S n T|, m) / m: a repeated trigger counts once, a fifth one not at all."""
    key = TriggerKey(SEED, WORDS)
    five = sorted(key.triggers[0])[:5]
    texts = ["nothing here", five[0], f"{five[0]} {five[0]}", " ".join(five)]

    assert key.shares(texts).ravel().tolist() == [0, 0.25, 0.25, 1]


def test_texts_of_groups_and_sets_are_triggers_only() -> None:
    """A test asks four different triggers at a time."""
    key = TriggerKey(SEED, WORDS)
    texts = set_texts(key, target=0, texts=20)

    assert all(len(words_of(text)) == 4 and words_of(text) <= key.triggers[0] for text in texts)
    assert group_texts(key)[0].split() == list(key.groups[0])
    assert texts != set_texts(key.decoy(3), target=0, texts=20)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"seed": b"short"}, "at least 16 bytes"),
        ({"words": WORDS[:39]}, "wider band"),
        ({"words": WORDS[:-1] + WORDS[:1]}, "different words"),
        ({"chosen": 1}, "two groups"),
        ({"targets": 10}, "at least 400 words"),
    ],
)
def test_a_key_that_proves_nothing_is_refused(changes: dict[str, object], reason: str) -> None:
    """Guessable seeds, repeated words and too few words to compare with."""
    given: dict[str, object] = {"seed": SEED, "words": WORDS}

    with pytest.raises(ConfigurationError, match=reason):
        TriggerKey(**(given | changes))  # type: ignore[arg-type]


def test_a_key_that_was_not_committed_is_refused() -> None:
    """Another seed, band, size or index has another digest."""
    key = TriggerKey(SEED, WORDS)
    others = [
        TriggerKey(SEED[::-1], WORDS),
        TriggerKey(SEED, WORDS[:-1]),
        TriggerKey(SEED, WORDS, chosen=6),
        key.decoy(1),
    ]

    key.check(key.digest())
    for other in others:
        with pytest.raises(EvidenceError, match="does not match its commitment"):
            other.check(key.digest())
