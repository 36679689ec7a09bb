"""A suspect's answers to texts, or the reason why they carry no test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.watermarks.served import unit
from tollkeeper.encoders.base import Encoder, checked
from tollkeeper.errors import AuditRefused, EncoderError

_BATCH = 256


def answers(
    suspect: Encoder, texts: Sequence[str], *, dim: int | None = None
) -> NDArray[np.float64]:
    """Ask about n texts.

    Args:
        suspect: any encoder of text.
        texts: n of them.
        dim: width that the test needs; None takes any.

    Returns:
        (n, d) float64 as answered, no row zero.

    Raises:
        AuditRefused: another width, no text, answers that are not finite, zero or all the same.
    """
    if "text" not in suspect.accepts:
        raise AuditRefused(
            f"expected a suspect that embeds text, {suspect.name!r} takes {sorted(suspect.accepts)}"
        )
    try:
        parts = [
            checked(suspect.embed(part), n=len(part), dim=dim)
            for part in (texts[at : at + _BATCH] for at in range(0, len(texts), _BATCH))
        ]
        rows = np.concatenate(parts)
    except (EncoderError, ValueError) as error:
        raise AuditRefused(f"the suspect's answers cannot be tested: {error}") from error
    if not np.linalg.norm(rows, axis=1).all():
        raise AuditRefused("the suspect answered with a row of zeros; expected directions")
    if np.ptp(rows, axis=0).max() == 0:
        raise AuditRefused("the suspect answers every text alike; nothing can be compared")
    return rows.astype(np.float64)


def unit_answers(
    suspect: Encoder, texts: Sequence[str], *, dim: int | None = None
) -> NDArray[np.float64]:
    """Return `answers` as unit vectors."""
    return unit(answers(suspect, texts, dim=dim))
