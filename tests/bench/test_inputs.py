"""Data sets named by checksum."""

from __future__ import annotations

import numpy as np

from tollkeeper.bench.inputs import checksum, noted
from tollkeeper.data import Dataset
from tollkeeper.types import Batch


def test_checksums_tell_inputs_apart() -> None:
    """Other texts, other cuts between texts and other pixels have other checksums."""
    pixels = np.arange(6, dtype=np.uint8)
    sums: list[Batch] = [["ab", "c"], ["a", "bc"], ["abc"], pixels, pixels[::-1]]
    assert len({checksum(inputs) for inputs in sums}) == len(sums)
    assert checksum(["ab", "c"]) == checksum(["ab", "c"])


def test_what_is_loaded_is_noted() -> None:
    """Each split that is taken leaves its name and checksum, and no other does."""

    def load(name: str, split: str) -> Dataset:
        return Dataset(name, split, [name, split], None, ())

    data: dict[str, str] = {}
    found = [part.split for part in noted(load, data, "toys", "train", "test")]
    assert found == ["train", "test"]
    assert data == {
        "toys/train": checksum(["toys", "train"]),
        "toys/test": checksum(["toys", "test"]),
    }
