"""What a perturbing response is: it gives each answer another distribution over the classes."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from tollkeeper.types import Images, Probabilities


@runtime_checkable
class Perturbation(Protocol):
    """Changes answers; equal queries of one key always get equal answers."""

    @property
    def name(self) -> str:
        """As experiments and records call it."""
        ...

    def __call__(self, inputs: Images, outputs: Probabilities, *, key: bytes) -> Probabilities:
        """Return what leaves.

        Args:
            inputs: (n, c, h, w) float32 in [0, 1], canonical.
            outputs: (n, k) float32, the victim's.
            key: secret of the operator, for what must look random and be the same again. One for
                all accounts: with a key each, several of them would draw several times.

        Returns:
            (n, k) float32 probabilities.
        """
        ...
