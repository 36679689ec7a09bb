"""What is kept of every call to a suspect: when, whom, what was sent, and what came back.

Calls, embeddings and analysis are apart: a call is kept as it was before anything reads it, so
that an arbiter can replay the analysis without the network, and without us.
"""

from __future__ import annotations

import base64
import binascii
import io
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.evidence.canonical import digest as sha256
from tollkeeper.audit.evidence.canonical import utc
from tollkeeper.encoders.base import Encoder, Modality, checked
from tollkeeper.encoders.inputs import digest, modality
from tollkeeper.encoders.upstream_ask import jsonable
from tollkeeper.encoders.upstream_wire import parse_answer
from tollkeeper.errors import EncoderError, EvidenceError
from tollkeeper.types import Batch, Embeddings

Append = Callable[[Mapping[str, Any]], None]
"""Takes one record into an append-only log before the next call is made."""

Clock = Callable[[], float]
"""Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Call:
    """One exchange with a suspect.

    Attributes:
        number: from 1, in the order of the calls; names the two files of the exchange.
        at: UTC, ISO 8601, when it was sent.
        account: the operator's name for the identity that asked.
        endpoint: address, or the SPEC of a suspect in this process.
        model: the model's name as it was answered, else as it was asked; empty for none.
        tls: SHA-256 of the server's leaf certificate (DER); empty without TLS.
        request: SHA-256 of the bytes sent.
        response: SHA-256 of the bytes received.
        status: HTTP status; 0 where none came, or where nothing was sent over HTTP.
        seconds: from sending to the last byte received.
        tool: the program that asked, and its version.
        error: why there is no whole answer; empty where there is one.
    """

    number: int
    at: str
    account: str
    endpoint: str
    model: str
    tls: str
    request: str
    response: str
    status: int
    seconds: float
    tool: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What went over the wire in one call.

    Attributes:
        began: seconds since the epoch.
        endpoint: as in `Call`.
        tls: as in `Call`.
        request: the bytes sent.
        response: the bytes received.
        status: as in `Call`.
        error: as in `Call`.
    """

    began: float
    endpoint: str
    tls: str
    request: bytes
    response: bytes
    status: int
    error: str = ""


class Custody:
    """Keeps exchanges: bytes in files of a folder, everything else in a log.

    The bytes are on disk before the log names them, so a break between the two leaves files
    that nothing names, which the next call overwrites.
    """

    def __init__(
        self, folder: Path, append: Append, *, account: str, tool: str, clock: Clock, count: int = 0
    ) -> None:
        """Keep into a folder that exists.

        Args:
            folder: takes two files for each call.
            append: takes the record.
            account: as in `Call`.
            tool: as in `Call`.
            clock: when calls begin and end.
            count: calls that the folder holds already.
        """
        self.clock = clock
        self._folder = folder
        self._append = append
        self._account = account
        self._tool = tool
        self._count = count

    def keep(self, exchange: Exchange) -> None:
        """Keep one exchange."""
        ended = self.clock()
        number = self._count + 1
        for path, content in zip(
            files_of(self._folder, number), (exchange.request, exchange.response), strict=True
        ):
            path.write_bytes(content)
        call = Call(
            number=number,
            at=utc(exchange.began),
            account=self._account,
            endpoint=exchange.endpoint,
            model=_model_of(exchange.response) or _model_of(exchange.request),
            tls=exchange.tls,
            request=sha256(exchange.request),
            response=sha256(exchange.response),
            status=exchange.status,
            seconds=round(max(0.0, ended - exchange.began), 6),
            tool=self._tool,
            error=exchange.error,
        )
        self._append(asdict(call))
        self._count = number


class WitnessTransport(httpx2.BaseTransport):
    """Carries requests for an HTTP client and keeps each exchange."""

    def __init__(self, custody: Custody, inner: httpx2.BaseTransport | None = None) -> None:
        """Witness `inner`; by default plain HTTP."""
        self._custody = custody
        self._inner = inner or httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; its exchange is kept when the answer has been read."""
        sent, began, url = request.read(), self._custody.clock(), str(request.url)
        try:
            response = self._inner.handle_request(request)
        except httpx2.RequestError as error:
            self._custody.keep(Exchange(began, url, "", sent, b"", 0, type(error).__name__))
            raise
        leaf, status = _leaf(response), response.status_code

        def done(received: bytes, error: str) -> None:
            self._custody.keep(Exchange(began, url, leaf, sent, received, status, error))

        assert isinstance(response.stream, httpx2.SyncByteStream)
        return httpx2.Response(
            status,
            headers=response.headers,
            stream=_Tee(response.stream, done),
            extensions=response.extensions,
        )

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


class _Tee(httpx2.SyncByteStream):
    """Hands a body on and tells what of it was read once it is closed."""

    def __init__(self, inner: httpx2.SyncByteStream, done: Callable[[bytes, str], None]) -> None:
        self._inner = inner
        self._done: Callable[[bytes, str], None] | None = done
        self._read = bytearray()
        self._error = "the answer was not read to its end"

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._inner:
                self._read += chunk
                yield chunk
        except httpx2.RequestError as error:
            self._error = type(error).__name__
            raise
        self._error = ""

    def close(self) -> None:
        self._inner.close()
        done, self._done = self._done, None
        if done is not None:  # closing twice keeps one record
            done(bytes(self._read), self._error)


class Witnessed:
    """Keeps the `Encoder` interface of an encoder in this process, and each exchange with it.

    What would have gone over the wire is written down in the form of the HTTP API, so that all
    records are read alike.

    Attributes:
        name: of the encoder.
        dim: embedding width d.
        accepts: modalities of input.
    """

    def __init__(self, encoder: Encoder, custody: Custody, *, endpoint: str) -> None:
        """Witness `encoder`, loaded from the SPEC `endpoint`."""
        self.name, self.dim, self.accepts = encoder.name, encoder.dim, encoder.accepts
        self._encoder = encoder
        self._custody = custody
        self._endpoint = endpoint

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed n inputs: (n, d) float32.

        Raises:
            InputError: from the encoder.
            EncoderError: from the encoder.
        """
        began = self._custody.clock()
        rows = checked(self._encoder.embed(inputs), n=len(inputs), dim=self.dim)
        sent = {"input": [jsonable(item) for item in inputs], "model": self.name}
        data = [
            {"index": index, "embedding": base64.b64encode(row.astype("<f4").tobytes()).decode()}
            for index, row in enumerate(rows)
        ]
        request, response = map(msgspec.json.encode, (sent, {"data": data, "model": self.name}))
        self._custody.keep(Exchange(began, self._endpoint, "", request, response, 0))
        return rows


def files_of(folder: Path, number: int) -> tuple[Path, Path]:
    """Return the files of the request and the response of a call."""
    return folder / f"{number:06d}.request", folder / f"{number:06d}.response"


def read_call(folder: Path, call: Call) -> list[tuple[bytes, NDArray[np.float32]]]:
    """Return what a kept call asked and was answered: digests of inputs, and (d,) rows.

    Raises:
        EvidenceError: a file is missing, is not what was logged, or cannot be read as an exchange.
    """
    contents = []
    for path, logged in zip(
        files_of(folder, call.number), (call.request, call.response), strict=True
    ):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise EvidenceError(
                f"{path.name} of call {call.number} cannot be read: {error}"
            ) from error
        if sha256(content) != logged:
            raise EvidenceError(f"{path.name} is not what the log of calls says was exchanged")
        contents.append(content)
    asked, answered = contents
    if not asked or call.error or call.status not in {0, 200}:
        return []  # a list of models was asked for, or nothing was answered
    try:
        items = [_item(value) for value in msgspec.json.decode(asked)["input"]]
        rows = parse_answer(answered, n=len(items), dim=None).embeddings
        return [
            (digest(item, modality([item])), row) for item, row in zip(items, rows, strict=True)
        ]
    except EncoderError:
        return []  # garbage is no answer, and the run asked again or stopped
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, OSError) as error:
        raise EvidenceError(f"call {call.number} cannot be read: {error}") from error


class Replayed:
    """Keeps the `Encoder` interface of a suspect, answered from what was kept; asks nobody.

    Attributes:
        name: as the caller says.
        dim: embedding width d.
        accepts: modalities of input.
    """

    accepts: frozenset[Modality] = frozenset({"text", "tokens", "image", "tensor"})

    def __init__(self, answers: Mapping[bytes, NDArray[np.float32]], *, name: str) -> None:
        """Answer from rows (d,) by digests of inputs.

        Raises:
            EvidenceError: there are none, or of different widths.
        """
        widths = sorted({len(row) for row in answers.values()})
        if len(widths) != 1:
            raise EvidenceError(f"expected kept answers of one width of {name}, got {widths}")
        self.name = name
        self.dim = widths[0]
        self._answers = answers

    def embed(self, inputs: Batch) -> Embeddings:
        """Return what was answered: (n, d) float32.

        Raises:
            EvidenceError: an input was never answered.
        """
        rows = np.empty((len(inputs), self.dim), dtype=np.float32)
        for place, item in enumerate(inputs):
            row = self._answers.get(digest(item, modality([item])))
            if row is None:
                raise EvidenceError(
                    f"the record holds no answer of {self.name} to input {place} of {len(inputs)} "
                    "that the test asks; finish `audit run`"
                )
            rows[place] = row
        return rows


def _item(value: Any) -> Any:
    """Turn an input as it travelled back into what it was."""
    if isinstance(value, str) and value.startswith("data:image/png;base64,"):
        from PIL import Image

        try:
            content = base64.b64decode(value.partition(",")[2], validate=True)
        except binascii.Error as error:
            raise ValueError(f"an image is not base64: {error}") from error
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            return np.asarray(image.convert("RGB"))
    if isinstance(value, dict):
        numbers = np.frombuffer(base64.b64decode(value["base64"]), "<f4")
        return numbers.reshape(value["shape"]).astype(np.float32)
    return value


def _leaf(response: httpx2.Response) -> str:
    """Return the fingerprint of the certificate that the server showed; empty without TLS."""
    stream = response.extensions.get("network_stream")
    wrapped = None if stream is None else stream.get_extra_info("ssl_object")
    if not isinstance(wrapped, ssl.SSLObject | ssl.SSLSocket):
        return ""
    certificate = wrapped.getpeercert(binary_form=True)
    return "" if certificate is None else sha256(certificate)


def _model_of(body: bytes) -> str:
    """Return the model that a JSON body names; empty for none."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    name = found.get("model") if isinstance(found, dict) else None
    return name if isinstance(name, str) else ""
