"""Objectives: what a surrogate minimizes against a victim's answers.

Exported are those of direct extraction. Objectives that belong to one attack are in their own
files: `barlow_cross`, `rda`, `stolen_encoder`.
All are called with surrogate rows z (n, d) and victim rows h (n, d); victim rows never carry a
gradient. Objectives with `views = 2` take two stacked views of each input.

Source of the nine: Dziedzic et al., "On the Difficulty of Defending Self-Supervised Learning
against Model Extraction", ICML 2022, except cosine. Their code has a tenth, soft cross-entropy;
its target is the softmax of the surrogate's own features, the victim is never used, and so it is
left out on purpose.
"""

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

__all__ = [
    "BCE",
    "MSE",
    "Barlow",
    "Cosine",
    "InfoNCE",
    "Objective",
    "SoftNN",
    "SupCon",
    "Symmetrized",
    "Wasserstein",
]
