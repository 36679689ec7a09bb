"""Encoders of timm and of sentence-transformers; each package is imported when it is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from PIL.Image import Resampling

from tollkeeper.encoders.base import Modality, checked
from tollkeeper.encoders.inputs import require
from tollkeeper.encoders.lab.pixels import Pixels
from tollkeeper.encoders.lab.torch_encoder import TorchEncoder, best_device
from tollkeeper.errors import ConfigurationError, EncoderError
from tollkeeper.types import Batch, Embeddings

_BATCH = 32

Made = TypeVar("Made")


def timm_encoder(name: str) -> TorchEncoder:
    """Load a pretrained image model of timm without its classifier.

    Images are treated as the model's own data configuration says.

    Args:
        name: as `timm.create_model` takes it, for example `resnet18.a1_in1k`.

    Raises:
        ConfigurationError: timm cannot make it, or wants something else than RGB squares.
        ModuleNotFoundError: timm is not installed.
    """

    def make() -> tuple[Any, dict[str, Any]]:
        import timm

        network = timm.create_model(name, pretrained=True, num_classes=0)
        return network, timm.data.resolve_model_data_config(network)

    network, config = _made(f"timm:{name}", make)
    return TorchEncoder(network, _timm_pixels(config, name), name=_last(name))


class SentenceEncoder:
    """Embeds texts with a sentence-transformers model, as the model itself pools them.

    Attributes:
        name: the model name clients ask for.
        dim: embedding width d.
        accepts: `{"text"}`.
        rows_independent: False; texts of a batch are padded to the longest.
    """

    accepts: frozenset[Modality] = frozenset({"text"})
    rows_independent: bool = False

    def __init__(self, name: str) -> None:
        """Load a model and embed one text.

        Args:
            name: of a model on the Hugging Face hub, or a folder.

        Raises:
            ConfigurationError: there is no such model, or it does not embed.
            ModuleNotFoundError: sentence-transformers is not installed.
        """

        def make() -> Any:
            from sentence_transformers import SentenceTransformer

            return SentenceTransformer(name, device=str(best_device()))

        self.name = _last(name)
        self._model = _made(f"st:{name}", make)
        try:
            self.dim = self._run(["How wide is an embedding?"], dim=None).shape[1]
        except EncoderError as error:
            raise ConfigurationError(f"st:{name} fails on a first text: {error}") from error

    def embed(self, inputs: Batch) -> Embeddings:
        """Embed n texts.

        Args:
            inputs: n strings.

        Returns:
            (n, d) float32, finite, in input order.

        Raises:
            InputError: an input is no text.
            EncoderError: the model failed.
        """
        if len(inputs) == 0:
            return np.empty((0, self.dim), dtype=np.float32)
        require(inputs, self.accepts, name=self.name)
        return self._run(list(inputs), dim=self.dim)

    def _run(self, texts: list[str], *, dim: int | None) -> Embeddings:
        """Embed texts: (len(texts), d) float32."""
        try:
            rows = self._model.encode(
                texts, batch_size=_BATCH, show_progress_bar=False, convert_to_numpy=True
            )
        except Exception as error:  # a foreign model may fail in any way
            raise EncoderError(f"the model failed with {type(error).__name__}") from error
        return checked(rows, n=len(texts), dim=dim)


def _last(name: str) -> str:
    """Return a model's name without its owner or folder."""
    return name.rstrip("/").rpartition("/")[2]


def _made(spec: str, make: Callable[[], Made]) -> Made:
    """Call a foreign factory; whatever goes wrong there, but a missing package, is one line."""
    try:
        return make()
    except ModuleNotFoundError:
        raise
    except Exception as error:  # hubs fail in any way: network, names, files
        line = " ".join(str(error).split())
        raise ConfigurationError(
            f"cannot load {spec}: {type(error).__name__}: {line[:200]}"
        ) from error


def _timm_pixels(config: Mapping[str, Any], name: str) -> Pixels:
    """Return the evaluation pipeline of a timm model's data configuration."""
    channels, height, width = config["input_size"]
    mode, filter_name = config["crop_mode"], config["interpolation"].upper()
    if (channels, height) != (3, width) or mode not in {"center", "squash"}:
        raise ConfigurationError(
            f"timm:{name}: expected a model of square RGB images that are cropped or squashed, "
            f"got input size {config['input_size']} and crop mode {mode!r}"
        )
    if filter_name not in Resampling.__members__:
        raise ConfigurationError(f"timm:{name}: unknown interpolation {config['interpolation']!r}")
    return Pixels(
        crop=height,
        resize=math.floor(height / config["crop_pct"]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        keeps_ratio=mode == "center",
        filter=Resampling[filter_name],
    )
