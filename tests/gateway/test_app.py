"""The data plane over real HTTP: every row of the status table, and nothing charged for a refusal."""

from __future__ import annotations

import json
import socket
from concurrent.futures import Future
from typing import Any

import httpx2
import numpy as np
import pytest

from tollkeeper.encoders.callable_encoder import CallableEncoder
from tollkeeper.errors import EncoderError, LedgerError
from tollkeeper.testing.encoders import hash_encoder
from tollkeeper.types import Entry

MODEL = "toy"


def toy(dim: int = 16) -> CallableEncoder:
    """A deterministic fake text encoder."""
    return CallableEncoder(hash_encoder(dim).embed, dim=dim, name=MODEL)


@pytest.fixture
def live(start_gateway: Any) -> Any:
    """A gateway in front of the toy encoder."""
    return start_gateway(toy(), max_body_bytes=50_000, max_inputs=8)


def assert_error(
    response: httpx2.Response, status: int, code: str | None, param: str | None
) -> None:
    """Check the status and the OpenAI error object with all four keys."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    if code is not None:
        assert error["code"] == code
    assert error["message"]
    assert response.headers["x-request-id"].startswith("req_")


def assert_nothing_stored(live: Any) -> None:
    """No record, no charge, no coverage."""
    assert list(live.gateway.store.records()) == []
    assert live.entry().version == 0


BAD_REQUESTS: list[tuple[str, Any, int, str | None, str | None]] = [
    ("malformed JSON", b'{"model": "toy", "input": ', 400, "invalid_json", None),
    ("not an object", b"[1, 2]", 400, None, None),
    ("empty body", b"", 400, None, None),
    ("no input", {"model": MODEL}, 400, None, "input"),
    ("no model", {"input": "a"}, 400, None, "model"),
    ("input of a wrong type", {"model": MODEL, "input": 1.5}, 400, None, "input"),
    ("input an object", {"model": MODEL, "input": {"a": 1}}, 400, None, "input"),
    ("mixed list", {"model": MODEL, "input": ["a", 1]}, 400, None, "input"),
    ("empty string", {"model": MODEL, "input": ""}, 400, None, "input"),
    ("empty string in a list", {"model": MODEL, "input": ["a", ""]}, 400, None, "input"),
    ("empty list", {"model": MODEL, "input": []}, 400, None, "input"),
    ("too many inputs", {"model": MODEL, "input": ["a"] * 9}, 400, None, "input"),
    ("NaN", b'{"model": "toy", "input": [NaN]}', 400, None, "input"),
    ("model of a wrong type", {"model": 3, "input": "a"}, 400, None, "model"),
    ("unknown model", {"model": "gpt", "input": "a"}, 404, "model_not_found", "model"),
    ("dimensions zero", {"model": MODEL, "input": "a", "dimensions": 0}, 400, None, "dimensions"),
    ("dimensions text", {"model": MODEL, "input": "a", "dimensions": "x"}, 400, None, "dimensions"),
    ("too wide", {"model": MODEL, "input": "a", "dimensions": 17}, 400, None, "dimensions"),
    (
        "unknown encoding",
        {"model": MODEL, "input": "a", "encoding_format": "hex"},
        400,
        None,
        "encoding_format",
    ),
    ("token ids", {"model": MODEL, "input": [1, 2, 3]}, 400, None, "input"),
    ("token lists", {"model": MODEL, "input": [[1], [2]]}, 400, None, "input"),
    ("an image", {"model": MODEL, "input": "data:image/png;base64,AAAA"}, 400, None, "input"),
    ("too large", {"model": MODEL, "input": "a" * 60_000}, 413, "request_too_large", None),
]


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [row[1:] for row in BAD_REQUESTS],
    ids=[row[0] for row in BAD_REQUESTS],
)
def test_bad_input(live: Any, body: Any, status: int, code: str | None, param: str | None) -> None:
    """Each kind of bad input gets its status, code and param, and is neither charged nor stored."""
    assert_error(live.post(body), status, code, param)
    assert_nothing_stored(live)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer sk-wrong"},
        {"Authorization": "Basic abc"},
        {"Authorization": "Bearer"},
    ],
)
def test_no_or_wrong_key(live: Any, headers: dict[str, str]) -> None:
    """Without a valid key there is a 401 and nothing else."""
    response = httpx2.post(
        f"{live.url}/embeddings", json={"model": MODEL, "input": "a"}, headers=headers
    )
    assert_error(response, 401, "invalid_api_key", None)
    assert_nothing_stored(live)


def test_good_request_has_the_exact_shape(live: Any) -> None:
    """A reply has OpenAI's keys in OpenAI's order, and is recorded before it is sent."""
    response = live.post({"model": MODEL, "input": ["a", "b"], "user": "u", "extra": 1})
    assert response.status_code == 200
    body = response.json()
    assert list(body) == ["object", "data", "model", "usage"]
    assert [row["index"] for row in body["data"]] == [0, 1]
    assert len(body["data"][0]["embedding"]) == 16
    (record,) = live.gateway.store.records()
    assert record.inputs == 2
    assert record.request_id == response.headers["x-request-id"]


def test_reply_is_silent_about_the_guard(live: Any) -> None:
    """No header or field of a reply names coverage, scale, profile or transform (law 6)."""
    response = live.post({"model": MODEL, "input": "a"})
    text = (str(dict(response.headers)) + response.text).lower()
    for word in ("coverage", "noise", "scale", "profile", "transform", "tollkeeper-", "processing"):
        assert word not in text


def test_suspended_account(live: Any) -> None:
    """A suspended tenant gets 403 within a second, also with a new key."""
    assert live.admin("POST", "/tenants/default/suspend").status_code == 200
    live.gateway.keyring.refresh()
    assert_error(live.post({"model": MODEL, "input": "a"}), 403, "account_suspended", None)
    assert live.admin("POST", "/tenants/default/resume").status_code == 200
    live.gateway.keyring.refresh()
    assert live.post({"model": MODEL, "input": "a"}).status_code == 200


def test_hard_budget(live: Any) -> None:
    """A spent budget is a 429 that tells clients not to retry; what was answered stays charged."""
    assert live.post({"model": MODEL, "input": ["a", "b"]}).status_code == 200
    granted = live.admin("POST", "/tenants/default/grant", json={"inputs": 1})
    assert granted.status_code == 200
    live.gateway.keyring.refresh()
    assert live.post({"model": MODEL, "input": "c"}).status_code == 200
    response = live.post({"model": MODEL, "input": "d"})
    assert_error(response, 429, None, None)
    assert response.headers["x-should-retry"] == "false"
    assert live.post({"model": MODEL, "input": ["a", "c"]}).status_code == 200
    assert live.entry().spent == 3


def test_encoder_failure_is_a_neutral_503(start_gateway: Any) -> None:
    """A failing or nonsense encoder gives 503 without its message, and nothing is charged."""
    answers: list[Any] = [
        EncoderError("secret upstream host"),
        ValueError("boom"),
        [[float("nan")] * 4],
        [[1.0] * 5],
        [],
    ]

    def failing(_: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    live = start_gateway(CallableEncoder(failing, dim=4, name=MODEL))
    for _ in range(5):
        response = live.post({"model": MODEL, "input": "a"})
        assert_error(response, 503, "guard_unavailable", None)
        assert response.headers["retry-after"] == "1"
        assert "secret" not in response.text
        assert "boom" not in response.text
    assert_nothing_stored(live)


@pytest.mark.parametrize("policy", ["closed", "open"])
def test_ledger_failure(start_gateway: Any, monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
    """When the ledger fails, `closed` refuses every answer and `open` counts each fallback."""
    live = start_gateway(toy(), on_ledger_failure=policy)
    assert live.post({"model": MODEL, "input": "a"}).status_code == 200

    def broken(*_: Any, **__: Any) -> Any:
        raise LedgerError("disk full")

    def failing(submissions: Any) -> list[Future[Entry]]:
        futures: list[Future[Entry]] = [Future() for _ in submissions]
        for future in futures:
            future.set_exception(LedgerError("disk full"))
        return futures

    monkeypatch.setattr(live.gateway.store, "submit", failing)
    monkeypatch.setattr(live.gateway.store, "read", broken)
    for text in ("b", "c"):
        response = live.post({"model": MODEL, "input": text})
        if policy == "closed":
            assert_error(response, 503, "guard_unavailable", None)
        else:
            assert response.status_code == 200
    monkeypatch.undo()
    assert live.post({"model": MODEL, "input": "d"}).status_code == 200
    guard = live.gateway.service.guard
    stored = guard.load(live.entry().sketch)
    asked = ["a", "d"] if policy == "closed" else ["a", "b", "c", "d"]
    expected = guard.admit(
        guard.empty(),
        toy().embed(asked),
        key=guard.tenant_key("default"),
        rng=np.random.default_rng(0),
    ).sketch
    np.testing.assert_array_equal(stored, expected)
    text = live.admin("GET", "/metrics").text
    assert f'tollkeeper_fallbacks_total{{defense="ledger",policy="{policy}"}}' in text


def test_concurrency_limit(start_gateway: Any) -> None:
    """One request too many at once is a 429 with Retry-After."""
    import threading

    release = threading.Event()

    def slow(inputs: Any) -> Any:
        release.wait(10)
        return np.ones((len(inputs), 4))

    live = start_gateway(CallableEncoder(slow, dim=4, name=MODEL), max_tenant_concurrency=1)
    first: list[int] = []
    thread = threading.Thread(
        target=lambda: first.append(
            live.post({"model": MODEL, "input": "a"}, timeout=20).status_code
        )
    )
    thread.start()
    running = live.gateway.data_plane
    while not running._places._count:
        pass
    response = live.post({"model": MODEL, "input": "b"})
    release.set()
    thread.join()
    assert_error(response, 429, None, None)
    assert float(response.headers["retry-after"]) >= 1
    assert first == [200]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/embeddings", 405),
        ("POST", "/v1/models", 405),
        ("POST", "/livez", 405),
        ("GET", "/", 404),
        ("GET", "/metrics", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/tenants", 404),
        ("POST", "/embeddings", 404),
        ("POST", "/v1/tokenize", 404),
        ("GET", "/v1/models/nope", 404),
    ],
)
def test_nothing_else_answers(live: Any, method: str, path: str, status: int) -> None:
    """Unknown routes and methods get OpenAI-shaped errors; nothing of the admin plane is here."""
    response = httpx2.request(
        method, live.root + path, headers={"Authorization": f"Bearer {live.key}"}
    )
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    if status == 405:
        assert response.headers["allow"]


def test_models_and_health(start_gateway: Any) -> None:
    """The model list names the encoder and its aliases; health needs no key."""
    live = start_gateway(toy(), model_aliases=["text-embedding-3-small"])
    headers = {"Authorization": f"Bearer {live.key}"}
    listed = httpx2.get(f"{live.url}/models", headers=headers).json()
    assert [row["id"] for row in listed["data"]] == [MODEL, "text-embedding-3-small"]
    one = httpx2.get(f"{live.url}/models/{MODEL}", headers=headers).json()
    assert one["id"] == MODEL
    assert httpx2.get(f"{live.url}/models").status_code == 401
    assert httpx2.get(f"{live.root}/livez").json() == {"status": "ok"}
    assert httpx2.get(f"{live.root}/readyz").status_code == 200
    aliased = live.post({"model": "text-embedding-3-small", "input": "a"})
    assert aliased.json()["model"] == "text-embedding-3-small"


def test_chunked_body_over_the_limit(live: Any) -> None:
    """A body without a length is refused as soon as it passes the limit."""

    def chunks() -> Any:
        for _ in range(20):
            yield b"x" * 5000

    response = httpx2.post(
        f"{live.url}/embeddings", content=chunks(), headers={"Authorization": f"Bearer {live.key}"}
    )
    assert_error(response, 413, "request_too_large", None)


def test_slow_body_times_out(start_gateway: Any) -> None:
    """A client that stops sending gets an answer instead of holding its place forever."""
    live = start_gateway(toy(), body_timeout_s=0.2)
    host, port = live.root.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n"
            b"authorization: Bearer " + live.key.encode() + b"\r\n\r\n{"
        )
        reply = connection.recv(65536)
    assert b" 400 " in reply.split(b"\r\n")[0]
    assert_nothing_stored(live)


def test_one_bad_request_does_not_touch_its_neighbors(start_gateway: Any) -> None:
    """Requests gathered into one encoder call fail and succeed on their own."""
    from concurrent.futures import ThreadPoolExecutor

    from tollkeeper.errors import InputError

    inner = hash_encoder(16)

    def picky(inputs: Any) -> Any:
        if any(text == "bad" for text in inputs):
            raise InputError("expected good text, got bad text", param="input")
        return inner.embed(inputs)

    live = start_gateway(CallableEncoder(picky, dim=16, name=MODEL))
    texts = ["bad" if i % 4 == 0 else f"good {i}" for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda t: live.post({"model": MODEL, "input": t}), texts))
    assert [r.status_code for r in replies] == [400 if t == "bad" else 200 for t in texts]
    assert live.entry().queries == 30


def test_shadow_mode_changes_nothing(start_gateway: Any) -> None:
    """In shadow mode answers are the clean embeddings, while coverage and decisions are kept."""
    live = start_gateway(toy(), shadow=True)
    np.testing.assert_array_equal(live.embed(["a", "b"]), toy().embed(["a", "b"]))
    (record,) = live.gateway.store.records()
    assert record.shadow
    assert record.coverage > 0
    narrow = live.embed(["a"], dimensions=4)
    clean = toy().embed(["a"])[:, :4]
    np.testing.assert_allclose(narrow, clean / np.linalg.norm(clean), rtol=1e-6)


def test_base64_and_float_agree(live: Any) -> None:
    """Both encodings carry the same float32 values."""
    import base64

    floats = live.embed(["a"])
    response = live.post({"model": MODEL, "input": ["a"], "encoding_format": "base64"})
    packed = json.loads(response.content)["data"][0]["embedding"]
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(packed), "<f4"), floats[0])


def test_shutdown_that_takes_too_long_answers_in_json(start_gateway: Any) -> None:
    """Requests that a shutdown cuts off get our 503, are not charged, and the server ends in time."""
    import threading
    import time

    release = threading.Event()
    entered = threading.Event()

    def hanging(inputs: Any) -> Any:
        entered.set()
        release.wait(20)
        return np.ones((len(inputs), 4))

    live = start_gateway(CallableEncoder(hanging, dim=4, name=MODEL), shutdown_timeout_s=0.5)
    replies: list[httpx2.Response] = []

    def ask(text: str) -> None:
        replies.append(live.post({"model": MODEL, "input": text}, timeout=30))

    threads = [threading.Thread(target=ask, args=(text,)) for text in "abc"]
    for thread in threads:
        thread.start()
    assert entered.wait(10)
    while live.gateway.data_plane._places._count < 3:
        time.sleep(0.005)
    started = time.monotonic()
    live.stop()
    release.set()
    for thread in threads:
        thread.join(20)
    assert time.monotonic() - started < 15
    assert [reply.status_code for reply in replies] == [503] * 3
    assert all(reply.json()["error"]["code"] == "guard_unavailable" for reply in replies)
