"""What account detectors keep: whole numbers, projections, samples and headers."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.detectors.compact import Header, Projection, Sample, levels, squared_distances
from tollkeeper.errors import DetectorError


def test_distances_of_levels_are_exact() -> None:
    """Equal rows are at 0, and others at the distance that integers give."""
    rows = np.random.default_rng(0).random((20, 300), dtype=np.float32)
    whole = levels(rows)
    exact = whole.astype(np.int64)
    found = squared_distances(whole, whole)
    for i, j in np.ndindex(20, 20):
        assert found[i, j] == ((exact[i] - exact[j]) ** 2).sum()


@pytest.mark.parametrize("origin", [0.0, 0.5])
def test_a_projection_keeps_mean_squared_differences(origin: float) -> None:
    """With many numbers the estimate is within a few percent, whatever the origin."""
    rows = np.random.default_rng(0).random((40, 400), dtype=np.float32)
    project = Projection(400, 2048, key=b"k", origin=origin, reach=4.0)
    kept = project(rows).astype(np.float64)
    estimate = squared_distances(kept, kept) * project.step**2 / 2048
    true = ((rows[:, None] - rows[None]).astype(np.float64) ** 2).mean(axis=2)
    apart = ~np.eye(40, dtype=bool)
    assert np.allclose(estimate[apart], true[apart], rtol=0.15)
    assert (estimate[~apart] == 0).all()


def test_signs_come_from_the_key_alone() -> None:
    """The same key keeps the same bytes; these are pinned, for states outlive releases."""
    row = np.linspace(0, 1, 64, dtype=np.float32)[None]
    assert np.array_equal(Projection(64, 8, key=b"k")(row), Projection(64, 8, key=b"k")(row))
    assert not np.array_equal(Projection(64, 8, key=b"k")(row), Projection(64, 8, key=b"j")(row))
    assert Projection(64, 8, key=b"k")(row)[0].tolist() == [136, 138, 133, 154, 125, 133, 136, 129]


def test_a_sample_is_fair_up_to_its_horizon_and_never_closed() -> None:
    """The first fill it; the j-th of later ones enters with probability most / j, 1 / 16 at least."""
    sample = Sample(10, key=b"k")
    assert [sample.place(at, seen=at + 1, at=at) for at in range(10)] == list(range(10))
    for seen, wanted in ((40, 0.25), (10**6, 1 / 16)):
        places = [sample.place(10, seen=seen, at=at) for at in range(20_000)]
        entered = [place for place in places if place is not None]
        assert len(entered) / 20_000 == pytest.approx(wanted, rel=0.1)
        assert np.bincount(entered).min() > 0.7 * len(entered) / 10


def test_a_header_knows_its_own() -> None:
    """Numbers come back; a header of other parameters or a short one is refused."""
    header, other = Header("toy", (1, 2), "Qd"), Header("toy", (1, 3), "Qd")
    state = header.write(7, 0.5)
    assert len(state) == header.size
    assert header.read(state + b"more") == (7, 0.5)
    for wrong in (other.write(7, 0.5), state[:-1], b""):
        with pytest.raises(DetectorError, match="another"):
            header.read(wrong)
