"""Promises of the ONNX adapter, on graphs small enough to compute by hand (see fixtures/)."""

from __future__ import annotations

import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tollkeeper.encoders.base import Encoder, MeasuresUsage, RowsIndependent
from tollkeeper.encoders.onnx_encoder import OnnxEncoder
from tollkeeper.encoders.onnx_graphs import Feeds
from tollkeeper.errors import ConfigurationError, EncoderError, InputError

FIXTURES = Path(__file__).parent / "fixtures"


def place(tmp_path: Path, graph: str, /, **sidecar: object) -> Path:
    """Copy a fixture to a folder of its own, with a sidecar if fields are given."""
    path = tmp_path / f"{graph}.onnx"
    shutil.copy(FIXTURES / path.name, path)
    if sidecar:
        path.with_suffix(".json").write_text(json.dumps(sidecar))
    return path


def image(seed: int, height: int = 4, width: int = 6) -> NDArray[np.uint8]:
    """Return a random image."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def channel_means(picture: NDArray[np.uint8]) -> list[float]:
    """Average each channel with plain loops."""
    return [sum(map(int, picture[:, :, c].ravel())) / picture[:, :, c].size for c in range(3)]


def test_uint8_channels_last_gets_raw_pixels() -> None:
    """A uint8 NHWC graph sees pixels as they are; the answer is the hand-computed projection."""
    encoder = OnnxEncoder(FIXTURES / "image_uint8_nhwc.onnx")
    assert isinstance(encoder, Encoder)
    assert (encoder.name, encoder.dim) == ("image_uint8_nhwc", 4)
    assert encoder.accepts == {"image"}
    pictures = [image(seed) for seed in range(3)]
    expected = []
    for picture in pictures:
        red, green, blue = channel_means(picture)
        expected.append([red + green, blue, red - blue, green])
    np.testing.assert_allclose(encoder.embed(pictures), expected, rtol=1e-5, atol=1e-3)


def test_float_channels_first_gets_normalized_pixels(tmp_path: Path) -> None:
    """A float32 NCHW graph sees (pixels / 255 - mean) / std of its sidecar, and its name."""
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.5, 1.0]
    path = place(tmp_path, "image_float_nchw_batch2", mean=mean, std=std, name="resnet")
    encoder = OnnxEncoder(path)
    assert encoder.name == "resnet"
    picture = image(0)
    expected = [
        (value / 255 - m) / s for value, m, s in zip(channel_means(picture), mean, std, strict=True)
    ]
    np.testing.assert_allclose(encoder.embed([picture])[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_fixed_batch_size_is_filled_up(n: int) -> None:
    """A graph of batch size 2 answers any number of inputs, in order."""
    encoder = OnnxEncoder(FIXTURES / "image_float_nchw_batch2.onnx")
    pictures = [image(seed) for seed in range(n)]
    expected = [[value / 255 for value in channel_means(picture)] for picture in pictures]
    np.testing.assert_allclose(encoder.embed(pictures), expected, rtol=1e-4)


def test_many_images_come_back_in_order() -> None:
    """More inputs than one run holds are answered in order."""
    encoder = OnnxEncoder(FIXTURES / "image_uint8_nhwc.onnx")
    pictures = np.stack([np.full((4, 6, 3), i, np.uint8) for i in range(70)])
    np.testing.assert_allclose(encoder.embed(pictures)[:, 1], np.arange(70), rtol=1e-6)


def test_other_sizes_are_resized() -> None:
    """An image of another size gives what its Pillow-resized version gives, and is not changed."""
    encoder = OnnxEncoder(FIXTURES / "image_uint8_nhwc.onnx")
    large = image(0, 9, 13)
    before = large.copy()
    small = np.asarray(Image.fromarray(large).resize((6, 4), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(encoder.embed([large]), encoder.embed([small]))
    np.testing.assert_array_equal(large, before)


def test_an_open_size_needs_the_sidecar(tmp_path: Path) -> None:
    """A graph of open height and width is refused without `size` and runs with it."""
    with pytest.raises(ConfigurationError, match=r"size.*height, width"):
        OnnxEncoder(FIXTURES / "image_open_size.onnx")
    encoder = OnnxEncoder(place(tmp_path, "image_open_size", size=[2, 2]))
    white = np.full((5, 5, 3), 255, np.uint8)
    np.testing.assert_allclose(encoder.embed([white]), [[1, 1, 1]])


def test_an_untold_layout_needs_the_sidecar(tmp_path: Path) -> None:
    """A graph whose shape does not show the channels is refused without `layout`."""
    with pytest.raises(ConfigurationError, match="where the 3 channels are"):
        OnnxEncoder(FIXTURES / "image_no_channels.onnx")
    encoder = OnnxEncoder(place(tmp_path, "image_no_channels", layout="nchw"))
    assert encoder.dim == 3


def test_string_graphs_take_text() -> None:
    """A graph with a string input embeds each string by itself."""
    encoder = OnnxEncoder(FIXTURES / "strings.onnx")
    assert encoder.accepts == {"text"}
    assert encoder.embed(["bank", "other", "a"]).tolist() == [[0, 2], [-1, -1], [1, 0]]


def test_masked_tokens_are_averaged_without_padding() -> None:
    """Lists of different lengths give the mean over their own tokens only."""
    encoder = OnnxEncoder(FIXTURES / "tokens_masked.onnx")
    assert encoder.accepts == {"tokens"}
    embeddings = encoder.embed([[1, 2, 6], [10], (4, 4)])
    np.testing.assert_allclose(embeddings, [[3, 7, 1], [10, 0, 1], [4, 6, 1]], rtol=1e-6)


def test_unmasked_tokens_are_never_padded() -> None:
    """Without a mask only equal lengths share a run: padding (id 0) would win the maximum."""
    encoder = OnnxEncoder(FIXTURES / "tokens_unmasked.onnx")
    embeddings = encoder.embed([[5, 6], [7], [8, 9], [3, 2]])
    assert embeddings.tolist() == [[6, 5, 1], [7, 3, 1], [9, 2, 1], [3, 8, 1]]


def test_a_fixed_length_without_mask_takes_that_length_only() -> None:
    """Lists that would need padding nobody can mask are refused; exact ones are averaged."""
    encoder = OnnxEncoder(FIXTURES / "tokens_length4.onnx")
    np.testing.assert_allclose(encoder.embed([[1, 2, 3, 4]]), [[2.5, 7.5, 1]])
    with pytest.raises(InputError, match="exactly 4 tokens, got 3"):
        encoder.embed([[1, 2, 3, 4], [1, 2, 3]])
    with pytest.raises(InputError, match="at most 4 tokens, got 5"):
        encoder.embed([[1, 2, 3, 4, 5]])


def sentences(count: int) -> list[list[int]]:
    """Return lists of nine token ids each."""
    drawn = np.random.default_rng(1).integers(0, 32, (count, 9))
    return [[int(token) for token in row] for row in drawn]


@pytest.mark.parametrize("threads", [1, 2])
def test_company_changes_no_byte(threads: int) -> None:
    """A graph of matrix products answers each input with the same bytes alone and among 40."""
    encoder = OnnxEncoder(FIXTURES / "tokens_mixed.onnx", threads=threads)
    assert isinstance(encoder, RowsIndependent)
    assert encoder.rows_independent
    batch = sentences(40)
    together = encoder.embed(batch)
    for row, tokens in zip(together, batch, strict=True):
        assert encoder.embed([tokens]).tobytes() == row.tobytes()


def test_running_inputs_together_gives_up_the_promise(tmp_path: Path) -> None:
    """With `batch` in the sidecar answers are the same but for rounding, and that is declared."""
    encoder = OnnxEncoder(place(tmp_path, "tokens_mixed", batch=40))
    assert not encoder.rows_independent
    batch = sentences(50)
    alone = OnnxEncoder(FIXTURES / "tokens_mixed.onnx").embed(batch)
    np.testing.assert_allclose(encoder.embed(batch), alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "batch", "rows"),
    [
        ("tokens_mixed", None, [1] * 5),
        ("tokens_mixed", 1, [1] * 5),
        ("tokens_mixed", 2, [2, 2, 1]),
        ("tokens_mixed", 40, [5]),
        ("image_float_nchw_batch2", None, [2] * 5),
        ("image_float_nchw_batch2", 40, [2, 2, 2]),
    ],
)
def test_batch_is_the_most_inputs_of_a_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    batch: int | None,
    rows: list[int],
) -> None:
    """Runs have one input, or up to `batch`, or the graph's fixed size; `batch` 1 is the default."""
    encoder = OnnxEncoder(place(tmp_path, name, **({"batch": batch} if batch else {})))
    assert encoder.rows_independent == (batch in {None, 1})
    seen: list[int] = []
    feeds = encoder._form.feeds

    def counted(prepared: list[object]) -> Feeds:
        seen.append(len(prepared))
        return feeds(prepared)

    monkeypatch.setattr(encoder._form, "feeds", counted)
    encoder.embed([image(seed) for seed in range(5)] if "image" in name else sentences(5))
    assert seen == rows


def test_usage_counts_tokens_of_each_input() -> None:
    """Token graphs count ids, text is estimated at four bytes a token, an image is one."""
    tokens = OnnxEncoder(FIXTURES / "tokens_masked.onnx")
    assert isinstance(tokens, MeasuresUsage)
    assert tokens.embed_measured([[1, 2, 3], [4]])[1].tolist() == [3, 1]
    texts = OnnxEncoder(FIXTURES / "strings.onnx")
    assert texts.embed_measured(["bank", "other", ""])[1].tolist() == [1, 2, 1]
    images = OnnxEncoder(FIXTURES / "image_uint8_nhwc.onnx")
    assert images.embed_measured([image(0), image(1)])[1].tolist() == [1, 1]
    assert images.embed_measured([])[1].tolist() == []


def test_max_tokens_of_the_sidecar_is_enforced(tmp_path: Path) -> None:
    """A list longer than `max_tokens` is the client's error and names the input."""
    encoder = OnnxEncoder(place(tmp_path, "tokens_masked", max_tokens=2))
    with pytest.raises(InputError, match="input 1: expected at most 2 tokens, got 3"):
        encoder.embed([[1, 2], [1, 2, 3]])


def test_ids_outside_the_vocabulary_are_the_clients_error() -> None:
    """The graph's own refusal of an id is an InputError, without the runtime's words."""
    encoder = OnnxEncoder(FIXTURES / "tokens_masked.onnx")
    with pytest.raises(InputError, match="outside its vocabulary"):
        encoder.embed([[11]])


def test_text_goes_through_the_tokenizer_beside_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tokenizer.json and the package, text is accepted and gives what its ids give."""
    path = place(tmp_path, "tokens_masked")
    (tmp_path / "tokenizer.json").write_text('{"a": 1, "b": 5}')
    monkeypatch.setitem(sys.modules, "tokenizers", fake_tokenizers())
    encoder = OnnxEncoder(path)
    assert encoder.accepts == {"tokens", "text"}
    np.testing.assert_array_equal(encoder.embed(["a b b", ""]), encoder.embed([[1, 5, 5], [0]]))


def fake_tokenizers() -> types.ModuleType:
    """Return a stand-in for the `tokenizers` package that splits at spaces."""

    class Tokenizer:
        def __init__(self, vocabulary: dict[str, int]) -> None:
            self.vocabulary = vocabulary

        @classmethod
        def from_file(cls, path: str) -> Tokenizer:
            return cls(json.loads(Path(path).read_text()))

        def no_padding(self) -> None:
            pass

        def encode_batch(self, texts: list[str]) -> list[types.SimpleNamespace]:
            return [
                types.SimpleNamespace(ids=[self.vocabulary[word] for word in text.split()])
                for text in texts
            ]

    module = types.ModuleType("tokenizers")
    module.Tokenizer = Tokenizer  # type: ignore[attr-defined]  # a made-up module
    return module


def test_a_tokenizer_without_its_package_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When `tokenizers` is missing, the error says to install it or to do without text."""
    path = place(tmp_path, "tokens_masked")
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigurationError, match="install it, or move the file away"):
        OnnxEncoder(path)


def test_the_real_tokenizers_package_is_understood(tmp_path: Path) -> None:
    """A tokenizer.json written by the real package gives the ids it should."""
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {"[UNK]": 0, "a": 1, "b": 5}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=9)
    path = place(tmp_path, "tokens_masked")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    np.testing.assert_allclose(OnnxEncoder(path).embed(["a b b", "b"])[:, 0], [11 / 3, 5])


def test_non_finite_embeddings_are_an_encoder_error() -> None:
    """A graph that divides by zero on an input fails the call instead of answering infinity."""
    encoder = OnnxEncoder(FIXTURES / "image_breaks_on_white.onnx")
    with pytest.raises(EncoderError, match="NaN or infinity"):
        encoder.embed([np.full((4, 6, 3), 255, np.uint8)])


@pytest.mark.parametrize(
    ("name", "inputs", "words"),
    [
        ("image_uint8_nhwc", ["a"], "accepts image input, got text"),
        ("image_uint8_nhwc", [np.zeros((4, 6), np.uint8)], r"\(h, w, 3\)"),
        ("strings", [[1, 2]], "accepts text input, got tokens"),
        ("tokens_masked", ["a"], "accepts tokens input, got text"),
        ("tokens_masked", [[-1]], "token ids from 0"),
    ],
)
def test_unaccepted_input_is_the_clients_error(name: str, inputs: list[object], words: str) -> None:
    """Input of another modality is refused before the graph runs."""
    with pytest.raises(InputError, match=words):
        OnnxEncoder(FIXTURES / f"{name}.onnx").embed(inputs)


@pytest.mark.parametrize(
    ("name", "sidecar", "words"),
    [
        ("features", {}, r"found x: tensor\(float\) \['n', 5\]"),
        ("image_in_image_out", {}, "first input.*got \\(1, 3, 4, 6\\)"),
        ("image_uint8_nhwc", {"mean": [0, 0, 0]}, "mean and std need float32"),
        ("strings", {"nmae": "typo"}, "nmae"),
        ("strings", {"name": 5}, "name"),
        ("strings", {"batch": 0}, "batch"),
        ("image_open_size", {"size": [0, 4]}, "size"),
        ("image_open_size", {"std": [1, 0, 1]}, "std"),
    ],
)
def test_misfits_are_configuration_errors(
    tmp_path: Path, name: str, sidecar: dict[str, object], words: str
) -> None:
    """A graph or sidecar of another kind is refused when it is loaded; inputs found are named."""
    with pytest.raises(ConfigurationError, match=words):
        OnnxEncoder(place(tmp_path, name, **sidecar))


def test_missing_and_broken_files_are_configuration_errors(tmp_path: Path) -> None:
    """No file, or a file that is no model, is told in one line."""
    with pytest.raises(ConfigurationError, match="found no file"):
        OnnxEncoder(tmp_path / "none.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(ConfigurationError, match="not a usable ONNX model") as caught:
        OnnxEncoder(broken)
    assert "\n" not in str(caught.value)
