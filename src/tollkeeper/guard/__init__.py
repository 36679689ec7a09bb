"""The guard core: what one request costs and what may leave, as pure functions."""

from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.guard.profiles import Profile

__all__ = ["Calibration", "Guard", "Profile"]
