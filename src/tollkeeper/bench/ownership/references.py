"""What owners know before a suspect is asked: their references, their victim, and the split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tollkeeper.audit.consistency import MODES
from tollkeeper.audit.dataset_inference import SplitEvidence
from tollkeeper.bench.ownership.measuring import Asked, Told


def evidence(
    asked: Asked, references: Sequence[Told], victims: Sequence[Told]
) -> tuple[SplitEvidence, ...]:
    """Return the evidence of each claim.

    Args:
        asked: the splits.
        references: what encoders trained on neither side told; the same ones for all claims.
        victims: what each claim's victim told.
    """
    return tuple(
        SplitEvidence(
            split,
            {mode: np.stack([told.scores[claim][mode] for told in references]) for mode in MODES},
            victims[claim].scores[claim],
        )
        for claim, split in enumerate(asked.splits)
    )
