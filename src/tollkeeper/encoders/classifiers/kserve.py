"""A classifier behind a KServe v2 (Open Inference Protocol) server: Triton, MLServer, OVMS, KServe.

Triton in particular:

- Tensors travel as JSON, exact to the bit. Triton writes no FP16 as JSON, so the model's output
  must be FP32 or FP64.
- Its metadata names no classes: give them in a file. Its `classification` extension is not used,
  as it lists only the best ones.
- A request of more inputs than `max_batch_size` is refused by Triton and sent again in halves.
- Its dynamic batcher gathers requests, so the same input may come back with other last bits.
- It keeps no key; where a proxy before it does, the key goes as `Authorization: Bearer`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

import httpx2
import numpy as np

from tollkeeper.encoders.base import Modality
from tollkeeper.encoders.classifiers.base import (
    canonical,
    checked_probabilities,
    class_names,
    softmax,
)
from tollkeeper.encoders.classifiers.kserve_wire import (
    Model,
    infer_body,
    parse_infer,
    parse_metadata,
)
from tollkeeper.encoders.inputs import require
from tollkeeper.encoders.upstream_http import Reply, base_address, bearer, persist, request
from tollkeeper.encoders.upstream_wire import answer_limit, parse_complaint
from tollkeeper.errors import ConfigurationError, EncoderError, InputError, RequestError
from tollkeeper.types import Batch, Images, Probabilities

_MOST_METADATA = 2**20


class KServeClassifier:
    """Classifies through `POST v2/models/NAME/infer` of another server.

    A model of FP32 [n, c, h, w] takes pictures; it gets values from 0 to 1 and does its own
    scaling. A model of BYTES [n] takes text. Rows are not independent: servers gather requests.

    Attributes:
        name: of the model.
        classes: as given, as the server's metadata say in `parameters.classes`, else numbers.
        input_shape: (c, h, w); None for a classifier of text.
        dim: number of classes.
        accepts: pictures and tensors, or text.
        concurrency: how many calls may run at once.
        rows_independent: False.
    """

    rows_independent: bool = False

    def __init__(
        self,
        url: str,
        *,
        model: str,
        classes: Sequence[str] | None = None,
        outputs: Literal["probabilities", "logits"] = "probabilities",
        api_key: str | None = None,
        timeout_s: float = 60.0,
        max_batch: int = 32,
        concurrency: int = 16,
        retries: int = 2,
        client: httpx2.Client | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Ask the server about the model, and for one answer.

        Args:
            url: address before `/v2`.
            model: its name.
            classes: names of its classes, in the order of the columns.
            outputs: what the model answers; of logits the softmax is taken.
            api_key: the operator's credential at the server.
            timeout_s: seconds that one request may take, body included.
            max_batch: inputs in one request.
            concurrency: calls that may run at once, each from its own thread.
            retries: further tries after 408, 424, 429, 5xx, a timeout or a lost connection.
            client: HTTP client to use instead of an own one; its owner closes it.
            clock: seconds, for the deadline of a slow body.
            sleep: waits between tries.

        Raises:
            ConfigurationError: an unusable address or credential, no such model, a model that is
                no classifier, or names that do not fit it.
            EncoderError: the server cannot be reached or answered garbage.
        """
        self._url = f"{base_address(url, whose='server')}/v2/models/{quote(model, safe='')}"
        self._headers = bearer(api_key, whose="server")
        self._api_key, self._timeout_s, self._retries = api_key, timeout_s, retries
        self._clock, self._sleep = clock, sleep
        self._is_logits = outputs == "logits"
        self._max_batch = max_batch
        self._owns_client = client is None
        self._client = client or httpx2.Client(
            limits=httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        )
        self.concurrency = concurrency
        self.name = model
        self.dim = 0
        try:
            self._model = self._described(outputs)
            self.input_shape = self._model.picture
            kinds = {"text"} if self.input_shape is None else {"image", "tensor"}
            self.accepts: frozenset[Modality] = frozenset(kinds)
            self.dim = self._probe()
            named = self._model.classes if classes is None else classes
            self.classes = class_names(named, self.dim, whose=f"model {model!r}")
        except BaseException:
            self.close()
            raise

    def embed(self, inputs: Batch) -> Probabilities:
        """Classify n inputs.

        Args:
            inputs: n (h, w, 3) uint8 images or (c, h, w) float32 tensors in [0, 1], or n texts.

        Returns:
            (n, k) float32 probabilities, in input order.

        Raises:
            InputError: an input that the model does not take.
            EncoderError: the server failed, or answered what is no probability.
        """
        if len(inputs) == 0:
            return np.empty((0, self.dim), dtype=np.float32)
        require(inputs, self.accepts, name=self.name)
        items: Images | list[str] = list(inputs)
        if self.input_shape is not None:
            items = canonical(inputs, self.input_shape, name=self.name)
        step = self._model.batch or self._max_batch
        parts = [self._classify(items[i : i + step]) for i in range(0, len(items), step)]
        return np.concatenate(parts)

    def close(self) -> None:
        """Close the connections, unless the client was handed in."""
        if self._owns_client:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _described(self, outputs: str) -> Model:
        """Return what the server says of the model."""
        reply = self._send("GET", "", b"", _MOST_METADATA)
        if reply.status in {401, 403}:
            raise _denied()
        if reply.status != 200:
            words = parse_complaint(reply.content, secret=self._api_key).message
            raise ConfigurationError(
                f"the server answered {reply.status} for model {self.name!r}"
                f"{words and f': {words}'}; check the address (before /v2) and the name (#model)"
            )
        return parse_metadata(reply.content, prefer=outputs)

    def _probe(self) -> int:
        """Return the number of classes, seen in the answer to a first input."""
        shape = self._model.picture
        items = ["a"] if shape is None else np.zeros((1, *shape), dtype=np.float32)
        try:
            return int(self._classify(items).shape[1])
        except RequestError as error:
            raise ConfigurationError(
                f"model {self.name!r} refused a first text: {error}"
            ) from error

    def _classify(self, items: Images | Sequence[str]) -> Probabilities:
        """Ask for one batch; in halves where the server finds it too large."""
        n = len(items)
        batch = self._model.batch or n
        # A model of fixed batch size runs on repeats of the first input; their rows are dropped.
        padded = [*items, *[items[0]] * (batch - n)]
        sent = padded if self.input_shape is None else np.stack(padded)
        body = infer_body(self._model, sent)
        reply = self._send("POST", "/infer", body, answer_limit(batch))
        if reply.status != 200:
            if n > 1 and self._is_too_much(reply):
                half = n // 2
                return np.concatenate([self._classify(items[:half]), self._classify(items[half:])])
            self._refuse(reply)
        rows = parse_infer(reply.content, model=self._model, n=batch)
        make = softmax if self._is_logits else checked_probabilities
        return make(rows, n=batch, classes=self.dim or rows.shape[1])[:n]

    def _send(self, method: str, path: str, body: bytes, limit: int) -> Reply:
        """Make one request, with retries; return any reply worth reading."""
        return persist(
            lambda: request(
                self._client,
                method,
                self._url + path,
                content=body,
                headers=self._headers,
                timeout_s=self._timeout_s,
                limit=limit,
                clock=self._clock,
            ),
            retries=self._retries,
            sleep=self._sleep,
        )

    def _is_too_much(self, reply: Reply) -> bool:
        """Tell whether a smaller batch may pass."""
        if reply.status in {400, 422} and self._model.batch is None:
            return parse_complaint(reply.content, secret=None).is_about_batch
        return reply.status == 413

    def _refuse(self, reply: Reply) -> None:
        """Raise the error that an answer other than 200 stands for."""
        if reply.status in {401, 403}:
            raise _denied()
        words = parse_complaint(reply.content, secret=self._api_key).message or "no reason"
        if reply.status in {400, 422} and self.input_shape is None:
            # A picture was checked before it was sent; of a text only the server knows.
            raise InputError(f"the model refused the input: {words}", param="input")
        raise EncoderError(f"the server answered {reply.status}: {words}")


def _denied() -> EncoderError:
    # The client did nothing wrong, and the server's words may quote the credential.
    return EncoderError(
        "the server refused the gateway's credential; set TOLLKEEPER_UPSTREAM_API_KEY"
    )
