"""The admin plane: its own port, its own credential, and what an operator does there."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tollkeeper.encoders.callable_encoder import CallableEncoder
from tollkeeper.testing.encoders import hash_encoder


@pytest.fixture
def live(start_gateway: Any) -> Any:
    """A gateway in front of a toy encoder."""
    return start_gateway(CallableEncoder(hash_encoder(8).embed, dim=8, name="toy"))


PATHS = ["/", "/metrics", "/openapi.json", "/tenants", "/tenants/default", "/keys", "/records"]


@pytest.mark.parametrize("path", PATHS)
def test_every_route_needs_the_token(live: Any, path: str) -> None:
    """Without the admin token, or with an API key in its place, each route is a 401."""
    assert httpx2.get(live.admin_url + path).status_code == 401
    with_key = {"Authorization": f"Bearer {live.key}"}
    assert httpx2.get(live.admin_url + path, headers=with_key).status_code == 401
    assert live.admin("GET", path).status_code == 200


def test_key_life(live: Any) -> None:
    """A key made here works on the data plane at once and dies within a second of its revocation."""
    import time

    made = live.admin("POST", "/keys", json={"tenant": "acme"})
    assert made.status_code == 201
    key = made.json()
    assert set(key) == {"key", "id", "tenant"}
    assert live.embed("a", key=key["key"]).shape == (1, 8)
    listed = live.admin("GET", "/keys").json()
    assert key["id"] in {row["id"] for row in listed}
    assert all("digest" not in row for row in listed)
    assert key["key"] not in live.admin("GET", "/keys").text
    assert live.admin("DELETE", f"/keys/{key['id']}").status_code == 200
    deadline = time.monotonic() + 1.0
    while live.post({"model": "toy", "input": "a"}, key=key["key"]).status_code == 200:
        assert time.monotonic() < deadline, "the revoked key still works after a second"


def test_tenants_and_records(live: Any) -> None:
    """The operator sees spend, coverage and records; the newest record comes first."""
    live.embed(["a", "b"])
    live.embed("c")
    tenant = live.admin("GET", "/tenants/default").json()
    assert tenant["spent"] == tenant["queries"] == 3
    assert 0 < tenant["coverage"] < 1
    records = live.admin("GET", "/records", params={"tenant": "default", "limit": 5}).json()
    assert [row["inputs"] for row in records] == [1, 2]
    assert live.admin("GET", "/records", params={"tenant": "nobody"}).json() == []


def test_linking_over_http(live: Any) -> None:
    """Tenants are linked, parted and pardoned here too; pairs that asked the same are listed."""
    keys = {name: live.admin("POST", "/keys", json={"tenant": name}).json()["key"] for name in "ab"}
    for key in keys.values():
        live.embed([f"text {i}" for i in range(40)], key=key)
    (pair,) = live.admin("GET", "/overlaps").json()
    assert (pair["first"], pair["second"], pair["shared"]) == ("a", "b", 1.0)
    assert live.admin("POST", "/tenants/a/link", json={"with": "b"}).status_code == 200
    assert live.admin("GET", "/tenants/b").json()["pool"] == "a/1"
    assert live.admin("POST", "/tenants/b/unlink").status_code == 200
    tenant = live.admin("GET", "/tenants/b").json()
    assert tenant["pool"] == "b"
    assert tenant["coverage"] == tenant["alone"] > 0
    assert live.admin("POST", "/tenants/b/pardon").status_code == 200
    assert live.admin("GET", "/tenants/b").json()["coverage"] == 0
    assert live.admin("GET", "/overlaps?above=1.1").json() == []


def test_an_allowance_is_listed(live: Any) -> None:
    """Tenants are shown with the allowance that they have, one by one and all together."""
    allowed = {"inputs": 500, "days": 2, "note": "a job"}
    assert live.admin("POST", "/tenants/default/allow", json=allowed).status_code == 200
    tenant = live.admin("GET", "/tenants/default").json()
    assert (tenant["grant"]["inputs"], tenant["grant"]["note"]) == (500, "a job")
    assert tenant in live.admin("GET", "/tenants").json()
    assert live.admin("POST", "/tenants/default/disallow").status_code == 200
    assert live.admin("GET", "/tenants/default").json()["grant"] is None


def test_a_budget_is_given_and_taken_away(live: Any) -> None:
    """A number sets it, null takes it away, as `--inputs inf` does."""
    for inputs, budget in ((5, 5.0), (None, None)):
        sent = {"inputs": inputs}
        assert live.admin("POST", "/tenants/default/grant", json=sent).status_code == 200
        assert live.admin("GET", "/tenants/default").json()["budget"] == budget


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/tenants/default/link", {}),
        ("POST", "/tenants/default/link", {"with": "default"}),
        ("POST", "/tenants/default/unlink", None),
        ("POST", "/keys", {}),
        ("POST", "/keys", {"tenant": ""}),
        ("POST", "/keys", {"tenant": "a\nb"}),
        ("POST", "/keys", {"tenant": 5}),
        ("POST", "/keys", {"tenant": "a/b"}),
        ("POST", "/keys", {"tenant": ".."}),
        ("POST", "/keys", []),
        ("POST", "/tenants/default/grant", {}),
        ("POST", "/tenants/default/grant", {"inputs": -1}),
        ("POST", "/tenants/default/dance", {}),
        ("GET", "/records?limit=x", None),
        ("GET", "/overlaps?above=x", None),
        ("GET", "/records?since=nan", None),
    ],
)
def test_bad_admin_requests(live: Any, method: str, path: str, body: Any) -> None:
    """Wrong admin requests are 4xx with one clear message, never a 5xx."""
    response = live.admin(method, path, **({} if body is None else {"json": body}))
    assert 400 <= response.status_code < 500, response.text
    assert response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/tenants/nobody"),
        ("POST", "/tenants/nobody/suspend"),
        ("POST", "/tenants/nobody/resume"),
        ("DELETE", "/keys/nokey"),
        ("GET", "/nothing"),
    ],
)
def test_what_does_not_exist_is_404(live: Any, method: str, path: str) -> None:
    """An unknown tenant, key or route is a 404, as clients expect of a name."""
    response = live.admin(method, path)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"inputs": 1' + b"0" * 400 + b"}", 400),
        (b'{"inputs": 1' + b"0" * 5000 + b"}", 400),
        (b'{"inputs": 1e999}', 400),
        (b'{"inputs": NaN}', 400),
        (b"[" * 60_000, 400),
        (b'{"inputs": 1, "x": "\xff"}', 400),
        (b'{"inputs": 1}' + b" " * 70_000, 413),
    ],
    ids=["float-range", "digits", "infinity", "nan", "nesting", "encoding", "size"],
)
def test_hostile_bodies(live: Any, body: bytes, status: int) -> None:
    """A number without a float, endless nesting or a huge body is the sender's mistake."""
    response = live.admin("POST", "/tenants/default/grant", content=body)
    assert response.status_code == status, response.text
    assert response.json()["error"]["message"]
    assert live.admin("GET", "/tenants/default").json()["budget"] is None


def test_metrics_are_bounded_and_hold_no_secrets(live: Any) -> None:
    """Metrics carry no key, tenant or input, and unknown paths share one label."""
    live.embed("some input text")
    for i in range(5):
        httpx2.get(f"{live.root}/scan{i}")
    text = live.admin("GET", "/metrics").text
    assert 'tollkeeper_requests_total{route="/v1/embeddings",status="200"} 1.0' in text
    assert 'tollkeeper_requests_total{route="other",status="404"} 5.0' in text
    assert "tollkeeper_charged_inputs_total 1.0" in text
    for word in (live.key, "default", "some input", "scan"):
        assert word not in text
