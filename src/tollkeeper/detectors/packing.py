"""Fitted detectors as plain parameters and named bytes, and back."""

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tollkeeper.detectors.kinds import KINDS
from tollkeeper.errors import ConfigurationError

_NUMBERS = "biuf"


@runtime_checkable
class Packable(Protocol):
    """What can be stored: a detector, or a part of one.

    Attributes:
        kind: names the class in `kinds.KINDS`.
    """

    kind: ClassVar[str]

    def pack(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return parameters as JSON knows them, and blobs: ONNX graphs or `array_bytes`."""
        ...

    @classmethod
    def unpack(
        cls, parameters: Mapping[str, Any], blobs: Mapping[str, bytes], *, threads: int
    ) -> Self:
        """Return what `pack` took apart; its graphs run on `threads` threads."""
        ...


@dataclass(frozen=True, slots=True)
class Packed:
    """A detector taken apart.

    Attributes:
        kind: names its class.
        parameters: as JSON knows them.
        blobs: bytes by name.
    """

    kind: str
    parameters: Mapping[str, Any]
    blobs: Mapping[str, bytes]


def pack(detector: object) -> Packed:
    """Take a detector apart.

    Raises:
        ConfigurationError: it cannot be stored.
    """
    if not isinstance(detector, Packable):
        raise ConfigurationError(
            f"{type(detector).__name__} cannot be stored: expected a detector with kind, pack and "
            "unpack"
        )
    parameters, blobs = detector.pack()
    return Packed(detector.kind, parameters, blobs)


def unpack(packed: Packed, *, threads: int, kinds: Mapping[str, str] = KINDS) -> Any:
    """Put a detector together again.

    Args:
        packed: what `pack` returned.
        threads: that each of its graphs may use.
        kinds: kind to `module:Class`.

    Raises:
        ConfigurationError: unknown kind, or parts that do not make one.
    """
    place = kinds.get(packed.kind)
    if place is None:
        raise ConfigurationError(
            f"unknown kind of detector {packed.kind!r}; expected one of {', '.join(sorted(kinds))}"
        )
    module, _, name = place.partition(":")
    made = cast("type[Packable]", getattr(importlib.import_module(module), name))
    try:
        return made.unpack(packed.parameters, packed.blobs, threads=threads)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ConfigurationError(
            f"the parts of a detector of kind {packed.kind!r} do not fit: {error!r}"
        ) from error


def array_bytes(array: NDArray[Any]) -> bytes:
    """Return an array of numbers as the bytes of an .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def read_array(data: bytes, *, dimensions: int) -> NDArray[Any]:
    """Return what `array_bytes` wrote.

    Raises:
        ValueError: not such bytes, no numbers, not finite, or other dimensions.
    """
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("expected an array as .npy of version 1.0")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    # Checked before anything is reserved: a header may promise what is not there.
    if dtype.kind not in _NUMBERS or len(data) - stream.tell() != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"damaged array: {dtype} of shape {shape} in {len(data)} bytes")
    stream.seek(0)
    array = cast("NDArray[Any]", np.load(stream, allow_pickle=False))
    if array.ndim != dimensions:
        raise ValueError(f"expected an array of {dimensions} dimensions, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("expected finite numbers in an array")
    return array
