"""From the SPEC of a command line or settings file to a classifier."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qsl

import msgspec

from tollkeeper.encoders.classifiers.base import Classifier
from tollkeeper.errors import ConfigurationError

KNOWN_SPECS = (
    "builtin:digits",
    "onnx:PATH",
    "kserve:http(s)://host[:port]#model",
    "python:module:attribute",
)

BUILTIN = Path(__file__).parents[1] / "weights" / "digits.onnx"


class _Options(msgspec.Struct, forbid_unknown_fields=True):
    """What an address may ask for behind `?`."""

    classes: str | None = None
    outputs: Literal["probabilities", "logits"] = "probabilities"
    batch: Annotated[int, msgspec.Meta(ge=1)] = 32


@dataclass(frozen=True, slots=True)
class KServeAddress:
    """A model behind a KServe v2 server.

    Attributes:
        url: address before `/v2`.
        model: its name.
        classes: names from the file given; None without one.
        outputs: what the model answers.
        batch: inputs in one request.
    """

    url: str
    model: str
    classes: tuple[str, ...] | None
    outputs: Literal["probabilities", "logits"]
    batch: int


def load_classifier(
    spec: str,
    *,
    threads: int = 1,
    api_key: str | None = None,
    timeout_s: float = 60.0,
    concurrency: int = 16,
) -> Classifier:
    """Make the classifier that `spec` names.

    A KServe address may have options before its `#`: `?classes=FILE` (names, one a line),
    `outputs=logits`, `batch=8` (inputs in one request).

    Args:
        spec: one of `KNOWN_SPECS`.
        threads: compute threads of built-in and ONNX classifiers.
        api_key: credential for a KServe server.
        timeout_s: seconds one request to it may take.
        concurrency: requests to it that may run at once.

    Returns:
        A ready classifier.

    Raises:
        ConfigurationError: unknown spec, or the classifier cannot be made from it.
        EncoderError: the server is not reachable.
    """
    scheme, _, rest = spec.partition(":")
    if spec == "builtin:digits" or (scheme == "onnx" and rest):
        from tollkeeper.encoders.classifiers.onnx import OnnxClassifier

        path = BUILTIN if scheme == "builtin" else Path(rest)
        return OnnxClassifier(path, threads=threads)
    if scheme == "python" and rest:
        from tollkeeper.encoders.classifiers.python import classifier_from_python

        return classifier_from_python(rest)
    if scheme == "kserve" and rest:
        from tollkeeper.encoders.classifiers.kserve import KServeClassifier

        address = kserve_address(rest)
        return KServeClassifier(
            address.url,
            model=address.model,
            classes=address.classes,
            outputs=address.outputs,
            api_key=api_key,
            timeout_s=timeout_s,
            max_batch=address.batch,
            concurrency=concurrency,
        )
    raise ConfigurationError(
        f"unknown classifier spec {spec!r}; expected one of {', '.join(KNOWN_SPECS)}"
    )


def kserve_address(rest: str) -> KServeAddress:
    """Read what follows `kserve:`.

    Raises:
        ConfigurationError: no model named, an unknown option, or a file that lists no names.
    """
    address, _, model = rest.partition("#")
    url, _, query = address.partition("?")
    if not model:
        raise ConfigurationError(
            f"expected kserve:http(s)://host[:port]#model, got no model in {rest!r}"
        )
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
        found = msgspec.convert(options, _Options, strict=False)
    except (ValueError, msgspec.ValidationError) as error:
        raise ConfigurationError(
            f"expected options like ?outputs=logits&classes=FILE&batch=8, got {query!r}: {error}"
        ) from error
    classes = None if found.classes is None else _names_in(Path(found.classes))
    return KServeAddress(url, model, classes, found.outputs, found.batch)


def _names_in(path: Path) -> tuple[str, ...]:
    """Read names of classes, one a line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read names of classes from {path}") from error
    return tuple(line.strip() for line in lines if line.strip())
