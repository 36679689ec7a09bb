"""An OpenAI-compatible embeddings server as an encoder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NoReturn, Self

import httpx2
import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.base import Modality
from tollkeeper.encoders.inputs import SEND_STRINGS, estimate_tokens, require
from tollkeeper.encoders.upstream_ask import Asker, jsonable
from tollkeeper.encoders.upstream_http import (
    Reply,
    base_address,
    bearer,
    persist,
    request,
)
from tollkeeper.encoders.upstream_wire import (
    Answer,
    Complaint,
    answer_limit,
    parse_answer,
    parse_complaint,
    spread,
)
from tollkeeper.errors import (
    ConfigurationError,
    EncoderError,
    InputError,
    ModelNotFoundError,
    RequestError,
    TooLargeError,
)
from tollkeeper.types import Batch, Embeddings


class UpstreamEncoder:
    """Embeds through `POST {base_url}/embeddings` of another server.

    Batches are split to `max_batch` and answered in order. Base64 is asked for;
    an upstream that refuses it before its first answer is asked for floats from
    then on. One failed part fails the call. The upstream's headers never leave
    this class, and of its words only a cleaned complaint about the input does.

    Rows are not independent and cannot be made so: servers gather the requests of all
    their clients into batches, so the same input sent alone may still come back with
    other last bits. Answers repeat only as far as the upstream repeats itself.

    Attributes:
        name: the model name clients ask for: `model`, else what the upstream calls it.
        dim: embedding width d.
        accepts: `{"text", "tokens", "image"}`; what the upstream itself does not
            take it refuses per request.
        concurrency: how many calls may run at once.
        rows_independent: False.
    """

    accepts: frozenset[Modality] = frozenset({"text", "tokens", "image"})
    rows_independent: bool = False

    def __init__(
        self,
        base_url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        dim: int | None = None,
        timeout_s: float = 60.0,
        max_batch: int = 32,
        concurrency: int = 16,
        retries: int = 2,
        client: httpx2.Client | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connect to an upstream; without `dim` by embedding one letter.

        Args:
            base_url: address up to and with `/v1`.
            model: model name to send; None sends none.
            api_key: the operator's credential at the upstream.
            dim: embedding width; None asks the upstream once.
            timeout_s: seconds that one request may take, body included.
            max_batch: inputs per request; 32 is what text-embeddings-inference takes.
            concurrency: calls that may run at once, each from its own thread.
            retries: further tries after 408, 424, 429, 5xx, a timeout or a lost connection.
            client: HTTP client to use instead of an own one; its owner closes it.
            clock: seconds, for the deadline of a slow body.
            sleep: waits between tries.

        Raises:
            ConfigurationError: an unusable address or credential, or the upstream
                refused the first request.
            EncoderError: the upstream cannot be reached or answered garbage.
        """
        self._url = base_address(base_url, whose="upstream") + "/embeddings"
        self._headers = bearer(api_key, whose="upstream")
        self._asker = Asker(model)
        self._model = model
        self._api_key = api_key
        self._max_batch = max_batch
        self._retries = retries
        self._timeout_s = timeout_s
        self._clock = clock
        self._sleep = sleep
        self._owns_client = client is None
        self._client = client or httpx2.Client(
            limits=httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        )
        self.concurrency = concurrency
        self.name = model or "upstream"
        self.dim = dim or 0
        if dim is None:
            self._probe()

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed n inputs.

        Args:
            inputs: n strings (data URIs too), token lists or (h, w, 3) uint8 images.
                Strings and token lists are sent as they are, arrays as PNG data URIs.

        Returns:
            (n, d) float32, finite, in input order.

        Raises:
            InputError: the upstream refused an input.
            TooLargeError: one input alone is too large for the upstream.
            ModelNotFoundError: the upstream does not serve the model (any more).
            EncoderError: the upstream failed, answered garbage or refused the credential.
        """
        return self.embed_measured(inputs)[0]

    def embed_measured(self, inputs: Batch) -> tuple[Embeddings, NDArray[np.int64]]:
        """Embed n inputs and report usage.

        Args:
            inputs: as for `embed`.

        Returns:
            (n, d) float32 and (n,) int64 tokens: `estimate_tokens`, scaled so that each
            batch sums to what the upstream reported for it, if it reported anything.

        Raises:
            RequestError: as for `embed`.
            EncoderError: as for `embed`.
        """
        if len(inputs) == 0:
            return np.empty((0, self.dim), dtype=np.float32), np.empty(0, dtype=np.int64)
        require(inputs, self.accepts, name=self.name)
        items = list(inputs)
        rows: list[Embeddings] = []
        tokens: list[NDArray[np.int64]] = []
        for start in range(0, len(items), self._max_batch):
            for answer, part in self._ask(items[start : start + self._max_batch]):
                estimate = estimate_tokens(part)
                rows.append(answer.embeddings)
                tokens.append(
                    estimate if answer.tokens is None else spread(answer.tokens, estimate)
                )
        return np.concatenate(rows), np.concatenate(tokens)

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

    def _probe(self) -> None:
        """Learn width, format and name from one small request."""
        try:
            ((answer, _),) = self._ask(["a"])
        except RequestError as error:
            self.close()
            raise ConfigurationError(
                f"the upstream refused a first request: {error}; check the address (with /v1) "
                "and the model (#model)"
            ) from error
        except EncoderError:
            self.close()
            raise
        self.dim = answer.embeddings.shape[1]
        self.name = self._model or answer.model or self.name

    def _ask(self, items: Sequence[Any]) -> list[tuple[Answer, Sequence[Any]]]:
        """Ask for one batch; return answers in order, each with the items it is for."""
        answers: list[tuple[Answer, Sequence[Any]]] = []
        for reply, part in self._asker.ask(items, encode=jsonable, send=self._send):
            if reply.status != 200:
                complaint = parse_complaint(reply.content, secret=self._api_key)
                _refuse(reply.status, complaint, sent_tokens=isinstance(jsonable(part[0]), list))
            answer = parse_answer(reply.content, n=len(part), dim=self.dim or None)
            answers.append((answer, part))
        return answers

    def _send(self, payload: bytes, items: Sequence[Any]) -> Reply:
        """Post one batch, with retries; return any reply worth reading."""
        return persist(
            lambda: self._post(payload, answer_limit(len(items))),
            retries=self._retries,
            sleep=self._sleep,
        )

    def _post(self, payload: bytes, limit: int) -> Reply:
        return request(
            self._client,
            "POST",
            self._url,
            content=payload,
            headers=self._headers,
            timeout_s=self._timeout_s,
            limit=limit,
            clock=self._clock,
        )


def _refuse(status: int, complaint: Complaint, *, sent_tokens: bool) -> NoReturn:
    """Raise the error that an answer other than 200 stands for."""
    words = complaint.message or "it gave no reason"
    if status in {400, 422}:
        hint = f"; if it takes no token lists, {SEND_STRINGS}" if sent_tokens else ""
        raise InputError(
            f"the model refused the input: {words}{hint}", param="input", code=complaint.code
        )
    if status == 413:
        raise TooLargeError(f"the input is too large for the model: {words}", param="input")
    if status == 404 and not complaint.is_missing_route:
        raise ModelNotFoundError(
            f"the model is not available: {words}", param="model", code="model_not_found"
        )
    if status in {401, 403}:
        # The client did nothing wrong, and the upstream's words may quote the credential.
        raise EncoderError(
            "the upstream refused the gateway's credential; set TOLLKEEPER_UPSTREAM_API_KEY"
        )
    raise EncoderError(f"the upstream answered {status}")
