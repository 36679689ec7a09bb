"""The tokenizer: folding, splitting, hashing and the rows of the embedding table."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.encoders.tokenizer import (
    EMPTY,
    FIRST_WORD,
    MAX_PIECE,
    Tokenizer,
    Vocabulary,
    fold,
    ngram_buckets,
    split,
)

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=200)
"""Unicode of every kind, lone surrogates included."""

SMALL = Vocabulary(words=("card", "lost", "my"), pairs=((1, 2), (2, 0)), buckets=50)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("My card, please!", ["my", "card", ",", "please", "!"]),
        ("don't wait", ["don't", "wait"]),
        ("don\u2019t", ["don't"]),
        ("Crème BRÛLÉE", ["creme", "brulee"]),
        ("cre\u0300me", ["creme"]),
        ("ﬁne ＡＢＣ", ["fine", "abc"]),
        ("snake_case", ["snake", "_", "case"]),
        ("😀👍", ["😀", "👍"]),
        ("한국어", ["한국어"]),
        (" \t\n\u00a0\u3000", []),
        ("", []),
    ],
)
def test_split(text: str, tokens: list[str]) -> None:
    """Texts fall into folded words and single other characters."""
    assert split(text) == tokens


def test_long_runs_are_cut() -> None:
    """A run of letters without a space becomes pieces of bounded length."""
    pieces = split("x" * 1_000)
    assert len(pieces) == -(-1_000 // MAX_PIECE)
    assert "".join(pieces) == "x" * 1_000


@given(ANY_TEXT)
def test_tokens_are_short_and_without_space(text: str) -> None:
    """Whatever the text, tokens are non-empty, bounded and free of whitespace."""
    for token in split(text):
        assert 0 < len(token) <= 2 * MAX_PIECE + 1
        assert not any(c.isspace() for c in token)


@given(ANY_TEXT)
def test_case_does_not_matter_for_ascii(text: str) -> None:
    """Upper case ASCII reads like lower case."""
    plain = text.encode("ascii", "ignore").decode("ascii")
    assert fold(plain.upper()) == fold(plain)


def test_folding_is_fast_on_stacked_marks() -> None:
    """A long run of combining marks in the worst order is folded in time that grows linearly."""
    assert len(split("a" + "\u0301\u0323" * 50_000)) == 1


@given(st.text(st.characters(exclude_categories=()), min_size=1, max_size=48), st.integers(1, 99))
def test_buckets_are_in_range(word: str, buckets: int) -> None:
    """Every word has at least one n-gram, all in range, the same each time."""
    found = ngram_buckets(word, buckets)
    assert found
    assert all(0 <= bucket < buckets for bucket in found)
    assert found == ngram_buckets(word, buckets)


def test_buckets_do_not_depend_on_the_process() -> None:
    """The hash is fixed, unlike Python's own string hash."""
    assert ngram_buckets("card", 1_000) == (524, 437, 16, 340, 586, 595, 684)


def test_known_words_and_pairs() -> None:
    """A known word is one row; a known pair of neighbors adds its own row."""
    tokenizer = Tokenizer(SMALL)
    lost, my, card = FIRST_WORD + 1, FIRST_WORD + 2, FIRST_WORD
    first_pair = SMALL.first_pair
    assert tokenizer.rows(["lost", "my", "card"]) == [lost, my, card, first_pair, first_pair + 1]
    assert tokenizer.rows(["card", "my"]) == [card, my]


def test_unknown_words_are_spelled() -> None:
    """An unknown word is the rows of its n-grams, which a similar word mostly shares."""
    tokenizer = Tokenizer(Vocabulary((), (), 100_000))
    right, typo, other = (set(tokenizer.rows([w])) for w in ("transfers", "trnsfers", "weather"))
    assert len(right & typo) > len(right & other)
    assert min(right) >= FIRST_WORD


def test_nothing_to_read() -> None:
    """A text without tokens is the one row that stands for it."""
    assert Tokenizer(SMALL).rows([]) == [EMPTY]


@given(ANY_TEXT)
def test_rows_are_in_the_table(text: str) -> None:
    """Whatever the text, its rows exist and none of them is the padding row."""
    rows = Tokenizer(SMALL).rows(split(text))
    assert rows
    assert all(1 <= row < SMALL.rows for row in rows)


def test_cache_of_unknown_words_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Endless new words neither grow the memory nor change the answer."""
    monkeypatch.setattr("tollkeeper.encoders.tokenizer._CACHE_LIMIT", 10)
    tokenizer = Tokenizer(SMALL)
    before = tokenizer.rows(["zyx"])
    for number in range(100):
        tokenizer.rows([f"word{number}"])
    assert len(tokenizer._unknown) <= 10
    assert tokenizer.rows(["zyx"]) == before


def test_vocabulary_round_trip(tmp_path: Path) -> None:
    """A saved vocabulary comes back equal, and saving is reproducible."""
    SMALL.save(tmp_path / "a.json.gz")
    SMALL.save(tmp_path / "b.json.gz")
    assert Vocabulary.load(tmp_path / "a.json.gz") == SMALL
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()
