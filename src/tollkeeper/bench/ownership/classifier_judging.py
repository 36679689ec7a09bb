"""What measured margins say of every suspect: the corrected test, the published one, and rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.base import OwnershipResult
from tollkeeper.audit.classifiers.inference import MarginInference, scored
from tollkeeper.audit.classifiers.margins import Margins
from tollkeeper.audit.classifiers.published import AsPublished, Layout
from tollkeeper.audit.dataset_inference import Residuals, judge, verdict
from tollkeeper.audit.gates import ALPHA, check_control
from tollkeeper.audit.two_sample import effect_interval, effect_size, t_tail, welch
from tollkeeper.bench.experiment import Context, Direction, Metric
from tollkeeper.bench.ownership.classifier_suspects import THIEVES
from tollkeeper.bench.ownership.rates import clustered, share

LAYOUTS: tuple[Layout, ...] = ("pictures", "released")
PUBLISHED_ALPHA = 0.05
_CHEAP = 0.01

Flags = NDArray[np.bool_]


class Suspect(Protocol):
    """What was measured of one suspect; see `classifier_inference.Found`."""

    @property
    def train(self) -> float:
        """Accuracy on private pictures."""
        ...

    @property
    def exam(self) -> float:
        """Accuracy on others."""
        ...

    @property
    def margins(self) -> Margins:
        """Of the tested pictures, private ones first."""
        ...

    @property
    def right(self) -> NDArray[np.float64]:
        """(n,) 1 where the true class is named."""
        ...

    @property
    def white(self) -> Margins | None:
        """Margins by gradients."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """What suspects are held against.

    Attributes:
        trained: (n,) which of the tested pictures are private.
        references: (M, n) scores of references.
        right: (M, n) whether references name the true class.
        test: the corrected one.
    """

    trained: Flags
    references: NDArray[np.float64]
    right: NDArray[np.float64]
    test: MarginInference

    def residuals(self, suspect: Suspect) -> Residuals:
        """Return scores by margins, calibrated."""
        return Residuals.of(scored(None, suspect.margins), self.references)

    def named(self, suspect: Suspect) -> Residuals:
        """Return whether the true class is named, calibrated: the score of one query a picture."""
        return Residuals.of(suspect.right, self.right)

    def result(self, suspect: Suspect, rng: np.random.Generator) -> OwnershipResult:
        """Return what the corrected test says."""
        found = judge(self.residuals(suspect), self.trained, rng=rng)
        return self.test.result(found, randomized=True)


Suspects = Mapping[str, Suspect]


def figures(found: Suspects, held: Judge, resplits: int, context: Context) -> dict[str, Metric]:
    """Return all metrics.

    Args:
        found: every suspect by name.
        held: what they are judged by.
        resplits: of each independent.
        context: progress and randomness.

    Raises:
        AuditRefused: the victim is not found.
    """
    judged = {name: one for name, one in found.items() if not name.startswith("reference.")}
    metrics: dict[str, Metric] = {}
    derived: dict[str, bool] = {}
    for number, (name, one) in enumerate(judged.items()):
        result = held.result(one, context.rng(2, number))
        if name == "victim":
            check_control(result.p_value)
        derived[name] = verdict(result) == "derived"
        metrics |= _own(name, one, result, held)
    metrics |= _published(judged, context) | _white(judged, context)
    metrics["power"] = share([derived[name] for name in THIEVES if name != "victim"], "higher")
    flags = [derived[name] for name in judged if name not in THIEVES]
    metrics["false_accusation_rate.of_this_split"] = share(flags, "lower")
    honest = {name: one for name, one in judged.items() if name.startswith("independent.")}
    return metrics | _rates(honest, judged["victim"], held, resplits, context)


def _own(name: str, one: Suspect, result: OwnershipResult, held: Judge) -> dict[str, Metric]:
    """Return what the corrected test says of one suspect; a copy ought to show more."""
    direction = _better(name)
    right = held.named(one).suspect
    return {
        f"effect.{name}": Metric(result.effect_size, "d", direction, result.interval),
        f"t.{name}": Metric(result.statistic, "t", direction),
        f"p.{name}": Metric(result.p_value, "p", "lower" if name in THIEVES else "higher"),
        f"t_right.{name}": Metric(
            welch(right[held.trained], right[~held.trained])[0], "t", direction
        ),
        f"accuracy.{name}.private": Metric(one.train, "share", "higher"),
        f"accuracy.{name}.exam": Metric(one.exam, "share", "higher"),
    }


def _better(name: str) -> Direction:
    """Return which way an effect ought to go: a copy should show it, others should not."""
    return "higher" if name in THIEVES else "lower"


def sides(margins: Margins, trained: Flags) -> tuple[Margins, Margins]:
    """Return the margins of private and of public pictures."""
    private, public = (
        Margins(margins.distances[of], margins.flipped[of], 0) for of in (trained, ~trained)
    )
    return private, public


def _halves(margins: Margins) -> tuple[Margins, Margins]:
    count = len(margins.distances) // 2
    return sides(margins, np.repeat([True, False], [count, len(margins.distances) - count]))


def _published(judged: Suspects, context: Context) -> dict[str, Metric]:
    """Return the published test's effects and p-values, with rows of both kinds."""
    metrics = {}
    for layout in LAYOUTS:
        test = AsPublished(rows=layout, m=_rows(judged["victim"]))
        fitted = test.fit(*_halves(judged["victim"].margins), rng=context.rng(3))
        for number, (name, one) in enumerate(judged.items()):
            found = test.test(fitted, *_halves(one.margins), rng=context.rng(4, number))
            thief = name in THIEVES
            label = f"{layout}.{name}"
            metrics[f"published_effect.{label}"] = Metric(
                found.effect, "score", "higher" if thief else "lower"
            )
            metrics[f"published_p.{label}"] = Metric(
                found.harmonic, "p", "lower" if thief else "higher"
            )
    return metrics


def _rows(suspect: Suspect) -> int:
    """Return the rows of one published test: 10, or what there is in a small run."""
    return min(10, len(suspect.margins.distances) // 4)


def _white(judged: Suspects, context: Context) -> dict[str, Metric]:
    """Return both tests' effects by gradients, where they were followed; nothing calibrates them."""
    metrics: dict[str, Metric] = {}
    victim = judged["victim"].white
    if victim is None:
        return metrics
    test = AsPublished(m=min(10, len(victim.distances) // 4))
    fits = len(victim.distances) // 4 >= 20
    fitted = test.fit(*_halves(victim), rng=context.rng(5)) if fits else None
    for number, (name, one) in enumerate(judged.items()):
        if one.white is None:
            continue
        direction = _better(name)
        scores = scored(None, one.white)
        count = len(scores) // 2
        d = effect_size(scores[:count], scores[count:])
        metrics[f"effect_white.{name}"] = Metric(
            d, "d", direction, effect_interval(d, count, len(scores) - count)
        )
        if fitted is not None:
            found = test.test(fitted, *_halves(one.white), rng=context.rng(6, number))
            metrics[f"published_effect_white.{name}"] = Metric(found.effect, "score", direction)
    return metrics


def _rates(
    honest: Suspects, victim: Suspect, held: Judge, resplits: int, context: Context
) -> dict[str, Metric]:
    """Return how often re-splits of tested pictures accuse those who never met any of them."""
    residuals = {name: held.residuals(one) for name, one in honest.items()}
    hits: dict[str, list[int]] = {"": [], "at_1_percent": []}
    hits |= {f"published.{layout}": [] for layout in LAYOUTS}
    fits = {}
    for layout in LAYOUTS:
        test = AsPublished(rows=layout, m=_rows(victim))
        fits[layout] = test, test.fit(*_halves(victim.margins), rng=context.rng(3))
    for number, (name, one) in enumerate(honest.items()):
        context.progress(number, len(honest), f"re-splits of {name}")
        rng = context.rng(7, number)
        draws = [rng.permutation(held.trained) for _ in range(resplits)]
        said = [_accused(residuals[name], drawn) for drawn in draws]
        hits[""].append(sum(derived for derived, _ in said))
        hits["at_1_percent"].append(sum(p <= _CHEAP for _, p in said))
        for layout, (test, fitted) in fits.items():
            found = (
                test.test(fitted, *sides(one.margins, drawn), rng=rng).harmonic for drawn in draws
            )
            hits[f"published.{layout}"].append(sum(p < PUBLISHED_ALPHA for p in found))
    return {
        f"false_accusation_rate.{kind}".rstrip("."): clustered(counts, resplits, "lower")
        for kind, counts in hits.items()
    }


def _accused(found: Residuals, trained: Flags) -> tuple[bool, float]:
    """Return whether a re-split calls an encoder derived, and its p-value by Welch's test.

    Welch's and not the permutation test, which takes ten thousand relabelings for each of the
    re-splits; with hundreds of pictures they agree.
    """
    one, other = found.suspect[trained], found.suspect[~trained]
    t, freedom = welch(one, other)
    p, d = t_tail(t, freedom), effect_size(one, other)
    spread = np.sqrt(1 / len(one) + 1 / len(other))
    null = [abs(welch(row[trained], row[~trained])[0]) * spread for row in found.references]
    low, _ = effect_interval(d, len(one), len(other))
    return bool(p <= ALPHA and low > max(null)), p
