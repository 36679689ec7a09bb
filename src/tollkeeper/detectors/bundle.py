"""The detectors that were fitted for one classifier, in one file.

A bundle is a zip archive of a JSON header, arrays as .npy and ONNX graphs; nothing in it is
executed but the graphs. It knows its victim by that one's answers to a few made-up pictures.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from tollkeeper.detectors import packing
from tollkeeper.detectors.base import AccountDetector, Detector
from tollkeeper.detectors.kinds import KINDS
from tollkeeper.detectors.packing import Packed, array_bytes, read_array
from tollkeeper.errors import ConfigurationError
from tollkeeper.graphs import Graph
from tollkeeper.types import Images, Probabilities, Scores

SAME_VICTIM = 0.02
"""How far an answer's probabilities to the probe may lie from those at fitting: above the rounding
of other machines and of upstreams that answer two decimals, below what retraining changes."""

LIMIT_BYTES = 1 << 30
"""A bundle that unpacks to more is refused; five of the largest networks here take a quarter."""

_FORMAT, _VERSION = "tollkeeper-detectors", 1
_HEADER, _HEADER_BYTES = "bundle.json", 1 << 22
_ENTRIES = 1024
_PROBE_SEED, _PROBES = 20240, 16
# What a damaged archive makes zipfile, zlib, json and our own reading of a header raise.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


class Victim(Protocol):
    """What of a classifier a bundle looks at."""

    @property
    def name(self) -> str:
        """Name of the model."""
        ...

    @property
    def dim(self) -> int:
        """Number of classes."""
        ...

    @property
    def input_shape(self) -> tuple[int, int, int] | None:
        """Shape (c, h, w) of its inputs; None where it takes no pictures."""
        ...

    def embed(self, inputs: Images) -> Probabilities:
        """Return (n, k) probabilities."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """Fitted detectors, and what their scores mean.

    Attributes:
        victim: name of the classifier they were fitted for.
        input_shape: (c, h, w) of its inputs.
        classes: number of its classes.
        detectors: by name.
        recommended: name of the one to use unless told otherwise.
        honest: detector to its sorted scores of honest traffic that was held out from fitting.
        account: looks at whole accounts; None without one.
        graphs: further networks, as ONNX, by name: those that responses need.
        probe: (m, c, h, w) made-up pictures.
        probe_answers: (m, k) what the victim answered to them.
    """

    victim: str
    input_shape: tuple[int, int, int]
    classes: int
    detectors: Mapping[str, Detector]
    recommended: str
    honest: Mapping[str, Scores]
    account: AccountDetector | None
    graphs: Mapping[str, bytes]
    probe: Images = field(repr=False)
    probe_answers: Probabilities = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together.

        Raises:
            ConfigurationError: no such recommended detector, a detector without honest scores,
                scores that are not sorted, or a probe of another shape.
        """
        for name, kept in (("detectors", self.detectors), ("honest", self.honest)):
            object.__setattr__(self, name, MappingProxyType(dict(kept)))
        if self.recommended not in self.detectors or set(self.honest) != set(self.detectors):
            raise ConfigurationError(
                f"expected honest scores of each of {sorted(self.detectors)} and one of them "
                f"recommended, got {sorted(self.honest)} and {self.recommended!r}"
            )
        for name, scores in self.honest.items():
            if scores.ndim != 1 or not len(scores) or not (np.diff(scores) >= 0).all():
                raise ConfigurationError(f"expected sorted honest scores of {name}")
        if (
            self.probe.shape[1:] != self.input_shape
            or self.probe_answers.shape != (len(self.probe), self.classes)
            or not len(self.probe)
        ):
            raise ConfigurationError(
                f"expected a probe of inputs {self.input_shape} and answers of {self.classes} "
                f"classes, got {self.probe.shape} and {self.probe_answers.shape}"
            )

    def rank(self, scores: Scores, detector: str | None = None) -> Scores:
        """Return which share of honest traffic scores below, counting the query itself.

        This is one minus a conformal p-value: an honest query, exchangeable with those held out,
        has a rank of at least r with probability at most 1 - r.

        Args:
            scores: (n,) of one detector.
            detector: its name; None means the recommended one.

        Returns:
            (n,) in [0, 1).
        """
        honest = self.honest[detector or self.recommended]
        return np.searchsorted(honest, scores, side="left") / (len(honest) + 1)

    def check_victim(self, classifier: Victim) -> None:
        """Return unless the detectors were fitted for another classifier, or fail at this one.

        Raises:
            ConfigurationError: other inputs, other classes, or other answers to the probe; or what
                is to serve cannot score the probe.
            EncoderError: it cannot answer.
        """
        text = f"the detectors were fitted for another victim: for {self.victim!r} with "
        if classifier.input_shape != self.input_shape or classifier.dim != self.classes:
            raise ConfigurationError(
                f"{text}inputs {self.input_shape} and {self.classes} classes, not for "
                f"{classifier.name!r} with inputs {classifier.input_shape} and {classifier.dim} "
                "classes; fit anew with `tollkeeper detectors fit`"
            )
        gap = float(np.abs(classifier.embed(self.probe) - self.probe_answers).max())
        if not gap <= SAME_VICTIM:
            raise ConfigurationError(
                f"{text}answers to a probe that are {gap:.2g} away from those of "
                f"{classifier.name!r}, expected at most {SAME_VICTIM}; restore the former model "
                "or fit anew with `tollkeeper detectors fit`"
            )
        self._check_served()

    def _check_served(self) -> None:
        """Let what will serve look at the probe once.

        Raises:
            ConfigurationError: it fails at inputs of this classifier.
        """
        one, n = self.detectors[self.recommended], len(self.probe)
        with _refusing(one.name):
            _check_scores(one.score(self.probe, self.probe_answers), n)
        if self.account is not None:
            with _refusing(self.account.name):
                state = self.account.empty()
                _check_scores(self.account.update(state, self.probe, self.probe_answers)[0], n)
        for name, data in self.graphs.items():
            with _refusing(name):
                shapes = [rows.shape for rows in Graph(data, name=name).run(self.probe).values()]
                if (n, self.classes) not in shapes:
                    raise ValueError(f"expected outputs of shape {(n, self.classes)}, got {shapes}")


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Name what fails, whatever it raises."""
    try:
        yield
    except Exception as error:
        raise ConfigurationError(
            f"{name} of the detector file fails at pictures of its classifier: "
            f"{' '.join(str(error).split()) or type(error).__name__}; fit anew with "
            "`tollkeeper detectors fit`"
        ) from error


def _check_scores(scores: Scores, n: int) -> None:
    if np.shape(scores) != (n,) or not np.isfinite(scores).all():
        raise ValueError(f"expected {n} finite scores, got shape {np.shape(scores)}")


def probe_for(shape: tuple[int, int, int]) -> Images:
    """Return made-up pictures (m, c, h, w) that tell classifiers apart: blocks of random brightness.

    They are the same everywhere, and nobody's data.
    """
    channels, height, width = shape
    rng = np.random.default_rng(_PROBE_SEED)
    found = np.empty((_PROBES, *shape), np.float32)
    for position, side in enumerate(np.resize([2, 4, 7, 14], _PROBES)):
        rows, columns = -(-height // side), -(-width // side)
        blocks = rng.random((channels, rows, columns)) ** 2
        found[position] = blocks.repeat(side, 1).repeat(side, 2)[:, :height, :width]
    return found


def save_bundle(path: Path, bundle: Bundle) -> None:
    """Write a bundle; equal bundles make equal bytes.

    Raises:
        ConfigurationError: a detector that cannot be stored, or the file cannot be written.
    """
    blobs = _Blobs()
    text = json.dumps(_header(bundle, blobs), allow_nan=False, ensure_ascii=False, indent=1)
    try:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in [(_HEADER, text.encode()), *blobs.held.items()]:
                # A date of its own, so that the same bundle is the same file.
                entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror or error}") from error


class _Blobs:
    """Bytes by the name of their entry; detectors share networks, and each is stored once."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def keep(self, data: bytes) -> str:
        """Return the name of an entry with these bytes."""
        name = f"blobs/{hashlib.sha256(data).hexdigest()}"
        self.held[name] = data
        return name

    def take_apart(self, detector: object) -> dict[str, Any]:
        """Return what the header says of a detector."""
        packed = packing.pack(detector)
        return {
            "kind": packed.kind,
            "parameters": packed.parameters,
            "blobs": {name: self.keep(data) for name, data in packed.blobs.items()},
        }


def _header(bundle: Bundle, blobs: _Blobs) -> dict[str, Any]:
    """Return everything of a bundle but its bytes, which are kept."""
    account = bundle.account
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "victim": bundle.victim,
        "input_shape": list(bundle.input_shape),
        "classes": bundle.classes,
        "recommended": bundle.recommended,
        "detectors": {name: blobs.take_apart(one) for name, one in bundle.detectors.items()},
        "account": None if account is None else blobs.take_apart(account),
        "honest": {name: blobs.keep(array_bytes(one)) for name, one in bundle.honest.items()},
        "graphs": {name: blobs.keep(data) for name, data in bundle.graphs.items()},
        "probe": blobs.keep(array_bytes(bundle.probe)),
        "probe_answers": blobs.keep(array_bytes(bundle.probe_answers)),
    }


def load_bundle(path: Path, *, threads: int = 1, kinds: Mapping[str, str] = KINDS) -> Bundle:
    """Read what `save_bundle` wrote.

    Args:
        path: the file.
        threads: that each network in it may use.
        kinds: the detectors it may hold, as `module:Class`.

    Raises:
        ConfigurationError: the file cannot be read, is damaged, too large or of another version.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            header, blobs = _contents(archive)
        return _bundle(header, blobs, threads=threads, kinds=kinds)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the detector file {path}: {error.strerror or error}; expected what "
            "`tollkeeper detectors fit` wrote"
        ) from error
    except (ConfigurationError, *_DAMAGE) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise ConfigurationError(
            f"cannot use the detector file {path}: {why}; expected what `tollkeeper detectors fit` "
            "wrote"
        ) from error


def _contents(archive: zipfile.ZipFile) -> tuple[Any, dict[str, bytes]]:
    """Return the header and the blobs; no more is unpacked than the limits allow."""
    names = archive.namelist()
    if len(names) > _ENTRIES or len(set(names)) != len(names):
        raise ValueError(f"expected at most {_ENTRIES} entries of different names")
    header = json.loads(_member(archive, _HEADER, _HEADER_BYTES))
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise ValueError(f"expected a header of format {_FORMAT}")
    if header.get("version") != _VERSION:
        raise ValueError(f"expected version {_VERSION}, got {header.get('version')}")
    left, blobs = LIMIT_BYTES, {}
    for name in names:
        if name != _HEADER:
            blobs[name] = _member(archive, name, left)
            left -= len(blobs[name])
    return header, blobs


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Return an entry; what its directory says of its size is not relied on."""
    if archive.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed in another way than deflated")
    with archive.open(name) as member:
        data = member.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{name} is larger than the {limit:,} bytes that are allowed")
    return data


def _bundle(
    header: dict[str, Any], blobs: Mapping[str, bytes], *, threads: int, kinds: Mapping[str, str]
) -> Bundle:
    def put_together(told: dict[str, Any]) -> Any:
        parts = {name: blobs[place] for name, place in told["blobs"].items()}
        packed = Packed(told["kind"], told["parameters"], parts)
        return packing.unpack(packed, threads=threads, kinds=kinds)

    channels, height, width = map(int, header["input_shape"])
    account = header["account"]
    return Bundle(
        victim=str(header["victim"]),
        input_shape=(channels, height, width),
        classes=int(header["classes"]),
        detectors={name: put_together(told) for name, told in header["detectors"].items()},
        recommended=header["recommended"],
        honest={
            name: read_array(blobs[place], dimensions=1).astype(np.float64)
            for name, place in header["honest"].items()
        },
        account=None if account is None else put_together(account),
        graphs={name: blobs[place] for name, place in header["graphs"].items()},
        probe=read_array(blobs[header["probe"]], dimensions=4).astype(np.float32),
        probe_answers=read_array(blobs[header["probe_answers"]], dimensions=2).astype(np.float32),
    )
