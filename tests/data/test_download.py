"""Promises of downloads, against a server on loopback: whole and verified, or not at all."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path
from typing import Any

import pytest

from tollkeeper.data.download import download
from tollkeeper.data.sources import Source
from tollkeeper.errors import DataError

CONTENT = bytes(range(256)) * 4096  # A mebibyte: more than one piece.
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


def source(url: str, *, size: int = len(CONTENT), digest: str = SHA256) -> Source:
    """Return what the test file must be."""
    return Source(url, size, digest)


def nothing_left(folder: Path) -> bool:
    """Tell whether neither a file nor its folder stayed behind."""
    return not folder.exists()


@pytest.mark.parametrize(
    "digest", [SHA256, "md5:" + hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()]
)
def test_a_good_file_arrives_whole(site: Any, answer: Any, tmp_path: Path, digest: str) -> None:
    """The content is that of the server, asked for uncompressed, and nothing else lies there."""
    site.answers["/a.bin"] = answer(CONTENT, length=len(CONTENT))
    target = tmp_path / "new" / "folder" / "a.bin"
    download(source(f"{site.url}/a.bin", digest=digest), target)
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]
    assert site.asked == [("/a.bin", "identity")]


def test_progress_counts_up_to_the_size(site: Any, answer: Any, tmp_path: Path) -> None:
    """It starts at 0, never falls, ends at the size, and names the file, not yet in place."""
    site.answers["/a.bin"] = answer(CONTENT)
    target = tmp_path / "folder" / "a.bin"
    calls = []

    def progress(done: int, total: int, name: str) -> None:
        calls.append((done, total, name))
        assert not target.exists()

    download(source(f"{site.url}/a.bin"), target, progress=progress)
    counts = [done for done, _, _ in calls]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, len(CONTENT))
    assert len(counts) > 2
    assert {call[1:] for call in calls} == {(len(CONTENT), "a.bin")}


def test_a_redirect_is_followed(site: Any, answer: Any, tmp_path: Path) -> None:
    """A publisher who moved the file is found where they say."""
    site.answers["/old"] = answer(status=302, location=f"{site.url}/new", length=0)
    site.answers["/new"] = answer(CONTENT)
    download(source(f"{site.url}/old"), tmp_path / "folder" / "a.bin")
    assert (tmp_path / "folder" / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"body": CONTENT[:-1] + b"x"}, f"expected {SHA256}, came [0-9a-f]{{64}}"),
        ({"body": CONTENT[:-9], "length": len(CONTENT)}, "without sending complete message body"),
        ({"body": CONTENT[:-9]}, f"{len(CONTENT) - 9} of {len(CONTENT)} bytes came"),
        ({"body": CONTENT + b"x"}, f"more than the {len(CONTENT)} bytes expected"),
        ({"body": b"", "length": 0}, f"0 of {len(CONTENT)} bytes came"),
        ({"body": b"gone", "status": 404}, "status 404"),
        ({"body": b"busy", "status": 503}, "status 503"),
    ],
)
def test_a_bad_file_is_refused(
    site: Any, answer: Any, tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    """Other bytes, a cut, a surplus and a refusal end in one line with the address."""
    site.answers["/a.bin"] = answer(**fields)
    with pytest.raises(DataError, match=words) as caught:
        download(source(f"{site.url}/a.bin"), tmp_path / "folder" / "a.bin")
    assert str(caught.value).startswith(f"{site.url}/a.bin failed: ")
    assert "\n" not in str(caught.value)
    assert nothing_left(tmp_path / "folder")


def test_an_unreachable_server_is_told(tmp_path: Path) -> None:
    """A closed port ends in one line, and leaves nothing."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/a.bin"
        with pytest.raises(DataError, match=r"a\.bin failed: .*refused"):
            download(source(url), tmp_path / "folder" / "a.bin")
    assert nothing_left(tmp_path / "folder")


def test_an_interrupt_leaves_nothing(site: Any, answer: Any, tmp_path: Path) -> None:
    """Ctrl-C in the middle removes the part; another file in the folder stays."""
    site.answers["/a.bin"] = answer(CONTENT)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "other").write_bytes(b"kept")

    def interrupt(done: int, total: int, name: str) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(source(f"{site.url}/a.bin"), tmp_path / "folder" / "a.bin", progress=interrupt)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["other"]


def test_a_failure_keeps_what_lay_there(site: Any, answer: Any, tmp_path: Path) -> None:
    """An older file of the same name is replaced by a good one only."""
    site.answers["/a.bin"] = answer(b"bad")
    (tmp_path / "a.bin").write_bytes(b"old")
    with pytest.raises(DataError):
        download(source(f"{site.url}/a.bin"), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == b"old"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A file where the cache should be ends in one line, before anybody is asked."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.bin failed: .*file"):
        download(source("http://127.0.0.1:1/a.bin"), tmp_path / "file" / "below" / "a.bin")
