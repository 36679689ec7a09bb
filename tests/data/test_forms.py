"""Promises of finding a split: which place and which form win, and what is downloaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tollkeeper.data import folders, forms
from tollkeeper.data.folders import Folder
from tollkeeper.data.forms import Content, Form, load
from tollkeeper.data.sources import Source
from tollkeeper.errors import DataError

FULL = {"a": b"one\ntwo\n", "b": b"0\n1\n"}
NAMES = ("zero", "one")


def read_full(folder: Folder) -> Content:
    """Read the official form: texts in one file, labels in the other."""
    texts, labels = (folder.read_text(file).split() for file in ("a", "b"))
    return texts, [int(label) for label in labels], NAMES


def read_part(folder: Folder) -> Content:
    """Read the form that has one text only."""
    return [folder.read_text("part")], [0], NAMES


TABLE = {
    "set": {
        "train": (
            Form("set", ("a", "b"), read_full),
            Form("set", ("part",), read_part, "first 1"),
        )
    }
}


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Return the roots that are tried, in order; nothing lies there yet."""
    monkeypatch.setattr(folders, "FOLDERS", {"set": "below/set"})
    monkeypatch.setattr(folders, "_REPOSITORY", tmp_path / "checkout" / "repository")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return {
        "variable": tmp_path / "named",
        "beside": tmp_path / "shared" / "datasets",
        "checkout": tmp_path / "checkout" / "shared" / "datasets",
        "cache": tmp_path / "cache" / "tollkeeper" / "datasets",
    }


@pytest.fixture
def official(site: Any, answer: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Serve the official files on loopback, and return the server."""
    for name, content in FULL.items():
        site.answers[f"/{name}"] = answer(content, length=len(content))
    known = {
        name: Source(f"{site.url}/{name}", len(content), "sha256:" + digest(content))
        for name, content in FULL.items()
    }
    monkeypatch.setattr(forms, "SOURCES", {"set": known})
    return site


def digest(content: bytes) -> str:
    """Return a SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def write(root: Path, files: Mapping[str, bytes]) -> None:
    """Write files of the set below a root."""
    (root / "below" / "set").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / "below" / "set" / name).write_bytes(content)


def environ(tmp_path: Path, **more: str) -> dict[str, str]:
    """Return an environment whose variable and cache lie in `tmp_path`."""
    named, cache = str(tmp_path / "named"), str(tmp_path / "cache")
    return {"TOLLKEEPER_DATA": named, "XDG_CACHE_HOME": cache, **more}


@pytest.mark.parametrize("place", ["variable", "beside", "checkout", "cache"])
def test_every_place_is_looked_at(tmp_path: Path, roots: dict[str, Path], place: str) -> None:
    """The split is read from wherever it lies, and nobody is asked for it."""
    write(roots[place], FULL)
    data = load("text", TABLE, "set", "train", environ=environ(tmp_path))
    assert (data.inputs, data.subset) == (["one", "two"], "")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1]


def test_an_earlier_place_wins_over_a_fuller_form(tmp_path: Path, roots: dict[str, Path]) -> None:
    """A subset in a folder comes before the whole split in the cache, and says what it is."""
    write(roots["beside"], {"part": b"one"})
    write(roots["cache"], FULL)
    data = load("text", TABLE, "set", "train", environ=environ(tmp_path))
    assert (data.inputs, data.subset) == (["one"], "first 1")


def test_in_one_place_the_fuller_form_wins(tmp_path: Path, roots: dict[str, Path]) -> None:
    """The official files are preferred to a subset beside them."""
    write(roots["variable"], {**FULL, "part": b"one"})
    assert len(load("text", TABLE, "set", "train", environ=environ(tmp_path))) == 2


def test_half_a_set_in_a_folder_is_told(tmp_path: Path, roots: dict[str, Path]) -> None:
    """A file that somebody forgot is named; another place does not stand in silently."""
    write(roots["variable"], {"a": FULL["a"]})
    write(roots["beside"], FULL)
    with pytest.raises(DataError, match=r"cannot read .*named/below/set/b"):
        load("text", TABLE, "set", "train", environ=environ(tmp_path))


def test_what_lies_nowhere_is_downloaded_once(
    tmp_path: Path, roots: dict[str, Path], official: Any
) -> None:
    """The official files go to the cache with progress; the second time nobody is asked."""
    names = []
    for _ in range(2):
        data = load(
            "text",
            TABLE,
            "set",
            "train",
            environ=environ(tmp_path),
            progress=lambda _done, _total, name: names.append(name),
        )
        assert (data.inputs, data.subset) == (["one", "two"], "")
    assert sorted(path.name for path in (roots["cache"] / "below/set").iterdir()) == ["a", "b"]
    assert [path for path, _ in official.asked] == ["/a", "/b"]
    assert list(dict.fromkeys(names)) == ["a", "b"]


def test_a_broken_download_is_finished(
    tmp_path: Path, roots: dict[str, Path], official: Any
) -> None:
    """Only the file that the cache lacks is asked for."""
    write(roots["cache"], {"a": FULL["a"]})
    assert len(load("text", TABLE, "set", "train", environ=environ(tmp_path))) == 2
    assert [path for path, _ in official.asked] == ["/b"]


def test_a_cache_that_is_named_is_still_the_cache(
    tmp_path: Path, roots: dict[str, Path], official: Any
) -> None:
    """With TOLLKEEPER_DATA set to the cache a broken download is finished too."""
    write(roots["cache"], {"a": FULL["a"]})
    given = environ(tmp_path, TOLLKEEPER_DATA=str(roots["cache"]))
    assert len(load("text", TABLE, "set", "train", environ=given)) == 2


@pytest.mark.parametrize(
    ("value", "is_asked"), [("1", False), ("yes", False), ("0", True), ("", True)]
)
def test_offline_nobody_is_asked(
    tmp_path: Path, roots: dict[str, Path], official: Any, value: str, *, is_asked: bool
) -> None:
    """TOLLKEEPER_OFFLINE ends the search with one line, unless it is 0 or empty."""
    given = environ(tmp_path, TOLLKEEPER_OFFLINE=value)
    if is_asked:
        assert len(load("text", TABLE, "set", "train", environ=given)) == 2
    else:
        with pytest.raises(DataError, match=r"'set' not found .*TOLLKEEPER_OFFLINE is set"):
            load("text", TABLE, "set", "train", environ=given)
    assert bool(official.asked) == is_asked


def test_a_failed_download_tells_places_and_address(
    tmp_path: Path, roots: dict[str, Path], official: Any
) -> None:
    """One line: the split, the address and why, every place that was looked at, what to set."""
    del official.answers["/b"]
    with pytest.raises(DataError, match="data set 'set' not found with split 'train'") as caught:
        load("text", TABLE, "set", "train", environ=environ(tmp_path))
    told = str(caught.value)
    assert f"{official.url}/b failed: status 404" in told
    assert all(str(root / "below/set") in told for root in roots.values())
    assert "set TOLLKEEPER_DATA" in told
    assert "\n" not in told
