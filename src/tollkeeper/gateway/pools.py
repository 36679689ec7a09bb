"""Where a pool's sketch lives in the ledger, and which deployment wrote it last.

Sketches of different models, profiles, calibrations or master keys cannot be compared,
so each guard fingerprint has entries of its own: switching profiles starts from empty
sketches, and switching back finds the old ones.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import msgspec

from tollkeeper.errors import ConfigurationError

DEPLOYMENT = "deployment.json"
_log = logging.getLogger("tollkeeper.pools")


def pool_key(pool: str, fingerprint: str) -> str:
    """Return the ledger's name for a pool under one guard."""
    return f"{pool}@{fingerprint}"


@dataclass(frozen=True, slots=True)
class Former:
    """What a data directory served before its last start, where that start served no such thing.

    Attributes:
        model: the encoder's name; empty where none was ever served.
        dim: its width.
        profile: the guard profile.
        fingerprint: of the guard.
        spec: what the operator named as encoder.
        predictions: fingerprint of the classifier and its detectors.
    """

    model: str = ""
    dim: int = 0
    profile: str = ""
    fingerprint: str = ""
    spec: str = ""
    predictions: str = ""


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a data directory last served; lets the command line read its sketches.

    Attributes:
        model: the encoder's name.
        dim: its width.
        profile: the guard profile.
        fingerprint: of the guard.
        spec: what the operator named as encoder; empty in files of older versions.
        knee: of the calibration, if it has one.
        window: days, or "month"; None without windows.
        carry_over: share of the marks that stay from window to window.
        key_version: of the tenants' transform keys.
        refuses: whether pools at the profile's ceiling are refused.
        window_since: start of the first window since windows were turned on; sketches from
            before count as of that one.
        predictions: fingerprint of the classifier and its detectors; empty without one.
        alarms: by plan, the suspicion at which accounts of predictions get nothing new.
        former: what was served last of that which is not served now.
    """

    model: str
    dim: int
    profile: str
    fingerprint: str
    spec: str = ""
    knee: float | None = None
    window: float | Literal["month"] | None = None
    carry_over: float = 0.0
    key_version: int = 1
    refuses: bool = True
    window_since: float = 0.0
    predictions: str = ""
    alarms: Mapping[str, float] = field(default_factory=dict)
    former: Former = Former()

    def after(self, previous: Deployment | None) -> Deployment:
        """Return this deployment with what `previous` knows of what it does not serve itself."""
        if previous is None:
            return self
        last = previous.known()
        embedded = replace(last, predictions="") if not self.model else Former()
        former = replace(embedded, predictions="" if self.predictions else last.predictions)
        return replace(self, former=former)

    def known(self) -> Former:
        """Return what was served last of embeddings and of predictions, now or before."""
        predictions = self.predictions or self.former.predictions
        if not self.model:
            return replace(self.former, predictions=predictions)
        return Former(self.model, self.dim, self.profile, self.fingerprint, self.spec, predictions)

    def save(self, data_dir: Path) -> None:
        """Write `deployment.json`.

        Raises:
            ConfigurationError: the directory cannot be written.
        """
        draft = data_dir / f"{DEPLOYMENT}.new"
        try:
            draft.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
            draft.replace(data_dir / DEPLOYMENT)
        except OSError as error:
            raise ConfigurationError(f"cannot write to {data_dir}: {error}") from error

    @classmethod
    def load(cls, data_dir: Path) -> Deployment | None:
        """Read `deployment.json`; None if nothing was served yet.

        Raises:
            ConfigurationError: the file is damaged.
        """
        path = data_dir / DEPLOYMENT
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise ConfigurationError(
                f"cannot read {path}: {error}; delete it, and the next start writes it anew"
            ) from error


def check_unchanged(previous: Deployment | None, now: Deployment, *, accepted: bool) -> None:
    """Return if a start changes no tenant's space behind the operator's back.

    Naming another encoder or profile is a wish, and is logged. The same names that lead
    to another model or guard are most likely a file or an upstream that was replaced.

    Args:
        previous: what the data directory served last; None on a first start.
        now: what is about to be served.
        accepted: the operator agreed to any change.

    Raises:
        ConfigurationError: the same encoder and profile have become another guard.
    """
    if previous is None:
        return
    last = previous.known()
    if now.predictions and last.predictions not in ("", now.predictions):
        _log.warning("predictions.changed: accounts of predictions begin anew")
    _check_key_version(previous.key_version, now.key_version, accepted=accepted)
    if not now.model or not last.model or _identity(last) == _identity(now):
        return
    renamed = bool(last.spec) and last.spec != now.spec
    # Files of older versions do not hold the SPEC: there another model may be a wish.
    unknown = not last.spec and (last.model, last.dim) != (now.model, now.dim)
    if accepted or renamed or unknown or last.profile != now.profile:
        _log.warning("guard.changed model=%s profile=%s", now.model, now.profile)
        return
    raise ConfigurationError(
        f"encoder {now.spec!r} with profile {now.profile!r} was {_in_words(last)} and is now "
        f"{_in_words(now)}: coverage, spend and budgets start anew, and if it is another model, "
        "every tenant's space changes and stored documents must be embedded again; restore the "
        "former model and calibration, or pass --accept-new-guard if this is intended"
    )


def _check_key_version(previous: int, now: int, *, accepted: bool) -> None:
    """Raising it is a wish; a lower one is most likely a setting that was forgotten."""
    if now < previous and not accepted:
        raise ConfigurationError(
            f"key_version was {previous} and is now {now}: every tenant's space changes back; "
            f"set it to {previous}, or pass --accept-new-guard if this is intended"
        )
    if now != previous:
        _log.warning("guard.changed key_version=%s", now)


def _identity(deployment: Deployment | Former) -> tuple[str, int, str]:
    return deployment.model, deployment.dim, deployment.fingerprint


def _in_words(deployment: Deployment | Former) -> str:
    return f"{deployment.model} ({deployment.dim} wide, guard {deployment.fingerprint})"
