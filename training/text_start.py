"""Where the embedding table of the built-in text encoder starts: word co-occurrence statistics.

Positive pointwise mutual information of words within a window, factorized by a truncated SVD
(Levy and Goldberg 2014), weighted by inverse document frequency. N-gram rows start as the ridge
regression of the word vectors on the words' n-grams, pair rows at zero.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.utils.extmath import randomized_svd

from text_data import FIRST_WORD, Ids, Packed, Vocabulary

Table = NDArray[np.float32]


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
    spelled = sp.csr_matrix(
        (ones, packed.spelling - first, packed.spell_starts), (types, buckets)
    )[packed.known > 0]
    gram = (spelled.T @ spelled).toarray() + ridge * np.eye(buckets)
    target: Ids = packed.known[packed.known > 0]
    fitted: Table = scipy.linalg.solve(gram, spelled.T @ table[target], assume_a="pos")
    return fitted


def starting_table(
    packed: Packed, vocabulary: Vocabulary, *, width: int, window: int, power: float, seed: int
) -> Table:
    """Return the (rows, width) table that training starts from, words at unit variance."""
    words = len(vocabulary.words)
    information = ppmi(cooccurrence(packed, words, window), power)
    left, _, _ = randomized_svd(information, width, n_iter=3, random_state=seed)
    table = np.zeros((vocabulary.rows, width), dtype=np.float32)
    ends = slice(FIRST_WORD, FIRST_WORD + words)
    table[ends] = left * inverse_frequency(packed, words)[:, None]
    table[ends] /= table[ends].std()
    table[vocabulary.first_bucket :] = spell_rows(packed, vocabulary, table, ridge=2.0)
    table[1] = np.random.default_rng(seed).standard_normal(width) * 0.1
    return table
