"""What an objective is, and the checks and row arithmetic that they share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from tollkeeper.errors import ConfigurationError

Objective = Callable[..., Tensor]
"""Surrogate rows z (n, d) and victim rows h (n, d) to a scalar; `SupCon` takes labels as well."""


def matched(z: Tensor, h: Tensor, *, least: int = 1) -> tuple[Tensor, Tensor]:
    """Return both sides, the victim's without gradient and in the surrogate's precision.

    Args:
        z: (n, d) surrogate rows.
        h: (n, d) victim rows for the same inputs.
        least: rows that the objective needs.

    Raises:
        ConfigurationError: the shapes differ, or there are too few rows.
    """
    if z.ndim != 2 or z.shape != h.shape:
        raise ConfigurationError(
            "expected surrogate and victim rows of one shape (n, d), "
            f"got {tuple(z.shape)} and {tuple(h.shape)}; match batch and embedding width"
        )
    if len(z) < least:
        raise ConfigurationError(
            f"expected at least {least} rows to contrast with each other, got {len(z)}; "
            "use a larger batch"
        )
    return z, h.detach().to(z.dtype)


def matched_views(z: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split rows that are two stacked views into z1, z2, h1, h2, each (n, d).

    Args:
        z: (2 n, d) surrogate rows, first views before second views.
        h: (2 n, d) victim rows in the same order.

    Raises:
        ConfigurationError: the shapes differ, or there are not two views of at least two inputs.
    """
    z, h = matched(z, h, least=4)
    if len(z) % 2:
        raise ConfigurationError(
            f"expected two stacked views of each input, got an odd number of rows ({len(z)})"
        )
    return (*z.chunk(2), *h.chunk(2))


def unit(rows: Tensor) -> Tensor:
    """Scale each row of (n, d) to length 1; a zero row stays zero."""
    return F.normalize(rows, dim=1)


def cosines_without_self(rows: Tensor) -> Tensor:
    """Return the cosines of rows (n, d) with each other, (n, n), with -inf on the diagonal."""
    rows = unit(rows)
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    return (rows @ rows.T).masked_fill(itself, -torch.inf)


def require_positive(**values: float) -> None:
    """Raise a ConfigurationError that names the first of these values that is not above 0."""
    for name, value in values.items():
        if not value > 0:
            raise ConfigurationError(f"expected {name} above 0, got {value}")
