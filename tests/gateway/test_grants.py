"""Grants: only what this deployment signed for this tenant counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.errors import ConfigurationError
from tollkeeper.gateway.grants import Grant, Grants

GRANTS = Grants(bytes(range(32)))
GRANT = Grant("id", "acme", 100, 10.0, 20.0, "re-index")


def test_a_grant_is_read_back() -> None:
    """What was signed for a tenant is read as it was."""
    assert GRANTS.read(GRANTS.sign(GRANT), tenant="acme") == GRANT


def test_another_tenant_or_deployment_has_no_use_for_it() -> None:
    """A grant moved to another tenant, or signed with another key, is none."""
    text = GRANTS.sign(GRANT)
    assert GRANTS.read(text, tenant="other") is None
    assert Grants(bytes(32)).read(text, tenant="acme") is None
    assert GRANTS.read("", tenant="acme") is None


@given(st.text())
def test_garbage_is_no_grant(text: str) -> None:
    """Whatever stands in the ledger, nothing but a signature makes a grant, and nothing raises."""
    assert GRANTS.read(text, tenant="acme") is None


def test_every_character_counts() -> None:
    """A grant with one character changed is none."""
    text = GRANTS.sign(GRANT)
    for place in range(len(text)):
        other = "A" if text[place] != "A" else "B"
        assert GRANTS.read(text[:place] + other + text[place + 1 :], tenant="acme") is None


@pytest.mark.parametrize(
    "fields", [{"inputs": 0}, {"until": 10.0}, {"until": float("inf")}, {"until": float("nan")}]
)
def test_grants_of_nothing_are_not_signed(fields: dict[str, Any]) -> None:
    """A grant needs inputs and an end after its beginning."""
    values = {"id": "x", "tenant": "a", "inputs": 1, "since": 10.0, "until": 11.0, **fields}
    with pytest.raises(ConfigurationError):
        GRANTS.sign(Grant(**values))
