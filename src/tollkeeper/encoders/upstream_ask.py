"""How a batch is put to an OpenAI-compatible server whose dialect is not known beforehand."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.upstream_http import Reply
from tollkeeper.encoders.upstream_wire import parse_complaint

Item = TypeVar("Item")
AnyReply = TypeVar("AnyReply", bound=Reply)


class Asker:
    """Writes requests and finds out what the server takes.

    Base64 is asked for; a server that refuses it before its first answer is asked for floats
    from then on. A batch that the server finds too large goes in halves.
    """

    def __init__(self, model: str | None) -> None:
        """Ask for `model`; None names none."""
        self._model = model
        self._encoding = "base64"
        self._has_answered = False

    def ask(
        self,
        items: Sequence[Item],
        *,
        encode: Callable[[Item], Any],
        send: Callable[[bytes, Sequence[Item]], AnyReply],
    ) -> Iterator[tuple[AnyReply, Sequence[Item]]]:
        """Send a batch and yield each reply with the items that it is for, in order.

        Args:
            items: n >= 1.
            encode: turns an item into what travels as JSON.
            send: sends a request body for some items.

        Yields:
            Replies of status 200 that together are for all items. One of another status is the
            last to be read: what follows it would be asked in vain.
        """
        reply = send(self._body(items, encode, self._encoding), items)
        if reply.status in {400, 422} and not self._has_answered and self._encoding == "base64":
            # Perhaps it was the format and not the input: one try tells.
            second = send(self._body(items, encode, "float"), items)
            if second.status == 200:
                self._encoding = "float"
                reply = second
        if len(items) > 1 and _is_too_much(reply):
            half = len(items) // 2
            for part in (items[:half], items[half:]):
                yield from self.ask(part, encode=encode, send=send)
            return
        self._has_answered = self._has_answered or reply.status == 200
        yield reply, items

    def _body(self, items: Sequence[Item], encode: Callable[[Item], Any], encoding: str) -> bytes:
        body = {"input": [encode(item) for item in items], "encoding_format": encoding}
        return msgspec.json.encode(body if self._model is None else {**body, "model": self._model})


def jsonable(item: Any) -> Any:
    """Return an input as it travels: strings as they are, ids as ints, images as PNG data URIs.

    A (c, h, w) float32 tensor travels as its shape and base64, exact to the bit.
    """
    if isinstance(item, str):
        return item
    if isinstance(item, np.ndarray) and item.dtype == np.float32:
        numbers = base64.b64encode(item.astype("<f4").tobytes()).decode()
        return {"shape": item.shape, "base64": numbers}
    if isinstance(item, np.ndarray) and item.ndim == 3:
        return _data_uri(item)
    return [int(token) for token in item]


def _data_uri(image: NDArray[np.uint8]) -> str:
    """Return an (h, w, 3) uint8 image as a PNG data URI; lossless."""
    from PIL import Image

    buffer = io.BytesIO()
    # Fast compression: the bytes cross one hop and are thrown away.
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _is_too_much(reply: Reply) -> bool:
    """Tell whether a smaller batch may pass."""
    if reply.status in {400, 422}:
        return parse_complaint(reply.content, secret=None).is_about_batch
    return reply.status == 413
