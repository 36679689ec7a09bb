"""What `POST /v1/embeddings` and `POST /v1/classify` do with a body, once it is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from tollkeeper.errors import ModelNotFoundError
from tollkeeper.gateway import wire
from tollkeeper.gateway.asks import Answer, Ask
from tollkeeper.gateway.calls import SMALL_BYTES, Call, Models, Reply
from tollkeeper.gateway.classify_reply import encode_classify
from tollkeeper.gateway.classify_request import parse_classify
from tollkeeper.gateway.desk import Door, Paid
from tollkeeper.gateway.engine import Engine
from tollkeeper.gateway.images import count_pixels, decode_images
from tollkeeper.gateway.places import Allowance
from tollkeeper.types import Account

T = TypeVar("T")


class Route(Protocol):
    """Answers the bodies of one path."""

    door: Door
    models: Models

    async def answer(self, account: Account, body: bytes, call: Call) -> Reply:
        """Answer a body that an account sent; raises whatever stands in the way."""
        ...


class EmbeddingsRoute:
    """Answers `POST /v1/embeddings`."""

    def __init__(
        self, engine: Engine, door: Door, models: Models, *, limits: wire.Limits, pixels: Allowance
    ) -> None:
        """Hold the parts; `pixels` bounds what decoded images of all requests hold together."""
        self._engine = engine
        self.door = door
        self.models = models
        self._limits = limits
        self._pixels = pixels

    async def answer(self, account: Account, body: bytes, call: Call) -> Reply:
        """Answer a body; see `Route`."""
        parse = partial(wire.parse_embeddings, body, limits=self._limits)
        request = await _aside(parse, len(body))
        _check_model(request.model, self.models)
        paid = await _paid(self.door, account, body, call)
        ask = Ask(
            account,
            request.inputs,
            request.modality,
            request.dimensions,
            call.request_id,
            body=body,
            proof=paid.proof,
            fault=paid.fault,
        )
        if request.modality == "image" and not self._engine.takes_data_uris:
            answer = await _answer_images(self._engine, ask, self._limits, self._pixels)
        else:
            answer = await self._engine.answer(ask)
        encode = partial(
            wire.encode_embeddings,
            answer.embeddings,
            model=request.model,
            tokens=answer.tokens,
            encoding_format=request.encoding_format,
        )
        return await _reply(encode, answer)


class ClassifyRoute:
    """Answers `POST /v1/classify`."""

    def __init__(
        self,
        engine: Engine,
        door: Door,
        models: Models,
        *,
        classes: tuple[str, ...],
        limits: wire.Limits,
        pixels: Allowance,
    ) -> None:
        """Hold the parts; `classes` names the columns of answers."""
        self._engine = engine
        self.door = door
        self.models = models
        self._classes = classes
        self._limits = limits
        self._pixels = pixels

    async def answer(self, account: Account, body: bytes, call: Call) -> Reply:
        """Answer a body; see `Route`."""
        request = await _aside(partial(parse_classify, body, limits=self._limits), len(body))
        _check_model(request.model, self.models)
        paid = await _paid(self.door, account, body, call)
        ask = Ask(
            account,
            request.inputs,
            request.modality,
            request_id=call.request_id,
            body=body,
            proof=paid.proof,
            fault=paid.fault,
        )
        if request.modality == "image":
            # Always decoded: a detector has to see what the classifier sees.
            answer = await _answer_images(self._engine, ask, self._limits, self._pixels)
        else:
            answer = await self._engine.answer(ask)
        encode = partial(
            encode_classify,
            answer.embeddings,
            self._classes,
            model=request.model,
            tokens=answer.tokens,
            top_k=request.top_k,
            encoding_format=request.encoding_format,
        )
        return await _reply(encode, answer)


async def _aside(work: Callable[[], T], size: int) -> T:
    """Do what takes long off the event loop."""
    return work() if size <= SMALL_BYTES else await asyncio.to_thread(work)


def _check_model(name: str, models: Models) -> None:
    if name not in models.all:
        raise ModelNotFoundError(
            f"The model '{name}' does not exist or you do not have access to it.", param="model"
        )


async def _paid(door: Door, account: Account, body: bytes, call: Call) -> Paid:
    """Check the proof that came with a request, if one did."""
    token = call.headers.get(wire.PROOF)
    if token is None:
        return Paid()
    return await _aside(partial(door.verify, token.decode("latin-1"), account, body), len(body))


async def _answer_images(
    engine: Engine, ask: Ask, limits: wire.Limits, allowance: Allowance
) -> Answer:
    """Decode off the event loop, with a bound on the pixels of all requests together."""
    pixels = await asyncio.to_thread(count_pixels, ask.inputs, limits=limits)
    async with allowance.hold(pixels):
        ask.inputs = await asyncio.to_thread(decode_images, ask.inputs, limits=limits)
        return await engine.answer(ask)


async def _reply(encode: Callable[[], bytes], answer: Answer) -> Reply:
    content = await _aside(encode, answer.embeddings.nbytes)
    return Reply(200, content, wire.answer_headers(answer.receipt, answer.allowance))
