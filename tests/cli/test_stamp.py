"""Promises of `tollkeeper audit stamp`."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tollkeeper.audit.evidence.keys import create
from tollkeeper.audit.evidence.log import SignedLog

Cli = Callable[..., Any]
FIXTURES = Path(__file__).parents[1] / "audit" / "evidence" / "fixtures"
OPENSSL = shutil.which("openssl")

CONFIGURATION = """
[req]
distinguished_name = name
x509_extensions = authority
[name]
[authority]
basicConstraints = critical,CA:TRUE
extendedKeyUsage = critical,timeStamping
[tsa]
default_tsa = here
[here]
serial = serial
crypto_device = builtin
signer_cert = tsa.pem
signer_key = tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
ess_cert_id_alg = sha256
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a log of two lines."""
    path = tmp_path / "log.jsonl"
    with SignedLog(path, create(tmp_path / "key.pem"), clock=lambda: 1.8e9) as opened:
        opened.append("pool", {"pairs": 7})
        opened.append("coins", {"beacon": "round 7"})
    return path


@contextmanager
def serving(answer: Callable[[bytes], tuple[int, str, bytes]]) -> Iterator[str]:
    """Yield the address of an authority that answers so."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = self.rfile.read(int(self.headers["content-length"]))
            status, kind, body = answer(query)
            self.send_response(status)
            self.send_header("content-type", kind)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *parts: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(OPENSSL is None, reason="needs openssl to play the authority")
def test_a_stamp_is_asked_for_kept_and_checked(cli: Cli, log: Path, tmp_path: Path) -> None:
    """OpenSSL stamps the head over HTTP; the reply holds for these lines when more have come."""
    (tmp_path / "tsa.cnf").write_text(CONFIGURATION)
    (tmp_path / "serial").write_text("01\n")
    make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -subj /CN=Dates"
    files = "-config tsa.cnf -keyout tsa.key -out tsa.pem"
    subprocess.run(
        [str(OPENSSL), *make.split(), *files.split()], cwd=tmp_path, check=True, capture_output=True
    )

    def answer(query: bytes) -> tuple[int, str, bytes]:
        (tmp_path / "query").write_bytes(query)
        words = "ts -reply -config tsa.cnf -section here -queryfile query -out made"
        subprocess.run(
            [str(OPENSSL), *words.split()], cwd=tmp_path, check=True, capture_output=True
        )
        return 200, "application/timestamp-reply", (tmp_path / "made").read_bytes()

    trust, reply = ("--trust", tmp_path / "tsa.pem"), tmp_path / "reply.tsr"
    with serving(answer) as url:
        done = cli("audit", "stamp", log, "--authority", url, "-o", reply, *trust, "--json")
    assert done.status == 0, done.err
    first = json.loads(done.out)
    assert (first["lines"], first["authority"]) == (2, "CN=Dates")

    with SignedLog(log, _key(tmp_path), clock=lambda: 1.8e9) as opened:
        opened.append("look", {})
    again = cli("audit", "stamp", log, "--check", reply, *trust)
    assert again.status == 0, again.err
    assert f"2 lines of the log were written before {first['at']}" in again.out


def _key(folder: Path) -> Any:
    from tollkeeper.audit.evidence.keys import load

    return load(folder / "key.pem")


def test_a_query_is_written_for_those_who_post_it_themselves(
    cli: Cli, log: Path, tmp_path: Path
) -> None:
    """Without an authority the query is left in a file."""
    done = cli("audit", "stamp", log, "-o", tmp_path / "query.tsq", "--json")
    assert done.status == 0, done.err
    head = json.loads(done.out)["head"]
    assert bytes.fromhex(head) in (tmp_path / "query.tsq").read_bytes()


def test_mistakes_are_one_clear_line(cli: Cli, log: Path, tmp_path: Path) -> None:
    """What was expected is told, the exit status is 2, and no reply is written."""
    trust = ("--trust", FIXTURES / "root.pem")
    out = ("-o", tmp_path / "reply")
    with serving(lambda _: (500, "text/html", b"<html>")) as url:
        cases: list[tuple[tuple[Any, ...], str]] = [
            ((log,), "--output to write to, or --check"),
            ((log, "--check", FIXTURES / "rsa.tsr"), "give --trust"),
            ((log, "--check", FIXTURES / "rsa.tsr", *trust), "hash of no line of this log"),
            ((log, "--check", FIXTURES / "refused.tsr", *trust), "did not grant"),
            ((log, "--check", tmp_path / "absent", *trust), "cannot read"),
            ((log, "--authority", url, *out), "give --trust"),
            ((log, "--authority", url, *out, *trust), "got status 500 and text/html"),
            ((log, "--authority", "http://127.0.0.1:1/", *out, *trust), "cannot be reached"),
            ((tmp_path / "absent.jsonl", *out), "cannot read"),
        ]
        for words, told in cases:
            done = cli("audit", "stamp", *words)
            assert done.status == 2
            assert told in done.err
            assert done.err.count("\n") == 1
    assert not (tmp_path / "reply").exists()
