"""Tollkeeper keeps machine-learning encoders from being copied through their own APIs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

__all__ = ["Calibration", "Guard", "__version__", "load_encoder", "open_ledger", "profiles"]

_HOMES = {
    "Calibration": "tollkeeper.guard.calibration:Calibration",
    "Guard": "tollkeeper.guard.guard:Guard",
    "load_encoder": "tollkeeper.encoders.load:load_encoder",
    "open_ledger": "tollkeeper.ledger.open:open_ledger",
    "profiles": "tollkeeper.guard.profiles:",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import tollkeeper` costs nothing."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'tollkeeper' has no attribute {name!r}")
    module, _, attribute = home.partition(":")
    imported = import_module(module)
    return getattr(imported, attribute) if attribute else imported
