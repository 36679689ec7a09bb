"""From the SPEC of a command line or settings file to an encoder."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.callable_encoder import CallableEncoder
from tollkeeper.errors import ConfigurationError

KNOWN_SPECS = (
    "builtin:text",
    "builtin:image",
    "onnx:PATH",
    "python:module:attribute",
    "torch:module:factory",
    "lab:PATH",
    "simsiam:PATH",
    "dino:PATH",
    "timm:NAME",
    "st:NAME",
    "http(s)://host/v1[#model]",
)

_EXTRAS = {"lab": "lab", "simsiam": "lab", "dino": "lab", "timm": "timm", "st": "text"}
"""Schemes of `encoders.lab`, and the extra that brings the packages of each."""


def load_encoder(
    spec: str,
    *,
    threads: int = 1,
    api_key: str | None = None,
    timeout_s: float = 60.0,
    concurrency: int = 16,
) -> Encoder:
    """Make the encoder that `spec` names.

    `python:module:attribute` names an encoder, a callable with an integer
    attribute `dim` (and optionally `accepts` and `rows_independent`), or a
    factory of either, called without arguments. `torch:module:factory` names
    such a factory; torch is imported by the user's module only. Modules must
    be importable: put their folder on PYTHONPATH.

    `lab:PATH`, `simsiam:PATH`, `dino:PATH`, `timm:NAME` and `st:NAME` import torch and run on the
    first GPU, if there is one.

    Args:
        spec: one of `KNOWN_SPECS`.
        threads: compute threads of the built-in and ONNX encoders.
        api_key: credential for an `http(s)://` upstream.
        timeout_s: seconds one upstream request may take.
        concurrency: upstream calls that may run at once.

    Returns:
        A ready encoder.

    Raises:
        ConfigurationError: unknown spec, or the encoder cannot be made from it.
        EncoderError: the upstream is not reachable.
    """
    scheme, _, rest = spec.partition(":")
    if scheme == "builtin" and rest in {"text", "image"}:
        return _builtin(rest, threads)
    if scheme == "onnx" and rest:
        from tollkeeper.encoders.onnx_encoder import OnnxEncoder

        return OnnxEncoder(Path(rest), threads=threads)
    if scheme in {"python", "torch"} and rest:
        return _from_python(spec, rest)
    if scheme in {"http", "https"} and rest:
        from tollkeeper.encoders.upstream import UpstreamEncoder

        base_url, _, model = spec.partition("#")
        return UpstreamEncoder(
            base_url,
            model=model or None,
            api_key=api_key,
            timeout_s=timeout_s,
            concurrency=concurrency,
        )
    if scheme in _EXTRAS and rest:
        return _from_lab(spec, scheme, rest)
    raise ConfigurationError(
        f"unknown encoder spec {spec!r}; expected one of {', '.join(KNOWN_SPECS)}"
    )


def builtin_calibration_path(spec: str) -> Path | None:
    """Return where the calibration that ships with a built-in encoder lies.

    Args:
        spec: an encoder spec.

    Returns:
        Path of the `.npz` inside the package, or None when `spec` names no built-in encoder.
    """
    if spec not in {"builtin:text", "builtin:image"}:
        return None
    return Path(__file__).parent / "weights" / f"{spec.removeprefix('builtin:')}-calibration.npz"


def _builtin(kind: str, threads: int) -> Encoder:
    """Load a built-in encoder; each import costs start-up time, so only the one asked for."""
    if kind == "text":
        from tollkeeper.encoders.builtin_text import TextEncoder

        return TextEncoder(intra_op_num_threads=threads)
    from tollkeeper.encoders.builtin_image import ImageEncoder

    return ImageEncoder(intra_op_num_threads=threads)


def _from_lab(spec: str, scheme: str, rest: str) -> Encoder:
    """Load an encoder that needs torch; nothing else in this room imports it."""
    try:
        from tollkeeper.encoders.lab.specs import LOADERS

        return LOADERS[scheme](rest)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"encoder spec {spec!r} needs the package {error.name}; "
            f"pip install 'tollkeeper[{_EXTRAS[scheme]}]'"
        ) from error


def _from_python(spec: str, target: str) -> Encoder:
    """Resolve `module:attribute` to an encoder."""
    module_name, _, attribute = target.partition(":")
    if not (module_name and attribute):
        raise ConfigurationError(
            f"encoder spec {spec!r}: expected module:attribute after the scheme"
        )
    try:
        found = getattr(importlib.import_module(module_name), attribute)
        encoder = None if spec.startswith("torch:") else _as_encoder(found, attribute)
        if encoder is None and callable(found):
            encoder = _as_encoder(found(), attribute)
    except ConfigurationError as error:
        raise ConfigurationError(f"encoder spec {spec!r}: {error}") from error
    except Exception as error:
        # A user's module may fail in any way; one line instead of a traceback.
        raise ConfigurationError(
            f"encoder spec {spec!r} failed: {type(error).__name__}: {error}; "
            "is the module's folder on PYTHONPATH?"
        ) from error
    if encoder is None:
        raise ConfigurationError(
            f"encoder spec {spec!r}: expected an encoder (name, dim, accepts, embed), "
            "a function that takes a list of inputs, or a factory of either"
        )
    return encoder


def _as_encoder(found: Any, name: str) -> Encoder | None:
    """Return an encoder for an encoder or a function of inputs; None for anything else.

    A function says its width in an attribute `dim`, or is asked to embed one text.
    """
    if isinstance(found, type):
        return None
    if isinstance(found, Encoder):
        return found
    if not callable(found):
        return None
    dim = getattr(found, "dim", None)
    if dim is None and _takes_inputs(found):
        shape = np.shape(found(["How wide is an embedding?"]))
        if len(shape) != 2:
            raise ConfigurationError(
                f"encoder {name!r}: expected embeddings of shape (1, d) for one text, got {shape}"
            )
        dim = shape[1]
    if not isinstance(dim, int):
        return None
    accepts = getattr(found, "accepts", frozenset({"text"}))
    independent = bool(getattr(found, "rows_independent", False))
    return CallableEncoder(found, dim=dim, name=name, accepts=accepts, rows_independent=independent)


def _takes_inputs(function: Callable[..., Any]) -> bool:
    """Tell an embedding function from a factory: it needs an argument."""
    needed = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}
    ]
    return len(needed) == 1
