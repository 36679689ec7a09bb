"""The built-in image encoder: a small self-supervised network run by onnxruntime.

The weights lie beside this file and are described in `weights/image.md`. Its embeddings are
channel averages after a ReLU: non-negative and not normalized.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.encoders.base import Modality, checked
from tollkeeper.errors import ConfigurationError, EncoderError, InputError
from tollkeeper.types import Batch, Embeddings

if TYPE_CHECKING:
    import onnxruntime

WEIGHTS = Path(__file__).parent / "weights" / "image.onnx"
"""The network that is shipped with the package."""

SIDE = 32
"""The network sees squares of this many pixels a side."""

CHUNK = 32
"""Images handed to the network at once; bounds memory, never changes an answer."""

TOKENS_PER_IMAGE = 1
"""Usage counted for one image, whatever its size."""

MAX_PIXELS = 1 << 26
"""Larger images are refused, whoever calls."""

Image = NDArray[np.uint8]


class ImageEncoder:
    """Embeds RGB images of any size into non-negative vectors.

    A row depends on its own image alone: its bytes are the same in every batch.

    Attributes:
        name: the model name clients ask for.
        dim: embedding width d.
        accepts: `{"image"}`.
        rows_independent: True.
    """

    name = "tollkeeper-image"
    dim: int
    accepts: frozenset[Modality] = frozenset({"image"})
    rows_independent: bool = True

    def __init__(self, weights: Path = WEIGHTS, *, intra_op_num_threads: int = 1) -> None:
        """Load the network.

        Args:
            weights: ONNX file with input `images` uint8 (n, 32, 32, 3) and output `embeddings`
                float32 (n, d).
            intra_op_num_threads: threads that one call may use.

        Raises:
            ConfigurationError: the file is missing or not such a network.
        """
        self._session = _open_session(weights, intra_op_num_threads)
        self.dim = int(self._session.get_outputs()[0].shape[1])

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed n images.

        Args:
            inputs: n uint8 RGB arrays (h, w, 3), or one array (n, h, w, 3). Those of 32x32 pixels
                pass as they are; others are resized to 32x32, antialiased, without keeping the
                aspect ratio.

        Returns:
            (n, d) float32, non-negative, not normalized.

        Raises:
            InputError: an input is not a non-empty (h, w, 3) uint8 array.
            EncoderError: the network failed.
        """
        images = [_as_image(item, position) for position, item in enumerate(inputs)]
        if not images:
            return np.empty((0, self.dim), np.float32)
        rows = [self._run(chunk) for chunk in _chunks(images)]
        return checked(np.concatenate(rows), n=len(images), dim=self.dim)

    def embed_measured(self, inputs: Batch) -> tuple[Embeddings, NDArray[np.int64]]:
        """Embed n images and count usage: one token an image, whatever its size.

        Args:
            inputs: as for `embed`.

        Returns:
            (n, d) float32 and (n,) int64, all ones.

        Raises:
            InputError: an input is not a non-empty (h, w, 3) uint8 array.
            EncoderError: the network failed.
        """
        embeddings = self.embed(inputs)
        return embeddings, np.full(len(embeddings), TOKENS_PER_IMAGE, dtype=np.int64)

    def _run(self, images: NDArray[np.uint8]) -> Embeddings:
        """Run the network on (m, 32, 32, 3) uint8 and return (m, d) float32."""
        try:
            (rows,) = self._session.run(["embeddings"], {"images": images})
        except Exception as error:  # onnxruntime's errors share no public base class
            raise EncoderError(f"the built-in image encoder failed: {error}") from error
        return np.asarray(rows, dtype=np.float32)


def _open_session(weights: Path, threads: int) -> onnxruntime.InferenceSession:
    """Open the network with bounded memory and a fixed number of threads."""
    import onnxruntime

    if not weights.is_file():
        raise ConfigurationError(
            f"expected the built-in image encoder at {weights}, found nothing; reinstall the package"
        )
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            str(weights), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors share no public base class
        raise ConfigurationError(f"{weights} is not a usable ONNX file: {error}") from error
    names = [node.name for node in session.get_inputs()], [n.name for n in session.get_outputs()]
    if names != (["images"], ["embeddings"]):
        raise ConfigurationError(
            f"expected input `images` and output `embeddings`, {weights} has {names}"
        )
    return session


def _as_image(item: object, position: int) -> Image:
    """Return one input as uint8 (32, 32, 3), or say what is wrong with it."""
    if not isinstance(item, np.ndarray):
        raise InputError(
            f"input {position}: expected a (h, w, 3) uint8 array, got {type(item).__name__}",
            param="input",
        )
    if item.dtype != np.uint8:
        raise InputError(
            f"input {position}: expected pixels of type uint8 (0 to 255), got {item.dtype}",
            param="input",
        )
    if item.ndim != 3 or item.shape[2] != 3 or 0 in item.shape:
        raise InputError(
            f"input {position}: expected an RGB image of shape (h, w, 3), got {item.shape}",
            param="input",
        )
    if item.shape[0] * item.shape[1] > MAX_PIXELS:
        raise InputError(
            f"input {position}: expected at most {MAX_PIXELS} pixels, got {item.shape}; scale it down",
            param="input",
        )
    return item if item.shape == (SIDE, SIDE, 3) else _resized(item)


def _resized(image: Image) -> Image:
    """Scale (h, w, 3) to (32, 32, 3) with Pillow's antialiased bilinear filter."""
    from PIL import Image as PillowImage

    picture = PillowImage.fromarray(np.ascontiguousarray(image))
    small = picture.resize((SIDE, SIDE), PillowImage.Resampling.BILINEAR)
    return np.asarray(small, dtype=np.uint8)


def _chunks(images: list[Image]) -> Iterator[NDArray[np.uint8]]:
    """Stack images into contiguous uint8 batches of at most `CHUNK`."""
    for start in range(0, len(images), CHUNK):
        yield np.stack(images[start : start + CHUNK])
