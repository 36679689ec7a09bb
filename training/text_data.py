"""Texts, vocabulary and random views for training the built-in text encoder; labels are never read.

Texts that also occur in a held-out split (AG News test, Banking77 test, SST-2 dev and test) are
left out: MR holds most of SST-2, and ten AG News descriptions are in both files.
"""

from __future__ import annotations

import csv
import math
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.tokenizer import PAD, Tokenizer, Vocabulary, split

LEAST_PAIRS = 5  # texts that a pair must occur in

Ids = NDArray[np.int64]

CORPORA = {
    "banking77": ("train",),
    "ag_news": ("train",),
    "sst2": ("train",),
    "mr": ("all",),
    "wikitext2": ("valid", "test"),
}
HELD_OUT = (("banking77", "test"), ("ag_news", "test"), ("sst2", "dev"), ("sst2", "test"))


def read_labelled(data: Path, name: str, split_name: str) -> tuple[list[str], list[int]]:
    """Read texts and labels (empty for WikiText) of one split with the data folder's own reader."""
    sys.path.insert(0, str(data))
    from read_datasets import read_text  # type: ignore[import-not-found]

    texts, labels = read_text(name, split_name, root=str(data))
    return texts, list(labels or ())


def fingerprint(text: str) -> str:
    """Return the letters and digits of a text in lower case, to compare across tokenizations."""
    return "".join(c for c in text.lower() if c.isalnum())


def read_corpora(data: Path) -> dict[str, list[str]]:
    """Read the training texts of every corpus, without held-out texts and without repeats."""
    seen: set[str] = set()
    for name, part in HELD_OUT:
        texts, _ = read_labelled(data, name, part)
        seen.update(map(fingerprint, texts))
        if name == "ag_news":
            seen.update(map(fingerprint, ag_descriptions(data)))
    corpora: dict[str, list[str]] = {}
    for name, parts in CORPORA.items():
        corpora[name] = []
        for part in parts:
            for text in read_labelled(data, name, part)[0]:
                mark = fingerprint(text)
                if mark and mark not in seen:
                    seen.add(mark)
                    corpora[name].append(text)
    return corpora


def ag_descriptions(data: Path) -> list[str]:
    """Read the descriptions of the AG News test file, without their titles."""
    return [row[2] for row in _ag_rows(data)]


def ag_titles(data: Path) -> list[str]:
    """Read the titles of the AG News test file, without their descriptions."""
    return [row[1] for row in _ag_rows(data)]


def _ag_rows(data: Path) -> list[list[str]]:
    """Read class, title and description of the AG News test file."""
    path = data / "text" / "ag_news" / "test.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def build_vocabulary(
    documents: list[list[str]], *, words: int, pairs: int, buckets: int
) -> Vocabulary:
    """Choose the words in most documents and the pairs that occur together more than by chance.

    Args:
        documents: Tokens of each training text.
        words: Number of words to keep.
        pairs: Number of pairs to keep; scored by count times pointwise mutual information.
        buckets: Number of n-gram rows.

    Returns:
        The vocabulary, words by falling document count.
    """
    in_documents = Counter(word for tokens in documents for word in set(tokens))
    ranked = sorted(in_documents, key=lambda word: (-in_documents[word], word))[:words]
    position = {word: at for at, word in enumerate(ranked)}
    counts = Counter(word for tokens in documents for word in tokens)
    total = sum(counts.values())
    together: Counter[tuple[str, str]] = Counter()
    for tokens in documents:
        together.update(set(pairwise(tokens)))

    def score(pair: tuple[str, str]) -> float:
        return together[pair] * math.log(
            together[pair] * total / (counts[pair[0]] * counts[pair[1]])
        )

    known = [
        pair
        for pair, count in together.items()
        if count >= LEAST_PAIRS and pair[0] in position and pair[1] in position
    ]
    known.sort(key=lambda pair: (-score(pair), pair))
    chosen = tuple((position[left], position[right]) for left, right in known[:pairs])
    return Vocabulary(tuple(ranked), chosen, buckets)


@dataclass(frozen=True)
class Packed:
    """All training texts as flat arrays (t tokens, k distinct tokens, c corpora).

    Attributes:
        starts: (texts + 1,) first token of each text.
        types: (t,) distinct token at each place.
        pairs: (t,) row of the pair starting at each place, or 0.
        known: (k,) row of each known distinct token, or 0.
        spell_starts: (k + 1,) first n-gram of each distinct token.
        spelling: n-gram rows of all distinct tokens.
        corpora: (c + 1,) first text of each corpus.
    """

    starts: Ids
    types: Ids
    pairs: Ids
    known: Ids
    spell_starts: Ids
    spelling: Ids
    corpora: Ids


def pack(documents: list[list[list[str]]], tokenizer: Tokenizer) -> Packed:
    """Flatten tokenized corpora into arrays that views can be drawn from quickly."""
    index: dict[str, int] = {}
    flat: list[int] = []
    pairs: list[int] = []
    starts = [0]
    for tokens in (tokens for corpus in documents for tokens in corpus):
        flat.extend(index.setdefault(token, len(index)) for token in tokens)
        pairs.extend(tokenizer.pair_row(a, b) or 0 for a, b in pairwise(tokens))
        pairs.append(0)
        starts.append(len(flat))
    spelled = [tokenizer.spell(word) for word in index]
    return Packed(
        starts=np.asarray(starts),
        types=np.asarray(flat),
        pairs=np.asarray(pairs),
        known=np.asarray([tokenizer.word_row(word) or 0 for word in index]),
        spell_starts=np.cumsum([0] + [len(rows) for rows in spelled]),
        spelling=np.asarray([row for rows in spelled for row in rows]),
        corpora=np.cumsum([0] + [len(corpus) for corpus in documents]),
    )


def spans(starts: Ids, lengths: Ids) -> tuple[Ids, Ids]:
    """Return all places of many spans and, for each, the span it belongs to."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return starts[owner] + within, owner


@dataclass(frozen=True)
class ViewSettings:
    """How a random view of a text is drawn.

    Attributes:
        window: Longest run of tokens taken from a text.
        keep: Least and greatest share of the tokens kept, drawn per text.
        spell: Share of the known words that are read as n-grams instead.
    """

    window: int = 48
    keep: tuple[float, float] = (0.4, 0.9)
    spell: float = 0.12


def draw_view(
    packed: Packed, texts: Ids, rng: np.random.Generator, settings: ViewSettings
) -> tuple[Ids, Ids]:
    """Draw one random view of each text: a window of it with tokens left out.

    Args:
        packed: The training texts.
        texts: (b,) which texts.
        rng: Source of all randomness.
        settings: Strength of the view.

    Returns:
        Table rows of all views, flat, and the (b,) offsets where each view starts.
    """
    full = packed.starts[texts + 1] - packed.starts[texts]
    lengths = np.minimum(full, settings.window)
    first = packed.starts[texts] + rng.integers(0, full - lengths + 1)
    places, owner = spans(first, lengths)
    share = rng.uniform(*settings.keep, len(texts))
    kept = rng.random(len(places)) < share[owner]
    kept[np.cumsum(lengths) - lengths + rng.integers(0, lengths)] = True
    paired = kept[:-1] & kept[1:] & (owner[:-1] == owner[1:])
    paired &= packed.pairs[places[:-1]] > 0
    pair_rows, pair_owner = packed.pairs[places[:-1][paired]], owner[:-1][paired]
    types, owner = packed.types[places[kept]], owner[kept]
    spelled = (packed.known[types] == PAD) | (rng.random(len(types)) < settings.spell)
    begin = packed.spell_starts[types[spelled]]
    grams, gram_owner = spans(begin, packed.spell_starts[types[spelled] + 1] - begin)
    rows = np.concatenate([packed.known[types[~spelled]], packed.spelling[grams], pair_rows])
    owners = np.concatenate([owner[~spelled], owner[spelled][gram_owner], pair_owner])
    order = np.argsort(owners, kind="stable")
    counts = np.bincount(owners, minlength=len(texts))
    return rows[order], np.cumsum(counts) - counts


def tokenized(corpora: dict[str, list[str]]) -> list[list[list[str]]]:
    """Split every text of every corpus; texts without tokens cannot occur here."""
    return [[split(text) for text in texts] for texts in corpora.values()]
