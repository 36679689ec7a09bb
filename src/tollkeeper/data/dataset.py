"""One split of a data set, as it travels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollkeeper.errors import DataError
from tollkeeper.types import Batch


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Inputs of one split, ready for `Encoder.embed`, with their labels.

    Attributes:
        name: the data set, for example `cifar10`.
        split: for example `train`.
        inputs: n strings, or (n, h, w, 3) uint8 RGB images.
        labels: (n,) int64 positions in `classes`; None for an unlabeled set.
        classes: names of the classes; empty for an unlabeled set.
        subset: what part of the official split this is, for example `first 2,000 of
            each class`; empty for all of it.
    """

    name: str
    split: str
    inputs: Batch
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...]
    subset: str = ""

    def __post_init__(self) -> None:
        """Check that inputs, labels and classes fit each other.

        Raises:
            DataError: different counts, or a label that names no class.
        """
        if self.labels is None:
            return
        if len(self.labels) != len(self.inputs):
            raise DataError(
                f"{self.name} {self.split}: {len(self.inputs)} inputs but {len(self.labels)} labels"
            )
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise DataError(
                f"{self.name} {self.split}: labels outside its {len(self.classes)} classes"
            )

    def __len__(self) -> int:
        return len(self.inputs)
