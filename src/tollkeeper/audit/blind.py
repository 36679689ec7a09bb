"""Can the two sides be told apart without any model? Then no test with a model says anything.

Most published evidence of membership falls to this question: classifiers that never see the model
beat published attacks, since members and non-members differ in date, source or preparation (Das,
Zhang and Tramer, "Blind Baselines Beat Membership Inference Attacks for Foundation Models", 2024).
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.views import check_pictures
from tollkeeper.errors import AuditRefused
from tollkeeper.types import Batch, Scores

MOST = 0.52
"""Upper end of the interval above which sides count as different (method spec, 10.3)."""

FOLDS = 5
LEAST = 100
"""Items per side, so that each fold has twenty to rank."""

_Z_95 = 1.959963984540054
_TILES = 4
_HASHED = 256
_LARGEST_SEED = 2**31


@dataclass(frozen=True, slots=True)
class BlindTest:
    """How well a classifier that sees only the raw items tells the sides apart.

    Attributes:
        auc: of held-out items, mean over folds; .5 is chance.
        interval: 95%.
        most: upper end allowed.
    """

    auc: float
    interval: tuple[float, float]
    most: float = MOST

    @property
    def passed(self) -> bool:
        """Whether the interval holds .5 and ends at `most` or below.

        Narrow enough an interval takes thousands of items: .5 +- .02 about 1,600 of each side, and
        7,700 for a fair split to pass in 99 of 100 draws.
        """
        low, high = self.interval
        return low <= 0.5 <= high <= self.most


def blind_test(
    trained: Batch,
    held: Batch,
    *,
    rng: np.random.Generator,
    metadata: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    most: float = MOST,
) -> BlindTest:
    """Train classifiers on raw items and metadata, and rank the items that they did not see.

    A logistic regression and boosted trees look at colors, contrasts, sharpness, ends of the value
    range and a thumbnail of images; at lengths, kinds of characters and hashed words of texts.

    Args:
        trained: (n1, ...) images, or texts.
        held: (n2, ...) the same kind.
        rng: draws folds and trees.
        metadata: (n1, f) and (n2, f) numbers kept with the items: dates, sizes, sources.
        most: upper end of the AUC's interval allowed.

    Raises:
        AuditRefused: too few items, or neither images nor texts.
    """
    sides = [features(trained), features(held)]
    if metadata is not None:
        sides = [np.hstack(pair) for pair in zip(sides, metadata, strict=True)]
    if min(map(len, sides)) < LEAST:
        raise AuditRefused(
            f"expected at least {LEAST} items of each side for a blind test, got "
            f"{len(sides[0])} and {len(sides[1])}"
        )
    if not all(np.isfinite(side).all() for side in sides):
        raise AuditRefused("metadata of the items hold NaN or infinity")
    found = [_fold(sides, parts, rng) for parts in _folds([len(side) for side in sides], rng)]
    auc = float(np.mean([area for area, _ in found]))
    half = _Z_95 * math.sqrt(sum(variance for _, variance in found)) / len(found)
    return BlindTest(auc, (auc - half, auc + half), most)


def check_blind(found: BlindTest | None) -> None:
    """Refuse a split that was not drawn at random and did not pass a blind test.

    Raises:
        AuditRefused: no test, or it failed.
    """
    if found is None:
        raise AuditRefused("the split was not drawn at random and no blind test was run; run one")
    if not found.passed:
        low, high = found.interval
        raise AuditRefused(
            f"the two sides can be told apart without the model, or too few items were given to "
            f"say: blind AUC {found.auc:.3f} [{low:.3f}, {high:.3f}], expected an interval that "
            f"holds .5 and ends by {found.most}"
        )


def features(items: Batch) -> NDArray[np.float64]:
    """Return (n, f) numbers that tell how items were made, not what a model makes of them.

    Raises:
        AuditRefused: neither images nor texts.
    """
    if len(items) and isinstance(items[0], str):
        return np.stack([_of_text(text) for text in items])
    images = np.asarray(items)
    check_pictures(images)
    if images.dtype == np.uint8:
        return _of_images(images.astype(np.float32) / np.float32(255))
    return _of_images(np.moveaxis(images, 1, 3))


def _of_images(x: NDArray[np.float32]) -> NDArray[np.float64]:
    n, h, w, c = x.shape
    pixels = x.reshape(n, -1, c)
    across, down = np.abs(np.diff(x, axis=2)), np.abs(np.diff(x, axis=1))
    sharp = np.abs(np.diff(x, n=2, axis=2))
    columns = [
        pixels.mean(axis=1),
        pixels.std(axis=1),
        (pixels <= 0).mean(axis=1),
        (pixels >= 1).mean(axis=1),
        across.mean(axis=(1, 2)),
        down.mean(axis=(1, 2)),
        sharp.mean(axis=(1, 2)),
        # What lossy compression and resizing leave behind lies at the edges of blocks.
        across[:, :, 7::8].mean(axis=(1, 2)) if w > 8 else np.zeros((n, c)),
        _thumbnail(x, min(_TILES, h), min(_TILES, w)),
    ]
    return np.hstack(columns).astype(np.float64)


def _thumbnail(x: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    n, h, w, c = x.shape
    cut = x[:, : h // rows * rows, : w // columns * columns]
    tiles = cut.reshape(n, rows, h // rows, columns, w // columns, c).mean(axis=(2, 4))
    found: NDArray[np.float32] = tiles.reshape(n, -1)
    return found


def _of_text(text: str) -> NDArray[np.float64]:
    words = text.split()
    length = max(1, len(text))
    kinds = (str.isdigit, str.isupper, str.isalpha, str.isspace, str.isascii)
    counts = np.zeros(_HASHED)
    for word in words:
        counts[zlib.crc32(word.lower().encode()) % _HASHED] += 1
    shape = [math.log1p(len(text)), math.log1p(len(words)), len(text) / max(1, len(words))]
    shares = [sum(map(kind, text)) / length for kind in kinds]
    return np.concatenate([shape, shares, counts / max(1, len(words))])


def _folds(sizes: list[int], rng: np.random.Generator) -> list[list[NDArray[np.intp]]]:
    """Return for each fold the rows of each side that it holds out."""
    parts = [np.array_split(rng.permutation(size), FOLDS) for size in sizes]
    return [list(fold) for fold in zip(*parts, strict=True)]


def _fold(
    sides: list[NDArray[np.float64]], held_out: list[NDArray[np.intp]], rng: np.random.Generator
) -> tuple[float, float]:
    """Return the AUC on the rows held out and its variance."""
    kept = [np.delete(side, rows, axis=0) for side, rows in zip(sides, held_out, strict=True)]
    asked = [side[rows] for side, rows in zip(sides, held_out, strict=True)]
    scores = _classified(np.vstack(kept), len(kept[0]), np.vstack(asked), rng)
    return auc_and_variance(scores[: len(asked[0])], scores[len(asked[0]) :])


def _classified(
    x: NDArray[np.float64], first: int, asked: NDArray[np.float64], rng: np.random.Generator
) -> Scores:
    """Return how much more like the first rows of x the asked ones are: two classifiers' mean."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = np.arange(len(x)) < first
    seed = int(rng.integers(_LARGEST_SEED))
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    trees = HistGradientBoostingClassifier(max_iter=50, random_state=seed)
    total = np.zeros(len(asked))
    for model in (linear, trees):
        scores = model.fit(x, labels).decision_function(asked)
        total += (scores - scores.mean()) / max(float(scores.std()), 1e-12)
    return total


def auc_and_variance(a: Scores, b: Scores) -> tuple[float, float]:
    """Return P(a > b) + P(a = b) / 2 and its variance.

    References:
        DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated
        receiver operating characteristic curves", Biometrics 1988.
    """
    above, below = _placements(a, b), 1 - _placements(b, a)
    variance = above.var(ddof=1) / a.size + below.var(ddof=1) / b.size
    return float(above.mean()), float(variance)


def _placements(a: Scores, b: Scores) -> Scores:
    """Return for each of a the share of b below it, ties half."""
    ordered = np.sort(b)
    left = np.searchsorted(ordered, a, side="left")
    found: Scores = (left + np.searchsorted(ordered, a, side="right")) / (2 * b.size)
    return found
