"""Promises of `tollkeeper serve`, kept by a real server in a process of its own."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tollkeeper.cli.serve import _curl, _example, _reachable, _snippet
from tollkeeper.gateway.images import decode_data_uri
from tollkeeper.gateway.wire import Limits

README = Path(__file__).parents[2] / "README.md"
WIDTHS = {"tollkeeper-text": 384, "tollkeeper-image": 512}


def _ask(facts: dict[str, Any], key: str) -> int:
    """Return the status of one request."""
    body = {"model": facts["model"], "input": "Where is my card?"}
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{facts['url']}/embeddings"
    return httpx2.post(url, json=body, headers=headers, timeout=30).status_code


def _until(status: int, facts: dict[str, Any], key: str) -> None:
    """Ask until the server answers with `status`."""
    deadline = time.monotonic() + 10
    while (found := _ask(facts, key)) != status:
        assert time.monotonic() < deadline, f"still {found}, expected {status}"


def _width(text: str) -> int:
    """Return the width of the model that a first start announced."""
    return next(width for name, width in WIDTHS.items() if name in text)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_the_printed_curl_line_works(first_start: Any) -> None:
    """The curl line of a first start, pasted into a shell, returns an embedding."""
    (line,) = re.findall(r"^curl .*$", first_start.text, re.MULTILINE)
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=True, timeout=60)
    (row,) = json.loads(done.stdout)["data"]
    assert len(row["embedding"]) == _width(first_start.text)


def test_the_printed_snippet_works(first_start: Any) -> None:
    """The Python lines of a first start, run as they stand, return an embedding."""
    (snippet,) = re.findall(
        r"^from openai.*?^print.*?$", first_start.text, re.MULTILINE | re.DOTALL
    )
    command = [sys.executable, "-W", "error", "-c", snippet]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"{_width(first_start.text)} numbers\n"


def test_the_key_is_shown_once_and_stored_nowhere(first_start: Any) -> None:
    """No file of the data folder and no log line holds the key that was printed."""
    (key,) = set(re.findall(r"sk-tk-[\w-]+", first_start.text))
    files = [file for file in first_start.folder.rglob("*") if file.is_file()]
    assert any(file.name == "ledger.sqlite3" for file in files)
    assert not any(key.encode() in file.read_bytes() for file in [*files, first_start.log])


def test_the_readme_example_works(text_server: Any) -> None:
    """The README's example runs against a server, with its address and key filled in."""
    facts = json.loads(text_server.text)
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    for printed, actual in (("http://127.0.0.1:8080/v1", "url"), ("sk-tk-...", "key")):
        assert printed in example
        example = example.replace(printed, facts[actual])
    command = [sys.executable, "-W", "error", "-c", example]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[384, 384]\n"


def test_keys_of_another_process_are_followed(text_server: Any, cli: Callable[..., Any]) -> None:
    """A running server honors a key that `keys create` made, and refuses it once revoked."""
    facts = json.loads(text_server.text)
    where = ("--data-dir", text_server.folder, "--json")
    made = json.loads(cli("keys", "create", "--tenant", "guest", *where).out)
    _until(200, facts, made["key"])
    assert cli("keys", "revoke", made["id"], *where).status == 0
    _until(401, facts, made["key"])


def test_tenants_follow_the_operator(text_server: Any, cli: Callable[..., Any]) -> None:
    """Suspending, resuming and granting reach a running server, and its charges reach the operator."""
    facts = json.loads(text_server.text)
    where = ("--data-dir", text_server.folder, "--json")
    made = json.loads(cli("keys", "create", "--tenant", "client", *where).out)
    _until(200, facts, made["key"])
    report = json.loads(cli("tenants", "show", "client", *where).out)
    assert (report["spent"], report["coverage"] > 0) == (1.0, True)
    cli("tenants", "suspend", "client", *where)
    _until(403, facts, made["key"])
    cli("tenants", "resume", "client", *where)
    _until(200, facts, made["key"])


def test_serving_is_light(text_server: Any) -> None:
    """A server that has answered a request has imported neither torch nor scipy."""
    facts = json.loads(text_server.text)
    assert _ask(facts, facts["key"]) == 200
    imported = set(
        re.findall(r"^import time:.*\| +(\w+)", text_server.log.read_text(), re.MULTILINE)
    )
    assert {"numpy", "onnxruntime", "starlette"} <= imported
    assert not imported & {"torch", "scipy", "sklearn", "matplotlib", "fastapi", "redis"}


def test_a_second_start_shows_no_key(serve: Callable[..., Any]) -> None:
    """SIGTERM ends the server with status 0; started again, the old key works and no key is shown."""
    first = serve("--json")
    facts = json.loads(first.text)
    assert first.stop() == 0
    again = json.loads(serve("--json", "--shadow").text)
    assert (again["key"], again["shadow"]) == (None, True)
    assert _ask(again, facts["key"]) == 200


def test_a_taken_port_is_one_line_and_loses_no_key(tmp_path: Path, cli: Callable[..., Any]) -> None:
    """If a port is taken, serve exits with 2 and one line, before the first key is made."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        failed = cli("serve", "--port", port, "--admin-port", "0", "--data-dir", tmp_path)
    assert (failed.status, failed.out) == (2, "")
    assert f"cannot listen on 127.0.0.1:{port}" in failed.err.splitlines()[-1]
    assert "Traceback" not in failed.err
    assert json.loads(cli("tenants", "list", "--data-dir", tmp_path, "--json").out) == []


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("--encoder", "nonsense", "unknown encoder spec 'nonsense'"),
        ("--profile", "nonsense", "profile"),
        ("--port", "70000", "port"),
        ("--config", "/nonexistent.yaml", "/nonexistent.yaml"),
        ("--calibration", "/nonexistent.cal", "/nonexistent.cal"),
    ],
)
def test_wrong_settings_are_one_line(
    tmp_path: Path, cli: Callable[..., Any], option: str, value: str, named: str
) -> None:
    """A wrong setting ends the start with status 2 and one line that names it."""
    failed = cli("serve", "--port", "0", "--data-dir", tmp_path, option, value)
    assert (failed.status, failed.out) == (2, "")
    assert named in failed.err
    assert len(failed.err.splitlines()) == 1


def test_a_damaged_ledger_is_one_line(tmp_path: Path, cli: Callable[..., Any]) -> None:
    """A file that is no ledger ends the start with status 2 and one line that names it."""
    cli("keys", "create", "--tenant", "acme", "--data-dir", tmp_path)
    (tmp_path / "ledger.sqlite3").write_bytes(b"not a database at all" * 100)
    failed = cli("serve", "--port", "0", "--data-dir", tmp_path)
    assert (failed.status, failed.out) == (2, "")
    assert "ledger.sqlite3 is not a SQLite file" in failed.err
    assert len(failed.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("host", "reachable"),
    [
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104 - nothing is bound
        ("::", "[::1]"),
        ("fe80::1", "[fe80::1]"),
        ("example.org", "example.org"),
    ],
)
def test_the_announced_address_can_be_reached(host: str, reachable: str) -> None:
    """An address that means "all" is announced as this machine's, and IPv6 in brackets."""
    assert _reachable(host) == reachable


def test_odd_model_names_are_quoted() -> None:
    """Quotes in an upstream's model name break neither the curl line nor the snippet."""
    facts = {"url": "http://127.0.0.1:1/v1", "key": "sk-tk-x", "model": """it's "odd" $HOME"""}
    body = json.loads(shlex.split(_curl(facts, {"text"}))[-1])
    assert body["model"] == facts["model"]
    assert repr(facts["model"]) in ast.unparse(ast.parse(_snippet(facts, {"text"})))


def test_the_example_is_what_the_encoder_takes() -> None:
    """Text where the encoder takes text, else a small image, else token ids."""
    assert _example({"text", "tokens"}) == "Where is my card?"
    assert _example({"tokens"}) == [1, 2, 3]
    image = decode_data_uri(str(_example({"image"})), limits=Limits())
    assert image.shape == (1, 1, 3)


def test_the_printed_line_of_a_classifier_works(serve: Any) -> None:
    """A first start with a classifier prints a request that is answered."""
    text = serve("--encoder", "none", "--classifier", "builtin:digits").text
    (line,) = re.findall(r"^curl .*$", text, re.MULTILINE)
    _, url, _, authorization, _, kind, _, body = shlex.split(line)
    headers = dict(one.split(": ") for one in (authorization, kind))
    reply = httpx2.post(url, content=body, headers=headers)
    assert len(reply.json()["data"][0]["top"]) == 3
