"""Clean embeddings kept by encoder and input, so that nobody pays for the same answer twice.

An augmentation is applied before an encoder is asked, so its pixels are the input: rows are kept
by (encoder, image, augmentation) without anyone saying so.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.base import Encoder, Modality, Remote, RowsIndependent, checked
from tollkeeper.encoders.inputs import digest, modality
from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Batch, Embeddings

Row = NDArray[np.float32]
"""(d,) the embedding of one input."""

_PROBES: Mapping[Modality, Any] = {
    "text": "tollkeeper",
    "image": np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3),
    "tokens": [1, 2, 3],
}


class Store(Protocol):
    """Where rows are kept between calls."""

    def read(self, keys: Sequence[bytes]) -> list[Row | None]:
        """Return the row of each key, None where there is none."""
        ...

    def write(self, rows: Mapping[bytes, Row]) -> None:
        """Keep rows; one that is there already is replaced."""
        ...


class MemoryStore:
    """Keeps rows as long as the process lives."""

    def __init__(self) -> None:
        """Start empty."""
        self._rows: dict[bytes, Row] = {}

    def read(self, keys: Sequence[bytes]) -> list[Row | None]:
        """Return the row of each key, None where there is none."""
        return [self._rows.get(key) for key in keys]

    def write(self, rows: Mapping[bytes, Row]) -> None:
        """Keep copies of rows."""
        self._rows.update({key: row.copy() for key, row in rows.items()})


class SqliteStore:
    """Keeps rows in one SQLite file; use it as a context manager.

    Rows are keyed by digests and never hold an input. Threads may share a store, and processes
    a file.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file and its folder, readable by their owner only.

        Raises:
            ConfigurationError: the folder or the file cannot be used.
        """
        self._path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Clean embeddings are what the guard protects. SQLite's own files copy this mode.
            path.touch(mode=0o600)
            self._connection = sqlite3.connect(path, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error
        try:
            # A cache need not outlive a power cut, so small writes do not wait for the disk.
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS embeddings"
                " (digest BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID"
            )
        except sqlite3.Error as error:
            self.close()
            raise self._unusable(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        self._connection.close()

    def read(self, keys: Sequence[bytes]) -> list[Row | None]:
        """Return the row of each key, None where there is none.

        Raises:
            ConfigurationError: the file cannot be used.
        """
        query = "SELECT vector FROM embeddings WHERE digest = ?"
        try:
            with self._lock:
                found = [self._connection.execute(query, (key,)).fetchone() for key in keys]
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return [None if row is None else np.frombuffer(row[0], "<f4") for row in found]

    def write(self, rows: Mapping[bytes, Row]) -> None:
        """Keep rows; one that is there already is replaced.

        Raises:
            ConfigurationError: the file cannot be used.
        """
        values = [(key, row.astype("<f4").tobytes()) for key, row in rows.items()]
        try:
            with self._lock, self._connection:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO embeddings VALUES (?, ?)", values
                )
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> ConfigurationError:
        return ConfigurationError(
            f"cannot use the cache {self._path}: {error}; delete it or choose another"
        )


class CachedEncoder:
    """Keeps the `Encoder` interface of `encoder` and asks it for each input only once.

    Put it around the clean victim, below a meter or a guard: a hit never reaches the encoder, so
    what lies below is not counted.

    Attributes:
        hits: inputs answered from the store so far.
        asked: inputs that the encoder was asked for so far.
    """

    def __init__(self, encoder: Encoder, store: Store, *, identity: bytes | None = None) -> None:
        """Cache `encoder`.

        Args:
            encoder: whom to ask for what is not in the store.
            store: where rows are kept.
            identity: 32 bytes that tell encoders of a shared store apart; by default
                `fingerprint(encoder)`, which asks a local encoder once.

        Raises:
            InputError: from the encoder.
            EncoderError: from the encoder.
        """
        self.name = encoder.name
        self.dim = encoder.dim
        self.accepts = encoder.accepts
        self.rows_independent = isinstance(encoder, RowsIndependent) and encoder.rows_independent
        self.hits = 0
        self.asked = 0
        self._encoder = encoder
        self._store = store
        self._identity = fingerprint(encoder) if identity is None else identity

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed n inputs, those seen before from the store.

        Args:
            inputs: n inputs as the encoder takes them.

        Returns:
            (n, d) float32, bit for bit what the encoder answered the first time.

        Raises:
            InputError: foreign or mixed inputs; or from the encoder.
            EncoderError: from the encoder, or the store holds something else than embeddings.
            ConfigurationError: the store cannot be used.
        """
        if len(inputs) == 0:
            return np.empty((0, self.dim), dtype=np.float32)
        keys = self._keys(inputs)
        rows = self._store.read(keys)
        missing = {key: i for i, key in enumerate(keys) if rows[i] is None}
        if missing:
            asked = [inputs[i] for i in missing.values()]
            fresh = self._kept(list(missing), self._encoder.embed(asked))
            self.asked += len(asked)
            rows = [fresh[key] if row is None else row for key, row in zip(keys, rows, strict=True)]
        self.hits += sum(key not in missing for key in keys)
        return checked(rows, n=len(keys), dim=self.dim)

    def remember(self, inputs: Batch, embeddings: Embeddings) -> None:
        """Take the encoder's answers (n, d) to n >= 1 inputs from elsewhere.

        Raises:
            InputError: foreign or mixed inputs.
            EncoderError: they are not n finite rows of width d.
            ConfigurationError: the store cannot be used.
        """
        self._kept(self._keys(inputs), embeddings)

    def _keys(self, inputs: Batch) -> list[bytes]:
        """Return the digest of each of n >= 1 inputs."""
        kind = modality(inputs)
        return [digest(item, kind, key=self._identity) for item in inputs]

    def _kept(self, keys: Sequence[bytes], embeddings: Embeddings) -> dict[bytes, Row]:
        """Check rows, write them to the store and return them by key."""
        answers = checked(embeddings, n=len(keys), dim=self.dim)
        rows: dict[bytes, Row] = dict(zip(keys, answers, strict=True))
        self._store.write(rows)
        return rows


def answer_to_probe(encoder: Encoder) -> Row:
    """Return what an encoder answers to a fixed input of a kind that it accepts: (d,) float32.

    Raises:
        InputError: from the encoder.
        EncoderError: from the encoder.
    """
    probe = next(_PROBES[kind] for kind in sorted(encoder.accepts))
    answer: Row = checked(encoder.embed([probe]), n=1, dim=encoder.dim)[0]
    return answer


def fingerprint(encoder: Encoder, spec: str = "") -> bytes:
    """Tell encoders apart: (32,) bytes.

    An encoder in this process is known by its name and its answer to a probe, so that
    new weights under an old name are noticed. One behind a URL is known by its SPEC:
    probing would cost a request, and upstreams repeat themselves only roughly.

    Args:
        encoder: who is asked.
        spec: what it was loaded from; a remote encoder of two addresses needs it.

    Raises:
        InputError: from the encoder.
        EncoderError: from the encoder.
    """
    answer = b"" if isinstance(encoder, Remote) else answer_to_probe(encoder).tobytes()
    known = repr((spec, encoder.name, encoder.dim)).encode()
    return hashlib.blake2b(known + answer, digest_size=32).digest()
