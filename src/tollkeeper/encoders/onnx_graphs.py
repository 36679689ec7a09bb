"""The three forms of ONNX graph that `OnnxEncoder` runs, and how each is fed."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.base import Modality
from tollkeeper.errors import ConfigurationError, InputError
from tollkeeper.types import Batch

Feeds = dict[str, NDArray[Any]]

_Count = Annotated[int, msgspec.Meta(ge=1)]
_Positive = Annotated[float, msgspec.Meta(gt=0)]

_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_TOKEN_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}


class Sidecar(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What `model.json` may say; unknown fields are refused, so typos are seen."""

    name: str | None = None
    layout: Literal["nchw", "nhwc"] | None = None
    size: tuple[_Count, _Count] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[_Positive, _Positive, _Positive] | None = None
    max_tokens: _Count | None = None
    batch: _Count = 1


class Form:
    """How one form of graph is fed; a subclass writes `feeds`.

    Attributes:
        accepts: modalities of input.
        probe: one prepared input that any graph of this form can run on.
        batch: fixed batch size, or None when it is open.
        is_tokens: whether the graph reads token ids, and so may refuse an input only by failing.
    """

    accepts: frozenset[Modality]
    probe: Any
    batch: int | None
    is_tokens = False

    def prepare(self, inputs: Batch) -> list[Any]:
        """Bring each of n accepted inputs into the graph's own terms; raises InputError."""
        return list(inputs)

    def groups(self, prepared: list[Any]) -> list[list[int]]:
        """Return the positions of inputs that may share a batch."""
        return [list(range(len(prepared)))]

    def feeds(self, prepared: list[Any]) -> Feeds:
        """Stack one batch of prepared inputs into the graph's inputs."""
        raise NotImplementedError


def form_of(nodes: Sequence[Any], *, path: Path, sidecar: Sidecar) -> Form:
    """Tell which form a graph has.

    Args:
        nodes: the session's inputs, each with `name`, `type` and `shape`.
        path: the model file, for messages and the tokenizer beside it.
        sidecar: settings beside the model.

    Returns:
        The form, ready to feed.

    Raises:
        ConfigurationError: none of the three; names the inputs found.
    """
    names = {node.name for node in nodes}
    kinds = {node.type for node in nodes}
    if "input_ids" in names and names <= _TOKEN_INPUTS and kinds <= set(_INTEGERS):
        return TokenForm(nodes, path=path, max_tokens=sidecar.max_tokens)
    if len(nodes) == 1 and len(nodes[0].shape) == 4 and kinds <= {"tensor(uint8)", "tensor(float)"}:
        return ImageForm(nodes[0], path=path, sidecar=sidecar)
    if len(nodes) == 1 and len(nodes[0].shape) == 1 and kinds == {"tensor(string)"}:
        return StringForm(nodes[0])
    found = ", ".join(f"{node.name}: {node.type} {node.shape}" for node in nodes)
    raise ConfigurationError(
        f"{path}: expected one 4-d uint8 or float32 image input, one 1-d string input, or integer "
        f"input_ids (with attention_mask, token_type_ids); found {found}"
    )


class ImageForm(Form):
    """One 4-d input of pixels."""

    accepts: frozenset[Modality] = frozenset({"image"})

    def __init__(self, node: Any, *, path: Path, sidecar: Sidecar) -> None:
        """Read layout and size from the input's shape, else from the sidecar."""
        self._name = node.name
        self._is_raw = node.type == "tensor(uint8)"
        self._channels_first = _layout(node.shape, path, sidecar) == "nchw"
        self.batch = _fixed(node.shape[0])
        sides = node.shape[2:] if self._channels_first else node.shape[1:3]
        height, width = (_fixed(side) for side in sides)
        if height is None or width is None:
            if sidecar.size is None:
                raise ConfigurationError(
                    f"{path} leaves the image size open ({node.shape}); "
                    f'put "size": [height, width] into {path.with_suffix(".json").name}'
                )
            height, width = sidecar.size
        if self._is_raw and (sidecar.mean or sidecar.std):
            raise ConfigurationError(f"{path} takes uint8 pixels; mean and std need float32")
        self._height, self._width = height, width
        self._mean = np.asarray(sidecar.mean or (0, 0, 0), dtype=np.float32)
        self._std = np.asarray(sidecar.std or (1, 1, 1), dtype=np.float32)
        self.probe = np.zeros((height, width, 3), dtype=np.uint8)

    def prepare(self, inputs: Batch) -> list[Any]:
        """Resize each (h, w, 3) uint8 image to the graph's height and width."""
        return [self._resized(image) for image in inputs]

    def feeds(self, prepared: list[Any]) -> Feeds:
        """Stack (h, w, 3) uint8 images in the graph's layout and range."""
        pixels: NDArray[Any] = np.stack(prepared)
        if not self._is_raw:
            pixels = (pixels.astype(np.float32) / np.float32(255) - self._mean) / self._std
        if self._channels_first:
            pixels = pixels.transpose(0, 3, 1, 2)
        return {self._name: np.ascontiguousarray(pixels)}

    def _resized(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Scale one image with Pillow's antialiased bilinear filter, aspect ratio not kept."""
        if image.shape[:2] == (self._height, self._width):
            return image
        from PIL import Image

        picture = Image.fromarray(np.ascontiguousarray(image))
        small = picture.resize((self._width, self._height), Image.Resampling.BILINEAR)
        return np.asarray(small, dtype=np.uint8)


class StringForm(Form):
    """One 1-d input of strings; the graph tokenizes by itself."""

    accepts: frozenset[Modality] = frozenset({"text"})
    probe = "a"

    def __init__(self, node: Any) -> None:
        """Remember the input's name and batch size."""
        self._name = node.name
        self.batch = _fixed(node.shape[0])

    def feeds(self, prepared: list[Any]) -> Feeds:
        """Return the strings as an object array, as onnxruntime wants them."""
        return {self._name: np.asarray(prepared, dtype=object)}


class TokenForm(Form):
    """`input_ids` and its companions."""

    is_tokens = True

    def __init__(self, nodes: Sequence[Any], *, path: Path, max_tokens: int | None) -> None:
        """Read batch size and length, and load the tokenizer if there is one."""
        self._types = {node.name: _INTEGERS[node.type] for node in nodes}
        shape = next(node.shape for node in nodes if node.name == "input_ids")
        if len(shape) != 2:
            raise ConfigurationError(f"{path}: expected input_ids (n, length), found {shape}")
        self.batch = _fixed(shape[0])
        self._length = _fixed(shape[1])
        self._max_tokens = min(max_tokens or 2**31, self._length or 2**31)
        self._has_mask = "attention_mask" in self._types
        self._tokenizer = _load_tokenizer(path.parent / "tokenizer.json")
        texts = {"text"} if self._tokenizer else set()
        self.accepts: frozenset[Modality] = frozenset({"tokens"} | texts)
        self.probe = [0] * (self._length or 1)

    def prepare(self, inputs: Batch) -> list[Any]:
        """Return n lists of ids; text is tokenized, nothing is cut."""
        if isinstance(inputs[0], str):
            lists = [code.ids or [0] for code in self._tokenizer.encode_batch(list(inputs))]
        else:
            lists = [list(item) for item in inputs]
        for position, ids in enumerate(lists):
            if len(ids) > self._max_tokens:
                raise InputError(
                    f"input {position}: expected at most {self._max_tokens} tokens, got {len(ids)}",
                    param="input",
                )
            if self._length and not self._has_mask and len(ids) != self._length:
                raise InputError(
                    f"input {position}: expected exactly {self._length} tokens, got {len(ids)}",
                    param="input",
                )
        return lists

    def groups(self, prepared: list[Any]) -> list[list[int]]:
        """Without a mask padding would change answers, so only equal lengths share a batch."""
        if self._has_mask:
            return super().groups(prepared)
        by_length: dict[int, list[int]] = {}
        for position, ids in enumerate(prepared):
            by_length.setdefault(len(ids), []).append(position)
        return list(by_length.values())

    def feeds(self, prepared: list[Any]) -> Feeds:
        """Pad with zeros to the longest list (or the graph's length) and mask the padding."""
        length = self._length or max(map(len, prepared))
        ids = np.zeros((len(prepared), length), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(prepared):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        every = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return {name: every[name].astype(kind) for name, kind in self._types.items()}


def _fixed(size: Any) -> int | None:
    """Return a fixed dimension, None for a symbolic one."""
    return size if isinstance(size, int) else None


def _layout(shape: Sequence[Any], path: Path, sidecar: Sidecar) -> str:
    """Tell channels first from channels last by where the 3 stands."""
    if sidecar.layout is not None:
        return sidecar.layout
    candidates = [layout for layout, axis in (("nchw", 1), ("nhwc", 3)) if shape[axis] == 3]
    if len(candidates) != 1:
        raise ConfigurationError(
            f"{path}: the image input {list(shape)} does not tell where the 3 channels are; "
            f'put "layout": "nchw" or "nhwc" into {path.with_suffix(".json").name}'
        )
    return candidates[0]


def _load_tokenizer(path: Path) -> Any:
    """Return the tokenizer beside a model, None when there is none."""
    if not path.is_file():
        return None
    try:
        package = importlib.import_module("tokenizers")
    except ImportError as error:
        raise ConfigurationError(
            f"{path} needs the `tokenizers` package: install it, or move the file away to serve "
            "token lists only"
        ) from error
    try:
        tokenizer = package.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ConfigurationError(f"{path} is not a usable tokenizer: {error}") from error
    tokenizer.no_padding()
    return tokenizer
