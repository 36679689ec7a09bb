"""What a running server does beside serving: link tenants that asked the same, and delete records."""

from __future__ import annotations

import time
from typing import Any

from tollkeeper.testing.encoders import hash_encoder

ENCODER = hash_encoder(8)


def wait_for(held: Any) -> None:
    """Wait until something holds, at most ten seconds."""
    deadline = time.monotonic() + 10
    while not held():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_tenants_that_asked_the_same_are_linked_by_the_server(start_gateway: Any) -> None:
    """With `link_overlap` a start links them; both go on being served, on one pool."""
    first = start_gateway(ENCODER)
    keys = {
        name: first.admin("POST", "/keys", json={"tenant": name}).json()["key"] for name in "abc"
    }
    same = [f"text {number}" for number in range(40)]
    for name in "ab":
        first.embed(same, key=keys[name])
    first.embed([f"other {number}" for number in range(40)], key=keys["c"])
    before = first.embed(same[:3], key=keys["b"])
    first.stop()
    second = start_gateway(ENCODER, link_overlap=0.5)

    def pool(name: str) -> str:
        found: str = second.admin("GET", f"/tenants/{name}").json()["pool"]
        return found

    wait_for(lambda: pool("a") == pool("b"))
    assert pool("c") == "c"
    assert (second.embed(same[:3], key=keys["b"]) == before).all()
    spent = second.admin("GET", "/tenants/a").json()["spent"]
    second.embed(same, key=keys["a"])
    assert second.admin("GET", "/tenants/b").json()["spent"] == spent


def test_a_key_is_revoked_while_tenants_are_compared(start_gateway: Any) -> None:
    """Linking waits for running servers; noticing keys does not wait for linking."""
    first = start_gateway(ENCODER)
    made = [first.admin("POST", "/keys", json={"tenant": f"t{n}"}).json() for n in range(12)]
    for one in made:
        first.embed([f"text {number}" for number in range(40)], key=one["key"])
    first.stop()
    second = start_gateway(ENCODER, link_overlap=0.5)
    assert second.admin("DELETE", f"/keys/{made[0]['id']}").status_code == 200
    started = time.monotonic()
    wait_for(
        lambda: (
            second.post({"model": ENCODER.name, "input": "a"}, key=made[0]["key"]).status_code
            == 401
        )
    )
    assert time.monotonic() - started < 5  # one after the other they would take eleven
