"""B4B's bucket routine computes what the guard computes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.bench import b4b_reference
from tollkeeper.guard.coverage import Coverage
from tollkeeper.guard.planes import GaussianPlanes


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 24))
def test_equals_the_guards_coverage(seed: int, n: int, dim: int) -> None:
    """On the same hyperplanes both report the same coverage after every batch."""
    rng = np.random.default_rng(seed)
    # Rounded to float32 first, so that both sides cut the space with the same planes.
    drawn = b4b_reference.draw_projections(dim, rng=rng)
    projections = [planes.astype(np.float32).astype(np.float64) for planes in drawn]
    coverage = Coverage(
        planes=GaussianPlanes(
            np.concatenate(projections, axis=1).astype(np.float32), np.zeros(240, np.float32)
        ),
        tables=b4b_reference.PROJECTIONS,
        bits=b4b_reference.BITS,
    )
    visited: list[set[str]] = [set() for _ in projections]
    sketch = coverage.empty()
    for embeddings in np.array_split(rng.standard_normal((n, dim)).astype(np.float32), 3):
        sketch = coverage.visit(sketch, embeddings).sketch
        found = b4b_reference.update_coverage(visited, embeddings, projections)
        assert found == coverage.fraction(sketch)


def test_buckets_are_texts_of_sign_tuples() -> None:
    """Equal signs share one bucket, whose key is the text of twelve zeros and ones."""
    embeddings = np.asarray([[1.0], [2.0], [-1.0]], np.float32)
    found = b4b_reference.new_buckets(embeddings, np.ones((1, 12)))
    assert len(found) == 2
    assert {sum(c in "01" for c in key.replace("int64", "")) for key in found} == {12}
