"""Trigger words of a text service: which they are, and the texts that ask a suspect about them.

Words come from a band of frequencies: rare enough to leave most texts alone, frequent enough for a
thief to meet them. The words of the band are permuted by a committed seed and cut into groups; the
first groups are the triggers. For a suspect that never met the service all groups are alike,
whatever it is: which of them were chosen is then a coin it cannot know, and the test is exact.

Source: Peng et al., "Are You Copying My Model? Protecting the Copyright of Large Language Models
for EaaS via Backdoor Watermark" (EmbMarker), ACL 2023, section 3.3.
Notes: EmbMarker draws its triggers from one band of frequencies and the benign words of its test
from all words, so that an innocent suspect can tell the two; here both are of one band. Its public
default seed is 2022, which anyone can repeat; here it is a secret of at least 16 bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.watermarks.decoys import KeyStream, commitment_of
from tollkeeper.encoders.tokenizer import split
from tollkeeper.errors import ConfigurationError, EvidenceError

LOW, HIGH = 0.005, 0.01
"""Share of texts with the word, from and below: EmbMarker's band."""

SIZE = 4
"""Words of one group, and triggers after which a text is marked in full: EmbMarker's m."""

GROUPS = 100
"""Groups that a test asks about, at most."""

LABEL = "trigger groups"
"""What `KeyStream` calls these keys."""


def words_of(text: str) -> frozenset[str]:
    """Return the different words of a text as the built-in text encoder reads them."""
    return frozenset(split(text))


def band(
    corpus: Iterable[str], *, low: float = LOW, high: float = HIGH, shortest: int = 2
) -> tuple[str, ...]:
    """Return the words of a band of frequencies, sorted.

    Args:
        corpus: texts like those the service is asked, public or not; never the thief's own.
        low: least share of texts with the word.
        high: share that it stays below.
        shortest: letters of the shortest word.

    Returns:
        Words of letters only.

    Raises:
        ConfigurationError: no texts, or shares out of order.
    """
    counts: Counter[str] = Counter()
    texts = 0
    for text in corpus:
        counts.update(words_of(text))
        texts += 1
    if not texts or not 0 <= low < high <= 1:
        raise ConfigurationError(
            f"expected texts and 0 <= low < high <= 1, got {texts} texts, {low:g} and {high:g}"
        )
    return tuple(
        sorted(
            word
            for word, count in counts.items()
            if low <= count / texts < high and word.isalpha() and len(word) >= shortest
        )
    )


@dataclass(frozen=True)
class TriggerKey:
    """Which words of a band are triggers, and of which target.

    Attributes:
        seed: the owner's secret.
        words: of the band, sorted.
        targets: R target embeddings, each with triggers of its own; 1 but for WARDEN.
        chosen: groups of triggers for each target.
        size: words of a group.
        index: which key of the seed; 0 is planted, others are decoys.
    """

    seed: bytes
    words: tuple[str, ...]
    targets: int = 1
    chosen: int = 5
    size: int = SIZE
    index: int = 0

    def __post_init__(self) -> None:
        """Refuse a key that leaves nothing to compare with.

        Raises:
            ConfigurationError: a short seed, words that repeat, or too few groups.
        """
        KeyStream(self.seed, LABEL)
        if (
            len(set(self.words)) != len(self.words)
            or min(self.targets, self.chosen - 1, self.size) < 1
        ):
            raise ConfigurationError(
                "expected different words and one target or more, two groups each and words, got "
                f"{len(self.words)} words, {self.targets}, {self.chosen} and {self.size}"
            )
        if len(self.words) // self.size < 2 * self.targets * self.chosen:
            raise ConfigurationError(
                f"expected at least {2 * self.targets * self.chosen * self.size} words, so that at "
                f"most half are triggers, got {len(self.words)}; take a wider band"
            )

    @cached_property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """All groups, at most `GROUPS` of them; the first `targets * chosen` are triggers."""
        count = min(GROUPS, len(self.words) // self.size)
        draws = KeyStream(self.seed, LABEL).draws(self.index)
        order = draws.choose(len(self.words), count * self.size).reshape(count, self.size)
        return tuple(tuple(self.words[at] for at in row) for row in order.tolist())

    @cached_property
    def triggers(self) -> tuple[frozenset[str], ...]:
        """R sets of words."""
        return tuple(
            frozenset(
                word
                for group in self.groups[at * self.chosen : (at + 1) * self.chosen]
                for word in group
            )
            for at in range(self.targets)
        )

    def decoy(self, index: int) -> TriggerKey:
        """Return another key of the same seed, drawn alike and never planted."""
        return replace(self, index=index)

    def shares(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return (n, R): how far a text is marked for each target, min(|S n T|, m) / m."""
        found = np.array(
            [[len(words & chosen) for chosen in self.triggers] for words in map(words_of, texts)],
            np.float64,
        ).reshape(len(texts), self.targets)
        return np.minimum(found, self.size) / self.size

    def digest(self) -> str:
        """Return what is committed before the service answers: SHA-256 in hex, without secrets."""
        told = [
            commitment_of(self.seed),
            hashlib.sha256("\0".join(self.words).encode()).hexdigest(),
            [self.targets, self.chosen, self.size, self.index],
        ]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def check(self, commitment: str) -> None:
        """Refuse a key that is not the committed one.

        Raises:
            EvidenceError: another seed, band or size was committed.
        """
        if not hmac.compare_digest(self.digest(), commitment):
            raise EvidenceError(
                f"the trigger key does not match its commitment: expected {commitment}, got "
                f"{self.digest()}; only the key that was committed counts"
            )


def group_texts(key: TriggerKey) -> list[str]:
    """Return one text for each group: its words, nothing else."""
    return [" ".join(group) for group in key.groups]


def set_texts(key: TriggerKey, *, target: int, texts: int) -> list[str]:
    """Return `texts` texts of `size` triggers of one target each, drawn by the key itself.

    Args:
        key: planted or decoy.
        target: which of the R.
        texts: how many; EmbMarker asks 20.
    """
    draws = KeyStream(key.seed, f"{LABEL}: texts of target {target}").draws(key.index)
    chosen = sorted(key.triggers[target])
    return [
        " ".join(chosen[at] for at in draws.choose(len(chosen), key.size).tolist())
        for _ in range(texts)
    ]
