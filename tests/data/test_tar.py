"""Promises of reading members of a tar archive."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tollkeeper.data.tar import members


def write(path: Path, contents: dict[str, bytes]) -> None:
    """Write an uncompressed archive that begins with a folder."""
    with tarfile.open(path, "w") as archive:
        folder = tarfile.TarInfo("x")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in contents.items():
            member = tarfile.TarInfo(f"x/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_members_come_in_the_order_asked_for(tmp_path: Path) -> None:
    """The archive's own order does not matter."""
    write(tmp_path / "a.tar", {"one": b"1", "two": b"2", "three": b"3"})
    assert members(tmp_path / "a.tar", ["x/three", "x/one"]) == [b"3", b"1"]


def test_nothing_is_read_behind_the_last_member(tmp_path: Path) -> None:
    """Damage behind the last member that is wanted does no harm, damage in it does."""
    write(tmp_path / "a.tar", {"one": b"1" * 512, "two": b"2" * 4096})
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: content.index(b"2" * 512) + 100])
    assert members(tmp_path / "a.tar", ["x/one"]) == [b"1" * 512]
    with pytest.raises(tarfile.TarError):
        members(tmp_path / "a.tar", ["x/two"])


@pytest.mark.parametrize("name", ["x/four", "x"])
def test_a_missing_member_is_told(tmp_path: Path, name: str) -> None:
    """A name that is not there, or is a folder, is a KeyError."""
    write(tmp_path / "a.tar", {"one": b"1"})
    with pytest.raises(KeyError, match=name):
        members(tmp_path / "a.tar", [name])
