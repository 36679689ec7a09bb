"""Settings of the gateway: one YAML file, `TOLLKEEPER_*` variables, flags; later wins.

Read once at start and passed down. Nothing below this module reads the environment.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from tollkeeper.errors import ConfigurationError
from tollkeeper.gateway.plans import GUARD, Plan

PREFIX = "TOLLKEEPER_"
MOST_DAYS = 3660.0
OTHER_VARIABLES = frozenset({"TOLLKEEPER_DATA", "TOLLKEEPER_OFFLINE", "TOLLKEEPER_TARGET_KEY"})
"""Variables with our prefix that are no settings of the gateway."""


def _window(given: object) -> object:
    """Return days or "month", or say what is expected in one sentence."""
    if given is None or given == "month":
        return given
    try:
        days = float(str(given))
    except ValueError:
        days = math.nan
    if not 1 <= days <= MOST_DAYS:
        raise ValueError(f'expected "month" or a number of days from 1 to {MOST_DAYS:g}')
    return days


def _text(given: object) -> object:
    """Return a path as text."""
    return str(given) if isinstance(given, Path) else given


class Settings(BaseSettings):
    """Everything the server can be told; see `docs/settings.md` for each field."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    admin_host: str = "127.0.0.1"
    admin_port: int = Field(default=9090, ge=0, le=65535)
    data_dir: Path = Path("tollkeeper-data")
    ledger: str | None = Field(default=None, description="ledger URL; default: SQLite in data_dir")

    retention_days: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    encoder: str = "builtin:text"
    classifier: str | None = None
    detector: Annotated[str | None, BeforeValidator(_text)] = None
    encoder_threads: int = Field(default=1, ge=1, le=256)
    model_aliases: tuple[str, ...] = ()
    upstream_api_key: SecretStr | None = None
    upstream_timeout_s: float = Field(default=60.0, gt=0)
    upstream_concurrency: int = Field(default=16, ge=1, le=1024)

    profile: str = "recommended"
    calibration: Path | None = None
    accept_new_guard: bool = False
    key_version: int = Field(default=1, ge=1)
    marked: tuple[str, ...] = ()
    shadow: bool = False
    refuse_at_ceiling: bool = True
    window: Annotated[Literal["month"] | float | None, BeforeValidator(_window)] = None
    carry_over: float = Field(default=0.75, ge=0, le=1)
    link_overlap: float | None = Field(default=None, gt=0, le=1)
    plan: str = GUARD
    plans: dict[str, Plan] = Field(default_factory=dict)
    spent: str | None = Field(default=None, description="store of used proofs; default: data_dir")
    hash_rate: float = Field(default=1_000_000.0, ge=1, allow_inf_nan=False)
    scrypt_rate: float = Field(default=20.0, ge=0.01, allow_inf_nan=False)
    on_ledger_failure: Literal["closed", "open"] = "closed"

    master_key: SecretStr | None = Field(
        default=None, description="64 hex digits; default: data_dir file"
    )
    admin_token: SecretStr | None = Field(default=None, description="default: data_dir file")

    max_body_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    max_inputs: int = Field(default=2048, ge=1)
    max_image_pixels: int = Field(default=16_000_000, ge=1)
    max_concurrency: int = Field(default=512, ge=1)
    max_tenant_concurrency: int = Field(default=64, ge=1)
    body_timeout_s: float = Field(default=30.0, gt=0)
    shutdown_timeout_s: float = Field(default=30.0, gt=0)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keep flags and the environment; the YAML file is merged in `load`."""
        return (init_settings, env_settings)

    @property
    def ledger_url(self) -> str:
        """The ledger's URL, with the default filled in."""
        return self.ledger or f"sqlite://{(self.data_dir / 'ledger.sqlite3').absolute()}"

    @property
    def spent_url(self) -> str:
        """The URL of the store of used proofs, with the default filled in."""
        scheme, separator, rest = self.ledger_url.partition("://")
        if scheme == "memory":
            return self.spent or "memory://"
        # Beside the ledger, so that whoever shares the one shares the other.
        ledger = Path(rest if separator else self.ledger_url)
        return self.spent or str(ledger.absolute().with_name("spent.sqlite3"))

    def redacted(self) -> dict[str, Any]:
        """Return the effective settings with secrets masked, ready for printing."""
        return self.model_dump(mode="json")


def load(config: Path | None = None, **flags: Any) -> Settings:
    """Merge YAML file, environment and flags into settings.

    Args:
        config: YAML file with any of the fields of `Settings`, or None.
        **flags: values from the command line; None means "not given".

    Raises:
        ConfigurationError: the file cannot be read, or a value is wrong; names all violations.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    from_file = _read_yaml(config) if config is not None else {}
    _refuse_unknown_variables(os.environ)
    for name, value in {**from_file, **given}.items():
        if isinstance(value, str) and value and not value.strip("*"):
            raise ConfigurationError(
                f"wrong settings: {name} is a mask, as `config show` prints; write the secret itself"
            )
    try:
        from_env = Settings().model_dump(exclude_unset=True)
        return Settings(**{**from_file, **from_env, **given})
    except ValidationError as error:
        raise ConfigurationError(_summary(error)) from error
    except SettingsError as error:
        raise ConfigurationError(
            f'wrong settings: {error}; lists are written as JSON, for example \'["a", "b"]\''
        ) from error


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    """A misspelled variable must not be a setting that silently does nothing."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | OTHER_VARIABLES
    unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
    if unknown:
        raise ConfigurationError(
            f"unknown variables {', '.join(unknown)}; `tollkeeper config show` lists the settings"
        )


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"cannot read the config file {path}: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"the config file {path} must hold `name: value` lines, got a {type(content).__name__}"
        )
    return content


def _summary(error: ValidationError) -> str:
    violations = (
        f"{'.'.join(str(part) for part in item['loc']) or 'settings'}: {_words(item)}"
        for item in error.errors()
    )
    return "wrong settings: " + "; ".join(violations)


def _words(item: Mapping[str, Any]) -> str:
    """Return what is wrong in words of this file's format, not of Python."""
    if item["type"] == "extra_forbidden":
        return "there is no such setting"
    if item["type"] == "tuple_type":
        return f"expected a list, got {type(item['input']).__name__}"
    return str(item["msg"]).removeprefix("Value error, ")
