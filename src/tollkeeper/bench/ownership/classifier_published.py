"""Dataset inference of classifiers as published: table 1 of the paper, quoted.

Source: Maini, Yaghini, Papernot, "Dataset Inference: Ownership Resolution in Machine Learning",
ICLR 2021, which the released notebooks print again: effect (mean score of public rows less that of
private ones) and order of the p-value, 10 rows a test. Victims are WRN-28-10 on 50,000 pictures.
Notes: a row of the notebooks is 30 pictures' distances of one walk (`AsPublished`), and the
"independent" classifier is trained on the public side, so neither column tells how often an honest
classifier is accused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cell:
    """One classifier on CIFAR-10.

    Attributes:
        white: effect by MinGD.
        white_p: its p-value, as printed.
        black: effect by Blind Walk.
        black_p: its p-value, as printed.
    """

    white: float
    white_p: float
    black: float
    black_p: float


TABLE_1: Mapping[str, Cell] = {
    "source": Cell(0.838, 1e-4, 1.823, 1e-42),
    "distillation": Cell(0.586, 1e-4, 0.778, 1e-5),
    "other architecture": Cell(0.645, 1e-4, 1.400, 1e-10),
    "zero-shot": Cell(0.371, 1e-2, 0.406, 1e-2),
    "fine-tune": Cell(0.832, 1e-5, 1.839, 1e-27),
    "label query": Cell(0.475, 1e-3, 1.006, 1e-4),
    "logit query": Cell(0.563, 1e-3, 1.048, 1e-4),
    "independent, trained on the public side": Cell(0.103, 1.0, -0.397, 0.675),
}
"""Columns of CIFAR-10."""

OURS: Mapping[str, str] = {
    "source": "victim",
    "distillation": "distilled",
    "other architecture": "other_width",
    "fine-tune": "fine_tuned",
    "label query": "knockoff.labels",
    "logit query": "knockoff.full",
    "independent, trained on the public side": "on_public",
}
"""Row to our suspect; there is no copy without data."""
