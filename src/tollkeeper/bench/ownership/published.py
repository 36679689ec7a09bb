"""Dataset inference of encoders as published: table 1 of the paper, quoted.

Source: Dziedzic et al., "Dataset Inference for Self-Supervised Models", NeurIPS 2022: p-value and
"effect size" of each encoder, means of three trials. Victims are a SimCLR ResNet34 on CIFAR10 and
on SVHN and a SimSiam ResNet50 on ImageNet; f_s are copies, f_i independents.
Notes: the effect sizes are t statistics (for CIFAR10's victim a normal tail beyond 18.92 is
3.9e-80, reported 5.6e-82), so they grow with the sample and compare with our `gmm_t`, not with
`effect`. Independents were trained on other data sets; none of the victim's distribution is
reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cell:
    """One encoder before one victim.

    Attributes:
        p: mean p-value.
        t: mean of what the paper calls the effect size.
    """

    p: float
    t: float


VICTIMS = ("cifar10", "svhn", "imagenet")
"""Columns of the table."""

TABLE_1: Mapping[str, tuple[Cell, Cell, Cell]] = {
    "f_v": (Cell(5.61e-82, 18.92), Cell(2.75e-125, 23.88), Cell(6.23e-14, 7.09)),
    "f_s, asks SVHN": (Cell(3.97e-2, 3.04), Cell(6.35e-41, 13.36), Cell(3.33e-4, 4.04)),
    "f_s, asks CIFAR10": (Cell(8.73e-7, 5.09), Cell(2.38e-4, 4.61), Cell(1.47e-4, 6.21)),
    "f_s, asks STL10": (Cell(1.04e-2, 3.42), Cell(1.23e-5, 5.22), Cell(1.09e-4, 5.87)),
    "f_s, asks ImageNet": (Cell(6.34e-3, 3.47), Cell(9.81e-3, 3.74), Cell(3.14e-5, 7.32)),
    "f_s, asks CIFAR10, shuffled": (Cell(1.72e-6, 4.98), Cell(7.32e-4, 4.77), Cell(6.72e-4, 5.21)),
    "f_s, asks CIFAR10, padded": (Cell(3.44e-6, 4.84), Cell(2.51e-3, 3.08), Cell(2.31e-3, 4.23)),
    "f_s, asks CIFAR10, scaled": (Cell(6.81e-7, 5.11), Cell(6.45e-3, 3.32), Cell(8.45e-3, 3.98)),
    "f_i, CIFAR100": (Cell(3.67e-1, -0.37), Cell(6.21e-1, 0.52), Cell(7.53e-2, 1.63)),
    "f_i, SVHN or CIFAR10": (Cell(2.96e-1, 0.98), Cell(4.82e-1, 0.56), Cell(5.42e-1, 0.69)),
}
"""The table by row, one cell for each of `VICTIMS`. "Scaled" is the paper's linear transform, which
in the released script is one factor and one offset."""

OURS: Mapping[str, str] = {
    "f_v": "victim",
    "f_s, asks CIFAR10": "stolen.mse.",
    "f_s, asks STL10": "stolen.tiny_imagenet.",
    "f_i, CIFAR100": "cifar100",
}
"""Row to the suspect of ours that is most like it; a name that ends in a dot stands for the one
with the most queries. STL10 is not at hand; another natural data set stands for it."""
