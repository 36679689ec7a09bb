"""An attack of the table, made ready for a scale and changed setting by setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import msgspec
import numpy as np

from tollkeeper.attacks import names
from tollkeeper.attacks.base import Attack
from tollkeeper.errors import ConfigurationError

_LEFT_OUT = frozenset({"schedule", "inner"})
"""Parts that names leave out: `epochs` is that of the schedule of the attack that is wrapped."""

Scalar = bool | int | float | str

_SCALARS = (bool, int, float, str)


@dataclass(frozen=True, slots=True)
class Scale:
    """How much computing a campaign may take.

    Attributes:
        fit: makes an attack with its published settings one of this scale; told whether the
            victim reads text.
        train: inputs of a task that a probe is trained on.
        test: inputs that it is tested on.
    """

    fit: Callable[[Attack, bool], Attack]
    train: int
    test: int


def _for_two_cores(attack: Attack, text: bool) -> Attack:  # noqa: FBT001 - one place in a table
    from tollkeeper.attacks.presets import for_two_cores

    return for_two_cores(attack, text=text)


def _as_published(attack: Attack, text: bool) -> Attack:  # noqa: FBT001 - one place in a table
    from tollkeeper.attacks.networks.ngram import NGram

    if not text:
        return attack
    fitting: Attack = _replaced(attack, "network", NGram())
    return fitting


SCALES: Mapping[str, Scale] = {
    "cpu": Scale(_for_two_cores, train=2000, test=1000),
    "gpu": Scale(_as_published, train=10_000, test=5000),
}


def scale_named(name: str) -> Scale:
    """Return the scale of this name.

    Raises:
        ConfigurationError: there is none.
    """
    if name not in SCALES:
        raise ConfigurationError(f"no scale {name!r}; choose {', '.join(SCALES)}")
    return SCALES[name]


def prepared(name: str, *, scale: Scale, text: bool, settings: Mapping[str, str]) -> Attack:
    """Make an attack.

    Args:
        name: of the table of attacks.
        scale: how large.
        text: whether the victim reads text.
        settings: names as `described` gives them to text: `epochs`, `network.width`.

    Raises:
        ConfigurationError: unknown attack or setting, a value of the wrong type or out of
            range, or torch is missing.
    """
    attack = scale.fit(names.load(name), text)
    for setting, value in settings.items():
        attack = _changed(attack, setting, value)
    return attack


def part(attack: Attack, name: str) -> Any:
    """Return a part of an attack, or of the attack that it wraps.

    Raises:
        ConfigurationError: there is none.
    """
    if hasattr(attack, name):
        return getattr(attack, name)
    if hasattr(attack, "inner"):
        return part(attack.inner, name)
    raise ConfigurationError(f"{type(attack).__name__} has no {name}")


def in_pool_order(attack: Attack) -> Attack:
    """Return the attack with its random choice of inputs replaced by the pool's own order.

    Other selections stay as they are.
    """
    from tollkeeper.attacks.selection.random import FixedOrder, Random

    changed: Any = attack
    if isinstance(getattr(attack, "selection", None), Random):
        changed = replace(changed, selection=FixedOrder())
    if isinstance(getattr(attack, "inner", None), Attack):
        changed = replace(changed, inner=in_pool_order(changed.inner))
    ordered: Attack = changed
    return ordered


def needs_labels(attack: Attack) -> bool:
    """Return whether an attack needs the true classes of its pool."""
    from tollkeeper.attacks.objectives.supcon import SupCon

    return isinstance(getattr(attack, "objective", None), SupCon)


def described(attack: Attack) -> dict[str, Scalar]:
    """Return everything that can be set, by name, and the classes of the attack's parts."""
    found: dict[str, Scalar] = {}
    for name, value in _parts(attack):
        found[name] = value if isinstance(value, _SCALARS) else _kind(value)
    return found


def _parts(holder: Any, *path: str) -> Iterator[tuple[str, Any]]:
    """Yield fields, and fields of fields, by name; what comes first has the name."""
    for each in fields(holder):
        value, place = getattr(holder, each.name), (*path, each.name)
        if value is None or isinstance(value, (np.ndarray, tuple)):
            continue  # labels are data, and the members of a tuple have no names
        yield _short(place), value
        if is_dataclass(value):
            yield from _parts(value, *place)


def _short(place: Iterable[str]) -> str:
    *holders, last = place
    return ".".join([*(part for part in holders if part not in _LEFT_OUT), last])


def _kind(value: Any) -> str:
    return str(getattr(value, "__name__", type(value).__name__))


def _changed(attack: Attack, setting: str, text: str) -> Attack:
    """Return the attack with one setting read from text."""
    name = _short(setting.split("."))
    parts = dict(_parts(attack))
    if not isinstance(parts.get(name), _SCALARS):
        known = ", ".join(name for name, value in parts.items() if isinstance(value, _SCALARS))
        raise ConfigurationError(f"no setting {setting!r}; choose {known}")
    try:
        value = msgspec.convert(text, type(parts[name]), strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"bad value for setting {setting!r}: {error}") from error
    changed: Attack = _replaced(attack, name, value)
    return changed


def _replaced(holder: Any, name: str, value: Any, *path: str) -> Any:
    """Return a dataclass in which the first part of this name is another."""
    for each in fields(holder):
        old, place = getattr(holder, each.name), (*path, each.name)
        if _short(place) == name:
            return replace(holder, **{each.name: value})
        if is_dataclass(old) and name in dict(_parts(old, *place)):
            return replace(holder, **{each.name: _replaced(old, name, value, *place)})
    raise AssertionError("the name is one of the attack's parts")
