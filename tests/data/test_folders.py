"""Promises of finding data sets and checking their files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tollkeeper.data import locate
from tollkeeper.data.folders import FOLDERS, Folder
from tollkeeper.errors import DataError


def place(root: Path, name: str = "mnist") -> Path:
    """Make the folder of a data set under a root."""
    folder = root / FOLDERS[name]
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the data sets that lie beside this checkout."""
    monkeypatch.setattr("tollkeeper.data.folders._REPOSITORY", tmp_path / "checkout" / "repository")


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """Return the roots that are tried, in order; nothing lies there yet."""
    return {
        "variable": tmp_path / "named",
        "beside": tmp_path / "shared" / "datasets",
        "checkout": tmp_path / "checkout" / "shared" / "datasets",
        "cache": tmp_path / "cache" / "tollkeeper" / "datasets",
    }


def environ(tmp_path: Path) -> dict[str, str]:
    """Return an environment whose variable and cache lie in `tmp_path`."""
    return {"TOLLKEEPER_DATA": str(tmp_path / "named"), "XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_places_are_tried_in_order(tmp_path: Path, places: dict[str, Path]) -> None:
    """First the variable, then beside the working directory, beside the checkout, the cache."""
    name = "mnist"
    for root in reversed(places.values()):
        folder = place(root, name)
        assert locate(name, environ=environ(tmp_path), cwd=tmp_path / "clone") == folder


def test_home_holds_the_cache_when_nothing_else_is_said(tmp_path: Path) -> None:
    """Without XDG_CACHE_HOME the cache is ~/.cache."""
    folder = place(tmp_path / ".cache" / "tollkeeper" / "datasets", "mr")
    assert locate("mr", environ={"HOME": str(tmp_path)}, cwd=tmp_path / "clone") == folder


def test_nowhere_is_told_with_the_places(tmp_path: Path, places: dict[str, Path]) -> None:
    """One line says what to set and where it was looked for."""
    with pytest.raises(DataError, match="set TOLLKEEPER_DATA") as caught:
        locate("mnist", environ=environ(tmp_path), cwd=tmp_path / "clone")
    text = str(caught.value)
    assert "\n" not in text
    assert all(str(root / "mnist") in text for root in places.values())


def test_an_unknown_set_is_told_with_the_known_ones() -> None:
    """A wrong name lists every name there is."""
    with pytest.raises(DataError, match=r"unknown data set 'imdb'.*banking77.*wikitext2"):
        locate("imdb", environ={})


def test_a_listed_file_must_match_its_checksum(tmp_path: Path) -> None:
    """A file that differs from SHA256SUMS is refused; one that matches is read."""
    folder = place(tmp_path)
    (folder / "a").write_bytes(b"content")
    digest = hashlib.sha256(b"content").hexdigest()
    (tmp_path / "SHA256SUMS").write_text(f"{digest}  mnist/a\n{'0' * 64} *mnist/b\n")
    (folder / "b").write_bytes(b"content")
    (folder / "unlisted").write_bytes(b"anything")
    files = Folder(tmp_path, "mnist")
    assert files.read("a") == b"content"
    assert files.read("unlisted") == b"anything"
    with pytest.raises(DataError, match="does not match its SHA-256"):
        files.read("b")


def test_without_a_list_nothing_is_checked(tmp_path: Path) -> None:
    """A folder without SHA256SUMS is read as it is."""
    (place(tmp_path) / "a").write_bytes(b"content")
    assert Folder(tmp_path, "mnist").read("a") == b"content"


def test_unreadable_files_are_data_errors(tmp_path: Path) -> None:
    """A missing file and text in another encoding name the file."""
    folder = place(tmp_path)
    (folder / "a").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"cannot read .*none"):
        Folder(tmp_path, "mnist").read("none")
    with pytest.raises(DataError, match=r"cannot read .*none"):
        Folder(tmp_path, "mnist").archive("none")
    with pytest.raises(DataError, match="a is not utf-8 text"):
        Folder(tmp_path, "mnist").read_text("a")
