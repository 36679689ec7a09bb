"""Live targets: services of others, asked politely, within caps, and written down."""

from tollkeeper.client.allowance import Allowance, Caps, Spend, Tariff
from tollkeeper.client.opening import open_target
from tollkeeper.client.pace import Pace
from tollkeeper.client.target import Target

__all__ = ["Allowance", "Caps", "Pace", "Spend", "Target", "Tariff", "open_target"]
