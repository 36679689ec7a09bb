"""Words, frequent word pairs and hashed character n-grams: how the built-in text encoder reads.

Training and serving share this file, so they cannot drift. Reading a text goes in three steps:

1. fold: lower case, compatibility forms and Latin accents removed;
2. split: words (at most 24 characters a piece) and single other characters; these are the *tokens*
   that `count_tokens` counts and that usage is billed by;
3. look up: a known word is one row of the embedding table, an unknown one is the rows of its hashed
   character n-grams, and a known pair of neighboring words adds one row.
"""

from __future__ import annotations

import gzip
import json
import re
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

PAD = 0
"""Row of zeros that fills up short texts."""

EMPTY = 1
"""Row that stands for a text without any token (whitespace only)."""

FIRST_WORD = 2
"""Row of the first word of the vocabulary."""

MAX_PIECE = 24
"""Longest piece of a word, in characters; longer runs of letters become several tokens."""

NGRAM_SIZES = (3, 4)
"""Lengths of the hashed character n-grams, in characters, counting the marks at both ends."""

_FOLD_SLICE = 512  # canonical ordering is quadratic in a run of combining marks; slices bound it
_CACHE_LIMIT = 20_000  # words whose rows are remembered; about 6 MB when full
_FORMAT = 1

_TOKEN = re.compile(rf"[^\W_]{{1,{MAX_PIECE}}}(?:'[^\W_]{{1,{MAX_PIECE}}})?|\S")
_ACCENTS = re.compile("[\u0300-\u036f]+")


def _fold_slice(text: str) -> str:
    """Fold one slice of text that is not ASCII."""
    folded = unicodedata.normalize("NFKC", text).replace("\u2019", "'").casefold()
    bare = _ACCENTS.sub("", unicodedata.normalize("NFD", folded))
    return unicodedata.normalize("NFC", bare)


def fold(text: str) -> str:
    """Return the text in lower case, with compatibility forms and Latin accents removed.

    Args:
        text: Any string, lone surrogates included.

    Returns:
        The folded text; ASCII text is only lowered.
    """
    if text.isascii():
        return text.lower()
    return "".join(
        _fold_slice(text[start : start + _FOLD_SLICE]) for start in range(0, len(text), _FOLD_SLICE)
    )


def split(text: str) -> list[str]:
    """Return the tokens of a text in order: word pieces and single other characters.

    Args:
        text: Any string.

    Returns:
        Folded tokens; empty for a text of whitespace only.
    """
    return _TOKEN.findall(fold(text))


def ngram_buckets(word: str, buckets: int) -> tuple[int, ...]:
    """Return the hash buckets of a word's character n-grams.

    Args:
        word: One folded token, not empty.
        buckets: Number of buckets to hash into.

    Returns:
        At least one bucket number in [0, buckets), in reading order, repeats kept.
    """
    marked = f"<{word}>"
    return tuple(
        zlib.crc32(marked[at : at + size].encode("utf-8", "surrogatepass")) % buckets
        for size in NGRAM_SIZES
        for at in range(len(marked) - size + 1)
    )


@dataclass(frozen=True)
class Vocabulary:
    """What the rows of the embedding table stand for.

    Attributes:
        words: Known words, one row each, after the two special rows.
        pairs: Known neighbors as positions in `words`, one row each, after the words.
        buckets: Number of n-gram rows, after the pairs.
    """

    words: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    buckets: int

    @property
    def first_pair(self) -> int:
        """Row of the first pair."""
        return FIRST_WORD + len(self.words)

    @property
    def first_bucket(self) -> int:
        """Row of the first n-gram bucket."""
        return self.first_pair + len(self.pairs)

    @property
    def rows(self) -> int:
        """Number of rows of the embedding table."""
        return self.first_bucket + self.buckets

    def save(self, path: Path) -> None:
        """Write the vocabulary as gzipped JSON, the same bytes for the same content."""
        content = {
            "format": _FORMAT,
            "words": self.words,
            "pairs": self.pairs,
            "buckets": self.buckets,
        }
        text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
        path.write_bytes(gzip.compress(text.encode("ascii"), mtime=0))

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read a vocabulary written by `save`.

        Raises:
            ValueError: The file is of another format version.
        """
        content = json.loads(gzip.decompress(path.read_bytes()))
        if content["format"] != _FORMAT:
            raise ValueError(f"expected vocabulary format {_FORMAT}, got {content['format']!r}")
        pairs = tuple((left, right) for left, right in content["pairs"])
        return cls(tuple(content["words"]), pairs, content["buckets"])


class Tokenizer:
    """Turns texts into rows of the embedding table.

    Args:
        vocabulary: What the rows stand for.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Index the vocabulary."""
        self.vocabulary = vocabulary
        self._word_rows = {word: FIRST_WORD + at for at, word in enumerate(vocabulary.words)}
        self._pair_rows = {
            (vocabulary.words[left], vocabulary.words[right]): vocabulary.first_pair + at
            for at, (left, right) in enumerate(vocabulary.pairs)
        }
        self._unknown: dict[str, tuple[int, ...]] = {}

    def spell(self, word: str) -> tuple[int, ...]:
        """Return the n-gram rows of a word, known or not."""
        rows = self._unknown.get(word)
        if rows is None:
            first = self.vocabulary.first_bucket
            rows = tuple(first + b for b in ngram_buckets(word, self.vocabulary.buckets))
            if len(self._unknown) >= _CACHE_LIMIT:
                self._unknown.clear()
            self._unknown[word] = rows
        return rows

    def rows(self, tokens: Sequence[str]) -> list[int]:
        """Return the table rows of a text's tokens.

        Args:
            tokens: What `split` returned for the text.

        Returns:
            At least one row number; repeats kept, order without meaning.
        """
        if not tokens:
            return [EMPTY]
        found: list[int] = []
        word_row = self._word_rows.get
        for token in tokens:
            row = word_row(token)
            if row is None:
                found.extend(self.spell(token))
            else:
                found.append(row)
        pair_row = self._pair_rows.get
        pairs = map(pair_row, pairwise(tokens))
        found.extend(row for row in pairs if row is not None)
        return found

    def word_row(self, word: str) -> int | None:
        """Return the row of a known word, or None."""
        return self._word_rows.get(word)

    def pair_row(self, left: str, right: str) -> int | None:
        """Return the row of a known pair of neighbors, or None."""
        return self._pair_rows.get((left, right))
