"""Promises of the objectives, each against a slow oracle in plain Python."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tollkeeper.attacks.objectives import (  # noqa: E402
    BCE,
    MSE,
    Barlow,
    Cosine,
    InfoNCE,
    SoftNN,
    SupCon,
    Symmetrized,
    Wasserstein,
)
from tollkeeper.attacks.objectives.barlow_cross import BarlowCross  # noqa: E402
from tollkeeper.attacks.objectives.rda import RDALoss  # noqa: E402
from tollkeeper.attacks.objectives.stolen_encoder import StolenEncoderLoss  # noqa: E402
from tollkeeper.errors import ConfigurationError  # noqa: E402
from tollkeeper.lab import torching  # noqa: E402

pytestmark = pytest.mark.torch

Rows = list[list[float]]
LABELS = [0, 1, 1, 2, 0, 2]


# --- Slow oracles: lists of floats, loops, no torch -------------------------------------------


def dot(a: list[float], b: list[float]) -> float:
    """Return the inner product."""
    return sum(x * y for x, y in zip(a, b, strict=True))


def unit(a: list[float]) -> list[float]:
    """Return the vector at length 1."""
    return [x / math.sqrt(dot(a, a)) for x in a]


def cos(a: list[float], b: list[float]) -> float:
    """Return the cosine."""
    return dot(unit(a), unit(b))


def mean(values: list[float]) -> float:
    """Return the average."""
    return sum(values) / len(values)


def slow_mse(z: Rows, h: Rows) -> float:
    """Average squared differences of entries."""
    return mean(
        [(a - b) ** 2 for x, y in zip(z, h, strict=True) for a, b in zip(x, y, strict=True)]
    )


def slow_infonce(z: Rows, h: Rows, tau: float = 0.07) -> float:
    """Contrast 2 n rows with their partners, all others being negatives."""
    rows, n, losses = z + h, len(z), []
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        others = [math.exp(cos(rows[i], rows[j]) / tau) for j in range(2 * n) if j != i]
        losses.append(-math.log(math.exp(cos(rows[i], rows[partner]) / tau) / sum(others)))
    return mean(losses)


def slow_softnn(z: Rows, h: Rows, temperature: float = 100.0) -> float:
    """Draw neighbors by squared distance."""
    rows, n, losses = z + h, len(z), []

    def near(i: int, j: int) -> float:
        squared = sum((a - b) ** 2 for a, b in zip(rows[i], rows[j], strict=True))
        return math.exp(-squared / temperature)

    for i in range(2 * n):
        everyone = sum(near(i, j) for j in range(2 * n) if j != i)
        losses.append(-math.log(1e-9 + near(i, (i + n) % (2 * n)) / everyone))
    return mean(losses)


def slow_supcon(z: Rows, h: Rows, tau: float = 0.07) -> float:
    """Average log chances over all other rows of the class."""
    rows, labels, losses = z + h, LABELS * 2, []
    for i in range(len(rows)):
        others = [j for j in range(len(rows)) if j != i]
        below = sum(math.exp(cos(rows[i], rows[j]) / tau) for j in others)
        alike = [j for j in others if labels[j] == labels[i]]
        logs = [math.log(math.exp(cos(rows[i], rows[j]) / tau) / below) for j in alike]
        losses.append(-mean(logs))
    return mean(losses)


def slow_wasserstein(z: Rows, h: Rows) -> float:
    """Compare cumulative shares along the feature index."""
    losses = []
    for x, y in zip(z, h, strict=True):
        a, b = [max(v, 0.0) for v in x], [max(v, 0.0) for v in y]
        total = 0.0
        for k in range(1, len(a) + 1):
            total += abs(sum(a[:k]) / (sum(a) + 1e-14) - sum(b[:k]) / (sum(b) + 1e-14))
        losses.append(total)
    return mean(losses)


def slow_redundancy(a: Rows, b: Rows, weight: float = 0.0051) -> float:
    """Compare each correlation with the identity's entry."""

    def column(rows: Rows, j: int) -> list[float]:
        values = [row[j] for row in rows]
        spread = math.sqrt(mean([(v - mean(values)) ** 2 for v in values]) + 1e-5)
        return [(v - mean(values)) / spread for v in values]

    loss = 0.0
    for i, j in itertools.product(range(len(a[0])), repeat=2):
        c = dot(column(a, i), column(b, j)) / len(a)
        loss += (c - 1) ** 2 if i == j else weight * c**2
    return loss


def slow_barlow(z: Rows, h: Rows) -> float:
    """Stack surrogate over victim within each view."""
    n = len(z) // 2
    return slow_redundancy(z[:n] + h[:n], z[n:] + h[n:])


def slow_bce(z: Rows, h: Rows) -> float:
    """Predict whether each victim feature is above zero."""
    losses = []
    for x, y in zip(z, h, strict=True):
        for logit, feature in zip(x, y, strict=True):
            chance = 1 / (1 + math.exp(-logit))
            losses.append(-math.log(chance if feature > 0 else 1 - chance))
    return mean(losses)


def slow_cosine(z: Rows, h: Rows) -> float:
    """Average cosines of partners."""
    return 1 - mean([cos(x, y) for x, y in zip(z, h, strict=True)])


def slow_stolen(z: Rows, h: Rows) -> float:
    """Average Euclidean distances of unit rows."""
    losses = []
    for x, y in zip(z, h, strict=True):
        losses.append(math.sqrt(sum((a - b) ** 2 for a, b in zip(unit(x), unit(y), strict=True))))
    return mean(losses)


def slow_rda(z: Rows, h: Rows, tau: float = 0.07) -> float:
    """Contrast without the positive below the line, then align."""
    x, losses = [unit(row) for row in z], []
    for i, y in enumerate(h):
        others = [j for j in range(len(x)) if j != i]
        below = sum(math.exp(dot(x[i], h[j]) / tau) for j in others)
        below += sum(math.exp(dot(x[i], x[j]) / tau) for j in others)
        contrast = -math.log(math.exp(dot(x[i], y) / tau) / below)
        squared = sum((a - b) ** 2 for a, b in zip(x[i], y, strict=True))
        losses.append(contrast - math.log((1 + cos(x[i], y)) / squared))
    return mean(losses)


def supcon(z: Any, h: Any) -> Any:
    """Call SupCon with classes that repeat."""
    return SupCon()(z, h, torch.arange(len(z)) % 3)


CASES: dict[str, tuple[Callable[..., Any], Callable[[Rows, Rows], float]]] = {
    "mse": (MSE(), slow_mse),
    "infonce": (InfoNCE(), slow_infonce),
    "infonce at .5": (InfoNCE(0.5), lambda z, h: slow_infonce(z, h, 0.5)),
    "softnn": (SoftNN(), slow_softnn),
    "softnn at 2": (SoftNN(2.0), lambda z, h: slow_softnn(z, h, 2.0)),
    "supcon": (lambda z, h: SupCon()(z, h, torch.tensor(LABELS)), slow_supcon),
    "wasserstein": (Wasserstein(), slow_wasserstein),
    "barlow": (Barlow(), slow_barlow),
    "barlow-cross": (BarlowCross(), slow_redundancy),
    "bce": (BCE(), slow_bce),
    "cosine": (Cosine(), slow_cosine),
    "stolen-encoder": (StolenEncoderLoss(), slow_stolen),
    "rda": (RDALoss(), slow_rda),
}


def symmetrized(dim: int) -> Any:
    """Return a seeded instance."""
    with torching.seeded_init(np.random.default_rng(5)):
        return Symmetrized(dim, projection=7, hidden=3)


def rows(n: int = 6, d: int = 5, *, seed: int = 0) -> Any:
    """Return (n, d) float64 rows of both signs."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d)))


@pytest.mark.parametrize("name", CASES)
def test_it_equals_its_slow_oracle(name: str) -> None:
    """The value is that of the formula, written with loops, in float64 and in float32."""
    objective, slow = CASES[name]
    z, h = rows(seed=1), rows(seed=2)
    expected = slow(z.tolist(), h.tolist())

    assert float(objective(z, h)) == pytest.approx(expected, rel=2e-6)
    assert float(objective(z.float(), h.float())) == pytest.approx(expected, rel=1e-4)
    assert objective(z.float(), h).dtype == torch.float32


def test_symmetrized_equals_its_slow_oracle() -> None:
    """Each view's prediction is compared with the projection of the victim's other view."""
    objective = symmetrized(5).double()
    z, h = rows(8, seed=1), rows(8, seed=2)

    def projected(x: Any) -> Any:
        first, second, last = (objective.projector[at].weight.T for at in (0, 3, 6))
        return normal(normal(normal(x @ first).clamp(min=0) @ second).clamp(min=0) @ last)

    def normal(x: Any) -> Any:
        return (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()

    def predicted(x: Any) -> Any:
        hidden = normal(projected(x) @ objective.predictor[0].weight.T).clamp(min=0)
        return hidden @ objective.predictor[3].weight.T + objective.predictor[3].bias

    pairs = [
        *zip(predicted(z[:4]).tolist(), projected(h[4:]).tolist(), strict=True),
        *zip(predicted(z[4:]).tolist(), projected(h[:4]).tolist(), strict=True),
    ]
    assert objective(z, h).item() == pytest.approx(-mean([cos(p, q) for p, q in pairs]))


@pytest.mark.parametrize("name", [*CASES, "symmetrized"])
def test_gradients_are_right_and_reach_the_surrogate_only(name: str) -> None:
    """The gradient for z is that of finite differences; h gets none."""
    objective = symmetrized(5).double() if name == "symmetrized" else CASES[name][0]
    z, h = rows(seed=3).requires_grad_(), rows(seed=4).requires_grad_()

    assert torch.autograd.gradcheck(lambda x: objective(x, h), (z,))
    objective(z, h).backward()
    assert z.grad.abs().sum() > 0
    assert h.grad is None


def test_symmetrized_trains_projector_and_predictor() -> None:
    """All its parameters get gradients, though the victim's rows carry none."""
    objective = symmetrized(5)
    objective(rows(8).float(), rows(8, seed=1).float()).backward()
    assert all(p.grad.abs().sum() > 0 for p in objective.parameters())


@pytest.mark.parametrize("name", ["mse", "cosine", "wasserstein", "stolen-encoder"])
def test_a_perfect_copy_is_a_minimum(name: str) -> None:
    """The loss is 0 at z == h, and no small step lowers it."""
    objective, _ = CASES[name]
    h = rows(seed=5).abs() + 0.1

    assert float(objective(h, h)) == pytest.approx(0, abs=1e-7)
    for seed in range(20):
        assert float(objective(h + 1e-2 * rows(seed=seed), h)) > 1e-6


def test_rda_pulls_towards_its_own_prototype() -> None:
    """With prototypes at right angles no small step away from a perfect copy lowers the loss."""
    h = torch.eye(5, dtype=torch.float64)
    least = float(RDALoss()(h, h))

    assert least < -10
    for seed in range(20):
        assert float(RDALoss()(h + 1e-2 * rows(5, seed=seed), h)) > least


@pytest.mark.parametrize("name", ["infonce", "softnn", "supcon", "barlow-cross", "bce"])
def test_the_copy_beats_a_mismatched_one(name: str) -> None:
    """Rows in the right order score lower than the same rows in another order."""
    objective = supcon if name == "supcon" else CASES[name][0]
    h = rows(8, 16, seed=6)
    assert float(objective(h, h)) < float(objective(h.roll(1, dims=0), h))


@pytest.mark.parametrize("name", [*CASES, "symmetrized"])
@pytest.mark.parametrize("at", ["match", "zero surrogate", "zero victim", "both zero", "large"])
def test_value_and_gradient_stay_finite_in_the_corners(name: str, at: str) -> None:
    """Exact matches, zero rows and rows of length 10^4 give finite float32 numbers."""
    objective = symmetrized(5) if name == "symmetrized" else CASES[name][0]
    h = rows(seed=7).float()
    z = h.clone()
    if at in {"zero surrogate", "both zero"}:
        z = torch.zeros_like(h)
    if at in {"zero victim", "both zero"}:
        h = torch.zeros_like(h)
    if at == "large":
        z, h = rows(seed=8).float() * 1e4, h * 1e4
    z.requires_grad_()

    loss = objective(z, h)
    loss.backward()

    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("name", CASES)
def test_rows_that_do_not_belong_together_are_refused(name: str) -> None:
    """Another count, another width and other than two axes give one clear error."""
    objective = supcon if name == "supcon" else CASES[name][0]
    for other in (rows(4), rows(6, 3), rows(6)[:, :, None], rows(6)[0]):
        with pytest.raises(ConfigurationError, match="one shape"):
            objective(rows(6), other)


@pytest.mark.parametrize("name", ["infonce", "softnn", "supcon", "barlow", "barlow-cross", "rda"])
def test_contrast_needs_more_than_one_input(name: str) -> None:
    """A batch of one (for two views: two rows) cannot be contrasted and says so."""
    objective = supcon if name == "supcon" else CASES[name][0]
    n = 2 if name == "barlow" else 1
    with pytest.raises(ConfigurationError, match="larger batch"):
        objective(rows(n), rows(n))


@pytest.mark.parametrize("make", [Barlow, lambda: Symmetrized(5)])
def test_two_views_are_two_equal_halves(make: Callable[[], Any]) -> None:
    """An odd number of rows cannot be two stacked views; the class says that it wants two."""
    objective = make()
    with pytest.raises(ConfigurationError, match="two stacked views"):
        objective(rows(7).float(), rows(7).float())
    assert objective.views == 2


@pytest.mark.parametrize("labels", [None, [0, 1], [[0], [1], [2]]])
def test_supervised_contrast_needs_one_label_per_input(labels: Any) -> None:
    """Missing or misshapen labels give one clear error."""
    given = None if labels is None else torch.tensor(labels)
    with pytest.raises(ConfigurationError, match="one class label per input"):
        SupCon()(rows(3), rows(3), given)


@pytest.mark.parametrize("make", [InfoNCE, SoftNN, SupCon, RDALoss])
@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_is_above_zero(make: Callable[..., object], temperature: float) -> None:
    """Anything else is refused when the objective is made."""
    with pytest.raises(ConfigurationError, match="temperature above 0"):
        make(temperature=temperature)


def test_widths_are_at_least_one() -> None:
    """A projector of width 0 is refused when it is made."""
    with pytest.raises(ConfigurationError, match="widths of at least 1"):
        Symmetrized(4, hidden=0)


def test_length_does_not_matter_to_objectives_of_direction() -> None:
    """InfoNCE, SupCon, cosine and StolenEncoder read directions only."""
    z, h = rows(seed=9), rows(seed=10)
    stretch = rows(6, 1, seed=11).abs() + 0.1
    for name in ("infonce", "cosine", "stolen-encoder"):
        objective, _ = CASES[name]
        assert float(objective(z * stretch, h / stretch)) == pytest.approx(float(objective(z, h)))
    assert float(supcon(z * stretch, h / stretch)) == pytest.approx(float(supcon(z, h)))


def test_bce_reads_signs_only() -> None:
    """Victims with equal signs are the same target; zero counts as negative."""
    z, h = rows(seed=14), rows(seed=15)
    assert torch.equal(BCE()(z, h), BCE()(z, h.sign()))
    assert torch.equal(BCE()(z, h.clamp(min=0)), BCE()(z, h))


def test_wasserstein_takes_negative_features_for_zero() -> None:
    """Negative entries on either side change nothing."""
    z, h = rows(seed=16), rows(seed=17)
    assert torch.equal(Wasserstein()(z, h), Wasserstein()(z.clamp(min=0), h.clamp(min=0)))


def test_rda_does_not_stretch_its_prototypes() -> None:
    """A short prototype is further away than a long one of the same direction."""
    z = rows(seed=18)
    y = torch.nn.functional.normalize(z, dim=1)
    aligned = RDALoss(alpha=0.0)
    assert float(aligned(z, 0.5 * y)) > float(aligned(z, 0.9 * y))


def test_rda_weighs_its_two_terms() -> None:
    """The loss is alpha times contrast plus beta times alignment."""
    z, h = rows(seed=19), rows(seed=20)
    contrast, align = RDALoss(beta=0.0)(z, h), RDALoss(alpha=0.0)(z, h)
    both = RDALoss(alpha=2.0, beta=3.0)(z, h)
    assert float(both) == pytest.approx(float(2 * contrast + 3 * align))
