"""What the owner decides before anybody is asked: a small YAML file, read once and then sealed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from tollkeeper.audit.consistency import MODES, Mode
from tollkeeper.errors import ConfigurationError

Method = Literal["inclusion", "dataset-inference"]
"""How the two sides came about.

- inclusion: `audit include` paired the items and coins decided which was trained on; exact.
- dataset-inference: the owner trained on some items and held others back; argued.
"""

LEAST_FLIPS = 9999


@dataclass(frozen=True, slots=True)
class Plan:
    """An audit as its owner plans it; paths are relative to the file.

    Attributes:
        claim: the owner's name for the case.
        method: how the two sides came about.
        control: SPEC of the owner's own model, the positive control.
        public: `.npy` of (m, h, w, 3) uint8 public pictures that nobody of the audit trained on.
        inclusion: folder that `audit include` wrote; for that method alone.
        trained: `.npy` of (n, h, w, 3) uint8 private pictures; for dataset inference alone.
        held: the same of those that were held back.
        references: SPECs of encoders known to be independent.
        modes: of the statistic, the primary one first.
        views: of each picture.
        alpha: chance of a false accusation, over all modes and looks.
        looks: runs that the plan allows, of all suspects together.
        draw: pictures of each side that one run opens.
        repeats: share of the inputs that is asked twice.
        hashes: files to commit to by name: `code` and `preprocessing` (default: the installed
            package), and whatever else should be fixed.
    """

    claim: str
    method: Method
    control: str
    public: Path
    inclusion: Path | None = None
    trained: Path | None = None
    held: Path | None = None
    references: tuple[str, ...] = ()
    modes: tuple[Mode, ...] = MODES[:1]
    views: int = 6
    alpha: float = 0.001
    looks: int = 1
    draw: int = 1000
    repeats: float = 0.05
    hashes: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be carried out, all of it in one message.

        Raises:
            ConfigurationError: a value is out of range, or an input is missing or too many.
        """
        of_method = {
            "inclusion": (self.inclusion,),
            "dataset-inference": (self.trained, self.held),
        }
        others = [
            path for name, paths in of_method.items() if name != self.method for path in paths
        ]
        wrong = [
            text
            for good, text in (
                (bool(self.claim.strip()), "a claim with a name"),
                (None not in of_method[self.method], _NEEDED[self.method]),
                (not any(others), f"no inputs of another method than {self.method}"),
                (
                    self.method == "inclusion" or bool(self.references),
                    "references: without coins they are the only null distribution",
                ),
                (len(set(self.modes)) == len(self.modes) > 0, "one or more different modes"),
                (self.views >= 2, f"views of at least 2, got {self.views}"),
                (0 < self.alpha <= 0.01, f"alpha in (0, 0.01], got {self.alpha}"),
                (self.looks >= 1, f"looks of at least 1, got {self.looks}"),
                (self.draw >= 2, f"draw of at least 2, got {self.draw}"),
                (0 <= self.repeats <= 1, f"repeats in [0, 1], got {self.repeats}"),
            )
            if not good
        ]
        if wrong:
            raise ConfigurationError(f"the plan: expected {'; '.join(wrong)}")

    @property
    def family(self) -> int:
        """Tests among which a p-value is corrected."""
        return len(self.modes) * self.looks

    @property
    def decision(self) -> dict[str, Any]:
        """The rule as the commitment holds it."""
        return {
            "test": self.method,
            "statistic": "consistency of augmented views, calibrated by the references",
            "modes": list(self.modes),
            "views": self.views,
            "draw": self.draw,
            "looks": self.looks,
            "repeats": self.repeats,
            "references": len(self.references),
            "correction": "Bonferroni over modes and looks",
            "rule": "derived if the corrected p is at most alpha and the lower end of the effect "
            "size's 99% interval exceeds every reference's",
        }


_NEEDED: Mapping[Method, str] = {
    "inclusion": "inclusion: the folder that `audit include` wrote",
    "dataset-inference": "trained and held: two .npy files of pictures",
}

_PATHS = ("public", "inclusion", "trained", "held")


def flips(decision: Mapping[str, Any], alpha: float) -> int:
    """Return how many relabelings a p-value needs so that its correction can still reach alpha."""
    family = len(decision["modes"]) * decision["looks"]
    return max(LEAST_FLIPS, math.ceil(10 * family / alpha))


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        ConfigurationError: it cannot be read, or is no plan.
    """
    import yaml

    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"cannot read the plan {path}: {error}") from error
    if not isinstance(told, dict):
        raise ConfigurationError(f"the plan {path}: expected names and values, got none")
    unknown = sorted(set(map(str, told)) - set(Plan.__dataclass_fields__))
    if unknown:
        known = ", ".join(Plan.__dataclass_fields__)
        raise ConfigurationError(
            f"the plan {path}: unknown {', '.join(unknown)}; expected some of {known}"
        )
    try:
        plan = msgspec.convert(told, Plan, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"the plan {path}: {error}") from error
    return _located(plan, path.parent)


def _path(wanted: Any, value: Any) -> Any:
    if wanted is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"expected {wanted.__name__}, got {type(value).__name__}")


def _located(plan: Plan, folder: Path) -> Plan:
    """Return the plan with paths that hold from anywhere."""

    def found(path: Path | None) -> Path | None:
        return None if path is None else (folder / path).resolve()

    paths = {name: found(getattr(plan, name)) for name in _PATHS}
    hashes = {name: (folder / path).resolve() for name, path in plan.hashes.items()}
    specs = tuple(_spec(spec, folder) for spec in plan.references)
    control = _spec(plan.control, folder)
    return replace(plan, **paths, hashes=hashes, control=control, references=specs)


def _spec(spec: str, folder: Path) -> str:
    scheme, _, rest = spec.partition(":")
    return f"{scheme}:{(folder / rest).resolve()}" if scheme == "onnx" else spec
