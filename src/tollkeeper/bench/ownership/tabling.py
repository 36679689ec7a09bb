"""Metrics of `dataset-inference` from everybody's rulings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tollkeeper.audit.similarity import LEAST_INDEPENDENTS, SCORES, against
from tollkeeper.audit.two_sample import Z_99
from tollkeeper.bench.experiment import Direction, Metric
from tollkeeper.bench.ownership.judging import Ruling
from tollkeeper.bench.ownership.rates import clustered, share
from tollkeeper.bench.ownership.suspects import Copied, Suspect

LEVELS = {"p05": 0.05, "p01": 0.01}
"""The published test's own level, and that of its authors' later text."""

_Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Judged:
    """One encoder before one claim.

    Attributes:
        suspect: which.
        claim: number.
        hidden: obfuscation that it answered through; empty for none.
        ruling: what was found.
        accuracy: of a linear classifier on what it serves.
        similarity: scores against the claim's victim.
    """

    suspect: Suspect
    claim: int
    hidden: str
    ruling: Ruling
    accuracy: float
    similarity: Mapping[str, float]

    @property
    def role(self) -> str:
        """What the encoder is to the claim."""
        return self.suspect.role_in(self.claim)

    @property
    def label(self) -> str:
        """Under which its metrics stand: encoders of one make share it."""
        if self.suspect.role != "independent":
            return self.suspect.name
        return f"independent.{self.suspect.name.split('.')[0]}"


def tabled(
    judged: Sequence[Judged], matched: Sequence[Sequence[Mapping[str, float]]], *, resplits: int
) -> dict[str, Metric]:
    """Return all metrics.

    Args:
        judged: everybody but the references before every claim.
        matched: by claim, similarities of independents of the victim's recipe, size and kind of
            data; fewer than twenty of them give no z-scores.
        resplits: splits drawn anew for each independent and claim.
    """
    plain = [one for one in judged if not one.hidden]
    own = [one for one in plain if one.suspect.claim in (-1, one.claim)]
    claims = 1 + max(one.claim for one in judged)
    return {
        **_accusations(plain, claims, resplits),
        **_power([one for one in own if one.suspect.role == "thief"]),
        **_published(plain, own, claims),
        **_by_label(own),
        **_similarities(own, matched),
        **_obfuscations([one for one in judged if one.hidden], matched),
    }


def facts(judged: Iterable[Judged]) -> dict[str, Any]:
    """Return each ruling, for diagnostics."""
    return {
        "/".join(filter(None, (one.label, one.suspect.name, f"claim{one.claim}", one.hidden))): {
            "t": one.ruling.t,
            "t_uncalibrated": one.ruling.plain_t,
            "p": one.ruling.p,
            "p_reference": one.ruling.p_reference,
            "log10_e": float(np.log10(max(one.ruling.e, 1e-300))),
            "derived": one.ruling.derived,
            "owner": one.suspect.claim,
            **{f"t_{mode}": t for mode, t in one.ruling.by_mode.items()},
        }
        for one in judged
    }


def _accusations(plain: Sequence[Judged], claims: int, resplits: int) -> dict[str, Metric]:
    """Return how often encoders are accused that nothing connects to the claim."""
    honest = _encoders(one for one in plain if one.suspect.role == "independent")
    each = claims * resplits

    def rate(count: Callable[[Ruling], int]) -> Metric:
        hits = [sum(count(one.ruling) for one in rows) for rows in honest]
        return clustered(hits, each, "lower")

    strangers = [one for one in plain if one.role == "independent"]
    return {
        "false_accusation_rate": rate(lambda ruling: ruling.accused),
        "false_accusation_rate.p_alone": rate(lambda ruling: ruling.rejected),
        "false_accusation_rate.p_alone_p01": rate(lambda ruling: ruling.low),
        "false_accusation_rate.true_split": share(
            [one.ruling.derived for one in strangers], "lower"
        ),
        "independents": Metric(len(honest), "encoders", "higher"),
        "strangers": Metric(len(strangers), "judgments", "higher"),
    }


def _encoders(rows: Iterable[Judged]) -> list[list[Judged]]:
    """Return rows of one encoder together."""
    found: dict[Suspect, list[Judged]] = {}
    for one in rows:
        found.setdefault(one.suspect, []).append(one)
    return list(found.values())


def _power(thieves: Sequence[Judged]) -> dict[str, Metric]:
    """Return the share of copies found: of all, of parts of them, and of the legacy rule."""
    copies = [(one, one.suspect.made) for one in thieves]
    most = max(made.budget for _, made in copies if isinstance(made, Copied))
    parts: dict[str, list[bool]] = {"power": [one.ruling.derived for one in thieves]}
    parts["power.not_randomized"] = [one.ruling.derived_legacy for one in thieves]
    for one, made in copies:
        assert isinstance(made, Copied)
        kind = f"{'guarded' if made.profile else 'open'}"
        names = [f"power.{kind}"]
        if kind == "open" and made.budget == most:
            names.append("power.most_queries")
        if made.attack == "mse" and made.asks == "pool" and made.network == "mlp":
            names.append(f"power.{kind}.{made.budget}")
        for name in names:
            parts.setdefault(name, []).append(one.ruling.derived)
    found = {name: share(flags, "higher") for name, flags in parts.items()}
    return {"thieves": Metric(len(thieves), "encoders", "higher"), **found}


def _published(plain: Sequence[Judged], own: Sequence[Judged], claims: int) -> dict[str, Metric]:
    """Return what the published mixture test says of the same encoders."""
    found: dict[str, Metric] = {}
    honest = _encoders(one for one in plain if one.suspect.role == "independent")
    for recipe in ("paper", "corrected"):
        for name, level in LEVELS.items():
            sides = (recipe, f"{recipe}_swapped")
            hits = [
                sum(one.ruling.mixtures[side].p <= level for one in rows for side in sides)
                for rows in honest
            ]
            found[f"gmm_{recipe}.false_accusation_rate.{name}"] = clustered(
                hits, 2 * claims, "lower"
            )
            for role in ("thief", "victim"):
                flags = [
                    one.ruling.mixtures[recipe].p <= level
                    for one in own
                    if one.suspect.role == role
                ]
                found[f"gmm_{recipe}.power.{role}.{name}"] = share(flags, "higher")
    for label, rows in _labels(own).items():
        better = _better(rows[0])
        mixtures = [one.ruling.mixtures["paper"] for one in rows]
        found[f"gmm_t.{label}"] = _mean([one.t for one in mixtures], "t", better)
        found[f"gmm_p.{label}"] = _mean([one.p for one in mixtures], "p", _OTHER[better])
    return found


def _by_label(own: Sequence[Judged]) -> dict[str, Metric]:
    """Return effects and the usefulness of what is served."""
    found: dict[str, Metric] = {}
    for label, rows in _labels(own).items():
        found[f"effect.{label}"] = _effect(rows)
        found[f"accuracy.{label}"] = _mean(
            [one.accuracy for one in rows], "ratio", "lower" if _is_copy(rows[0]) else "higher"
        )
    return found


def _effect(rows: Sequence[Judged]) -> Metric:
    """Return the mean effect with the 95% interval of a mean of independent ones."""
    mean = float(np.mean([one.ruling.d for one in rows]))
    widths = [one.ruling.interval[1] - one.ruling.interval[0] for one in rows]
    half = float(np.mean(widths)) / 2 * _Z_95 / Z_99 / np.sqrt(len(rows))
    return Metric(mean, "d", _better(rows[0]), (mean - half, mean + half))


def _similarities(
    own: Sequence[Judged], matched: Sequence[Sequence[Mapping[str, float]]]
) -> dict[str, Metric]:
    """Return z-scores of everybody but the victims and the matched independents themselves."""
    found: dict[str, Metric] = {}
    for label, rows in _labels(own).items():
        if label in ("victim", "independent.same") or len(matched[0]) < LEAST_INDEPENDENTS:
            continue
        for name in SCORES:
            if name in rows[0].similarity:
                scores = [_z(one, name, matched) for one in rows]
                found[f"z.{name}.{label}"] = _mean(scores, "z", _better(rows[0]))
    return found


def _z(one: Judged, name: str, matched: Sequence[Sequence[Mapping[str, float]]]) -> float:
    others = [scores[name] for scores in matched[one.claim]]
    return against(one.similarity[name], others).z


def _obfuscations(
    hidden: Sequence[Judged], matched: Sequence[Sequence[Mapping[str, float]]]
) -> dict[str, Metric]:
    """Return what every obfuscation leaves of the effect, and of the copy's use."""
    found: dict[str, Metric] = {}
    bare = {one.suspect: one.accuracy for one in hidden if one.hidden == "none"}
    for one in hidden:
        begin = f"obfuscation.{one.hidden}"
        found[f"{begin}.effect.{one.role}"] = _effect([one])
        found[f"{begin}.derived.{one.role}"] = Metric(
            float(one.ruling.derived), "verdict", _better(one)
        )
        if one.role == "thief":
            lost = bare[one.suspect] - one.accuracy
            found[f"{begin}.accuracy_lost"] = Metric(lost, "ratio", "higher")
            if "r2" in one.similarity and len(matched[0]) >= LEAST_INDEPENDENTS:
                found[f"{begin}.z_r2"] = Metric(_z(one, "r2", matched), "z", "higher")
    return found


def _labels(rows: Iterable[Judged]) -> dict[str, list[Judged]]:
    found: dict[str, list[Judged]] = {}
    for one in rows:
        found.setdefault(one.label, []).append(one)
    return found


def _mean(values: Sequence[float], unit: str, direction: Direction) -> Metric:
    """Return a mean, with the range of the values where there are several."""
    interval = (min(values), max(values)) if len(values) > 1 else None
    return Metric(float(np.mean(values)), unit, direction, interval)


_OTHER: Mapping[Direction, Direction] = {"lower": "higher", "higher": "lower"}


def _is_copy(one: Judged) -> bool:
    return one.suspect.role == "thief"


def _better(one: Judged) -> Direction:
    """Return which way a sign of the owner's data should go."""
    return "lower" if one.role == "independent" else "higher"
