"""The record of calls: what is kept, of whom, and what is read back from it."""

from __future__ import annotations

import datetime as dt
import hashlib
import http.server
import itertools
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import numpy as np
import pytest

from tollkeeper.audit.evidence.custody import (
    Call,
    Custody,
    Replayed,
    Witnessed,
    WitnessTransport,
    files_of,
    read_call,
)
from tollkeeper.encoders.inputs import digest
from tollkeeper.encoders.upstream import UpstreamEncoder
from tollkeeper.errors import EncoderError, EvidenceError
from tollkeeper.testing import HashEncoder

PICTURES = list(np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3), dtype=np.uint8))


class Kept:
    """A custody in a folder, and the records that it wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: list[Mapping[str, Any]] = []
        times = itertools.count(1_790_000_000, 0.5)
        self.custody = Custody(
            folder,
            self.records.append,
            account="lab-7",
            tool="tollkeeper test",
            clock=lambda: float(next(times)),
        )

    @property
    def calls(self) -> list[Call]:
        """The records as calls."""
        return [msgspec.convert(each, Call) for each in self.records]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """A custody that kept nothing yet."""
    return Kept(tmp_path)


def _answer(request: httpx2.Request) -> httpx2.Response:
    asked = json.loads(request.content)
    rows = [[float(len(item)), 1.0] for item in asked["input"]]
    data = [{"index": place, "embedding": row} for place, row in enumerate(rows)]
    return httpx2.Response(200, json={"data": data, "model": "theirs"})


def _upstream(kept: Kept, handler: Callable[[httpx2.Request], httpx2.Response]) -> UpstreamEncoder:
    transport = WitnessTransport(kept.custody, httpx2.MockTransport(handler))
    return UpstreamEncoder(
        "http://suspect.test/v1",
        model="asked",
        api_key="sk-secret",
        dim=0,
        client=httpx2.Client(transport=transport),
        sleep=lambda _: None,
    )


def test_a_call_over_http_is_kept_whole(kept: Kept) -> None:
    """Time, account, address, model, hashes, status and latency are those of the exchange."""
    rows = _upstream(kept, _answer).embed(PICTURES)
    (call,) = kept.calls
    request, response = (path.read_bytes() for path in files_of(kept.folder, 1))
    assert call == Call(
        number=1,
        at="2026-09-21T14:13:20.000000+00:00",
        account="lab-7",
        endpoint="http://suspect.test/v1/embeddings",
        model="theirs",
        tls="",
        request=hashlib.sha256(request).hexdigest(),
        response=hashlib.sha256(response).hexdigest(),
        status=200,
        seconds=0.5,
        tool="tollkeeper test",
    )
    assert json.loads(response)["model"] == "theirs"
    assert b"sk-secret" not in request
    read = read_call(kept.folder, call)
    assert [mark for mark, _ in read] == [digest(item, "image") for item in PICTURES]
    np.testing.assert_array_equal(np.stack([row for _, row in read]), rows)


def test_failed_tries_are_kept_and_hold_no_answer(kept: Kept) -> None:
    """A status, a lost connection and garbage each leave a record; the answer comes after them."""
    tries = iter(["busy", "lost", "answer", "garbage"])

    def handle(request: httpx2.Request) -> httpx2.Response:
        match next(tries):
            case "busy":
                return httpx2.Response(503, text="busy")
            case "lost":
                raise httpx2.ConnectError("no", request=request)
            case "garbage":
                return httpx2.Response(200, text="garbage")
        return _answer(request)

    suspect = _upstream(kept, handle)
    suspect.embed(PICTURES[:1])
    with pytest.raises(EncoderError):
        suspect.embed(PICTURES[:1])
    assert [(call.status, call.error) for call in kept.calls] == [
        (503, ""),
        (0, "ConnectError"),
        (200, ""),
        (200, ""),
    ]
    assert [len(read_call(kept.folder, call)) for call in kept.calls] == [0, 0, 1, 0]


def test_an_answer_that_is_not_read_to_its_end_is_told_apart(kept: Kept) -> None:
    """What was cut off by us or by them is kept as far as it came, and says so."""

    class Broken(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b"half of"
            raise httpx2.ReadError("gone")

    suspect = _upstream(kept, lambda _: httpx2.Response(200, stream=Broken()))
    with pytest.raises(EncoderError):
        suspect.embed(PICTURES[:1])
    assert {(call.status, call.error) for call in kept.calls} == {(200, "ReadError")}
    assert files_of(kept.folder, 1)[1].read_bytes() == b"half of"


@pytest.mark.parametrize(
    "inputs", [PICTURES, ["a text", "Füße 北京"], [np.full((1, 2, 2), 0.25, np.float32)]]
)
def test_an_encoder_of_this_process_is_witnessed_alike(kept: Kept, inputs: list[Any]) -> None:
    """Its answers are read back bit for bit, with the inputs that they are for."""
    encoder = HashEncoder(7)
    encoder.accepts = frozenset({"text", "image", "tensor"})
    rows = Witnessed(encoder, kept.custody, endpoint="python:here").embed(inputs)
    (call,) = kept.calls
    assert (call.endpoint, call.model, call.status) == ("python:here", "hash-7", 0)
    answers = dict(read_call(kept.folder, call))
    np.testing.assert_array_equal(Replayed(answers, name="again").embed(inputs), rows)


def test_bytes_that_are_not_those_that_were_logged_are_refused(kept: Kept) -> None:
    """A changed or missing file of an exchange is named."""
    _upstream(kept, _answer).embed(PICTURES)
    request, response = files_of(kept.folder, 1)
    response.write_bytes(response.read_bytes() + b" ")
    with pytest.raises(EvidenceError, match=r"000001\.response is not what"):
        read_call(kept.folder, kept.calls[0])
    request.unlink()
    with pytest.raises(EvidenceError, match=r"000001\.request"):
        read_call(kept.folder, kept.calls[0])


def test_a_replay_answers_nothing_that_was_not_asked() -> None:
    """An input without a kept answer is no zero row but an error."""
    known = {digest("a", "text"): np.ones(2, np.float32)}
    with pytest.raises(EvidenceError, match="no answer of suspect to input 1 of 2"):
        Replayed(known, name="suspect").embed(["a", "b"])
    with pytest.raises(EvidenceError, match="one width"):
        Replayed({}, name="suspect")


def test_the_certificate_of_a_server_is_kept(kept: Kept, tmp_path: Path) -> None:
    """Over TLS the record holds the SHA-256 of the leaf certificate."""
    server, fingerprint = _tls_server(tmp_path)
    with server:
        context = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
        transport = WitnessTransport(kept.custody, httpx2.HTTPTransport(verify=context))
        with httpx2.Client(transport=transport) as client:
            client.get(f"https://localhost:{server.server_port}/")
        server.shutdown()
    assert kept.calls[0].tls == fingerprint


def _tls_server(folder: Path) -> tuple[http.server.HTTPServer, str]:
    """Start a server with a certificate of its own; return it and its fingerprint."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.pem").write_bytes(made.public_bytes(pem) + secret)
    server = http.server.HTTPServer(("localhost", 0), http.server.SimpleHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, made.fingerprint(hashes.SHA256()).hex()
