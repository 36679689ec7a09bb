"""Clean embeddings kept between runs of `tollkeeper embed`: one SQLite table."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.base import Encoder, Remote
from tollkeeper.errors import ConfigurationError
from tollkeeper.gateway.wire import canonical
from tollkeeper.types import Embeddings

_PROBES: dict[str, Any] = {
    "text": "tollkeeper",
    "image": np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3),
    "tokens": [1, 2, 3],
}


def default_folder() -> Path:
    """Return the user's cache folder for Tollkeeper."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tollkeeper"


class Cache:
    """Embeds with an encoder, but each input only once; use it as a context manager.

    Rows are keyed by the encoder and the digest of the input, never by the input itself.
    """

    def __init__(self, folder: Path, encoder: Encoder, *, spec: str) -> None:
        """Open or create the cache.

        Raises:
            ConfigurationError: the folder or the file in it cannot be used.
        """
        self._encoder = encoder
        self._key = _fingerprint(encoder, spec)
        self._path = folder / "embeddings.sqlite3"
        self.hits = 0
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Clean embeddings are what the guard protects. SQLite's own files copy this mode.
            self._path.touch(mode=0o600)
            self._rows = sqlite3.connect(self._path)
            self._rows.execute(
                "CREATE TABLE IF NOT EXISTS embeddings"
                " (digest BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID"
            )
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.close()

    def embed(self, inputs: Sequence[Any]) -> Embeddings:
        """Embed n inputs: (n, d) float32, those seen before from the cache.

        Raises:
            ConfigurationError: the cache cannot be used.
            TollkeeperError: the encoder refused or failed.
        """
        digests = [self._digest(item) for item in inputs]
        try:
            rows = {digest: self._find(digest) for digest in digests}
            missing = {d: i for d, i in zip(digests, inputs, strict=True) if rows[d] is None}
            if missing:
                fresh = self._encoder.embed(list(missing.values()))
                rows.update(zip(missing, fresh, strict=True))
                self._keep(dict(zip(missing, fresh, strict=True)))
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        self.hits += sum(digest not in missing for digest in digests)
        return np.stack([row for digest in digests if (row := rows[digest]) is not None])

    def _find(self, digest: bytes) -> NDArray[np.float32] | None:
        query = "SELECT vector FROM embeddings WHERE digest = ?"
        row = self._rows.execute(query, (digest,)).fetchone()
        return None if row is None else np.frombuffer(row[0], "<f4").astype(np.float32)

    def _keep(self, rows: dict[bytes, NDArray[np.float32]]) -> None:
        values = [(digest, row.astype("<f4").tobytes()) for digest, row in rows.items()]
        with self._rows:
            self._rows.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?)", values)

    def _digest(self, item: Any) -> bytes:
        return hashlib.blake2b(canonical(item), key=self._key, digest_size=16).digest()

    def _unusable(self, error: Exception) -> ConfigurationError:
        return ConfigurationError(
            f"cannot use the cache {self._path}: {error}; delete it or choose another --cache-dir"
        )


def _fingerprint(encoder: Encoder, spec: str) -> bytes:
    """Tell encoders apart: (32,) bytes.

    An encoder in this process is known by its name and its answer to a probe, so that
    new weights under an old name are noticed. One behind a URL is known by its SPEC:
    probing would cost a request, and upstreams repeat themselves only roughly.
    """
    answer = b""
    if not isinstance(encoder, Remote):
        probe = next(_PROBES[kind] for kind in sorted(encoder.accepts))
        answer = encoder.embed([probe]).tobytes()
    known = repr((spec, encoder.name, encoder.dim)).encode()
    return hashlib.blake2b(known + answer, digest_size=32).digest()
