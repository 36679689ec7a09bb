"""Clean embeddings kept between runs of `tollkeeper embed`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.cached import CachedEncoder, SqliteStore, fingerprint


def default_folder() -> Path:
    """Return the user's cache folder for Tollkeeper."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tollkeeper"


class Cache(CachedEncoder):
    """A cached encoder whose store is a file in a folder; use it as a context manager."""

    def __init__(self, folder: Path, encoder: Encoder, *, spec: str) -> None:
        """Open or create the cache.

        Raises:
            ConfigurationError: the folder or the file in it cannot be used.
            TollkeeperError: the encoder refused or failed on a first input.
        """
        identity = fingerprint(encoder, spec)
        self._file = SqliteStore(folder / "embeddings.sqlite3")
        super().__init__(encoder, self._file, identity=identity)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
