"""One HTTP request and its whole response, as handlers of the data plane see them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tollkeeper.gateway import wire

Receive = Callable[[], Awaitable[dict[str, Any]]]

SMALL_BYTES = 256 * 1024  # above this, work on a body leaves the event loop


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole HTTP response."""

    status: int
    body: bytes
    headers: wire.Headers = ()


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request as its handler gets it."""

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    receive: Receive
    request_id: str


@dataclass(frozen=True, slots=True)
class Models:
    """The model names that a route serves.

    Attributes:
        name: the encoder's own name.
        aliases: further names that clients may ask for.
        created: seconds since the epoch, shown by `GET /v1/models`.
    """

    name: str
    aliases: tuple[str, ...] = ()
    created: int = 0

    @property
    def all(self) -> tuple[str, ...]:
        """Every name, the encoder's own first."""
        return (self.name, *self.aliases)
