"""Everything a bundle says, computed again from the bundle alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tollkeeper import __version__
from tollkeeper.audit import gates
from tollkeeper.audit.base import Null, Verdict
from tollkeeper.audit.blind import blind_test, check_blind
from tollkeeper.audit.evidence import commitment, log
from tollkeeper.audit.evidence.analysis import Subject, analyze, deciding, floor
from tollkeeper.audit.evidence.asking import Answers, mark, read_answers, summary
from tollkeeper.audit.evidence.bundle import (
    CALL_FILES,
    CALLS,
    COMMITMENT,
    ENCODERS,
    LOG,
    RESULT,
    check_manifest,
    read_array,
    read_json,
)
from tollkeeper.audit.evidence.canonical import digest, to_bytes
from tollkeeper.audit.evidence.case import package_digest
from tollkeeper.audit.evidence.commitment import Commitment
from tollkeeper.audit.evidence.custody import Call
from tollkeeper.audit.evidence.findings import Asking, Committed, Findings, Row
from tollkeeper.audit.evidence.log import Entry
from tollkeeper.audit.evidence.opened import Opened
from tollkeeper.errors import EvidenceError

TOOL = f"tollkeeper {__version__}"
NULL: Null = "data"
ALTERNATIVE = "the owner's data influenced this encoder, directly or through the owner's model"

_METHODS = {
    "inclusion": "randomized inclusion: consistency of views, within pairs that coins divided",
    "dataset-inference": "dataset inference: consistency of views, trained against held pictures",
}
_SAME_P, _SAME = 1e-2, 1e-5
"""Relative differences that other processors and libraries may make: of p-values, which count
relabelings, and of everything else."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A bundle that holds.

    Attributes:
        found: what it says, computed again.
        seal: hash of the last line of its log, which stands for every byte of it.
        key: public key that signed it; only its owner can say whether it is theirs.
    """

    found: Findings
    seal: str
    key: str


def verify(folder: Path, *, key: str | None = None) -> Verified:
    """Check a bundle: files, log, signatures, openings, calls, statistics and verdict.

    Args:
        folder: of the bundle.
        key: public key that must have signed it; without it the bundle's own word is taken.

    Raises:
        EvidenceError: names what does not hold.
        AuditRefused: the evidence cannot carry the test.
    """
    entries = log.read(folder / LOG, key=key)
    last = entries[-1] if entries else None
    if last is None or last.kind != "finished":
        raise EvidenceError("the log does not end with a finished run")
    check_manifest(folder, str(last.body.get("manifest")))
    found = assemble(folder, entries, run=last.body.get("run"))
    _compare(read_json(folder, RESULT), found.to_json(), "result")
    return Verified(found, last.hash, commitment.read(folder / COMMITMENT).owner)


def assemble(folder: Path, entries: Sequence[Entry], *, run: object) -> Findings:
    """Compute what a bundle shows.

    Args:
        folder: of the bundle; neither its manifest nor its result is read.
        entries: of the owner's log.
        run: number of this run.

    Raises:
        EvidenceError: something does not fit the commitment or the log.
        AuditRefused: the evidence cannot carry the test.
    """
    fixed = commitment.read(folder / COMMITMENT)
    began = _check_log(entries, fixed, run)
    opened = Opened.read(folder, fixed)
    calls = read_calls(folder, began, owner=fixed.owner)
    answers = read_answers(folder / CALL_FILES, calls)
    decision = fixed.decision
    if opened.beacon != began.body["beacon"]:
        raise EvidenceError("another beacon was used than the log says")
    inputs = opened.inputs(decision["views"])
    asking = summary(calls, answers)
    guards = _check_pictures(opened, decision, opened.generator("analysis", 0))
    subjects = [
        _subject("suspect", "suspect", _rows(inputs, answers), opened, decision["views"]),
        *_others(folder, fixed, opened),
    ]
    rows = analyze(
        subjects,
        opened.coins,
        decision,
        alpha=fixed.alpha,
        rng=opened.generator("analysis", began.body["run"]),
    )
    return _judged(fixed, opened, entries, rows, asking=asking, guards=guards)


def read_calls(folder: Path, began: Entry, *, owner: str) -> list[Call]:
    """Return the calls of a run.

    Raises:
        EvidenceError: the log of calls was changed, or is of another run.
    """
    entries = log.read(folder / CALLS, key=owner)
    return calls_of(entries, began)


def calls_of(entries: Sequence[Entry], began: Entry) -> list[Call]:
    """Return the calls that lines of a log hold.

    Raises:
        EvidenceError: they are of another run, or malformed.
    """
    if not entries or entries[0].kind != "run" or entries[0].body.get("line") != began.hash:
        raise EvidenceError("the log of calls belongs to another run")
    try:
        return [msgspec.convert(each.body, Call) for each in entries if each.kind == "call"]
    except msgspec.ValidationError as error:
        raise EvidenceError(f"a line of the log of calls is no call: {error}") from error


def _check_log(entries: Sequence[Entry], fixed: Commitment, run: object) -> Entry:
    """Check that the commitment came first and no run too many; return the line of this run."""
    if entries[0].kind != "commitment" or entries[0].body.get("digest") != fixed.digest:
        raise EvidenceError("the log does not begin with this commitment")
    runs = [each for each in entries if each.kind == "run"]
    looks = fixed.decision["looks"]
    if len(runs) > looks or [each.body.get("run") for each in runs] != [*range(1, len(runs) + 1)]:
        raise EvidenceError(
            f"the log has {len(runs)} runs, of {looks} that were committed, or they are not "
            "numbered one by one"
        )
    found = [each for each in runs if each.body["run"] == run]
    if not found:
        raise EvidenceError(f"the log does not tell of the beginning of run {run}")
    return found[0]


def _check_pictures(
    opened: Opened, decision: Mapping[str, Any], rng: np.random.Generator
) -> tuple[str, ...]:
    """Check what is scored, before any answer is looked at; say what was checked."""
    trained = np.column_stack([opened.coins, ~opened.coins]).ravel()
    one, other = opened.items[trained], opened.items[~trained]
    for side, name in ((one, "trained"), (other, "held")):
        gates.check_distinct(side, name)
        gates.check_disjoint(side, opened.public, names=(name, "public"))
    gates.check_disjoint(one, other)
    gates.check_preprocessing(one, other)
    passed = (
        "No picture is there twice, on both sides or among the public ones.",
        "No answer is missing, zero, infinite or of another width.",
        "The positive control is told from chance, and no reference is.",
    )
    if decision["test"] == "inclusion":
        return passed
    blind = blind_test(one, other, rng=rng)
    check_blind(blind)
    low, high = blind.interval
    return (
        *passed,
        (
            f"A classifier that sees the pictures alone cannot tell the sides apart: AUC "
            f"{blind.auc:.3f} (95%: {low:.3f} to {high:.3f})."
        ),
    )


def _rows(inputs: Sequence[NDArray[np.uint8]], answers: Answers) -> NDArray[np.float32]:
    """Return (n, d) first answers in the order of the inputs."""
    rows = [answers.first.get(mark(item)) for item in inputs]
    missing = sum(row is None for row in rows)
    if missing:
        raise EvidenceError(
            f"{missing} of {len(inputs)} inputs were never answered; finish `audit run`"
        )
    widths = sorted({len(row) for row in rows if row is not None})
    if len(widths) > 1:
        raise EvidenceError(f"the suspect's width changed while it was asked: {widths}")
    return np.stack([row for row in rows if row is not None])


def _subject(
    name: str, role: Any, rows: NDArray[np.float32], opened: Opened, views: int
) -> Subject:
    """Divide the rows of one encoder into views of items and public pictures."""
    scored = views * len(opened.items)
    if rows.ndim != 2 or len(rows) != scored + len(opened.public):
        raise EvidenceError(
            f"{name}: expected {scored + len(opened.public)} embeddings, got {rows.shape}"
        )
    return Subject(name, role, rows[:scored].reshape(len(opened.items), views, -1), rows[scored:])


def _others(folder: Path, fixed: Commitment, opened: Opened) -> list[Subject]:
    """Return control and references, which must be the committed ones."""
    told = read_json(folder, ENCODERS)
    hashes = [each["hash"] for each in told if each["role"] == "reference"]
    for each in told:
        if each["role"] == "control":
            fixed.match("weights", each["hash"])
    fixed.match("references", digest(to_bytes(sorted(hashes))))
    views = fixed.decision["views"]
    return [
        _subject(each["name"], each["role"], read_array(folder, each["file"]), opened, views)
        for each in told
    ]


def _judged(
    fixed: Commitment,
    opened: Opened,
    entries: Sequence[Entry],
    rows: tuple[Row, ...],
    *,
    asking: Asking,
    guards: tuple[str, ...],
) -> Findings:
    decision = fixed.decision
    family = len(decision["modes"]) * decision["looks"]
    row, p_value = deciding(rows, family)
    least = floor(rows, row.mode)
    verdict, reasons = _verdict(row, p_value, least, fixed.alpha, family)
    return Findings(
        claim=fixed.claim,
        method=_METHODS[decision["test"]],
        null=NULL,
        alternative=ALTERNATIVE,
        exact=decision["test"] == "inclusion",
        alpha=fixed.alpha,
        family=family,
        opened=len(opened.items),
        views=decision["views"],
        rows=rows,
        mode=row.mode,
        corrected_p=p_value,
        floor=least,
        asking=asking,
        committed=_committed(fixed, opened, entries),
        guards=guards,
        deviations=_deviations(fixed, asking, entries),
        reasons=reasons,
        verdict=verdict,
        tool=TOOL,
    )


def _verdict(
    row: Row, p_value: float, least: float, alpha: float, family: int
) -> tuple[Verdict, tuple[str, ...]]:
    """Return the verdict of the committed rule, and its two reasons."""
    small, large = p_value <= alpha, row.low > least
    words = {True: "at most", False: "above"}
    reasons = (
        (
            f"The p-value, corrected for {family} tests, is {p_value:.3g}: {words[small]} the "
            f"committed {alpha:g}."
        ),
        (
            f"The effect size is {row.effect_size:.3g}, its 99% interval begins at {row.low:.3g}: "
            f"{'above' if large else 'not above'} {least:.3g}, the largest of any reference."
        ),
    )
    return ("derived" if small and large else "inconclusive"), reasons


def _committed(fixed: Commitment, opened: Opened, entries: Sequence[Entry]) -> Committed:
    drawn = "drawn by a seed that was sealed in the commitment"
    if opened.beacon:
        drawn += f" and by the later value {opened.beacon!r}"
    return Committed(
        at=entries[0].at,
        root=fixed.roots["items"],
        key=fixed.owner,
        stamps=(),
        items=fixed.decision["items"],
        hashes=dict(fixed.hashes),
        drawn=drawn,
    )


def _deviations(fixed: Commitment, asking: Asking, entries: Sequence[Entry]) -> tuple[str, ...]:
    """Return what was done otherwise than a careful plan has it."""
    found = []
    if asking.first < entries[0].at:
        found.append("the suspect was asked before the commitment was logged")
    if package_digest() != fixed.hashes["code"]:
        found.append("this was computed with other code of the audit than was committed")
    if len(asking.models) > 1:
        found.append(f"the suspect called itself {' and '.join(asking.models)}")
    return tuple(found)


def _compare(stored: Any, computed: Any, name: str) -> None:
    """Check a stored result against the one computed again.

    Raises:
        EvidenceError: names the first value that differs.
    """
    if isinstance(computed, dict) and isinstance(stored, dict) and set(stored) == set(computed):
        for key in computed:
            _compare(stored[key], computed[key], f"{name}.{key}")
    elif isinstance(computed, list) and isinstance(stored, list) and len(stored) == len(computed):
        for place, (one, two) in enumerate(zip(stored, computed, strict=True)):
            _compare(one, two, f"{name}[{place}]")
    elif not _same(stored, computed, name):
        raise EvidenceError(f"{name} is stated as {stored!r}, computed again it is {computed!r}")


def _same(stored: Any, computed: Any, name: str) -> bool:
    if type(stored) in {int, float} and isinstance(computed, float):
        near = _SAME_P if name.endswith(("p_value", "corrected_p")) else _SAME
        return math.isclose(stored, computed, rel_tol=near, abs_tol=near * 1e-3)
    # Words that hold figures or name the code differ in other versions; the figures are compared.
    free = name.startswith(("result.reasons", "result.guards", "result.deviations", "result.tool"))
    return free or bool(stored == computed)
