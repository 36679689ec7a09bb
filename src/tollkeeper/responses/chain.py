"""Several responses as one."""

from __future__ import annotations

from tollkeeper.responses.base import Perturbation
from tollkeeper.types import Images, Probabilities


class Chain:
    """Applies perturbations in their order, each to what the one before it let through.

    Attributes:
        name: their names, joined by `+`; `none` for a chain of none.
        links: in their order.
    """

    def __init__(self, *links: Perturbation) -> None:
        """Join perturbations; none of them leaves answers as they are."""
        self.links = links
        self.name = "+".join(link.name for link in links) or "none"

    def __call__(self, inputs: Images, outputs: Probabilities, *, key: bytes) -> Probabilities:
        """Return what leaves the last link."""
        for link in self.links:
            outputs = link(inputs, outputs, key=key)
        return outputs
