"""What kind of input a batch holds: the check that every adapter makes first."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.base import Modality
from tollkeeper.errors import InputError
from tollkeeper.types import Batch

SEND_STRINGS = "send strings (in LangChain set check_embedding_ctx_length=False)"
"""What a client must do whose token lists are not understood."""

_MAX_TOKEN_ID = 2**31 - 1  # Far above any vocabulary, and safe in int32 graphs.


def modality(inputs: Batch) -> Modality:
    """Return the one modality of a batch of at least one input.

    Strings are `"text"` (data URIs too), lists of non-negative integers are
    `"tokens"`, (h, w, 3) uint8 arrays are `"image"`, (c, h, w) float32 arrays are `"tensor"`.

    Args:
        inputs: n >= 1 inputs.

    Returns:
        The modality that all n share.

    Raises:
        InputError: an input is of no known kind, or the kinds are mixed.
    """
    kinds = {_kind(item, position) for position, item in enumerate(inputs)}
    if len(kinds) != 1:
        raise InputError(
            f"expected inputs of one kind in a request, got {' and '.join(sorted(kinds))}",
            param="input",
        )
    return kinds.pop()


def require(inputs: Batch, accepts: Iterable[Modality], *, name: str) -> Modality:
    """Return the batch's modality, or raise when encoder `name` does not accept it.

    Args:
        inputs: n >= 1 inputs.
        accepts: what the encoder understands.
        name: the encoder's name, for the message.

    Returns:
        The modality that all n share.

    Raises:
        InputError: unknown, mixed or unaccepted input.
    """
    found = modality(inputs)
    if found in accepts:
        return found
    hint = f"; {SEND_STRINGS}" if found == "tokens" else ""
    raise InputError(
        f"model {name!r} accepts {' or '.join(sorted(accepts))} input, got {found}{hint}",
        param="input",
    )


def estimate_tokens(inputs: Batch) -> NDArray[np.int64]:
    """Estimate usage where nobody counts: a quarter of a text's UTF-8 bytes, rounded up.

    A token list counts its length, an image (array or data URI) one, and nothing less than one.

    Args:
        inputs: n inputs.

    Returns:
        (n,) int64 tokens per input.
    """
    return np.array([_estimate(item) for item in inputs], dtype=np.int64)


def _estimate(item: Any) -> int:
    """Estimate one input's tokens."""
    if isinstance(item, str):
        return 1 if item.startswith("data:image/") else max(1, -(-len(item.encode()) // 4))
    return 1 if isinstance(item, np.ndarray) and item.ndim == 3 else len(item)


def _kind(item: Any, position: int) -> Modality:
    """Tell one input's modality."""
    if isinstance(item, str):
        if _is_unicode(item):
            return "text"
        expected = "valid Unicode, got a lone surrogate"
    elif isinstance(item, np.ndarray) and item.dtype == np.uint8:
        if item.ndim == 3 and item.shape[2] == 3 and item.size:
            return "image"
        expected = f"an image of shape (h, w, 3), got shape {item.shape}"
    elif isinstance(item, np.ndarray) and item.dtype == np.float32:
        if item.ndim == 3 and item.size and _is_in_range(item):
            return "tensor"
        expected = f"a finite tensor of shape (c, h, w) in [0, 1], got {_range_of(item)}"
    elif isinstance(item, list | tuple | np.ndarray):
        if _are_tokens(item):
            return "tokens"
        expected = f"a non-empty list of token ids from 0 to {_MAX_TOKEN_ID}"
    else:
        expected = f"a string, a list of token ids or a uint8 image, got {type(item).__name__}"
    raise InputError(f"input {position}: expected {expected}", param="input")


def _is_in_range(tensor: NDArray[np.float32]) -> bool:
    """Tell whether all entries are in [0, 1]; NaN is not."""
    return bool(tensor.min() >= 0 and tensor.max() <= 1)


def _range_of(tensor: NDArray[np.float32]) -> str:
    """Return a tensor's shape and range, for a message."""
    if not tensor.size:
        return f"shape {tensor.shape}"
    return f"shape {tensor.shape} from {tensor.min():g} to {tensor.max():g}"


def _is_unicode(text: str) -> bool:
    """Tell whether `text` can be sent anywhere; JSON may smuggle in half a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _are_tokens(item: list[Any] | tuple[Any, ...] | np.ndarray[Any, Any]) -> bool:
    """Tell whether `item` is a non-empty flat run of token ids; bools are none."""
    if isinstance(item, np.ndarray) and item.ndim != 1:
        return False
    kinds = set(map(type, item)) or {str}
    integers = all(issubclass(kind, int | np.integer) and kind is not bool for kind in kinds)
    return integers and int(min(item)) >= 0 and int(max(item)) <= _MAX_TOKEN_ID


def digest(item: Any, kind: Modality, *, key: bytes = b"") -> bytes:
    """Return 16 bytes that are equal for equal inputs of a kind; kinds and keys never collide.

    Args:
        item: a string, token ids, an (h, w, 3) uint8 image, or a (c, h, w) float32 tensor.
        kind: its modality.
        key: up to 64 bytes.
    """
    if kind == "text":
        content = item.encode()
    elif kind == "tokens":
        # A fixed dtype makes lists, tuples and arrays of the same ids equal.
        content = np.asarray(item, dtype=np.int64).tobytes()
    else:
        content = f"{item.shape}".encode() + item.tobytes()
    return hashlib.blake2b(content, digest_size=16, key=key, person=kind.encode()).digest()
