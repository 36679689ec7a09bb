"""Closed-form maps between two accounts, against slow solutions of the same problems."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.attacks.sybil.mappers import (
    _PENALTIES,
    AffineMap,
    Mapper,
    ProcrustesMapper,
    RidgeMapper,
)
from tollkeeper.errors import InputError
from tollkeeper.types import Embeddings

Rows = NDArray[np.float64]

CLOSED_FORM: Sequence[Mapper] = (RidgeMapper(), ProcrustesMapper())


def draw(seed: int, *shape: int) -> Embeddings:
    """Return standard normal float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def rotation(seed: int, dim: int) -> Rows:
    """Return a random orthogonal matrix."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]


def fit(mapper: Mapper, source: Embeddings, target: Embeddings) -> AffineMap:
    """Fit and return the affine map."""
    found = mapper.fit(source, target, rng=np.random.default_rng(0))
    assert isinstance(found, AffineMap)
    return found


def ridge(source: Embeddings, target: Embeddings, penalty: float) -> tuple[Rows, Rows]:
    """Return ridge's (d1, d2) weights by the normal equations, and its hat matrix (n, n).

    The source is centered and scaled to variance 1, the intercept is not penalized.
    """
    x = (source - source.mean(axis=0, dtype=np.float64)) / source.std(axis=0, dtype=np.float64)
    y = target - target.mean(axis=0, dtype=np.float64)
    inverse = np.linalg.inv(x.T @ x + penalty * np.eye(x.shape[1]))
    hat = x @ inverse @ x.T + 1 / len(x)
    return inverse @ x.T @ y / source.std(axis=0, dtype=np.float64)[:, None], hat


def cross_validation(source: Embeddings, target: Embeddings, penalty: float) -> float:
    """Return the generalized cross-validation error of a penalty, by its definition."""
    _, hat = ridge(source, target, penalty)
    left = np.eye(len(hat)) - hat
    residual = left @ target.astype(np.float64)
    total = 0.0
    for row in residual:
        total += float(row @ row)
    return float(total / np.trace(left) ** 2)


@pytest.mark.parametrize(("rows", "wide"), [(30, 4), (12, 5), (8, 12)])
def test_ridge_solves_the_normal_equations_at_the_best_penalty(rows: int, wide: int) -> None:
    """With more and with fewer pairs than coordinates it is the solution a slow search finds."""
    source = draw(rows, rows, wide)
    target = source @ draw(1, wide, 3) + 0.5 * draw(2, rows, 3) + 4
    x = (source - source.mean(axis=0)) / source.std(axis=0)
    strongest = np.linalg.svd(x.astype(np.float64), compute_uv=False)[0] ** 2
    # Below this the inverses of the slow search are rounding.
    penalties = [share * strongest for share in _PENALTIES if share > 1e-7]
    best = min(penalties, key=lambda penalty: cross_validation(source, target, penalty))

    found = fit(RidgeMapper(), source, target)

    weights, _ = ridge(source, target, best)
    assert best > penalties[0]
    np.testing.assert_allclose(found.matrix, weights, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        found(source).mean(axis=0), target.mean(axis=0), rtol=1e-4, atol=1e-4
    )


def test_ridge_agrees_with_least_squares_on_many_clean_pairs() -> None:
    """Without noise the penalty hardly matters and the map is numpy's."""
    source, unseen = draw(0, 200, 6), draw(1, 50, 6)
    target = source @ draw(2, 6, 4) - 3
    columns = np.column_stack([source, np.ones(len(source))]).astype(np.float64)
    solution = np.linalg.lstsq(columns, target, rcond=None)[0]

    mapped = fit(RidgeMapper(), source, target)(unseen)

    np.testing.assert_allclose(mapped, unseen @ solution[:-1] + solution[-1], atol=1e-4)


def test_barely_more_pairs_than_coordinates_give_an_affine_transform_away() -> None:
    """Two clean pairs more do for unseen rows, whatever the scales of the coordinates."""
    dim = 40
    secret, shift = draw(0, dim, dim), draw(1, dim)
    scales = np.logspace(-2, 2, dim, dtype=np.float32)
    clean, unseen = draw(2, dim + 2, dim), draw(3, 30, dim)

    found = fit(RidgeMapper(), clean * scales, clean @ secret + shift)

    truth = unseen @ secret + shift
    assert np.abs(found(unseen * scales) - truth).max() < 0.02 * np.abs(truth).std()


def test_the_penalty_that_ridge_chooses_is_good_on_unseen_rows() -> None:
    """With noisy pairs its error is within a tenth of the best penalty's, and far below none's."""
    source, unseen = draw(0, 100, 60), draw(10, 500, 60)
    secret = draw(20, 60, 5)
    target = source @ secret + 6 * draw(30, 100, 5)

    def error(weights: Rows) -> float:
        center = target.mean(axis=0) - source.mean(axis=0) @ weights
        return float(np.square(unseen @ weights + center - unseen @ secret).mean())

    errors = [error(ridge(source, target, penalty)[0]) for penalty in np.logspace(-6, 5, 45)]
    chosen = error(fit(RidgeMapper(), source, target).matrix)

    assert chosen < 1.1 * min(errors)
    assert chosen < 0.8 * errors[0]


def test_pads_cost_nothing_and_carry_nothing() -> None:
    """Constant coordinates get no weight, and constant targets come out as they are."""
    clean, unseen = draw(0, 50, 3), draw(1, 20, 3)
    pads = np.full((50, 2), 0.1, dtype=np.float32)
    for mapper in CLOSED_FORM:
        plain = fit(mapper, clean, clean)(unseen)

        found = fit(mapper, np.hstack([pads, clean]), np.hstack([clean, pads]))

        mapped = found(np.hstack([pads[:20], unseen]))
        np.testing.assert_allclose(mapped[:, :3], plain, atol=1e-6)
        assert (mapped[:, 3:] == pads[:20]).all()
        assert not found.matrix[:2].any()


def test_an_account_that_always_answers_the_same_maps_to_the_mean() -> None:
    """Without a coordinate that varies there is nothing to go by."""
    target = draw(0, 9, 4)
    for mapper in CLOSED_FORM:
        mapped = fit(mapper, np.ones((9, 3), np.float32), target)(np.ones((2, 3), np.float32))

        np.testing.assert_allclose(mapped, np.tile(target.mean(axis=0), (2, 1)), rtol=1e-6)


def test_procrustes_recovers_rotation_scale_and_shift() -> None:
    """Barely more clean pairs than coordinates give the transform itself."""
    turn = rotation(0, 12)
    source, shift = draw(1, 14, 12), draw(2, 12)

    found = fit(ProcrustesMapper(), source, (2.5 * source @ turn + shift).astype(np.float32))

    np.testing.assert_allclose(found.matrix, 2.5 * turn, atol=1e-5)
    np.testing.assert_allclose(found.shift, shift, atol=1e-5)


def test_procrustes_is_the_formula_by_hand() -> None:
    """On noisy pairs it is U V' of the centered cross products, times trace over energy."""
    source = draw(0, 40, 5)
    target = (source @ rotation(1, 5) + 0.5 * draw(2, 40, 5)).astype(np.float32)
    x = source - source.mean(axis=0, dtype=np.float64)
    y = target - target.mean(axis=0, dtype=np.float64)
    cross = np.zeros((5, 5))
    for a, b in zip(x, y, strict=True):
        cross += np.outer(a, b)
    u, strengths, v = np.linalg.svd(cross)

    found = fit(ProcrustesMapper(), source, target)

    np.testing.assert_allclose(found.matrix, u @ v * strengths.sum() / (x**2).sum(), atol=1e-8)


def test_no_rotation_of_the_plane_fits_better() -> None:
    """A fine search over angles, reflections and scales finds nothing below its error."""
    source = draw(0, 15, 2)
    target = (source @ rotation(3, 2) + draw(1, 15, 2)).astype(np.float32)
    x, y = source - source.mean(axis=0), target - target.mean(axis=0)
    errors = []
    for angle, mirror in itertools.product(np.linspace(0, 2 * np.pi, 721), (1, -1)):
        cosine, sine = np.cos(angle), np.sin(angle)
        turned = x @ np.array([[cosine, sine], [-sine * mirror, cosine * mirror]])
        scale = max(0.0, (turned * y).sum() / (turned**2).sum())
        errors.append(np.square(scale * turned - y).sum())

    found = fit(ProcrustesMapper(), source, target)

    assert np.square(found(source) - target).sum() <= min(errors) + 1e-4


@pytest.mark.parametrize(("one", "other"), [(4, 7), (7, 4)])
def test_procrustes_of_unequal_widths_keeps_what_the_narrow_space_holds(
    one: int, other: int
) -> None:
    """A rotation into or out of a wider space is found, and angles are kept where they can be."""
    turn = rotation(0, 7)[:one, :other]
    hidden = draw(1, 60, min(one, other))
    source = hidden if one < other else (hidden @ turn.T).astype(np.float32)

    found = fit(ProcrustesMapper(), source, (source @ turn).astype(np.float32))

    narrow = found.matrix if one > other else found.matrix.T
    np.testing.assert_allclose(found(source), source @ turn, atol=1e-4)
    np.testing.assert_allclose(narrow.T @ narrow, np.eye(min(one, other)), atol=1e-5)


def test_few_pairs_leave_other_directions_alone() -> None:
    """What no pair shows is mapped to the mean, so a map of few pairs never invents."""
    source = draw(0, 5, 20)
    target = (source @ rotation(1, 20)).astype(np.float32)
    across = draw(2, 1, 20).astype(np.float64)
    centered = source - source.mean(axis=0, dtype=np.float64)
    across -= across @ np.linalg.pinv(centered) @ centered
    probe = (source.mean(axis=0) + across).astype(np.float32)

    mapped = fit(ProcrustesMapper(), source, target)(probe)

    np.testing.assert_allclose(mapped[0], target.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("mapper", CLOSED_FORM)
def test_maps_are_float32_and_leave_their_arguments_alone(mapper: Mapper) -> None:
    """Fitting and mapping change nothing that was handed in."""
    source, target = draw(0, 30, 4), draw(1, 30, 6)
    before = source.copy(), target.copy()

    mapped = mapper.fit(source, target, rng=np.random.default_rng(0))(source)

    assert mapped.shape == (30, 6)
    assert mapped.dtype == np.float32
    assert np.array_equal(source, before[0])
    assert np.array_equal(target, before[1])


@pytest.mark.parametrize("mapper", CLOSED_FORM)
@pytest.mark.parametrize(
    ("source", "target"),
    [((3, 2), (4, 2)), ((1, 2), (1, 2)), ((0, 2), (0, 2)), ((4,), (4,)), ((4, 2), (4,))],
)
def test_what_is_no_set_of_pairs_is_refused(
    mapper: Mapper, source: tuple[int, ...], target: tuple[int, ...]
) -> None:
    """Unequal counts, a single pair and vectors get one line that says what was expected."""
    with pytest.raises(InputError, match="at least 2 pairs"):
        mapper.fit(draw(0, *source), draw(1, *target), rng=np.random.default_rng(0))
