"""Rates, re-splits, obfuscations and tables of the ownership experiments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from scipy.stats import binom, ttest_ind  # noqa: E402 - torch may be missing

from tollkeeper.audit.consistency import Frame, Mode, agreement  # noqa: E402
from tollkeeper.audit.dataset_inference import Residuals  # noqa: E402
from tollkeeper.bench.experiment import Metric  # noqa: E402
from tollkeeper.bench.ownership.judging import (  # noqa: E402
    Mixture,
    Ruling,
    _derived,
    _tails,
    mixtures,
    resplit,
)
from tollkeeper.bench.ownership.networks import Small  # noqa: E402
from tollkeeper.bench.ownership.obfuscations import OUTPUTS, obfuscated, pruned  # noqa: E402
from tollkeeper.bench.ownership.rates import clustered, exact_interval, share  # noqa: E402
from tollkeeper.bench.ownership.reporting import report  # noqa: E402
from tollkeeper.bench.ownership.simclr import Recipe, untrained  # noqa: E402
from tollkeeper.bench.ownership.suspects import (  # noqa: E402
    Suspect,
    independents,
    insiders,
    thieves,
    victims,
)
from tollkeeper.bench.ownership.tabling import Judged, facts, tabled  # noqa: E402
from tollkeeper.bench.ownership.thieves import THIEVES, Means, steal  # noqa: E402
from tollkeeper.types import Batch, Embeddings  # noqa: E402

RNG = np.random.default_rng


# -- rates -------------------------------------------------------------------


def test_an_exact_interval_covers_what_it_says() -> None:
    """At either end of the interval the count has a chance of 2.5% in its tail."""
    low, high = exact_interval(3, 50)
    assert binom.sf(2, 50, low) == pytest.approx(0.025)
    assert binom.cdf(3, 50, high) == pytest.approx(0.025)
    assert exact_interval(0, 20) == pytest.approx((0, 1 - 0.025 ** (1 / 20)))
    assert exact_interval(20, 20)[1] == 1


def test_clusters_widen_an_interval() -> None:
    """Hits that all come from one encoder say less than the same number spread evenly."""
    spread, lumped = clustered([5] * 20, 1000, "lower"), clustered([100] + [0] * 19, 1000, "lower")
    assert spread.value == pytest.approx(lumped.value)
    assert spread.interval is not None
    assert lumped.interval is not None
    assert lumped.interval[1] > 2 * spread.interval[1]
    assert lumped.interval[0] == 0


def test_no_hit_is_not_certainty() -> None:
    """Without any hit the interval's upper end is that of as many independent draws."""
    interval = clustered([0] * 20, 1000, "lower").interval
    assert interval == pytest.approx((0, 1 - 0.025 ** (1 / 20_000)))
    assert share([True, False], "higher").value == 0.5


# -- re-splits ---------------------------------------------------------------


def residuals(n: int, shift: float = 0.0, seed: int = 0) -> Residuals:
    """Return noise in which the first half of the suspect's scores is shifted."""
    drawn = RNG(seed).standard_normal((9, n))
    drawn[0, : n // 2] += shift
    return Residuals(drawn[0], drawn[1:], 1.0)


def test_tails_are_welchs() -> None:
    """The p-value of many splits at once is that of one test after the other."""
    found, labels = residuals(60), RNG(1).random((5, 60)) < 0.4
    expected = [
        ttest_ind(
            found.suspect[row], found.suspect[~row], equal_var=False, alternative="greater"
        ).pvalue
        for row in labels
    ]
    assert _tails(labels, found.suspect) == pytest.approx(expected)


def test_p_values_over_splits_are_uniform() -> None:
    """An innocent's p-value is up to 1% for 1% of the splits, and hardly any split accuses."""
    accused, rejected, low = resplit(residuals(400), 200, 4000, rng=RNG(2))
    assert binom.ppf(0.001, 4000, 0.01) <= low <= binom.ppf(0.999, 4000, 0.01)
    assert rejected <= binom.ppf(0.999, 4000, 0.001)
    assert accused <= rejected


def test_drawn_splits_know_nothing_of_the_true_one() -> None:
    """A copy that the true split finds at once is accused by no more drawn splits than others."""
    _, _, low = resplit(residuals(400, shift=1.0), 200, 4000, rng=RNG(3))
    assert low <= binom.ppf(0.999, 4000, 0.01)


def test_a_split_can_accuse() -> None:
    """The verdict on a drawn split is that of the rule: the true split of a copy is "derived"."""
    found, trained = residuals(400, shift=1.0), np.arange(400) < 200
    assert _derived(found, trained, RNG(4), 0.001)
    assert not _derived(found, ~trained, RNG(4), 0.001)
    assert not _derived(residuals(400, shift=0.05), trained, RNG(4), 0.001)


def test_the_published_test_finds_what_it_looks_for() -> None:
    """Training rows closer together than held ones are found; swapped, they are not."""
    rng = RNG(5)
    plain = np.concatenate([0.3 * rng.standard_normal((300, 6)), rng.standard_normal((300, 6))])
    trained = np.arange(600) < 300
    found = mixtures((plain + 2).astype(np.float32), trained, swaps=True, rng=rng)
    assert set(found) == {"paper", "corrected", "paper_swapped", "corrected_swapped"}
    assert found["corrected"].p < 1e-6
    assert found["corrected"].d > 0.5
    assert found["corrected_swapped"].t < found["corrected"].t
    assert found["paper"].halved <= 0.5


# -- who there is ------------------------------------------------------------


def test_everybody_is_there_once() -> None:
    """The full roster has ten thieves and twenty independents or more, each with its own name."""
    others = ("cifar100", "tiny_imagenet")
    honest = independents(12, others)
    copies = thieves(2, (250, 8000), block=1000, others=others, profile="recommended")
    inside = list(insiders(2))
    everybody = [*victims(2), *honest, *inside, *copies]
    assert len({(one.name, one.claim) for one in everybody}) == len(everybody)
    assert len([one for one in [*honest, *inside] if one.role == "independent"]) >= 20
    assert len(copies) >= 20
    assert {one.role_in(0) for one in copies if one.claim == 1} == {"independent"}
    assert {one.role_in(1) for one in copies if one.claim == 1} == {"thief"}


# -- thieves and obfuscations ------------------------------------------------


class Linear:
    """A victim of 12 dimensions."""

    name, dim, accepts = "linear", 12, frozenset({"image"})

    def embed(self, inputs: Batch) -> Embeddings:
        rows = np.asarray(inputs, np.float32).reshape(len(inputs), -1) / 255 - 0.5
        matrix = RNG(0).standard_normal((rows.shape[1], self.dim))
        return (rows @ matrix + np.arange(self.dim)).astype(np.float32)


def images(n: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return smooth random images: each is one 4 by 4 image, enlarged."""
    coarse = RNG(seed).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


@pytest.mark.parametrize("name", list(THIEVES))
def test_every_thief_copies(name: str) -> None:
    """A small budget already gives embeddings that predict the victim's neighborhoods."""
    victim, pool, fresh = Linear(), images(300), images(100, seed=9)
    means = Means(Small(width=64), epochs=20, batch=32)
    copy = steal(name, victim, pool, budget=300, rng=RNG(1), means=means)
    stranger = untrained(Recipe(Small(width=64), dim=12), rng=RNG(1))

    def neighbors(encoder: Any) -> NDArray[np.float64]:
        rows = encoder.embed(fresh)
        rows = rows - rows.mean(axis=0)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(rows @ rows.T)[np.triu_indices(100, 1)]

    wanted = neighbors(victim)
    found, by_chance = (np.corrcoef(wanted, neighbors(one))[0, 1] for one in (copy, stranger))
    assert found > by_chance
    assert copy.dim == 12


SAFE: dict[Mode, tuple[str, ...]] = {
    "raw": ("none", "shuffle", "zero_pad", "rotation", "unit"),
    "std": ("none", "shuffle", "zero_pad", "constant_pad", "scale"),
    "white": ("none", "shuffle", "zero_pad", "scale", "rotation", "affine"),
}


@pytest.mark.parametrize(("mode", "name"), [(m, name) for m in SAFE for name in SAFE[m]])
def test_a_mode_does_not_see_what_it_undoes(mode: Mode, name: str) -> None:
    """Consistency is the same through every obfuscation that the mode is made for."""
    public, pool = images(300), images(40, seed=3)
    views = np.stack([pool, np.roll(pool, 1, axis=2), np.roll(pool, 1, axis=1)], axis=1)

    def scores(encoder: Any) -> NDArray[np.float64]:
        rows = encoder.embed(views.reshape(-1, 16, 16, 3)).reshape(40, 3, -1)
        return agreement(rows, Frame.fit(encoder.embed(public), mode))

    hidden = obfuscated(name, Linear(), public, rng=RNG(7))
    assert scores(hidden) == pytest.approx(scores(Linear()), abs=2e-3)


@pytest.mark.parametrize("name", list(OUTPUTS))
def test_an_obfuscation_is_still_an_encoder(name: str) -> None:
    """What is served is finite float32 of the stated width, and noise alone is fresh each time."""
    hidden = obfuscated(name, Linear(), images(100), rng=RNG(7))
    one, again = hidden.embed(images(5, seed=4)), hidden.embed(images(5, seed=4))
    assert one.dtype == np.float32
    assert one.shape == (5, hidden.dim)
    assert np.isfinite(one).all()
    assert np.array_equal(one, again) != name.startswith("noise")


def test_half_of_the_weights_are_pruned() -> None:
    """Pruning leaves the copy as it was and half of the weights of the pruned one."""
    inner = untrained(Recipe(Small(width=32), dim=8), rng=RNG(0))
    before = inner.embed(images(4))
    small = pruned(inner)
    weights = small.network.body[1].weight
    assert float((weights == 0).float().mean()) == pytest.approx(0.5, abs=0.01)
    assert np.array_equal(inner.embed(images(4)), before)
    assert not np.allclose(small.embed(images(4)), before)


# -- tables ------------------------------------------------------------------


def ruling(d: float, *, derived: bool) -> Ruling:
    """Return a made-up ruling."""
    mixture = Mixture(t=10 * d, d=d, p=0.001 if derived else 0.4, halved=0.4)
    names = ("paper", "corrected", "paper_swapped", "corrected_swapped")
    return Ruling(
        t=20 * d,
        plain_t=5 * d,
        d=d,
        interval=(d - 0.1, d + 0.1),
        p=0.0001 if derived else 0.5,
        p_reference=0.01,
        e=5000.0 if derived else 0.5,
        derived=derived,
        by_mode={"std": 20 * d},
        rejected=1,
        low=12,
        mixtures=dict.fromkeys(names, mixture),
    )


def judged() -> list[Judged]:
    """Return a small cast before two claims."""
    copies = thieves(2, (250, 1000), block=500, others=(), profile="recommended")
    cast: list[Suspect] = [*victims(2), *independents(3, ()), *insiders(2), *copies]
    rows = []
    for one in cast:
        for claim in range(2):
            guilty = one.role_in(claim) in ("victim", "thief", "same_data")
            found = ruling(0.4 if guilty else 0.0, derived=guilty)
            rows.append(Judged(one, claim, "", found, 0.4, {"r2": 0.95, "cosine": 0.1}))
        if one.name in ("victim", "stolen.mse.1000", "same.0") and one.claim in (-1, 0):
            rows += [
                Judged(one, 0, name, ruling(0.3, derived=one.claim == 0), 0.35, {"r2": 0.96})
                for name in ("none", "noise_1")
            ]
    return rows


def metrics() -> dict[str, Metric]:
    """Return the metrics of the small cast."""
    matched = [[{"r2": 0.9 + 0.001 * k, "cosine": 0.1 + 0.001 * k} for k in range(20)]] * 2
    return tabled(judged(), matched, resplits=100)


def test_rates_count_who_they_say() -> None:
    """Shares are over copies, independents and strangers, each before the right claims."""
    found = metrics()
    honest = sum(one.role == "independent" for one in [*independents(3, ()), *insiders(2)])
    assert found["independents"].value == honest
    assert found["false_accusation_rate"].value == 0
    assert found["false_accusation_rate.p_alone"].value == pytest.approx(0.01)
    assert found["false_accusation_rate.true_split"].value == 0
    assert found["strangers"].value > 2 * honest
    assert found["power"].value == 1
    assert found["power.not_randomized"].value == 0
    assert found["power.guarded.1000"].value == 1
    assert found["gmm_paper.power.thief.p01"].value == 1
    assert found["gmm_paper.false_accusation_rate.p05"].value == 0


def test_effects_have_the_interval_of_their_mean() -> None:
    """Two claims make a copy's interval narrower; the 99% become 95%."""
    found = metrics()["effect.stolen.mse.1000"]
    assert found.value == 0.4
    assert found.interval is not None
    half = 0.1 * 1.96 / 2.576 / np.sqrt(2)
    assert found.interval[1] - found.value == pytest.approx(half, rel=1e-3)


def test_few_independents_give_no_z_scores() -> None:
    """With fewer than twenty matched encoders similarity is left out."""
    assert "z.r2.stolen.mse.1000" in metrics()
    few = tabled(judged(), [[{"r2": 0.9, "cosine": 0.1}] * 3] * 2, resplits=100)
    assert not [name for name in few if name.startswith("z.")]


def test_the_report_shows_the_published_table() -> None:
    """Ours stand beside the paper's figures, hidden copies found derived in bold."""
    text = report(metrics())
    assert "5.6e-82 / 18.92" in text
    assert "`stolen.mse.1000`" in text
    assert "**0.30**" in text
    assert "noise_1" in text
    assert report({"effect.victim": Metric(0.5, "d", "higher")}).count("\n\n") == 1
    assert len(facts(judged())) == len(judged())
