"""Arrays as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def tensor(rows: NDArray[Any], where: torch.device) -> Tensor:
    """Return an array as a tensor of a device; integers become int64, as labels must be."""
    wanted = np.int64 if np.issubdtype(rows.dtype, np.integer) else np.float32
    # A copy: torch warns of arrays that cannot be written to.
    return torch.from_numpy(np.array(rows, wanted)).to(where)
