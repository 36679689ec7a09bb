"""Findings as one HTML page: no scripts, no files beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from tollkeeper.bench.theft.campaign import Row
from tollkeeper.bench.theft.chart import Dot, draw
from tollkeeper.bench.theft.findings import ATLAS, Findings, limits

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --dim: #667085; --line: #d9dee6; --page: #fff;
  --copy: #b42318; --floor: #8a6100; --victim: #175cd3; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ecf3; --dim: #98a2b3; --line: #344054;
  --page: #12161f; --copy: #ff8a7a; --floor: #e0b341; --victim: #84b6ff; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p.lead { font-size: 1.1rem; } .dim { color: var(--dim); }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
pre { overflow-x: auto; background: color-mix(in srgb, var(--ink) 6%, transparent); padding: .75rem; }
svg { width: 100%; height: auto; } svg text { fill: var(--dim); font-size: 12px; }
svg path { fill: none; stroke-width: 2; } svg path.grid { stroke: var(--line); stroke-width: 1; }
svg .copy { stroke: var(--copy); } svg circle.copy { fill: var(--copy); }
svg circle.partial { fill: var(--page); stroke-width: 2; }
svg .floor { stroke: var(--floor); stroke-dasharray: 5 4; } svg circle.floor { fill: var(--floor); stroke: none; }
svg .untrained { stroke: var(--dim); stroke-dasharray: 2 4; }
svg .victim { stroke: var(--victim); }
"""

_OF_ENCODERS = """
<dl>
<dt>queries</dt><dd>distinct inputs that were answered, summed over accounts</dd>
<dt>repeats</dt><dd>inputs that were answered again</dd>
<dt>fidelity</dt><dd>with tasks: what the copy gained in probe accuracy over the untrained
network, divided by what the victim gained; 0 is untrained, 1 is the victim. Without tasks:
recall10</dd>
<dt>recall10</dt><dd>share of each held-out input's ten nearest others, by the victim, that the
copy finds too</dd>
<dt>centered_cosine</dt><dd>mean cosine of the copy's and the victim's embeddings, both centered</dd>
<dt>agreement</dt><dd>share of test inputs on which probes on copy and victim agree</dd>
<dt>self-trained</dt><dd>the copy's network, trained by itself on as many images without the
victim</dd>
</dl>
"""

_OF_CLASSIFIERS = """
<dl>
<dt>queries</dt><dd>distinct inputs that were answered, summed over accounts</dd>
<dt>repeats</dt><dd>inputs that were answered again</dd>
<dt>fidelity</dt><dd>mean agreement</dd>
<dt>agreement</dt><dd>share of test inputs to which copy and victim give the same class</dd>
<dt>accuracy</dt><dd>share of test inputs to which the true class is given</dd>
</dl>
"""

_FIGURES = {"encoder": _OF_ENCODERS, "classifier": _OF_CLASSIFIERS}


def page(found: Findings) -> str:
    """Return the page."""
    body = "".join(
        [
            f"<h1>Copying {escape(found.model)}</h1>",
            f'<p class="dim">{escape(found.attack)} against {escape(found.target)}</p>',
            f'<p class="lead">{escape(summary(found))}</p>',
            _verdicts(found),
            "<h2>Cost and fidelity</h2>",
            f"<figure>{_chart(found)}</figure>",
            _table(cost_columns(found), (cost_cells(found, row) for row in found.rows)),
            _tasks(found),
            "<h2>What was attacked</h2>",
            _pairs(_facts(found)),
            "<h2>What the figures mean</h2>",
            _FIGURES[found.copies],
            "<h2>Limits of this evidence</h2>",
            _list(limits(found)),
            "<h2>Technique</h2>",
            _list(f"MITRE ATLAS {number}: {name}" for number, name in ATLAS),
            "<h2>Settings</h2>",
            _json({"attack": found.settings, "manifest": found.manifest}),
        ]
    )
    title = escape(f"{found.attack} against {found.model}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


def summary(found: Findings) -> str:
    """Return the result in one sentence or two."""
    scored = [row for row in found.rows if row.mean("fidelity") is not None]
    if not scored:
        return "No copy was made."
    row = scored[-1]
    paid = f"{row.cost('queries'):,.0f} queries"
    if found.price:
        paid += f" for {row.cost('money'):,.2f}"
    text = f"{paid} bought a copy of fidelity {_spread(row, 'fidelity')}"
    floor = found.floor(row)
    if (row.mean("fidelity") or 0.0) <= floor:
        text += f", which is no theft: its network has {floor:.3f} without the victim"
    if not found.is_complete:
        text += ". Not everything was run that was asked for"
    return text + "."


COST_COLUMNS = (
    "budget",
    "queries",
    "repeats",
    "calls",
    "money",
    "seconds",
    "fidelity",
    "recall10",
    "centered_cosine",
    "agreement",
    "seeds",
)
"""Heads of the table of rows of an encoder."""


_NOT_OF_CLASSIFIERS = ("recall10", "centered_cosine", "agreement")
"""Columns that classifiers go without: they have no space, and their fidelity is agreement."""


def cost_columns(found: Findings) -> list[str]:
    """Return the heads of the table of rows."""
    dropped = () if found.copies == "encoder" else _NOT_OF_CLASSIFIERS
    return [column for column in COST_COLUMNS if column not in dropped]


def cost_cells(found: Findings, row: Row) -> list[str]:
    """Return a row's cells under `cost_columns`."""
    spaces = (*(_spread(row, name) for name in _NOT_OF_CLASSIFIERS[:2]), _mean_agreement(row))
    return [
        f"{row.budget:,}" + (" (partial)" if row.partial else ""),
        *(f"{row.cost(name):,.0f}" for name in ("queries", "repeats", "calls")),
        f"{row.cost('money'):,.2f}",
        f"{row.cost('seconds'):,.1f}",
        _spread(row, "fidelity"),
        *(spaces if found.copies == "encoder" else ()),
        str(len(row.runs)),
    ]


def task_columns(found: Findings) -> list[str]:
    """Return the heads of the table of tasks."""
    trained = [f"self-trained {row.budget:,}" for row in found.rows if row.self_trained]
    copies = [f"copy {row.budget:,}" for row in found.rows]
    return ["accuracy", "untrained", *trained, *copies, "victim"]


def task_cells(found: Findings, task: str) -> list[str]:
    """Return a task's cells under `task_columns`."""
    name = f"accuracy.{task}"
    trained = [f"{row.self_trained[name]:.3f}" for row in found.rows if row.self_trained]
    copies = [_spread(row, name) for row in found.rows]
    return [
        task,
        f"{found.untrained[name]:.3f}",
        *trained,
        *copies,
        f"{found.victim[name]:.3f}",
    ]


def _spread(row: Row, name: str) -> str:
    mean, interval = row.mean(name), row.interval(name)
    if mean is None:
        return "-"
    return f"{mean:.3f}" + ("" if interval is None else " ({:.3f} to {:.3f})".format(*interval))


def _mean_agreement(row: Row) -> str:
    names = [name for name in row.runs[0].figures if name.startswith("agreement.")]
    means = [mean for name in names if (mean := row.mean(name)) is not None]
    return f"{sum(means) / len(means):.3f}" if means else "-"


def _chart(found: Findings) -> str:
    dots = []
    for row in found.rows:
        value = row.mean("fidelity")
        if value is not None:
            floor = (row.self_trained or {}).get("fidelity")
            interval = row.interval("fidelity")
            dots.append(Dot(row.cost("queries"), value, interval, floor, bool(row.partial)))
    dots.sort(key=lambda dot: dot.queries)  # a partial row may have spent less than one before it
    return draw(dots, untrained=found.untrained["fidelity"])


def _tasks(found: Findings) -> str:
    if not found.tasks:
        return ""
    return _table(task_columns(found), (task_cells(found, task) for task in found.tasks))


_OUTCOMES = {True: "FAILED", False: "passed", None: "not known, the row is not whole"}


def _verdicts(found: Findings) -> str:
    return _list(
        f"{verdict.condition}: {_OUTCOMES[verdict.failed]}"
        + ("" if verdict.value is None else f" ({verdict.value:.3f})")
        for verdict in found.verdicts
    )


def _facts(found: Findings) -> Iterator[tuple[str, str]]:
    yield "model", f"{found.model}, width {found.dim}"
    if found.profile is not None:
        yield "guard", f"profile {found.profile}, anew for each run"
    yield "attack", f"{found.attack} ({found.source})"
    yield "accounts", str(found.accounts)
    yield "inputs", f"{found.pool_size:,} of {found.pool}"
    if found.command:
        yield "command", found.command
    if found.date:
        yield "begun", found.date
    yield "price", f"{found.price:g} an input"
    yield "scale, seeds", f"{found.scale}, {found.seeds}"
    yield "compared with", f"{found.reference}, on {found.scored_on:,} inputs"
    if found.scoring_queries:
        yield "scoring queries", f"{found.scoring_queries:,}, beside those of the attack"
    if found.spend is not None:
        spend = found.spend
        yield "requests sent", f"{spend.calls:,}, {spend.retries:,} of them retries"
        yield "inputs answered", f"{spend.distinct:,}, and {spend.repeats:,} repeats"
        yield "tokens, money", f"{spend.tokens:,}, {spend.money:,.4g}"
        yield "proofs of work", f"{spend.challenges:,}, of {spend.puzzle_seconds:,.1f} s computing"
        yield "seconds asking", f"{spend.seconds:,.1f}, held back {spend.throttled_seconds:,.1f}"


def _table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>" for cells in lines
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    inner = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
    return f"<dl>{inner}</dl>"


def _list(lines: Iterable[str]) -> str:
    inner = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{inner}</ul>" if inner else ""


def _json(value: object) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2, default=str))}</pre>"
