"""The built-in text encoder: exact rows, any input, limits, and quality on real data."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from tollkeeper.encoders.base import Encoder, MeasuresUsage
from tollkeeper.encoders.builtin_text import WEIGHTS, TextEncoder
from tollkeeper.encoders.tokenizer import ngram_buckets, split
from tollkeeper.errors import EncoderError, InputError

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=300)

ODD_TEXTS = [
    "",
    " \t\n ",
    "\u200b\u200d\ufeff",
    "\ud800",
    "\x00\x01\x7f",
    "zzxqj qqwv xkcdq",
    "😀👩‍👩‍👧‍👦🏳️‍🌈",
    "Zürich 東京 Москва العربية हिन्दी 한국어",
    "e" + "\u0301" * 5_000,
    "\ufdfa" * 100,
    "x" * 100_000,
    "My card has not arrived yet.",
]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    """The shipped encoder, opened once."""
    return TextEncoder()


@pytest.fixture(scope="module")
def banking() -> tuple[list[str], list[str], list[str], list[str]]:
    """Banking77: training texts and labels, test texts and labels."""
    root = Path(os.environ.get("TOLLKEEPER_DATA") or Path(__file__).parents[3] / "shared/datasets")
    folder = root / "text" / "banking77"
    if not folder.is_dir():
        pytest.skip("the data sets are not here: set TOLLKEEPER_DATA")
    columns: list[list[str]] = []
    for part in ("train", "test"):
        with (folder / f"{part}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        columns += [[row["text"] for row in rows], [row["category"] for row in rows]]
    return columns[0], columns[1], columns[2], columns[3]


def mixed_texts(count: int) -> list[str]:
    """Texts of many lengths, from empty to a few hundred words."""
    rng = np.random.default_rng(0)
    words = ["card", "my", "money", "film", "war", "oil", "the", "lost", "qxz", "!", "42"]
    return [" ".join(rng.choice(words, int(n))) for n in rng.geometric(0.05, count) - 1]


def is_unit(embeddings: NDArray[np.float32]) -> bool:
    """Whether all rows are finite and of length one."""
    return bool(np.allclose(np.linalg.norm(embeddings.astype(np.float64), axis=1), 1, atol=1e-5))


def test_it_is_an_encoder(encoder: TextEncoder) -> None:
    """The class has the shape that the rest of the package expects."""
    assert isinstance(encoder, Encoder)
    assert isinstance(encoder, MeasuresUsage)
    assert (encoder.name, encoder.dim) == ("tollkeeper-text", 384)
    assert encoder.accepts == {"text"}


def test_shape_and_norm(encoder: TextEncoder) -> None:
    """Rows are float32 unit vectors of the stated width."""
    found = encoder.embed(mixed_texts(70))
    assert found.shape == (70, encoder.dim)
    assert found.dtype == np.float32
    assert is_unit(found)


def test_no_inputs(encoder: TextEncoder) -> None:
    """No input gives no rows, not an error."""
    assert encoder.embed([]).shape == (0, encoder.dim)


@pytest.mark.parametrize("threads", [1, 2])
def test_rows_do_not_depend_on_their_batch(threads: int) -> None:
    """A text's bytes are the same alone, in any batch and at any place in it."""
    encoder = TextEncoder(intra_op_num_threads=threads)
    texts = mixed_texts(2_000)
    whole = encoder.embed(texts)
    alone = np.concatenate([encoder.embed([text]) for text in texts[:100]])
    assert alone.tobytes() == whole[:100].tobytes()
    for size in (2, 7, 32, 256):
        parts = [encoder.embed(texts[at : at + size]) for at in range(0, 512, size)]
        assert np.concatenate(parts)[:512].tobytes() == whole[:512].tobytes()
    order = np.random.default_rng(1).permutation(len(texts))
    shuffled = encoder.embed([texts[at] for at in order])
    assert shuffled.tobytes() == whole[order].tobytes()


def test_long_company_does_not_matter(encoder: TextEncoder) -> None:
    """Short and very long texts have the same bytes together as alone."""
    texts = [
        "My card is lost.",
        "every word here " * 2_500,
        "qwertyuiopasdfghjklzxcvb " * 8_000,
        "money for a transfer " * 150,
        "What is a top-up?",
    ]
    together = encoder.embed(texts)
    for text, row in zip(texts, together, strict=True):
        assert encoder.embed([text])[0].tobytes() == row.tobytes()


@pytest.mark.parametrize("text", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
def test_odd_texts(encoder: TextEncoder, text: str) -> None:
    """Whatever the text holds, the answer is a finite unit vector."""
    assert is_unit(encoder.embed([text]))


@settings(deadline=None)
@given(st.lists(ANY_TEXT, max_size=5))
def test_any_text(texts: list[str]) -> None:
    """Any list of strings gives unit vectors, and each the same bytes as alone."""
    encoder = shared_encoder()
    found = encoder.embed(texts)
    assert is_unit(found)
    for text, row in zip(texts, found, strict=True):
        assert encoder.embed([text])[0].tobytes() == row.tobytes()


_shared: list[TextEncoder] = []


def shared_encoder() -> TextEncoder:
    """One encoder for all examples of a property."""
    if not _shared:
        _shared.append(TextEncoder())
    return _shared[0]


def test_case_and_spacing_do_not_matter(encoder: TextEncoder) -> None:
    """Texts that differ in case and whitespace only are the same text."""
    same = encoder.embed(["Where is my card?", "  where IS\nmy card ? "])
    assert same[0].tobytes() == same[1].tobytes()


def test_tokens_are_counted(encoder: TextEncoder) -> None:
    """Usage counts words and marks, as `count_tokens` does."""
    texts = ["Where is my card?", "", "don't"]
    assert encoder.count_tokens(texts) == [5, 0, 1]
    counts = encoder.embed_measured(texts)[1]
    assert counts.dtype == np.int64
    assert counts.tolist() == [5, 0, 1]


def test_longest_text(encoder: TextEncoder) -> None:
    """A text of exactly the limit is embedded, one token more is refused by name."""
    assert is_unit(encoder.embed(["a " * encoder.max_tokens]))
    with pytest.raises(InputError, match=r"at most 8192 tokens, got 8193 at position 1") as caught:
        encoder.embed(["fine", "a " * (encoder.max_tokens + 1)])
    assert caught.value.param == "input"


@pytest.mark.parametrize("inputs", ["one string", [1], ["fine", None], [b"bytes"], [["nested"]]])
def test_only_strings(encoder: TextEncoder, inputs: object) -> None:
    """Anything but a list of strings is refused as the caller's mistake."""
    for call in (encoder.embed, encoder.embed_measured, encoder.count_tokens):
        with pytest.raises(InputError) as caught:
            call(inputs)  # type: ignore[arg-type]
        assert caught.value.param == "input"


def test_missing_weights(tmp_path: Path) -> None:
    """A folder without weights is named in the error."""
    with pytest.raises(EncoderError, match="cannot load the text encoder"):
        TextEncoder(weights=tmp_path)


def test_weights_are_small() -> None:
    """The shipped files stay within what a package may weigh."""
    assert (WEIGHTS / "text.onnx").stat().st_size <= 8_000_000
    assert (WEIGHTS / "text-vocab.json.gz").stat().st_size <= 300_000


def test_calibration_file(encoder: TextEncoder) -> None:
    """The calibration describes embeddings of this very encoder."""
    with np.load(WEIGHTS / "text-calibration.npz") as stored:
        mean, sample = stored["mean"], stored["sample"]
        spread, count = stored["feature_std"], stored["count"]
    assert mean.shape == (encoder.dim,)
    assert mean.dtype == np.float32
    assert sample.shape == (512, encoder.dim)
    assert sample.dtype == np.float16
    assert int(count) == 512
    assert is_unit(sample.astype(np.float32)) or np.allclose(
        np.linalg.norm(sample.astype(np.float32), axis=1), 1, atol=2e-3
    )
    assert np.allclose(sample.astype(np.float32).mean(0), mean, atol=1e-3)
    assert 0.005 < float(spread) < 1 / np.sqrt(encoder.dim) + 1e-3


def probe_accuracy(
    train: NDArray[np.floating],
    labels: NDArray[np.str_],
    test: NDArray[np.floating],
    truth: NDArray[np.str_],
) -> float:
    """Accuracy of a linear probe on standardized features, settings fixed beforehand."""
    mean, std = train.mean(0), train.std(0) + 1e-6
    probe = LogisticRegression(C=0.03, max_iter=300, tol=1e-3)
    probe.fit((train - mean) / std, labels)
    return float(probe.score((test - mean) / std, truth))


def hashed(texts: list[str], width: int) -> NDArray[np.float64]:
    """The floor: words hashed into as many columns as the encoder has, unit norm."""
    found: NDArray[np.float64] = np.zeros((len(texts), width))
    for row, text in enumerate(texts):
        for word in split(text):
            found[row, ngram_buckets(word, width)[0]] += 1
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
    return found


def test_quality_on_banking77(
    encoder: TextEncoder, banking: tuple[list[str], list[str], list[str], list[str]]
) -> None:
    """A linear probe on half of the texts tells 77 intents apart, far better than on hashed words."""
    train, labels, test, truth = banking
    train, labels = train[::2], labels[::2]
    known, asked = np.asarray(labels), np.asarray(truth)
    learned = probe_accuracy(encoder.embed(train), known, encoder.embed(test), asked)
    floor = probe_accuracy(hashed(train, encoder.dim), known, hashed(test, encoder.dim), asked)
    assert learned >= 0.80
    assert learned >= floor + 0.08


def test_neighbors_mean_the_same(encoder: TextEncoder) -> None:
    """A question is nearer to its rewording than to questions about something else."""
    asked = encoder.embed(["I lost my card", "the film was dull", "oil prices rose"])
    meant = encoder.embed(
        ["my card has gone missing", "a boring movie", "crude futures climbed on supply fears"]
    )
    assert (asked @ meant.T).argmax(1).tolist() == [0, 1, 2]
