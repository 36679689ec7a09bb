"""Settings: file, environment, flags; later wins; wrong values are named together."""

from __future__ import annotations

from pathlib import Path

import pytest

from tollkeeper.errors import ConfigurationError
from tollkeeper.gateway import secrets
from tollkeeper.gateway.settings import load
from tollkeeper.gateway.stores import open_stores


def test_later_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag beats a variable, a variable beats the file, the file beats the default."""
    config = tmp_path / "t.yaml"
    config.write_text("port: 1\nadmin_port: 2\nprofile: b4b-2023\n")
    monkeypatch.setenv("TOLLKEEPER_ADMIN_PORT", "3")
    monkeypatch.setenv("TOLLKEEPER_PROFILE", "none")
    settings = load(config, profile="cheapest", host=None)
    assert (settings.port, settings.admin_port, settings.profile) == (1, 3, "cheapest")
    assert settings.host == "127.0.0.1"


def test_all_violations_in_one_message() -> None:
    """Every wrong value is named."""
    with pytest.raises(ConfigurationError, match=r"port.*max_inputs.*") as caught:
        load(port=99999, max_inputs=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("window", [0, 0.5, -3, "nan", "inf", 1e99, "week", True, [1]])
def test_what_is_no_window(window: object) -> None:
    """Anything but a month or a number of days is refused in one sentence."""
    with pytest.raises(ConfigurationError, match=r'window.*expected "month" or a number'):
        load(window=window)


@pytest.mark.parametrize(("given", "window"), [("month", "month"), ("30", 30.0), (1, 1.0)])
def test_windows_as_files_and_variables_write_them(given: object, window: object) -> None:
    """A number may come as text, as variables do."""
    assert load(window=given).window == window


@pytest.mark.parametrize("content", ["prot: 1", "[1, 2]", "port: [", "a: b: c", "\x00"])
def test_bad_files(tmp_path: Path, content: str) -> None:
    """An unknown name, a list or broken YAML is one clear error naming the cause."""
    config = tmp_path / "t.yaml"
    config.write_text(content)
    with pytest.raises(ConfigurationError):
        load(config)


@pytest.mark.parametrize("days", [0, -1, float("nan"), float("inf")])
def test_retention_is_a_positive_number_of_days(days: float) -> None:
    """A retention that would delete everything, or means nothing, ends the start."""
    assert load().retention_days is None
    assert load(retention_days=0.5).retention_days == 0.5
    with pytest.raises(ConfigurationError, match="retention_days"):
        load(retention_days=days)


def test_missing_file(tmp_path: Path) -> None:
    """A config file that is not there is an error, not a default."""
    with pytest.raises(ConfigurationError, match="nothere"):
        load(tmp_path / "nothere.yaml")


def test_secrets_are_redacted() -> None:
    """Printing settings shows no secret."""
    text = str(load(master_key="ab" * 32, admin_token="hush", upstream_api_key="sk-up").redacted())
    assert "abab" not in text
    assert "hush" not in text
    assert "sk-up" not in text


def test_master_key_is_made_once_and_private(tmp_path: Path) -> None:
    """The key file is created with mode 0600 and read back ever after."""
    first = secrets.master_key(tmp_path / "d")
    assert secrets.master_key(tmp_path / "d") == first
    assert len(first) == 32
    assert (tmp_path / "d" / "master.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["master.key"]


@pytest.mark.parametrize("given", ["", "zz" * 32, "ab" * 31, "ab" * 33])
def test_bad_master_keys(tmp_path: Path, given: str) -> None:
    """A master key of the wrong form is refused without being repeated."""
    with pytest.raises(ConfigurationError, match="64 hex digits") as caught:
        secrets.master_key(tmp_path, given)
    assert not given or given not in str(caught.value)


def test_damaged_key_file(tmp_path: Path) -> None:
    """A truncated key file is an error, never a new key: that would change every answer."""
    secrets.master_key(tmp_path)
    (tmp_path / "master.key").write_text("abc")
    with pytest.raises(ConfigurationError):
        secrets.master_key(tmp_path)


def test_misspelled_and_malformed_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is no setting, or a list that is not JSON, is an error, not a silence."""
    monkeypatch.setenv("TOLLKEEPER_DATA", "/somewhere")
    load()
    monkeypatch.setenv("TOLLKEEPER_PROFIL", "none")
    with pytest.raises(ConfigurationError, match="TOLLKEEPER_PROFIL"):
        load()
    monkeypatch.delenv("TOLLKEEPER_PROFIL")
    monkeypatch.setenv("TOLLKEEPER_MODEL_ALIASES", "a,b")
    with pytest.raises(ConfigurationError, match="model_aliases"):
        load()


def test_a_mask_is_no_secret(tmp_path: Path) -> None:
    """What `config show` prints in a secret's place cannot become the secret."""
    config = tmp_path / "t.yaml"
    config.write_text("admin_token: '**********'\n")
    with pytest.raises(ConfigurationError, match="admin_token is a mask"):
        load(config)


def test_a_given_master_key_makes_no_file_and_needs_no_folder(tmp_path: Path) -> None:
    """A container with its key in the environment starts over an empty disk."""
    folder = tmp_path / "new" / "data"
    stores = open_stores(load(master_key="ab" * 32, data_dir=folder), clock=lambda: 0.0)
    stores.store.close()
    assert stores.master == bytes.fromhex("ab" * 32)
    assert sorted(path.suffix for path in folder.glob("*.sqlite3")) == [".sqlite3"]
    assert not (folder / "master.key").exists()


def test_violations_are_told_in_words_of_the_file() -> None:
    """A field that does not exist and a mapping for a list are named without Python's words."""
    plans = {"p": {"predictions": {"outputs": [{"blur": 1}]}}, "q": {"canary": {"a": 1}}}
    with pytest.raises(ConfigurationError) as caught:
        load(plans=plans)
    text = str(caught.value)
    assert "outputs.0.blur: there is no such setting" in text
    assert "plans.q.canary: expected a list, got dict" in text
    assert "Value error" not in text
