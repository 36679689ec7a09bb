"""Promises of the table of official files."""

from __future__ import annotations

import re

import pytest

from tollkeeper.data import images, text
from tollkeeper.data.folders import FOLDERS
from tollkeeper.data.forms import Splits
from tollkeeper.data.sources import SOURCES

ALL: dict[str, Splits] = {**images._SETS, **text._SETS}


@pytest.mark.parametrize("place", SOURCES)
def test_each_entry_is_complete(place: str) -> None:
    """An address, a size and a checksum of the length that its algorithm has."""
    assert place in FOLDERS
    for name, source in SOURCES[place].items():
        assert source.file == name
        assert source.url.startswith(("https://", "http://"))
        assert source.size > 0
        assert re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", source.digest)


@pytest.mark.parametrize(("name", "split"), [(n, s) for n, splits in ALL.items() for s in splits])
def test_each_split_can_be_downloaded(name: str, split: str) -> None:
    """One of its forms is official, in full, and every form has a folder."""
    forms = ALL[name][split]
    official = [form for form in forms if set(form.files) <= set(SOURCES.get(form.place, ()))]
    assert official
    assert official[0].subset == ""
    assert all(form.place in FOLDERS for form in forms)


def test_each_file_is_of_use() -> None:
    """No entry of the table is left without a form that reads it."""
    forms = [form for splits in ALL.values() for found in splits.values() for form in found]
    read = {(form.place, file) for form in forms for file in form.files}
    assert {(place, file) for place, files in SOURCES.items() for file in files} <= read
