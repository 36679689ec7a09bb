"""Images: what they look like decoded, and that no bytes get past the checks."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tollkeeper.errors import InputError
from tollkeeper.gateway.images import DECODERS, decode_data_uri, decode_images
from tollkeeper.gateway.request import Limits

LIMITS = Limits()
PICTURE = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)


def uri(content: bytes, kind: str = "png") -> str:
    """Return content as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def encoded(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    """Return an image as a file of that kind."""
    buffer = io.BytesIO()
    image.save(buffer, kind.upper(), **options)
    return buffer.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """Return a PNG whose header claims a size, with almost no data behind it."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 10)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def decode(text: str, limits: Limits = LIMITS) -> Any:
    """Decode as the fourth input of a request."""
    return decode_data_uri(text, limits=limits, index=3)


FILES = {
    kind: encoded(Image.fromarray(PICTURE), kind, **({"lossless": True} if kind == "webp" else {}))
    for kind in DECODERS
}


@pytest.mark.parametrize("kind", ["png", "bmp", "webp"])
def test_lossless_types_decode_exactly(kind: str) -> None:
    """Lossless files give back the very pixels, as an (h, w, 3) uint8 array of its own."""
    pixels = decode(uri(FILES[kind], kind))
    assert pixels.dtype == np.uint8
    assert pixels.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(pixels, PICTURE)


@pytest.mark.parametrize("kind", DECODERS)
def test_every_type_decodes_a_flat_color(kind: str) -> None:
    """Each declared type is decoded, compared with the color that was stored."""
    flat = Image.new("RGB", (8, 6), (200, 100, 40))
    pixels = decode(uri(encoded(flat, kind), kind))
    assert pixels.shape == (6, 8, 3)
    assert np.abs(pixels.astype(int) - [200, 100, 40]).max() <= 4  # JPEG and WebP lose a little


def test_transparent_parts_are_white() -> None:
    """Transparency shows white behind it, whatever color hides there."""
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, :, 0] = 255
    rgba[0, :, 3] = [0, 51, 255]
    expected = [[[255, 255, 255], [255, 204, 204], [255, 0, 0]]]
    np.testing.assert_array_equal(decode(uri(encoded(Image.fromarray(rgba)))), expected)


def test_transparent_palette_is_white() -> None:
    """A transparent palette entry shows white too."""
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    pixels = decode(uri(encoded(image, "gif", transparency=0), "gif"))
    np.testing.assert_array_equal(pixels, [[[255, 255, 255], [0, 0, 255]]])


def test_sixteen_bit_gray_is_scaled() -> None:
    """16-bit gray keeps its upper 8 bits instead of being clipped to white."""
    gray = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    pixels = decode(uri(encoded(Image.fromarray(gray))))
    np.testing.assert_array_equal(pixels, np.repeat((gray >> 8)[:, :, None], 3, axis=2))


@pytest.mark.parametrize(("mode", "color"), [("1", 1), ("L", 255), ("CMYK", (0, 0, 0, 0))])
def test_other_color_modes_become_rgb(mode: str, color: Any) -> None:
    """Black-and-white, gray and print colors come out as RGB."""
    kind = "jpeg" if mode == "CMYK" else "png"
    pixels = decode(uri(encoded(Image.new(mode, (2, 2), color), kind), kind))
    np.testing.assert_array_equal(pixels, np.full((2, 2, 3), 255))


def test_exif_orientation_is_applied() -> None:
    """A photo that says it lies on its side is turned upright."""
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned a quarter clockwise
    pixels = decode(uri(encoded(Image.fromarray(PICTURE), exif=exif)))
    np.testing.assert_array_equal(pixels, np.rot90(PICTURE, -1))


def test_animations_give_their_first_frame() -> None:
    """Of an animation the first frame counts."""
    frames = [Image.new("RGB", (2, 2), color) for color in ("red", "blue")]
    file = encoded(frames[0], "gif", save_all=True, append_images=frames[1:])
    assert decode(uri(file, "gif"))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    "text",
    [
        "data:image/",
        "data:image/png",
        "data:image/png;base64",
        "data:image/png;base64,",
        "data:image/png,AAAA",
        "data:image/PNG;base64,AAAA",
        "data:image/svg+xml;base64,AAAA",
        "data:image/tiff;base64,AAAA",
        "data:image/png;charset=utf-8;base64,AAAA",
        uri(FILES["png"])[:-2],
        uri(FILES["png"]) + "=",
        uri(FILES["png"]) + "AAAA!",
        uri(FILES["png"]).replace("/", "_").replace("+", "-"),
        uri(FILES["png"]).replace("base64,", "base64, "),
        uri(FILES["png"]).replace("base64,", "base64,é"),
        uri(FILES["png"], "jpeg"),
        uri(FILES["jpeg"], "png"),
        uri(b"not an image"),
        uri(png_claiming(10, 10)),
        uri(png_claiming(0, 10)),
        *(uri(FILES[kind][: len(FILES[kind]) // 2], kind) for kind in DECODERS),
    ],
)
def test_unusable_images_are_refused(text: str) -> None:
    """Wrong types, wrong base64 and broken files are errors that name the input."""
    with pytest.raises(InputError, match=r"input\[3\]") as caught:
        decode(text)
    assert (caught.value.param, caught.value.code) == ("input", "invalid_image")
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("size", [(100_000, 100_000), (4097, 4096), (2**31 - 1, 2**31 - 1)])
def test_bombs_are_refused_by_their_header(size: tuple[int, int]) -> None:
    """A small file that claims a huge picture is refused before it is decoded."""
    with pytest.raises(InputError, match="pixels") as caught:
        decode(uri(png_claiming(*size)))
    assert caught.value.code == "input_too_long"


def test_size_limits_are_exact() -> None:
    """An image at the limits decodes; one byte or one pixel less of room refuses it."""
    text = uri(FILES["png"])
    size = len(FILES["png"])
    assert decode(text, Limits(max_image_bytes=size, max_image_pixels=35)).shape == (5, 7, 3)
    with pytest.raises(InputError, match="at most"):
        decode(text, Limits(max_image_bytes=size - 1))
    with pytest.raises(InputError, match="pixels"):
        decode(text, Limits(max_image_pixels=34))


def test_images_of_a_request_share_a_pixel_limit() -> None:
    """The images of one request are counted together, and keep their order."""
    uris = [uri(FILES["png"]), uri(encoded(Image.new("RGB", (1, 1)))), uri(FILES["bmp"], "bmp")]
    decoded = decode_images(uris, limits=Limits(max_request_pixels=71))
    assert [image.shape for image in decoded] == [(5, 7, 3), (1, 1, 3), (5, 7, 3)]
    with pytest.raises(InputError, match=r"input\[2\]"):
        decode_images(uris, limits=Limits(max_request_pixels=70))


@given(st.sampled_from(sorted(DECODERS)), st.data())
def test_damaged_images_decode_or_are_refused(kind: str, data: st.DataObject) -> None:
    """No damage to a file raises anything but an input error."""
    file = bytearray(FILES[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(file[: data.draw(st.integers(0, len(file)))])
    try:
        pixels = decode(uri(damaged, kind))
    except InputError:
        return
    assert pixels.ndim == 3


@given(st.text() | st.binary().map(lambda content: uri(content, "webp")))
def test_any_text_decodes_or_is_refused(text: str) -> None:
    """No text raises anything but an input error."""
    for candidate in (text, f"data:image/png;base64,{text}"):
        with pytest.raises(InputError):
            decode(candidate)
