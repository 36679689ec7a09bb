"""Fakes and contract checks for your own tests of encoders, guards and ledgers."""

from tollkeeper.testing.checks import check_coverage_laws, check_encoder, check_ledger
from tollkeeper.testing.clock import FakeClock
from tollkeeper.testing.encoders import HashEncoder, hash_encoder

__all__ = [
    "FakeClock",
    "HashEncoder",
    "check_coverage_laws",
    "check_encoder",
    "check_ledger",
    "hash_encoder",
]
