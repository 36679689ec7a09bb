"""Each guard refuses what it names, with the reason, and lets the rest pass."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.audit import gates
from tollkeeper.errors import AuditRefused
from tollkeeper.testing import HashEncoder
from tollkeeper.types import Batch

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)
TENSORS = np.moveaxis(IMAGES, 3, 1).astype(np.float32) / np.float32(255)


def test_too_few_samples() -> None:
    """One less than needed is refused, and both numbers are named."""
    gates.check_samples(250)
    with pytest.raises(AuditRefused, match="at least 250 held images, got 249"):
        gates.check_samples(249, what="held images")


def test_embeddings() -> None:
    """Zero rows, NaN, missing rows and another width are refused, and the encoder is named."""
    good = RNG.normal(size=(6, 2, 4)).astype(np.float32)
    gates.check_embeddings(good, rows=6, width=4, who="suspect")
    zero, nan = good.copy(), good.copy()
    zero[3, 1] = 0
    nan[0, 0, 0] = np.nan
    for bad, reason in (
        (zero, "suspect: 1 embeddings are all zeros"),
        (nan, "suspect: embeddings hold NaN"),
        (good[:5], r"expected embeddings of 6 inputs, got shape \(5, 2, 4\)"),
        (good[..., :3], "width changed from 4 to 3"),
    ):
        with pytest.raises(AuditRefused, match=reason):
            gates.check_embeddings(bad, rows=6, width=4, who="suspect")


def test_width_of_the_suspect() -> None:
    """A test that needs the victim's width says so."""
    gates.check_width(HashEncoder(8), 8)
    with pytest.raises(AuditRefused, match="needs embeddings of width 9, got 8"):
        gates.check_width(HashEncoder(8), 9)


def test_items_that_are_there_twice() -> None:
    """Copies within a side are refused, of images and of texts."""
    gates.check_distinct(IMAGES, "trained")
    with pytest.raises(AuditRefused, match="2 of 14 items of trained are there twice"):
        gates.check_distinct(np.concatenate([IMAGES, IMAGES[:2]]), "trained")
    with pytest.raises(AuditRefused, match="1 of 3 items"):
        gates.check_distinct(["a", "b", "a"], "texts")


def test_overlap_of_the_sides() -> None:
    """Items on both sides are refused; equal bytes of another shape are other items."""
    gates.check_disjoint(IMAGES[:6], IMAGES[6:])
    gates.check_disjoint([np.zeros(4)], [np.zeros((2, 2))])
    with pytest.raises(AuditRefused, match="2 items of held are in trained too"):
        gates.check_disjoint(IMAGES[:8], IMAGES[6:])


def test_near_copies_by_embedding() -> None:
    """Near copies are found by cosine, whatever the length, in every chunk."""
    a = RNG.normal(size=(50, 8)).astype(np.float32)
    b = np.concatenate([RNG.normal(size=(9, 8)), 3 * a[[7, 30]] + 0.01]).astype(np.float32)

    assert sorted(gates.near_pairs(a, b)) == [(7, 9), (30, 10)]
    gates.check_not_near(a, b[:9])
    with pytest.raises(AuditRefused, match="2 items of held are near copies"):
        gates.check_not_near(a, b)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (TENSORS, "type: uint8 against float32"),
        (IMAGES[:, :3], r"item shape: \(4, 4, 3\) against \(3, 4, 3\)"),
        (["a text"], "type: uint8 against text"),
    ],
)
def test_differing_kinds(other: Batch, difference: str) -> None:
    """Sides of another type or shape were prepared by another path."""
    gates.check_preprocessing(IMAGES[:6], IMAGES[6:])
    with pytest.raises(AuditRefused, match=difference):
        gates.check_preprocessing(IMAGES, other)


def test_differing_preparation_of_numbers() -> None:
    """A side that was resized, centered or not scaled is told by its values."""
    gates.check_preprocessing(TENSORS[:6], TENSORS[6:])
    for other, difference in (
        (TENSORS * np.float32(0.9371), "bytes over 255: True against False"),
        (TENSORS - np.float32(1), "negative values: False against True"),
        (TENSORS * 255, "range: up to 1 against above 1"),
    ):
        with pytest.raises(AuditRefused, match=difference):
            gates.check_preprocessing(TENSORS, other)


def test_positive_control() -> None:
    """Without a control, or with one that finds nothing, nothing may be said."""
    gates.check_control(0.001)
    with pytest.raises(AuditRefused, match="no positive control"):
        gates.check_control(None)
    for failed in (0.002, 1.0, float("nan")):
        with pytest.raises(AuditRefused, match="the positive control failed"):
            gates.check_control(failed)


def test_negative_controls() -> None:
    """An innocent encoder that is accused stops the audit."""
    gates.check_negative_controls([0.4, 0.002])
    with pytest.raises(AuditRefused, match="1 of 3 independent controls reject"):
        gates.check_negative_controls([0.5, 0.0005, 0.9])
