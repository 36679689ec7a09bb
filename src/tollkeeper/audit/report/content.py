"""What a report says, once for HTML and PDF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tollkeeper.audit.evidence.findings import Findings, Row
from tollkeeper.audit.two_sample import bayes_bound


@dataclass(frozen=True, slots=True)
class Table:
    """Cells under heads; `title` says what they are."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it, in this order: text, points, facts, tables, figure.

    Attributes:
        title: the heading.
        text: paragraphs.
        points: a list.
        facts: pairs of a name and a value.
        tables: with their heads.
        figure: whether the figure of effect sizes stands here.
        commands: lines for a shell.
    """

    title: str
    text: Sequence[str] = ()
    points: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()
    figure: bool = False
    commands: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report.

    Attributes:
        title: what it is about.
        verdict: the one word.
        conclusion: the same in a sentence or two.
        sections: the rest.
    """

    title: str
    verdict: str
    conclusion: str
    sections: Sequence[Section] = field(default_factory=tuple)


HYPOTHESES = {
    "data": (
        "Null hypothesis: the suspect carries no information about which members of an "
        "exchangeable pool the owner trained on. Rejecting it shows that the owner's data "
        "influenced the suspect, directly or through the owner's model. It does not by itself show "
        "that the model was queried."
    ),
    "key": (
        "Null hypothesis: the suspect does not respond to the secret that was planted in the "
        "owner's model. Rejecting it points at that model or at its outputs."
    ),
    "similarity": (
        "Null hypothesis: the suspect is no closer to the owner's model than encoders trained "
        "independently with the same data, size and recipe. This is the weakest of the three: it "
        "is only as good as those encoders."
    ),
}

_INFLUENCE = {
    "data": "the owner's private data influenced the suspect",
    "key": "the suspect responds to the owner's secret key",
    "similarity": "the suspect is closer to the owner's model than independent encoders are",
}


def document(found: Findings, *, seal: str) -> Document:
    """Return the report of an audit.

    Args:
        found: what was found.
        seal: the SHA-256 that stands for the whole bundle.
    """
    return Document(
        title=f"Ownership audit: {found.claim}",
        verdict=found.verdict,
        conclusion=conclusion(found),
        sections=(
            Section("What the conclusion rests on", points=found.reasons),
            Section("What was tested", text=(HYPOTHESES[found.null], _method(found))),
            _result(found),
            _controls(found),
            _errors(found),
            _asking(found),
            _committed(found, seal),
            Section("Limits of this evidence", points=limits(found)),
            _check(found),
        ),
    )


def conclusion(found: Findings) -> str:
    """Return the verdict in plain words."""
    suspect = found.asking.endpoint
    if found.verdict == "derived":
        return (
            f"Derived: at the committed error rate of {number(found.alpha)}, {_INFLUENCE[found.null]} "
            f"({suspect}). The corrected p-value is {number(found.corrected_p)}."
        )
    return (
        f"Inconclusive: this audit does not show that {_INFLUENCE[found.null]} ({suspect}). It does "
        "not show the contrary either: a copy may escape a test, and no audit can find a suspect "
        "innocent."
    )


def number(value: float) -> str:
    """Return a number as a reader wants it: three digits, small ones as powers of ten."""
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.1e}"
    return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def limits(found: Findings) -> list[str]:
    """Return what the reader must not take from the report."""
    said = [
        (
            '"Derived" names influence and not intent: a license, a common source or a shared '
            "checkpoint must be excluded by other means."
        ),
        "Times are those of the owner's own log unless an independent service stamped it.",
        (
            "The record of calls is signed by whoever asked. That the suspect answered so rests on "
            "that party; the arbiter can ask again."
        ),
    ]
    if not found.exact:
        said.append(
            "The items were not assigned by committed coins, so that the two halves are "
            "exchangeable is argued and not guaranteed."
        )
    if not found.committed.stamps:
        said.append("No independent service stamped the commitment.")
    if not found.asking.certificates:
        said.append("The suspect was not asked over TLS, so no certificate names its server.")
    references = found.of("reference")
    if references:
        said.append(
            f"{len(references)} encoders known to be independent went through the same test. None "
            f"accused would bound the rate of false accusations among such encoders only below "
            f"{100 * (1 - 0.05 ** (1 / len(references))):.0f}% (95% confidence); the error rate "
            "rests on the test's own null distribution."
        )
    return said


def _method(found: Findings) -> str:
    drawn = f"{found.opened:,} items were opened: {found.committed.drawn}."
    views = (
        f" Each was asked in {found.views} augmented views, the same for every encoder."
        if found.views > 1
        else ""
    )
    kind = (
        " The p-value is exact: fair coins, committed beforehand, decided which item of each pair "
        "was trained on, so under the null hypothesis the suspect cannot know them, whatever it was "
        "trained on."
        if found.exact
        else ""
    )
    return f"Method: {found.method}. {drawn}{views}{kind} A small p-value speaks for: {found.alternative}."


def _result(found: Findings) -> Section:
    row = found.suspect
    modes = [each for each in found.rows if each.role == "suspect"]
    return Section(
        "Result",
        facts=(
            ("verdict", found.verdict),
            ("p-value, one-sided", number(row.p_value)),
            (f"p-value corrected for {found.family} tests", number(found.corrected_p)),
            ("committed error rate", number(found.alpha)),
            ("effect size", _effect(row)),
            ("largest effect size of a reference", number(found.floor)),
            ("e-value", "none" if row.e_value is None else number(row.e_value)),
            (
                "odds can shift at most by",
                f"a factor of {number(bayes_bound(found.corrected_p))}",
            ),
        ),
        tables=(_table("The suspect in every mode", modes),) if len(modes) > 1 else (),
        figure=True,
    )


def _controls(found: Findings) -> Section:
    rows = [*found.of("control"), *found.of("reference")]
    text = (
        "The positive control is the owner's own model: a test that cannot tell it would be "
        "refused. References were trained by others or apart from the private data, and went "
        "through the same inputs, views and code as the suspect."
    )
    return Section(
        "Controls",
        text=(text,),
        points=found.guards,
        tables=(_table("Controls and references", rows),) if rows else (),
    )


def _errors(found: Findings) -> Section:
    asked = found.asking
    repeats = (
        f"{asked.repeated:,} inputs were asked twice; {asked.changed:,} answers changed, by at most "
        f"{100 * asked.deviation:.3g}% of their length."
        if asked.repeated
        else "No input was asked twice, so noise or evasion in the answers was not looked for."
    )
    return Section(
        "Error rates",
        points=(
            (
                f"If the suspect is independent, the chance that this audit says derived is at most "
                f"{number(found.alpha)}, over all {found.family} tests that were committed."
            ),
            (
                "The chance that a copy escapes is not bounded: it grows with noise, rounding and "
                "fewer queries by the copyist."
            ),
            repeats,
            *(f"Deviation from the plan: {each}" for each in found.deviations),
        ),
    )


def _asking(found: Findings) -> Section:
    asked = found.asking
    return Section(
        "How the suspect was asked",
        facts=(
            ("suspect", asked.endpoint),
            ("model, as it names itself", ", ".join(asked.models) or "unnamed"),
            ("server certificate (SHA-256)", ", ".join(asked.certificates) or "none: no TLS"),
            ("account", asked.account),
            ("first call, last call", f"{asked.first}, {asked.last}"),
            ("calls kept, failed", f"{asked.calls:,}, {asked.failed:,}"),
            ("distinct inputs answered", f"{asked.inputs:,}"),
            ("width of its embeddings", f"{asked.width:,}"),
        ),
    )


def _committed(found: Findings, seal: str) -> Section:
    fixed = found.committed
    hashes = [(f"hash of {name}", value) for name, value in sorted(fixed.hashes.items())]
    return Section(
        "What was fixed beforehand",
        facts=(
            ("committed", fixed.at),
            ("items committed, opened", f"{fixed.items:,}, {found.opened:,}"),
            ("root over the items", fixed.root),
            ("signed by", fixed.key),
            ("stamped by", ", ".join(fixed.stamps) or "nobody"),
            *hashes,
            ("hash of the whole bundle", seal),
            ("computed with", found.tool),
        ),
    )


def _check(found: Findings) -> Section:
    return Section(
        "How to check this report",
        text=(
            (
                "Get the bundle and the owner's public key by different ways, then run the first line. "
                "It checks every file, the log, the signatures, the opened items and the record of "
                "calls, and computes every figure above again."
            ),
        ),
        commands=(f"tollkeeper audit verify BUNDLE --key {found.committed.key}",),
    )


def _table(title: str, rows: Sequence[Row]) -> Table:
    return Table(
        title,
        ("encoder", "role", "mode", "statistic", "p-value", "effect size, 99% interval"),
        [
            (
                row.encoder,
                row.role,
                row.mode,
                number(row.statistic),
                number(row.p_value),
                _effect(row),
            )
            for row in rows
        ],
    )


def _effect(row: Row) -> str:
    return f"{number(row.effect_size)} ({number(row.low)} to {number(row.high)})"
