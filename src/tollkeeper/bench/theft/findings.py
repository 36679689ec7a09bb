"""What a campaign found, with everything a reader needs to judge it; the result file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import msgspec

from tollkeeper.attacks.names import Copies
from tollkeeper.bench.theft.campaign import COSTS, Row, Run
from tollkeeper.bench.theft.curve import LEAST_SEEDS
from tollkeeper.bench.theft.tasks import STANDS_IN_FOR
from tollkeeper.bench.theft.verdicts import Condition, Verdict, judge
from tollkeeper.client import Spend

SCHEMA = 1
"""Version of the result file; readers ignore keys they do not know."""

_UNTESTED: Mapping[Copies, str] = {
    "encoder": "No task was scored: fidelity is recall10, the share of nearest neighbors that the "
    "copy keeps.",
    "classifier": "No task was scored: fidelity is agreement on inputs of the attacker's pool, "
    "which are not what honest users ask.",
}

ATLAS = (
    ("AML.T0024", "Exfiltration via AI Inference API"),
    ("AML.T0024.002", "Extract AI Model"),
    ("AML.T0040", "AI Model Inference API Access"),
)
"""Techniques of MITRE ATLAS that a campaign exercises."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Findings:
    """One campaign, finished or not.

    Attributes:
        attack: its name in the table.
        source: of the method.
        date: when the campaign began, as the caller writes it; empty if it was not told.
        command: as the user gave it; empty if there was none.
        settings: of the attack, as `tuning.described` gives them.
        target: SPEC or address of the victim; never a key.
        profile: guard before an encoder of this process; None for an open one.
        model: what the victim calls itself.
        dim: its embedding width.
        is_live: whether it was asked over HTTP.
        accounts: identities of the attacker.
        pool: name of the inputs.
        pool_size: inputs that could be asked.
        reference: SPEC of the encoder whose answers count as the victim's clean ones.
        is_clean: whether those answers came from elsewhere than a live target.
        scored_on: distinct inputs that copies are compared with the clean victim on.
        scoring_queries: how many of them the live target was asked for scoring alone.
        tasks: names of the tasks.
        scale: `cpu` or `gpu`.
        seeds: runs of each budget.
        budgets: that were to be run.
        price: of one input.
        victim: figures of the clean victim.
        untrained: figures of the untrained network.
        rows: one a budget, those that were run.
        spend: what the live target was sent in all, by earlier runs into the same folder too;
            None in this process.
        verdicts: of `--fail-on`.
        manifest: versions, hardware and checksums of data.
        copies: what was copied.
    """

    attack: str
    source: str
    date: str = ""
    command: str = ""
    settings: Mapping[str, Any]
    target: str
    profile: str | None
    model: str
    dim: int
    is_live: bool
    accounts: int
    pool: str
    pool_size: int
    reference: str
    is_clean: bool
    scored_on: int
    scoring_queries: int
    tasks: tuple[str, ...]
    scale: str
    seeds: int
    budgets: tuple[int, ...]
    price: float
    victim: Mapping[str, float]
    untrained: Mapping[str, float]
    rows: tuple[Row, ...] = ()
    spend: Spend | None = None
    verdicts: tuple[Verdict, ...] = ()
    manifest: Mapping[str, Any]
    copies: Copies = "encoder"

    @property
    def is_complete(self) -> bool:
        """Whether every budget was run with every seed, and none was cut short."""
        run = tuple(row.budget for row in self.rows)
        return run == self.budgets and all(map(self._is_whole, self.rows))

    def with_row(self, row: Row, spend: Spend | None) -> Findings:
        """Return these findings with news of one budget, and of what was sent by then."""
        others = tuple(one for one in self.rows if one.budget != row.budget)
        return replace(self, rows=(*others, row), spend=spend)

    def judged(self, conditions: Sequence[Condition]) -> Findings:
        """Return these findings with verdicts."""
        return replace(self, verdicts=tuple(self._judge(one) for one in conditions))

    def floor(self, row: Row) -> float:
        """Return the best fidelity at a row's budget that took no theft."""
        trained = (row.self_trained or {}).get("fidelity", -math.inf)
        return max(self.untrained["fidelity"], trained)

    def _judge(self, condition: Condition) -> Verdict:
        rows = [row for row in self.rows if row.budget == condition.budget]
        value = rows[0].mean(condition.metric) if rows else None
        whole = value is not None and self._is_whole(rows[0])
        return judge(condition, value, is_whole=whole)

    def _is_whole(self, row: Row) -> bool:
        return len(row.runs) == self.seeds and not row.partial

    def tree(self) -> dict[str, Any]:
        """Return the result file as JSON-ready values."""
        plain: dict[str, Any] = msgspec.to_builtins(
            {
                name: getattr(self, name)
                for name in self.__dataclass_fields__
                if name not in {"rows", "spend"}
            }
        )
        return {
            "schema": SCHEMA,
            **plain,
            "spend": None if self.spend is None else asdict(self.spend),
            "rows": [_row(row) for row in self.rows],
            "complete": self.is_complete,
            "limits": list(limits(self)),
            "atlas": [technique for technique, _ in ATLAS],
        }

    def to_json(self) -> bytes:
        """Return the result file's bytes, newline at the end."""
        return msgspec.json.format(msgspec.json.encode(self.tree()), indent=2) + b"\n"


def limits(found: Findings) -> list[str]:
    """Return what the evidence does not show, one sentence each."""
    known = ["One attack, one network and one pool: a better equipped thief can get more."]
    if found.scale == "cpu":
        known.append(
            "Scale cpu trains a small network for a few epochs; the published settings of the "
            "attack are those of scale gpu."
        )
    if not found.tasks:
        known.append(_UNTESTED[found.copies])
    if not found.is_clean:
        known.append(
            "Fidelity is agreement with the target's own answers, which a guard may have "
            "perturbed; give --reference to compare with the clean encoder."
        )
    if found.seeds < LEAST_SEEDS:
        known.append(f"Fewer than {LEAST_SEEDS} seeds: no interval is stated.")
    if found.is_live:
        known.append(
            "All seeds share the answers of the live target as far as they ask the same inputs, "
            "so intervals show the spread of training more than that of the choice of queries."
        )
    known.append("Floors are one draw each.")
    known += [
        f"With the inputs of {row.budget:,} queries the network could not be trained by itself."
        for row in found.rows
        if row.self_trained is not None and not row.self_trained
    ]
    known += [
        f"{name} stands in for {published}, which the papers use."
        for name, published in STANDS_IN_FOR.items()
        if name in {found.pool, *found.tasks}
    ]
    known += [
        f"The row of {row.budget:,} queries is partial: {row.partial}"
        for row in found.rows
        if row.partial
    ]
    return known


def _row(row: Row) -> dict[str, Any]:
    names = dict.fromkeys(name for run in row.runs for name in run.figures)
    figures = {name: {"mean": row.mean(name), "interval": row.interval(name)} for name in names}
    return {
        "budget": row.budget,
        **{name: row.cost(name) for name in COSTS},
        "figures": figures,
        "self_trained": row.self_trained,
        "partial": row.partial,
        "runs": [_run(run) for run in row.runs],
    }


def _run(run: Run) -> dict[str, Any]:
    return asdict(run)
