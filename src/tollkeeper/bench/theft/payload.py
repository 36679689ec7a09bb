"""Large data for many processes: written once, mapped by all."""

from __future__ import annotations

import mmap
import pickle
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Payload(Generic[T]):
    """A value in a folder. Pickles as the folder's path, so that every job may hold it.

    Attributes:
        folder: the value with its arrays left out, and one file an array.
    """

    folder: Path

    def load(self) -> T:
        """Return the value; contiguous arrays in it share their memory with all processes.

        A process that writes to such an array changes its own copy only.
        """
        count = len(list(self.folder.glob("*.array")))
        arrays = [_mapped(self.folder / f"{number}.array") for number in range(count)]
        found: T = pickle.loads((self.folder / "value").read_bytes(), buffers=arrays)  # noqa: S301 - our own file
        return found


@contextmanager
def shared(value: T) -> Iterator[Payload[T]]:
    """Lay a picklable value into a temporary folder for as long as the block runs.

    Args:
        value: for example tasks, a pool and clean embeddings in a tuple.
    """
    with tempfile.TemporaryDirectory(prefix="tollkeeper-") as name:
        folder = Path(name)
        arrays: list[pickle.PickleBuffer] = []
        bare = pickle.dumps(value, protocol=5, buffer_callback=arrays.append)
        (folder / "value").write_bytes(bare)
        for number, array in enumerate(arrays):
            (folder / f"{number}.array").write_bytes(array.raw())
        yield Payload(folder)


def _mapped(path: Path) -> mmap.mmap | bytearray:
    """Map a file for reading and private writing; torch warns of arrays it cannot write to."""
    if path.stat().st_size == 0:
        return bytearray()
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
