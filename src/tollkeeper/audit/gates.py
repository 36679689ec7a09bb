"""What must hold before a test may speak. Each gate passes in silence or refuses with the reason.

A refused audit says nothing about guilt (method spec, sections 10.3 and 12).
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tollkeeper.audit.evidence.canonical import item_bytes
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import AuditRefused
from tollkeeper.types import Batch, Embeddings

LEAST = 250
"""Samples per side below which only the victim itself is told (method spec, section 11.1)."""

NEAR = 0.995
"""Cosine of public embeddings from which two items count as copies of one."""

ALPHA = 0.001
"""Level at which a copy is called one, and at which a positive control must reject."""

_CHUNK = 1 << 22
_BYTE_STEPS = 255
_GRID = 1e-4
"""A value is a byte over 255 if it lies this close to one, in steps."""

_PROBED = 1 << 20
"""Values looked at when a side's grid and range are read."""


def check_samples(count: int, *, least: int = LEAST, what: str = "samples of a side") -> None:
    """Refuse too few samples to tell a copy from chance.

    Raises:
        AuditRefused: fewer than `least`.
    """
    if count < least:
        raise AuditRefused(f"expected at least {least} {what}, got {count}; give more")


def check_embeddings(embeddings: Embeddings, *, rows: int, width: int | None, who: str) -> None:
    """Refuse embeddings that no statistic may be computed from.

    Args:
        embeddings: (..., d) as they came.
        rows: expected along the first axis.
        width: d expected; None takes any.
        who: names the encoder in the error.

    Raises:
        AuditRefused: another shape or width, NaN or infinity, or rows of zeros, which are what
            an unfilled result array leaves behind.
    """
    shape = np.shape(embeddings)
    if len(shape) < 2 or shape[0] != rows:
        raise AuditRefused(f"{who}: expected embeddings of {rows} inputs, got shape {shape}")
    if width is not None and shape[-1] != width:
        raise AuditRefused(
            f"{who}: the width changed from {width} to {shape[-1]}; one audit is of one model"
        )
    flat = embeddings.reshape(-1, shape[-1])
    for part in np.array_split(flat, max(1, flat.size // _CHUNK)):
        if not np.isfinite(part).all():
            raise AuditRefused(f"{who}: embeddings hold NaN or infinity")
        empty = int((~part.any(axis=1)).sum())
        if empty:
            raise AuditRefused(
                f"{who}: {empty} embeddings are all zeros; were answers lost, or arrays not filled?"
            )


def check_width(suspect: Encoder, width: int) -> None:
    """Refuse a suspect of another width where a test needs the victim's.

    Raises:
        AuditRefused: the widths differ.
    """
    if suspect.dim != width:
        raise AuditRefused(
            f"{suspect.name}: this test needs embeddings of width {width}, got {suspect.dim}; "
            "use one that aligns first"
        )


def item_digest(item: Any) -> bytes:
    """Return the SHA-256 of an item's canonical bytes: kind, shape and content."""
    return hashlib.sha256(item_bytes(item)).digest()


def check_distinct(items: Batch, name: str) -> None:
    """Refuse a side that holds an item twice: its copies would count as independent samples.

    Raises:
        AuditRefused: names how many.
    """
    seen: set[Hashable] = {item_digest(item) for item in items}
    if len(seen) < len(items):
        raise AuditRefused(
            f"{len(items) - len(seen)} of {len(items)} items of {name} are there twice; remove "
            "duplicates"
        )


def check_disjoint(a: Batch, b: Batch, *, names: tuple[str, str] = ("trained", "held")) -> None:
    """Refuse two sets that share an item, byte for byte.

    Raises:
        AuditRefused: names how many.
    """
    first = {item_digest(item) for item in a}
    shared = sum(item_digest(item) in first for item in b)
    if shared:
        raise AuditRefused(
            f"{shared} items of {names[1]} are in {names[0]} too; the two must be disjoint"
        )


def near_pairs(
    a: Embeddings, b: Embeddings, *, threshold: float = NEAR
) -> Iterator[tuple[int, int]]:
    """Yield (row of a, row of b) whose cosine is at least `threshold`.

    Args:
        a: (n1, d) embeddings by a public encoder, not by victim or suspect.
        b: (n2, d).
        threshold: at most 1.
    """
    one, two = _unit(a), _unit(b)
    step = max(1, _CHUNK // max(1, len(two)))
    for at in range(0, len(one), step):
        for row, column in np.argwhere(one[at : at + step] @ two.T >= threshold).tolist():
            yield at + row, column


def check_not_near(
    a: Embeddings,
    b: Embeddings,
    *,
    threshold: float = NEAR,
    names: tuple[str, str] = ("trained", "held"),
) -> None:
    """Refuse two sets of which an item of one is nearly one of the other.

    Args:
        a: (n1, d) embeddings by a public encoder.
        b: (n2, d).
        threshold: cosine that counts as the same.
        names: of the two sets.

    Raises:
        AuditRefused: names how many items of b.
    """
    shared = {column for _, column in near_pairs(a, b, threshold=threshold)}
    if shared:
        raise AuditRefused(
            f"{len(shared)} items of {names[1]} are near copies of items of {names[0]} (cosine at "
            f"least {threshold}); remove one of each"
        )


def _unit(embeddings: Embeddings) -> Embeddings:
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    found: Embeddings = embeddings / np.maximum(length, np.finfo(np.float32).tiny)
    return found


def check_preprocessing(
    a: Batch, b: Batch, *, names: tuple[str, str] = ("trained", "held")
) -> None:
    """Refuse two sides that were visibly not prepared by one path.

    Compares type, item shape, and of numbers their grid (bytes over 255 or not) and whether they
    were centered. What this cannot see, a blind test can (`tollkeeper.audit.blind`).

    Raises:
        AuditRefused: names what differs.
    """
    for what, first, second in zip(_TRAITS, _traits(a), _traits(b), strict=True):
        if first != second:
            raise AuditRefused(
                f"{names[0]} and {names[1]} differ in {what}: {first} against {second}; prepare "
                "both by the same path"
            )


_TRAITS = ("type", "item shape", "values that are bytes over 255", "negative values", "range")


def _traits(items: Batch) -> Sequence[object]:
    if isinstance(items[0], str):
        return ("text", (), "", "", "")
    shapes = {np.shape(item) for item in items}
    if len(shapes) > 1:
        return (type(items[0]).__name__, "several shapes", "", "", "")
    array = np.asarray(items)
    if array.dtype.kind != "f":
        return (str(array.dtype), array.shape[1:], "", "", "")
    probe = array[:: max(1, array.size // _PROBED)]
    steps = probe * _BYTE_STEPS
    on_grid = bool((np.abs(steps - np.rint(steps)) < _GRID * _BYTE_STEPS).all())
    above = "above 1" if float(probe.max()) > 1 else "up to 1"
    return (str(array.dtype), array.shape[1:], on_grid, bool((probe < 0).any()), above)


def check_control(p_value: float | None, *, alpha: float = ALPHA, who: str = "the victim") -> None:
    """Refuse a statistic that does not find what is known to be there.

    Args:
        p_value: of the positive control; None where none was run.
        alpha: level at which it must reject.
        who: names the control.

    Raises:
        AuditRefused: no control, or it does not reject.
    """
    if p_value is None:
        raise AuditRefused(
            "no positive control: run the victim through the same test first, or nothing is known "
            "about what the test can see"
        )
    if not p_value <= alpha:
        raise AuditRefused(
            f"the positive control failed: {who} has p = {p_value:.3g}, expected at most "
            f"{alpha}; this statistic does not work for this family of encoders"
        )


def check_negative_controls(
    p_values: ArrayLike, *, alpha: float = ALPHA, who: str = "independent"
) -> None:
    """Refuse a split or statistic that accuses encoders known to be innocent.

    Args:
        p_values: (m,) of independents and of a randomly initialized encoder.
        alpha: level at which none may reject.
        who: names them.

    Raises:
        AuditRefused: one of them rejects.
    """
    p: NDArray[np.float64] = np.atleast_1d(np.asarray(p_values, np.float64))
    flagged = int((p <= alpha).sum())
    if flagged:
        raise AuditRefused(
            f"{flagged} of {p.size} {who} controls reject at {alpha} (least p = {p.min():.3g}); "
            "the two sides differ in more than training"
        )
