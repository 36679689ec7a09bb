"""Clients that pay, and live targets: asked politely, within caps, and written down."""

from tollkeeper.client.allowance import Allowance, Caps, Spend, Tariff
from tollkeeper.client.httpx2_transport import (
    AsyncPayingTransport,
    PayingTransport,
    paying_async_client,
    paying_client,
)
from tollkeeper.client.opening import open_classifier_target, open_target
from tollkeeper.client.pace import Pace
from tollkeeper.client.solver import Solver, Tally
from tollkeeper.client.target import ClassifierTarget, Target

__all__ = [
    "Allowance",
    "AsyncPayingTransport",
    "Caps",
    "ClassifierTarget",
    "Pace",
    "PayingTransport",
    "Solver",
    "Spend",
    "Tally",
    "Target",
    "Tariff",
    "open_classifier_target",
    "open_target",
    "paying_async_client",
    "paying_client",
]
