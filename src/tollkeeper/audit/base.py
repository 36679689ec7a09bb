"""What an ownership test gives: a number with its null distribution, never a verdict by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.base import Encoder

Null = Literal["data", "key", "similarity"]
"""Which hypothesis is tested.

- data: the suspect carries no information about which members of an exchangeable pool were trained
  on. Rejecting it shows use of the data, directly or through the victim.
- key: the suspect does not respond to a secret planted in the victim. Rejecting it points at the
  victim or its outputs.
- similarity: the suspect is no closer to the victim than independents of the same data, size and
  recipe.
"""

Verdict = Literal["derived", "inconclusive"]
"""What a report may say. There is no "innocent"."""


@dataclass(frozen=True, slots=True, eq=False)
class OwnershipResult:
    """What a test found about one suspect.

    Attributes:
        test: name of the test.
        null: the hypothesis.
        statistic: larger is more like a copy.
        p_value: in (0, 1], one-sided; valid under the null as the test's docstring says.
        effect_size: in the test's own unit, comparable across sample sizes.
        interval: 99% of the effect size.
        null_distribution: (b,) the statistic under the null, empty where it is a formula.
        alternative: what a small p-value speaks for.
        e_value: evidence that may be multiplied and stopped at will; None where there is none.
        details: further numbers for a report, by name.
    """

    test: str
    null: Null
    statistic: float
    p_value: float
    effect_size: float
    interval: tuple[float, float]
    null_distribution: NDArray[np.float64]
    alternative: str
    e_value: float | None = None
    details: Mapping[str, float] = field(default_factory=dict)


Evidence_contra = TypeVar("Evidence_contra", contravariant=True)


class OwnershipTest(Protocol[Evidence_contra]):
    """A test of one suspect against evidence that its owner holds."""

    @property
    def name(self) -> str:
        """Return the name of the test."""
        ...

    def run(
        self, suspect: Encoder, evidence: Evidence_contra, *, rng: np.random.Generator
    ) -> OwnershipResult:
        """Ask the suspect and test.

        Raises:
            AuditRefused: the evidence cannot carry the test; nothing is said about guilt.
        """
        ...
