"""Items into pairs, of which a coin will choose one: no copies, and twins that are alike.

The exactness of the test needs none of this, since the coins alone give it. Copies would cost
power: a twin that is held back is not unseen if its copy is trained on. Like twins gain power:
what makes an item hard or easy is mostly the same for both.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.evidence.canonical import digest, item_bytes
from tollkeeper.audit.gates import NEAR, near_pairs
from tollkeeper.errors import AuditRefused
from tollkeeper.types import Batch, Embeddings

_STEPS = 8
"""Of the power iteration; the direction need not be exact."""


def distinct(
    items: Batch,
    embeddings: Embeddings | None = None,
    *,
    others: Embeddings | None = None,
    near: float = NEAR,
) -> NDArray[np.intp]:
    """Return which items to keep: one of each cluster of copies.

    Items are in one cluster if a chain of copies joins them, byte for byte or by embedding. All
    but the first of a cluster have to be left out of training altogether.

    Args:
        items: n inputs.
        embeddings: (n, d) by a public encoder, not by the victim; None finds exact copies only.
        others: (k, d) of other items that will be trained on in any case; a cluster that holds a
            copy of one of them is dropped whole.
        near: cosine from which two embeddings count as copies.

    Returns:
        (k,) ascending indices.

    Raises:
        AuditRefused: shapes that do not fit, or NaN.
    """
    _checked(embeddings, len(items))
    first: dict[str, int] = {}
    joined = [(first.setdefault(digest(item_bytes(item)), at), at) for at, item in enumerate(items)]
    if embeddings is not None:
        joined += [(a, b) for a, b in near_pairs(embeddings, embeddings, threshold=near) if a < b]
    leaders = _clusters(len(items), joined)
    kept = {int(leader) for leader in leaders}
    if embeddings is not None and others is not None and len(others):
        kept -= {int(leaders[at]) for _, at in near_pairs(others, embeddings, threshold=near)}
    return np.array(sorted(kept), dtype=np.intp)


def pairs(
    count: int, embeddings: Embeddings | None = None, *, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Join items two by two: at random, or the most alike.

    Alike means: halve the items along the direction in which they differ most, and halve the
    halves, until two are left. That takes n log n steps where the best matching takes n^3.

    Args:
        count: of items, n; of an odd number one stays alone.
        embeddings: (n, d) by a public encoder; None pairs at random.
        rng: a sealed one.

    Returns:
        (n // 2, 2) indices, each once.

    Raises:
        AuditRefused: fewer than two items, shapes that do not fit, or NaN.
    """
    if count < 2:
        raise AuditRefused(f"expected two or more different items to pair, got {count}")
    _checked(embeddings, count)
    drawn = rng.permutation(count)[: count // 2 * 2]
    if embeddings is not None:
        drawn = _halved(drawn, embeddings)
    return drawn.reshape(-1, 2)


def _halved(rows: NDArray[np.intp], embeddings: Embeddings) -> NDArray[np.intp]:
    """Return rows in an order in which neighbors are alike."""
    if len(rows) <= 2:
        return rows
    part = embeddings[rows].astype(np.float64)
    part -= part.mean(axis=0)
    direction = np.zeros(part.shape[1])
    direction[part.var(axis=0).argmax()] = 1
    for _ in range(_STEPS):
        turned = (part @ direction) @ part
        length = float(np.linalg.norm(turned))
        if not length:
            break  # All alike.
        direction = turned / length
    ordered = rows[np.argsort(part @ direction, kind="stable")]
    half = len(rows) // 4 * 2 or 2  # Even, so that nobody is left alone.
    return np.concatenate(
        [_halved(ordered[:half], embeddings), _halved(ordered[half:], embeddings)]
    )


def _clusters(count: int, joined: Iterable[tuple[int, int]]) -> NDArray[np.intp]:
    """Return (count,) the first member of each one's cluster."""
    leader = list(range(count))

    def first(at: int) -> int:
        while leader[at] != at:
            leader[at] = leader[leader[at]]
            at = leader[at]
        return at

    for one, two in joined:
        a, b = first(one), first(two)
        leader[max(a, b)] = min(a, b)
    return np.array([first(at) for at in range(count)], dtype=np.intp)


def _checked(embeddings: Embeddings | None, count: int) -> None:
    if embeddings is None:
        return
    if embeddings.ndim != 2 or len(embeddings) != count or not np.isfinite(embeddings).all():
        raise AuditRefused(
            f"expected finite embeddings of {count} items, got shape {embeddings.shape}"
        )
