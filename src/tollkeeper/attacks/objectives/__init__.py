"""Objectives: what a surrogate minimizes against a victim's answers.

Exported are those that direct extraction chooses from by name. Objectives that belong to one
paper's attack are in their own files: `barlow_cross`, `cont_steal`, `rda`, `stolen_encoder`.
All are called with surrogate rows z (n, d) and victim rows h (n, d); victim rows never carry a
gradient. Objectives with `views = 2` take two stacked views of each input.

Source of the nine: Dziedzic et al., "On the Difficulty of Defending Self-Supervised Learning
against Model Extraction", ICML 2022, except cosine. Their code has a tenth, soft cross-entropy;
its target is the softmax of the surrogate's own features, the victim is never used, and so it is
left out on purpose.
"""

from collections.abc import Callable, Mapping
from typing import Final

from tollkeeper.attacks.objectives.barlow import Barlow
from tollkeeper.attacks.objectives.base import Objective
from tollkeeper.attacks.objectives.bce import BCE
from tollkeeper.attacks.objectives.cosine import Cosine
from tollkeeper.attacks.objectives.infonce import InfoNCE
from tollkeeper.attacks.objectives.mse import MSE
from tollkeeper.attacks.objectives.softnn import SoftNN
from tollkeeper.attacks.objectives.supcon import SupCon
from tollkeeper.attacks.objectives.symmetrized import Symmetrized
from tollkeeper.attacks.objectives.wasserstein import Wasserstein

OBJECTIVES: Final[Mapping[str, Callable[[int], Objective]]] = {
    "mse": lambda _: MSE(),
    "infonce": lambda _: InfoNCE(),
    "softnn": lambda _: SoftNN(),
    "supcon": lambda _: SupCon(),
    "wasserstein": lambda _: Wasserstein(),
    "barlow": lambda _: Barlow(),
    "symmetrized": Symmetrized,
    "bce": lambda _: BCE(),
    "cosine": lambda _: Cosine(),
}
"""Makes the objective of a name for an embedding width d, with its published parameters."""

__all__ = [
    "BCE",
    "MSE",
    "OBJECTIVES",
    "Barlow",
    "Cosine",
    "InfoNCE",
    "Objective",
    "SoftNN",
    "SupCon",
    "Symmetrized",
    "Wasserstein",
]
