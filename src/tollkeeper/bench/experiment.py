"""What is measured, and what comes out: frozen data on both sides of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import msgspec
import numpy as np

from tollkeeper.errors import ConfigurationError, TollkeeperError

SCHEMA = 1
"""Version of the result file; readers ignore keys they do not know."""

Direction = Literal["lower", "higher"]
"""Which way a metric gets better."""

Progress = Callable[[int, int, str], None]
"""Called with the steps done, the steps in total, and what is being measured."""

S = TypeVar("S")


class BenchError(TollkeeperError):
    """An experiment could not be measured, or a result file cannot be read."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One number that later runs are compared with.

    Attributes:
        value: the finite number itself.
        unit: `"ratio"`, `"bytes"`, `"MB"`, `"ms"` and so on.
        direction: whether `"lower"` or `"higher"` is better.
        interval: 95% interval of the value, or None for a number without spread.
        tolerance: relative change that still counts as the same, for what the
            interval cannot see (another day, another machine of the same kind).
    """

    value: float
    unit: str
    direction: Direction
    interval: tuple[float, float] | None = None
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be compared."""
        numbers = (self.value, self.tolerance, *(self.interval or ()))
        if not all(math.isfinite(number) for number in numbers):
            raise BenchError(f"expected finite metric values, got {numbers}")
        if self.interval is not None and self.interval[0] > self.interval[1]:
            raise BenchError(f"expected an interval (low, high), got {self.interval}")


@dataclass(frozen=True, slots=True)
class Context:
    """What a measurement may not fetch for itself.

    Attributes:
        seed: root of all randomness of the run.
        clock: monotonic seconds, for example `time.perf_counter`.
        progress: told after each step.
    """

    seed: int
    clock: Callable[[], float]
    progress: Progress

    def rng(self, *path: int) -> np.random.Generator:
        """Return the generator of one part of the run, independent of all other paths."""
        return np.random.default_rng([self.seed, *path])


@dataclass(frozen=True, slots=True)
class Measurement:
    """What an experiment's `measure` returns.

    Attributes:
        metrics: numbers that gate, by name.
        diagnostics: JSON-ready numbers that only inform.
        hardware: facts to add to the manifest's `hardware`, for example BLAS threads.
        data: data sets used, name to checksum; empty for synthetic inputs.
    """

    metrics: Mapping[str, Metric]
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    hardware: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Experiment(Generic[S]):
    """One question with a permanent id, as data.

    A setting is a frozen dataclass of plain values that names all parts of the
    experiment: dimensions and repetitions for a speed experiment; victim, guard,
    attack, tasks and budget for a theft.

    Attributes:
        id: permanent; also the name of the result file.
        title: one line for `bench list`.
        scales: the setting at each scale (`smoke`, `cpu`, `gpu`).
        measure: turns a setting into numbers.
        promises: glob patterns; each must match a metric of every committed result.
        covers: guard profiles that this experiment measures.
        attacks: public names of the attacks that it runs, each with a glob pattern as in
            `promises` of the metrics that show it.
        committed: scales whose results are kept in the repository.
        report: turns metrics into the tables of a paper, which `bench run` prints in their place.
    """

    id: str
    title: str
    scales: Mapping[str, S]
    measure: Callable[[S, Context], Measurement]
    promises: tuple[str, ...]
    covers: tuple[str, ...] = ()
    attacks: Mapping[str, str] = field(default_factory=dict)
    committed: tuple[str, ...] = ("cpu",)
    report: Callable[[Mapping[str, Metric]], str] | None = None

    def setting(self, scale: str, overrides: Mapping[str, str] | None = None) -> S:
        """Return the setting of a scale with `overrides` (name to text) applied.

        A field that holds several values takes them separated by commas.

        Raises:
            ConfigurationError: no such scale or field, or a value of the wrong type.
        """
        if scale not in self.scales:
            raise ConfigurationError(
                f"experiment {self.id!r} has no scale {scale!r}; choose {', '.join(self.scales)}"
            )
        base = self.scales[scale]
        values: dict[str, Any] = msgspec.to_builtins(base)
        for name, text in (overrides or {}).items():
            if name not in values:
                raise ConfigurationError(f"no setting {name!r}; choose {', '.join(values)}")
            many = isinstance(getattr(base, name), tuple)
            values[name] = text.split(",") if many else text
        try:
            return msgspec.convert(values, type(base), strict=False)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"bad setting for {self.id!r}: {error}") from error


@dataclass(frozen=True, slots=True)
class Result:
    """One measured experiment, as it is stored.

    Attributes:
        id: of the experiment.
        scale: at which it ran.
        metrics: numbers that gate, by name.
        diagnostics: numbers that only inform.
        manifest: `git`, `versions`, `seed`, `hardware`, `data`, `setting`.
    """

    id: str
    scale: str
    metrics: dict[str, Metric]
    diagnostics: dict[str, Any]
    manifest: dict[str, Any]

    def to_json(self) -> bytes:
        """Return the result file's bytes: schema 1, indented, newline at the end."""
        tree = {"schema": SCHEMA, **msgspec.to_builtins(self)}
        for metric in tree["metrics"].values():
            if not metric["tolerance"]:
                del metric["tolerance"]
        return msgspec.json.format(msgspec.json.encode(tree), indent=2) + b"\n"

    @classmethod
    def from_json(cls, text: bytes | str) -> Result:
        """Read a result file's content.

        Raises:
            BenchError: not JSON, another schema, or a field is missing or of the wrong type.
        """
        try:
            tree = msgspec.json.decode(text)
            if not isinstance(tree, dict) or tree.get("schema") != SCHEMA:
                raise BenchError(f"expected a result of schema {SCHEMA}; run the experiment again")
            return msgspec.convert(tree, cls)
        except msgspec.MsgspecError as error:
            raise BenchError(f"not a result file: {error}") from error


def read_result(path: str | Path) -> Result:
    """Read a result file.

    Raises:
        BenchError: the file cannot be read or is no result; names the file.
    """
    try:
        return Result.from_json(Path(path).read_bytes())
    except OSError as error:
        raise BenchError(f"{path}: {error.strerror}") from error
    except BenchError as error:
        raise BenchError(f"{path}: {error}") from error
