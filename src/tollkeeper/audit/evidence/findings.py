"""What an audit found, as the bundle keeps it and the report tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from tollkeeper.audit.base import Null, Verdict
from tollkeeper.errors import EvidenceError

SCHEMA = 1

Role = Literal["suspect", "control", "reference"]
"""Who was tested: the one under audit, the victim itself, or an encoder known to be innocent."""


@dataclass(frozen=True, slots=True)
class Row:
    """One test of one encoder.

    Attributes:
        encoder: its name in this audit.
        role: why it was tested.
        mode: which statistic.
        statistic: larger is more like a copy.
        p_value: one-sided, uncorrected.
        effect_size: in the test's own unit.
        low: lower end of the effect size's 99% interval.
        high: upper end.
        e_value: evidence that may be stopped at will; None where there is none.
    """

    encoder: str
    role: Role
    mode: str
    statistic: float
    p_value: float
    effect_size: float
    low: float
    high: float
    e_value: float | None = None


@dataclass(frozen=True, slots=True)
class Asking:
    """How the suspect was asked, from the record of calls.

    Attributes:
        endpoint: address or SPEC.
        models: names that it gave itself.
        certificates: SHA-256 of the server certificates seen.
        account: the operator's name for the identity that asked.
        first: UTC of the first call.
        last: UTC of the last call.
        calls: exchanges kept, failed ones too.
        failed: of those.
        inputs: distinct inputs that were answered.
        width: of the suspect's embeddings.
        repeated: inputs that were asked twice.
        changed: of those, how many were answered differently.
        deviation: largest change of a repeated answer, as a share of its length.
    """

    endpoint: str
    models: tuple[str, ...]
    certificates: tuple[str, ...]
    account: str
    first: str
    last: str
    calls: int
    failed: int
    inputs: int
    width: int
    repeated: int
    changed: int
    deviation: float


@dataclass(frozen=True, slots=True)
class Committed:
    """What was fixed before the suspect was asked.

    Attributes:
        at: UTC when the log says it was.
        root: of the tree over the private items.
        key: public key that signed it.
        stamps: independent services that dated it, by name and time.
        items: leaves of the tree.
        hashes: SHA-256 by name, of weights, code and whatever else the owner named.
        drawn: how the opened items were chosen.
    """

    at: str
    root: str
    key: str
    stamps: tuple[str, ...]
    items: int
    hashes: dict[str, str]
    drawn: str


@dataclass(frozen=True, slots=True)
class Findings:
    """One audit of one suspect.

    Attributes:
        claim: the owner's name for the case.
        method: how it was tested.
        null: which hypothesis.
        alternative: what a small p-value speaks for.
        exact: whether the p-value is exact whatever the suspect was trained on.
        alpha: error rate that was committed.
        family: tests among which `corrected_p` was corrected.
        opened: items shown and scored.
        views: asked of each item.
        rows: every encoder in every mode; the primary mode first.
        mode: the one in which the suspect's p-value is least, by which the verdict is found.
        corrected_p: that p-value times the size of the family, 1 at most.
        floor: largest effect size of a reference, which the suspect's interval must exceed.
        asking: the record of calls.
        committed: the record of commitments.
        guards: checks that were passed, in words.
        deviations: from the plan, in words.
        reasons: what the verdict rests on, in words.
        verdict: "derived" or "inconclusive".
        tool: program and version that computed this.
        schema: of this record.
    """

    claim: str
    method: str
    null: Null
    alternative: str
    exact: bool
    alpha: float
    family: int
    opened: int
    views: int
    rows: tuple[Row, ...]
    mode: str
    corrected_p: float
    floor: float
    asking: Asking
    committed: Committed
    guards: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    verdict: Verdict = "inconclusive"
    tool: str = ""
    schema: int = field(default=SCHEMA)

    @property
    def suspect(self) -> Row:
        """The row that decides."""
        return self.of("suspect")[0]

    def of(self, role: Role) -> Sequence[Row]:
        """Return the rows of a role in the mode that decides."""
        return [row for row in self.rows if row.role == role and row.mode == self.mode]

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON knows it."""
        found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return found

    @classmethod
    def from_json(cls, value: object) -> Findings:
        """Return the record that `to_json` wrote.

        Raises:
            EvidenceError: it is malformed, or of another version.
        """
        try:
            found = msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            raise EvidenceError(f"the result cannot be read: {error}") from error
        if found.schema != SCHEMA or not found.of("suspect"):
            raise EvidenceError(f"expected a result of schema {SCHEMA} with a suspect")
        return found
