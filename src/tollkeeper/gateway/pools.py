"""Where a pool's sketch lives in the ledger, and which deployment wrote it last.

Sketches of different models, profiles, calibrations or master keys cannot be compared,
so each guard fingerprint has entries of its own: switching profiles starts from empty
sketches, and switching back finds the old ones.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tollkeeper.errors import ConfigurationError


def pool_key(pool: str, fingerprint: str) -> str:
    """Return the ledger's name for a pool under one guard."""
    return f"{pool}@{fingerprint}"


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a data directory last served; lets the command line read its sketches.

    Attributes:
        model: the encoder's name.
        dim: its width.
        profile: the guard profile.
        fingerprint: of the guard.
    """

    model: str
    dim: int
    profile: str
    fingerprint: str

    def save(self, data_dir: Path) -> None:
        """Write `deployment.json`.

        Raises:
            ConfigurationError: the directory cannot be written.
        """
        draft = data_dir / "deployment.json.new"
        try:
            draft.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
            draft.replace(data_dir / "deployment.json")
        except OSError as error:
            raise ConfigurationError(f"cannot write to {data_dir}: {error}") from error

    @classmethod
    def load(cls, data_dir: Path) -> Deployment | None:
        """Read `deployment.json`; None if nothing was served yet.

        Raises:
            ConfigurationError: the file is damaged.
        """
        path = data_dir / "deployment.json"
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise ConfigurationError(
                f"cannot read {path}: {error}; start the server once"
            ) from error
