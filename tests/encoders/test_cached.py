"""Promises of the cache of clean embeddings."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollkeeper.encoders.base import RowsIndependent
from tollkeeper.encoders.cached import (
    CachedEncoder,
    MemoryStore,
    SqliteStore,
    Store,
    fingerprint,
)
from tollkeeper.encoders.callable_encoder import CallableEncoder
from tollkeeper.encoders.inputs import digest
from tollkeeper.errors import ConfigurationError, EncoderError, InputError
from tollkeeper.testing import HashEncoder, check_encoder
from tollkeeper.types import Batch, Embeddings

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)


class Counting(HashEncoder):
    """Notes what it is asked; its rows depend on batch mates if it says so."""

    def __init__(self, dim: int = 8, *, rows_independent: bool = True) -> None:
        """Start with nothing asked."""
        super().__init__(dim)
        self.rows_independent = rows_independent
        self.asked: list[Any] = []

    def embed(self, inputs: Batch) -> Embeddings:
        """Note the inputs and embed them."""
        self.asked.extend(inputs)
        return super().embed(inputs)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A new store of each kind."""
    with ExitStack() as stack:
        if request.param == "memory":
            yield MemoryStore()
        else:
            yield stack.enter_context(SqliteStore(tmp_path / "below" / "cache.sqlite3"))


def test_each_input_is_asked_once(store: Store) -> None:
    """Repeats within a call and between calls come from the store, bit for bit."""
    inner = Counting()
    encoder = CachedEncoder(inner, store)
    inner.asked.clear()
    first = encoder.embed(["a", "b", "a"])
    second = encoder.embed(["c", "b"])
    assert inner.asked == ["a", "b", "c"]
    assert encoder.hits == 1
    clean = HashEncoder(8)
    assert first.tobytes() == clean.embed(["a", "b", "a"]).tobytes()
    assert second.tobytes() == clean.embed(["c", "b"]).tobytes()


def test_every_modality_is_kept_apart(store: Store) -> None:
    """Texts, tokens and images have their own rows; lists and arrays of the same ids share one."""
    inner = Counting()
    encoder = CachedEncoder(inner, store)
    encoder.embed(["ab"])
    encoder.embed([[97, 98]])
    encoder.embed(IMAGES)
    inner.asked.clear()
    rows = encoder.embed(list(IMAGES[::-1]))
    np.testing.assert_array_equal(rows, HashEncoder(8).embed(IMAGES[::-1]))
    encoder.embed([np.array([97, 98])])
    assert inner.asked == []
    encoder.embed([IMAGES[0].reshape(2, 8, 3)])
    assert len(inner.asked) == 1


def test_an_augmented_image_is_another_input(store: Store) -> None:
    """A row belongs to the pixels that were asked: one changed pixel is asked anew."""
    inner = Counting()
    encoder = CachedEncoder(inner, store)
    encoder.embed(IMAGES[:1])
    changed = IMAGES[:1].copy()
    changed[0, 3, 3, 2] ^= 1
    inner.asked.clear()
    np.testing.assert_array_equal(encoder.embed(changed), HashEncoder(8).embed(changed))
    assert len(inner.asked) == 1


def test_encoders_share_a_store_without_mixing(store: Store) -> None:
    """Rows belong to the encoder that answered; new weights under an old name are noticed."""
    old = CachedEncoder(CallableEncoder(lambda texts: [[1.0]] * len(texts), dim=1), store)
    new = CachedEncoder(CallableEncoder(lambda texts: [[2.0]] * len(texts), dim=1), store)
    assert old.embed(["a"]).tolist() == [[1.0]]
    assert new.embed(["a"]).tolist() == [[2.0]]
    assert old.embed(["a"]).tolist() == [[1.0]]


def test_answers_can_come_from_elsewhere(store: Store) -> None:
    """Rows that were computed before are remembered and not asked again."""
    inner = Counting()
    encoder = CachedEncoder(inner, store)
    inner.asked.clear()
    encoder.remember(IMAGES, HashEncoder(8).embed(IMAGES))
    np.testing.assert_array_equal(encoder.embed(IMAGES[2:]), HashEncoder(8).embed(IMAGES[2:]))
    assert (inner.asked, encoder.hits) == ([], 3)
    with pytest.raises(EncoderError, match="shape"):
        encoder.remember(["a", "b"], np.ones((1, 8), np.float32))


@pytest.mark.parametrize("independent", [True, False])
def test_it_keeps_the_interface(store: Store, independent: bool) -> None:
    """Name, width, modalities, what batches may change and the shipped check are the encoder's."""
    inner = Counting(rows_independent=independent)
    encoder = CachedEncoder(inner, store)
    assert (encoder.name, encoder.dim, encoder.accepts) == ("hash-8", 8, inner.accepts)
    assert isinstance(encoder, RowsIndependent)
    assert encoder.rows_independent is independent
    check_encoder(encoder, ["x", "y", "z"])


def test_what_is_returned_can_be_changed(store: Store) -> None:
    """A caller who writes into an answer does not change what the next one gets."""
    encoder = CachedEncoder(Counting(), store)
    first = encoder.embed(["a"])
    first += 1
    np.testing.assert_array_equal(encoder.embed(["a"]), HashEncoder(8).embed(["a"]))


def test_failures_keep_nothing(store: Store) -> None:
    """A refused call leaves no row behind, and garbage is never kept."""
    answers = iter([np.zeros((1, 2)), np.full((1, 2), np.nan), np.ones((1, 2))])
    encoder = CachedEncoder(CallableEncoder(lambda _: next(answers), dim=2), store)
    with pytest.raises(InputError):
        encoder.embed(["a", IMAGES[0]])
    with pytest.raises(EncoderError):
        encoder.embed(["a"])
    assert encoder.embed(["a"]).tolist() == [[1.0, 1.0]]


def test_a_file_outlives_the_process(tmp_path: Path) -> None:
    """What one store wrote the next one reads; folder and file are for their owner only."""
    file = tmp_path / "above" / "cache" / "rows.sqlite3"
    with SqliteStore(file) as store:
        before = CachedEncoder(Counting(), store).embed(["a", "b"])
    assert list(file.parent.iterdir()) == [file]
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    inner = Counting()
    with SqliteStore(file) as store:
        encoder = CachedEncoder(inner, store)
        inner.asked.clear()
        np.testing.assert_array_equal(encoder.embed(["b", "a"]), before[::-1])
    assert inner.asked == []


def test_threads_share_a_file(tmp_path: Path) -> None:
    """Threads that ask at once get right answers, and the file ends up with all rows."""
    texts = [f"text {i}" for i in range(40)]
    with SqliteStore(tmp_path / "rows.sqlite3") as store:
        encoder = CachedEncoder(HashEncoder(4), store)
        answers: dict[int, Embeddings] = {}

        def ask(worker: int) -> None:
            rows = [encoder.embed([text]) for text in np.roll(texts, worker).tolist()]
            answers[worker] = np.roll(np.concatenate(rows), -worker, axis=0)

        workers = [threading.Thread(target=ask, args=(worker,)) for worker in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        expected = HashEncoder(4).embed(texts)
        assert len(answers) == 4
        for rows in answers.values():
            np.testing.assert_array_equal(rows, expected)
    with sqlite3.connect(tmp_path / "rows.sqlite3") as connection:
        assert connection.execute("SELECT count(*) FROM embeddings").fetchone() == (40,)
    connection.close()


def test_files_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    """No database, a file in the way of the folder, and a store closed too early are named."""
    (tmp_path / "noise").write_bytes(b"no database" * 500)
    for path in (tmp_path / "noise", tmp_path / "noise" / "below"):
        with pytest.raises(ConfigurationError, match=r"cannot use the cache .*delete it"):
            SqliteStore(path)
    store = SqliteStore(tmp_path / "rows")
    store.close()
    with pytest.raises(ConfigurationError, match="closed"):
        store.read([b"key"])
    with pytest.raises(ConfigurationError, match="closed"):
        store.write({b"key": np.ones(2, np.float32)})


def test_a_damaged_row_is_an_encoder_error(tmp_path: Path) -> None:
    """A row of another width is refused, not handed on."""
    with SqliteStore(tmp_path / "rows") as store:
        encoder = CachedEncoder(HashEncoder(4), store, identity=b"me")
        store.write({digest("a", "text", key=b"me"): np.ones(3, np.float32)})
        with pytest.raises(EncoderError, match="width 4, got 3"):
            encoder.embed(["a"])


def test_a_remote_encoder_is_known_by_its_spec() -> None:
    """An encoder behind a URL is not probed; its SPEC, name and width tell it from others."""
    remote = Counting()
    vars(remote)["concurrency"] = 4
    one, same, other = (fingerprint(remote, spec) for spec in ("http://a", "http://a", "http://b"))
    assert one == same != other
    assert remote.asked == []


def test_digests_tell_inputs_apart() -> None:
    """Equal inputs agree; kinds, shapes, contents and keys do not."""
    square, flat = IMAGES[0], IMAGES[0].reshape(2, 8, 3)
    found = {
        digest("ab", "text"),
        digest("ab", "text", key=b"k"),
        digest("ac", "text"),
        digest([97, 98], "tokens"),
        digest(square, "image"),
        digest(flat, "image"),
    }
    assert len(found) == 6
    assert digest((97, 98), "tokens") == digest(np.array([97, 98], np.int32), "tokens")
    assert digest(square.copy(), "image") == digest(square, "image")
