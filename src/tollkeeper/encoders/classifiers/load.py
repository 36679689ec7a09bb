"""From the SPEC of a command line or settings file to a classifier."""

from __future__ import annotations

from pathlib import Path

from tollkeeper.encoders.classifiers.base import Classifier
from tollkeeper.errors import ConfigurationError

KNOWN_SPECS = (
    "builtin:digits",
    "onnx:PATH",
    "kserve:http(s)://host[:port][#model]",
    "python:module:attribute",
)

BUILTIN = Path(__file__).parents[1] / "weights" / "digits.onnx"


def load_classifier(
    spec: str,
    *,
    threads: int = 1,
    api_key: str | None = None,
    timeout_s: float = 60.0,
    concurrency: int = 16,
) -> Classifier:
    """Make the classifier that `spec` names.

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
    raise ConfigurationError(
        f"unknown classifier spec {spec!r}; expected one of {', '.join(KNOWN_SPECS)}"
    )
