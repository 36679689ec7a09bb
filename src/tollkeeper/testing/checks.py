"""Contract checks: hand in your own encoder, guard or ledger; a broken promise raises.

Each function raises `AssertionError` with one sentence and is silent otherwise, so it
can be called from a test of any framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tollkeeper.encoders.base import Encoder, RowsIndependent
from tollkeeper.errors import ConflictError
from tollkeeper.guard.guard import Guard
from tollkeeper.ledger.base import Ledger
from tollkeeper.types import Embeddings, Record, Sketch

ROUND_OFF = 1e-4
"""Relative slack between batch sizes of an encoder that does not declare `rows_independent`."""

CROWD = 40
"""Inputs in the large batch that an encoder has to stand that does declare it."""


def check_encoder(encoder: Encoder, inputs: Sequence[Any]) -> None:
    """Check what every `Encoder` promises, on inputs it accepts.

    One that declares `rows_independent` must give each input the same bytes alone, in the
    batch, and in a batch of `CROWD`; any other one may differ by `ROUND_OFF`.

    Args:
        encoder: the encoder under test.
        inputs: at least two different inputs of one modality.

    Raises:
        AssertionError: wrong shape or type, non-finite, not repeatable, out of order, or
            dependent on the other inputs of the batch.
    """
    assert len(inputs) >= 2, "check_encoder needs at least two inputs"
    embeddings = encoder.embed(inputs)
    expected = (len(inputs), encoder.dim)
    assert embeddings.shape == expected, f"expected shape {expected}, got {embeddings.shape}"
    assert embeddings.dtype == np.float32, f"expected float32, got {embeddings.dtype}"
    assert np.isfinite(embeddings).all(), "expected finite embeddings"
    assert np.array_equal(encoder.embed(inputs), embeddings), "the same batch gave another answer"
    alone = np.concatenate([encoder.embed(inputs[i : i + 1]) for i in range(len(inputs))])
    slack = ROUND_OFF * float(np.abs(embeddings).max())
    assert np.allclose(alone, embeddings, rtol=0, atol=slack), (
        "an input must get the same answer alone and at its place in a batch"
    )
    if isinstance(encoder, RowsIndependent) and encoder.rows_independent:
        _check_bytes(encoder, inputs, embeddings, alone)
    assert encoder.embed(inputs[:0]).shape == (0, encoder.dim), "no input must give no embedding"


def _check_bytes(
    encoder: Encoder, inputs: Sequence[Any], embeddings: Embeddings, alone: Embeddings
) -> None:
    """Check that (n, d) rows have the same bytes alone, together and among many."""
    places = [place % len(inputs) for place in range(max(CROWD, len(inputs)))]
    crowd = encoder.embed([inputs[place] for place in places])
    for answers, rows in ((embeddings, alone), (crowd, alone[places])):
        assert answers.tobytes() == rows.tobytes(), (
            f"rows_independent promises the same bytes alone and in a batch of {len(rows)}"
        )


def check_coverage_laws(guard: Guard, embeddings: Embeddings, *, key: bytes, seed: int = 0) -> None:
    """Check the laws that let sketches be shared, replicated and pooled.

    Args:
        guard: the guard under test.
        embeddings: (n, d) float32 clean embeddings, n >= 4.
        key: a tenant's key, as `guard.tenant_key` gives it.
        seed: of the generator handed to `admit`.

    Raises:
        AssertionError: coverage fell or is not that of the sketch, `admit` changed its
            arguments, a batch and its halves disagree, or merging is not a commutative,
            associative, idempotent union.
    """
    assert len(embeddings) >= 4, "check_coverage_laws needs at least four embeddings"
    empty = guard.empty()
    assert guard.fraction(empty) == 0.0, "an empty sketch must cover nothing"
    first, second = np.array_split(embeddings, 2)

    def after(sketch: Sketch, batch: Embeddings) -> Sketch:
        before, clean = sketch.copy(), batch.copy()
        rng = np.random.default_rng(seed)
        verdict = guard.admit(sketch, batch, key=key, rng=rng)
        assert np.array_equal(sketch, before), "admit changed the sketch it was given"
        assert np.array_equal(batch, clean), "admit changed the embeddings it was given"
        covered = guard.fraction(verdict.sketch)
        assert covered >= guard.fraction(sketch), "coverage fell"
        assert abs(covered - verdict.coverage) < 1e-9, "the verdict's coverage is not its sketch's"
        return verdict.sketch

    whole, a, b = after(empty, embeddings), after(empty, first), after(empty, second)
    assert np.array_equal(after(a, second), whole), "a batch must cover what its halves cover"
    assert np.array_equal(guard.merge(a, b), whole), "merging must be a union"
    assert np.array_equal(guard.merge(b, a), whole), "merging must not depend on order"
    assert np.array_equal(guard.merge(a, a), a), "merging a sketch with itself must keep it"
    assert np.array_equal(guard.merge(a, empty), a), "merging with an empty sketch must keep it"
    left, right = guard.merge(guard.merge(a, b), empty), guard.merge(a, guard.merge(b, empty))
    assert np.array_equal(left, right), "merging must not depend on grouping"
    assert whole.nbytes <= 16 * 1024, f"expected at most 16 KB of state, got {whole.nbytes} bytes"


def check_ledger(ledger: Ledger, *, pool: str = "check-ledger") -> None:
    """Check what every `Ledger` promises, on a pool that holds nothing yet.

    Args:
        ledger: the ledger under test; two records are added to it.
        pool: an unused pool, also used as the tenant's name.

    Raises:
        AssertionError: versions, totals, conflicts or records are not as promised.
    """
    ledger.check()
    assert ledger.read(pool).version == 0, f"expected nothing stored for {pool!r} yet"
    first = ledger.commit(pool, _record(pool, at=1.0), b"one", expected=0)
    assert (first.version, first.sketch) == (1, b"one"), "a commit must return what it stored"
    assert ledger.read(pool) == first, "reading must return what was committed"
    conflict = _conflict(ledger, pool)
    assert conflict is not None, "a commit on an old version must raise ConflictError"
    assert (conflict.expected, conflict.found) == (0, 1), "a conflict must name both versions"
    assert ledger.read(pool) == first, "a refused commit must change nothing"
    second = ledger.commit(pool, _record(pool, at=3.0), b"two", expected=1)
    assert (second.spent, second.queries) == (3.0, 6), "charges and inputs must add up"
    times = [record.at for record in ledger.records(tenant=pool)]
    assert times == [3.0, 1.0], f"expected records newest first, got times {times}"
    assert [record.at for record in ledger.records(tenant=pool, since=3.0)] == [3.0]
    assert len(list(ledger.records(tenant=pool, limit=1))) == 1, "limit must be kept"


def _conflict(ledger: Ledger, pool: str) -> ConflictError | None:
    try:
        ledger.commit(pool, _record(pool, at=2.0), b"stale", expected=0)
    except ConflictError as error:
        return error
    return None


def _record(tenant: str, *, at: float) -> Record:
    return Record(
        at=at,
        tenant=tenant,
        key_id="key",
        request_id=f"request-{at}",
        model="model",
        inputs=3,
        tokens=12,
        charge=1.5,
        coverage=0.25,
        noise_scale=0.0,
        profile="recommended/1",
    )
