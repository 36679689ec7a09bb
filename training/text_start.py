"""Where the embedding table of the built-in text encoder starts: word co-occurrence statistics.

Some columns come from positive pointwise mutual information of words within a window, factorized
by a truncated SVD (Levy and Goldberg 2014), the others from latent semantic analysis (Deerwester
et al. 1990) of whole texts; both are weighted by inverse document frequency. N-gram rows start as
the ridge regression of the word vectors on the words' n-grams, pair rows at zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.utils.extmath import randomized_svd

from text_data import Packed
from tollkeeper.encoders.tokenizer import EMPTY, FIRST_WORD, Vocabulary

Table = NDArray[np.float32]


@dataclass(frozen=True)
class StartSettings:
    """How the table is started.

    Attributes:
        near: Columns from words near each other.
        topics: Columns from words in the same text.
        mix: Size of the topic columns relative to the others.
        window: Greatest distance of words near each other, in tokens.
        power: Exponent of the context counts.
        seed: Seed of the truncated SVDs.
    """

    near: int = 480
    topics: int = 32
    mix: float = 0.5
    window: int = 12
    power: float = 0.75
    seed: int = 0


def standard(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale a block of columns to unit variance overall."""
    scaled: NDArray[np.float64] = columns / columns.std()
    return scaled


def cooccurrence(packed: Packed, words: int, window: int) -> sp.csr_matrix:
    """Count how often known words stand within `window` tokens of each other, as (words, words)."""
    known = packed.known[packed.types] - FIRST_WORD
    text = np.repeat(np.arange(len(packed.starts) - 1), np.diff(packed.starts))
    total = sp.csr_matrix((words, words), dtype=np.float64)
    for step in range(1, window + 1):
        left, right = known[:-step], known[step:]
        near = (left >= 0) & (right >= 0) & (text[:-step] == text[step:])
        ones = np.ones(int(near.sum()))
        total = total + sp.csr_matrix((ones, (left[near], right[near])), (words, words))
    return (total + total.T).tocsr()


def ppmi(counts: sp.csr_matrix, power: float) -> sp.csr_matrix:
    """Return the positive pointwise mutual information, context counts raised to `power`."""
    entries = counts.tocoo()
    rows = np.asarray(counts.sum(1)).ravel()
    context = rows**power
    expected = rows[entries.row] * context[entries.col] / context.sum()
    value = np.log(entries.data / expected)
    keep = value > 0
    return sp.csr_matrix((value[keep], (entries.row[keep], entries.col[keep])), counts.shape)


def inverse_frequency(packed: Packed, words: int) -> NDArray[np.float64]:
    """Return log(texts / texts with the word) of every known word."""
    texts = len(packed.starts) - 1
    text = np.repeat(np.arange(texts), np.diff(packed.starts))
    seen = np.unique(np.stack([packed.known[packed.types] - FIRST_WORD, text]), axis=1)[0]
    frequency = np.bincount(seen[seen >= 0], minlength=words)
    return np.log((texts + 1) / (1 + frequency))


def spell_rows(packed: Packed, vocabulary: Vocabulary, table: Table, ridge: float) -> Table:
    """Fit the n-gram rows so that the sum over a known word's n-grams comes near its row."""
    first, buckets = vocabulary.first_bucket, vocabulary.buckets
    types = len(packed.known)
    ones = np.ones(len(packed.spelling))
    spelled = sp.csr_matrix((ones, packed.spelling - first, packed.spell_starts), (types, buckets))[
        packed.known > 0
    ]
    gram = (spelled.T @ spelled).toarray() + ridge * np.eye(buckets)
    target = packed.known[packed.known > 0]
    fitted: Table = scipy.linalg.solve(gram, spelled.T @ table[target], assume_a="pos")
    return fitted


def document_matrix(packed: Packed, words: int, weight: NDArray[np.float64]) -> sp.csr_matrix:
    """Return (texts, words) term frequencies times `weight`, damped, each text of unit norm."""
    texts = len(packed.starts) - 1
    known = packed.known[packed.types] - FIRST_WORD
    text = np.repeat(np.arange(texts), np.diff(packed.starts))
    used = known >= 0
    matrix = sp.csr_matrix((np.ones(int(used.sum())), (text[used], known[used])), (texts, words))
    matrix.data = (1 + np.log(matrix.data)) * weight[matrix.indices]
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
    return (sp.diags(1 / np.maximum(length, 1e-9)) @ matrix).tocsr()


def starting_table(packed: Packed, vocabulary: Vocabulary, start: StartSettings) -> Table:
    """Return the (rows, width) table that training starts from, words at unit variance.

    Args:
        packed: The training texts.
        vocabulary: What the rows stand for.
        start: Widths, window and seed.
    """
    words = len(vocabulary.words)
    weight = inverse_frequency(packed, words)
    information = ppmi(cooccurrence(packed, words, start.window), start.power)
    near, _, _ = randomized_svd(information, start.near, n_iter=3, random_state=start.seed)
    documents = document_matrix(packed, words, weight)
    _, size, topics = randomized_svd(documents, start.topics, n_iter=3, random_state=start.seed)
    width = start.near + start.topics
    table = np.zeros((vocabulary.rows, width), dtype=np.float32)
    ends = slice(FIRST_WORD, FIRST_WORD + words)
    table[ends, : start.near] = standard(near * weight[:, None])
    table[ends, start.near :] = start.mix * standard(topics.T * weight[:, None] / np.sqrt(size))
    table[vocabulary.first_bucket :] = spell_rows(packed, vocabulary, table, ridge=2.0)
    table[EMPTY] = np.random.default_rng(start.seed).standard_normal(width) * 0.1
    return table
