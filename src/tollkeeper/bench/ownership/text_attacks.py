"""What a thief does against the mark of a text service: before training on answers, or after.

`cse` cleans the answers (Clustering, Selection, Elimination), `Rewritten` asks about rewrites and
averages, `Mapped` hands the copy's answers through a map.

Sources: Shetty et al., WARDEN (ACL 2024), section 3, for CSE; Shetty et al., WET (ACL 2025), section
3, for paraphrases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.bench.theft.probes import unit
from tollkeeper.encoders.base import Encoder, Modality
from tollkeeper.encoders.tokenizer import split
from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Batch, Embeddings

PER_ROW = 0.025
"""Pairs that CSE suspects, for each answer: the published share."""


@dataclass(frozen=True, slots=True)
class Cse:
    """Finds pairs that the service calls more alike than a public encoder does, and what they share.

    Answers are clustered; within clusters the rank of each pair's cosine among all pairs is
    compared with its rank under a public encoder; the answers of the pairs that gain most are
    decomposed, and their first directions are projected out of all answers.

    Notes: ranks are over all clusters' pairs, as in the released code, whose log of how many
    suspected answers carry the mark counts the first of each pair twice. The public encoder is the
    caller's; the paper's is a sentence transformer.

    Attributes:
        clusters: of k-means.
        directions: K that are projected out; the published 50 is of 1,536.
    """

    clusters: int = 20
    directions: int = 50

    def __call__(self, answers: Embeddings, public: Embeddings, *, seed: int) -> Embeddings:
        """Return cleaned (n, d) unit vectors.

        Args:
            answers: (n, d), of the service.
            public: (n, e), of an encoder without the mark, on the same texts.
            seed: of k-means and of the decomposition.
        """
        found = self.directions_of(answers, public, seed=seed)
        # Orthonormal, so that one after the other and all at once are the same.
        return unit((answers - answers @ found.T @ found).astype(np.float32))

    def directions_of(
        self, answers: Embeddings, public: Embeddings, *, seed: int
    ) -> NDArray[np.float32]:
        """Return (K, d) directions, orthonormal.

        Raises:
            ConfigurationError: as many directions as coordinates, or too few answers.
        """
        from sklearn.decomposition import TruncatedSVD

        if not 0 < self.directions < answers.shape[1] or len(answers) < 2 * self.clusters:
            raise ConfigurationError(
                f"expected fewer than {answers.shape[1]} directions and at least "
                f"{2 * self.clusters} answers, got {self.directions} and {len(answers)}"
            )
        rows = answers[self.suspected(unit(answers), unit(public), seed=seed)]
        fitted: Any = TruncatedSVD(
            min(self.directions, len(rows) - 1), random_state=seed, algorithm="randomized"
        )
        found: NDArray[np.float32] = fitted.fit(rows).components_.astype(np.float32)
        return found

    def suspected(self, answers: Embeddings, public: Embeddings, *, seed: int) -> NDArray[np.intp]:
        """Return positions of the answers in pairs that gain most."""
        from scipy.stats import rankdata
        from sklearn.cluster import KMeans

        labels = KMeans(self.clusters, n_init=1, random_state=seed).fit_predict(answers)
        pairs = np.concatenate([_pairs(np.flatnonzero(labels == one)) for one in set(labels)])
        gain = rankdata(_cosines(answers, pairs)) - rankdata(_cosines(public, pairs))
        count = max(2, round(PER_ROW * len(answers)))
        best = np.argpartition(gain, -count)[-count:] if count < len(gain) else np.arange(len(gain))
        return np.unique(pairs[best])


def _pairs(members: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return (m (m - 1) / 2, 2) pairs of a cluster."""
    first, second = np.triu_indices(len(members), 1)
    return np.stack([members[first], members[second]], axis=1)


def _cosines(rows: Embeddings, pairs: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return the cosines of pairs of unit vectors, some at a time."""
    parts = [
        np.einsum("nd,nd->n", rows[part[:, 0]], rows[part[:, 1]])
        for part in np.array_split(pairs, 1 + len(pairs) // 50_000)
    ]
    return np.concatenate(parts)


class Rewriter:
    """Rewrites texts with neighbors for words, words left out and words moved.

    Notes: the paper rewrites with language models. This has none: a neighbor is a word that stands
    in the same texts (latent semantic analysis of the thief's own pool), so a rewrite keeps the
    topic better than the sentence.

    Attributes:
        replaced: share of words that a neighbor takes the place of.
        dropped: share of words that are left out.
        moved: places that a word may move, at most.
    """

    def __init__(
        self,
        pool: Sequence[str],
        *,
        replaced: float = 0.4,
        dropped: float = 0.15,
        moved: int = 3,
        neighbors: int = 5,
        seed: int,
    ) -> None:
        """Find the neighbors of all words of a pool that occur twice or more."""
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.replaced, self.dropped, self.moved = replaced, dropped, moved
        counter: Any = TfidfVectorizer(
            tokenizer=split, token_pattern=None, lowercase=False, min_df=2
        )
        matrix = counter.fit_transform(list(pool))
        width = min(64, min(matrix.shape) - 1)
        rows = unit(
            TruncatedSVD(width, random_state=seed).fit_transform(matrix.T).astype(np.float32)
        )
        words = counter.get_feature_names_out().tolist()
        self._near = {
            word: [words[at] for at in near]
            for word, near in zip(words, _nearest(rows, neighbors), strict=True)
            if word.isalpha()
        }

    def __call__(self, text: str, rng: np.random.Generator) -> str:
        """Return one rewrite; never empty."""
        words = split(text)
        if not words:
            return text
        kept = rng.random(len(words)) >= self.dropped
        kept[rng.integers(len(words))] = True
        other = rng.random(len(words)) < self.replaced
        places = np.arange(len(words)) + rng.uniform(0, self.moved + 1, len(words))
        found = [
            self._neighbor(words[at], rng) if other[at] else words[at]
            for at in np.argsort(places, kind="stable").tolist()
            if kept[at]
        ]
        return " ".join(found)

    def _neighbor(self, word: str, rng: np.random.Generator) -> str:
        near = self._near.get(word)
        return near[rng.integers(len(near))] if near else word


def _nearest(rows: Embeddings, count: int) -> list[list[int]]:
    """Return the `count` nearest other rows of each unit row."""
    found: list[list[int]] = []
    for start in range(0, len(rows), 1024):
        near = rows[start : start + 1024] @ rows.T
        near[np.arange(len(near)), start + np.arange(len(near))] = -2
        found += np.argpartition(near, -count, axis=1)[:, -count:].tolist()
    return found


class Rewritten:
    """A service that is asked about rewrites only, and answers with their mean.

    Each input costs as many queries as there are rewrites.

    Attributes:
        dim: embedding width d.
        accepts: text only.
    """

    name = "rewritten"
    accepts: frozenset[Modality] = frozenset({"text"})

    def __init__(
        self, service: Encoder, rewriter: Rewriter, *, rewrites: int, rng: np.random.Generator
    ) -> None:
        """Stand in front of `service`."""
        self.dim = service.dim
        self._service, self._rewriter, self._rewrites, self._rng = (
            service,
            rewriter,
            rewrites,
            rng,
        )

    def embed(self, inputs: Batch) -> Embeddings:
        """Return (n, d) unit means over rewrites of n texts."""
        asked = [self._rewriter(text, self._rng) for text in inputs for _ in range(self._rewrites)]
        rows = unit(self._service.embed(asked)).reshape(len(inputs), self._rewrites, self.dim)
        mean: Embeddings = rows.mean(axis=1)
        return unit(mean)


class Mapped:
    """A copy whose owner hides it behind a map of its answers.

    Attributes:
        name: of the copy.
        dim: width of what the map gives.
        accepts: as the copy.
    """

    def __init__(
        self, copy: Encoder, change: Callable[[Embeddings], Embeddings], *, dim: int
    ) -> None:
        """Hold a copy and its map, from (n, d) to (n, dim)."""
        self.name, self.dim, self.accepts = copy.name, dim, copy.accepts
        self._copy, self._change = copy, change

    def embed(self, inputs: Batch) -> Embeddings:
        """Return mapped (n, dim) float32."""
        return self._change(self._copy.embed(inputs)).astype(np.float32)


def permuted(copy: Encoder, *, rng: np.random.Generator) -> Mapped:
    """Return a copy with its coordinates in another order."""
    order = rng.permutation(copy.dim)
    return Mapped(copy, lambda rows: rows[:, order], dim=copy.dim)


def truncated(copy: Encoder, *, kept: float) -> Mapped:
    """Return a copy that answers with its first coordinates only.

    Args:
        copy: any encoder.
        kept: share of coordinates.
    """
    width = max(1, round(kept * copy.dim))
    return Mapped(copy, lambda rows: rows[:, :width], dim=width)


def affine(copy: Encoder, *, rng: np.random.Generator) -> Mapped:
    """Return a copy behind a random Gaussian matrix and an offset of a unit vector's length."""
    matrix = rng.normal(size=(copy.dim, copy.dim)) / np.sqrt(copy.dim)
    offset = unit(rng.normal(size=(1, copy.dim)).astype(np.float32))
    return Mapped(copy, lambda rows: (rows @ matrix + offset).astype(np.float32), dim=copy.dim)


class Recorded:
    """A service whose answers a thief has written down, to be asked again as they were changed.

    Attributes:
        dim: embedding width d.
        accepts: text only.
    """

    name = "recorded"
    accepts: frozenset[Modality] = frozenset({"text"})

    def __init__(self, texts: Sequence[str], embeddings: Embeddings) -> None:
        """Hold (n, d) answers to n texts."""
        self.dim = embeddings.shape[1]
        self._rows = dict(zip(texts, embeddings, strict=True))

    def embed(self, inputs: Batch) -> Embeddings:
        """Return (n, d) recorded answers; every text must be a recorded one."""
        return np.stack([self._rows[text] for text in inputs])
