"""Data URIs into RGB pixels, without trusting a byte of them.

- The declared type must be the real one: only that type's decoder sees the bytes.
- Sizes are read from the header and checked before any pixel is decoded.
- The picture is what a viewer shows: turned as its EXIF orientation says, transparent
  parts over white, the first frame of an animation, 16-bit gray scaled to 8 bits.
"""

from __future__ import annotations

import binascii
import io
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from tollkeeper.errors import InputError
from tollkeeper.gateway.request import Limits

DECODERS: dict[str, type[ImageFile]] = {
    "png": PngImageFile,
    "jpeg": JpegImageFile,
    "webp": WebPImageFile,
    "gif": GifImageFile,
    "bmp": BmpImageFile,
}
"""Decoder of each type that a data URI may declare. `Image.open` would guess the type."""

_HEADER = re.compile(rf"data:image/({'|'.join(DECODERS)});base64")
_PNG_MODES_16_BIT = {"I", "I;16"}  # the name depends on Pillow's version


def count_pixels(uris: Sequence[str], *, limits: Limits) -> int:
    """Return the pixels of all images of a request, from their headers.

    Args:
        uris: n data URIs.
        limits: the image sizes allowed, alone and together.

    Raises:
        InputError: one of them is not an image, or together they are too large.
    """
    pixels = 0
    for index, uri in enumerate(uris):
        image = _open(uri, limits, index)
        pixels += image.width * image.height
        if pixels > limits.max_request_pixels:
            raise InputError(
                f"expected at most {limits.max_request_pixels} pixels in one request, got more "
                f"by input[{index}]; send fewer or smaller images",
                param="input",
                code="input_too_long",
            )
    return pixels


def decode_images(uris: Sequence[str], *, limits: Limits) -> tuple[NDArray[np.uint8], ...]:
    """Decode all images of a request.

    Args:
        uris: n data URIs.
        limits: the image sizes allowed, alone and together.

    Returns:
        n arrays of shape (h, w, 3), RGB.

    Raises:
        InputError: one of them is not a usable image, or together they are too large.
    """
    count_pixels(uris, limits=limits)
    return tuple(decode_data_uri(uri, limits=limits, index=index) for index, uri in enumerate(uris))


def decode_data_uri(uri: str, *, limits: Limits, index: int = 0) -> NDArray[np.uint8]:
    """Decode one image.

    Args:
        uri: `data:image/<type>;base64,<data>` with a type of `DECODERS`.
        limits: the image sizes allowed.
        index: position in the request, for messages.

    Returns:
        (h, w, 3) RGB.

    Raises:
        InputError: not a usable image; nothing else is ever raised.
    """
    return _pixels(_open(uri, limits, index), index)


def _open(uri: str, limits: Limits, index: int) -> ImageFile:
    """Return the image with its header read and its size checked, but no pixel decoded."""
    header, _, payload = uri.partition(",")
    match = _HEADER.fullmatch(header)
    if match is None:
        raise _bad(
            index, f"data:image/<type>;base64,... with a type of {', '.join(DECODERS)}", header[:40]
        )
    kind = match.group(1)
    try:
        data = binascii.a2b_base64(payload, strict_mode=True)
    except ValueError:
        data = b""
    if not data or len(payload) % 4:  # strict mode lets an extra "=" pass
        raise _bad(index, "standard base64 with padding", "something else")
    if len(data) > limits.max_image_bytes:
        raise _bad(
            index,
            f"an image of at most {limits.max_image_bytes} bytes",
            f"{len(data)}",
            "input_too_long",
        )
    try:
        image = DECODERS[kind](io.BytesIO(data))
    except Exception as error:  # noqa: BLE001 - decoders raise whatever their parsers raise
        raise _bad(index, f"a {kind} image", str(error)[:80]) from None
    if image.width * image.height > limits.max_image_pixels:
        raise _bad(
            index,
            f"an image of at most {limits.max_image_pixels} pixels",
            f"{image.width} x {image.height}",
            "input_too_long",
        )
    return image


def _pixels(image: ImageFile, index: int) -> NDArray[np.uint8]:
    try:
        return _rgb(image)
    except Exception as error:  # noqa: BLE001 - decoders raise whatever their parsers raise
        raise _bad(index, "an image that can be decoded", str(error)[:80]) from None


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Return (h, w, 3) pixels as a viewer shows them."""
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in _PNG_MODES_16_BIT:
        gray = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(image.convert("RGB"))


def _bad(index: int, expected: str, got: str, code: str = "invalid_image") -> InputError:
    return InputError(
        f"expected input[{index}] to be {expected}; got {got}; send another image",
        param="input",
        code=code,
    )
