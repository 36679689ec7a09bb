"""Fixtures of the data room: files of a set in a folder, a server on loopback, no network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tollkeeper.data.folders import FOLDERS

Put = Callable[[str, Mapping[str, bytes]], dict[str, str]]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Forbid downloads, and hide the user's cache."""
    monkeypatch.setenv("TOLLKEEPER_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write files of a set with `put(name, files)`; returns the environment that points there."""

    def write(name: str, files: Mapping[str, bytes]) -> dict[str, str]:
        folder = tmp_path / "named" / FOLDERS[name]
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        return {
            "TOLLKEEPER_DATA": str(tmp_path / "named"),
            "TOLLKEEPER_OFFLINE": "1",
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        }

    return write


@dataclass
class Answer:
    """What the server says to one path.

    Attributes:
        body: the content.
        status: HTTP status.
        length: the `Content-Length` that it claims; None claims none.
        location: where it redirects to.
    """

    body: bytes = b""
    status: int = 200
    length: int | None = None
    location: str = ""


@dataclass
class Site:
    """A server on loopback.

    Attributes:
        url: its address, without a slash at the end.
        answers: path to answer; everything else is 404.
        asked: paths in the order they were asked for, with the accepted encodings.
    """

    url: str
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def site() -> Iterator[Site]:
    """Serve what the test writes into `answers`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append((self.path, self.headers["Accept-Encoding"]))
            answer = found.answers.get(self.path, Answer(status=404))
            self.send_response(answer.status)
            if answer.length is not None:
                self.send_header("Content-Length", str(answer.length))
            if answer.location:
                self.send_header("Location", answer.location)
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Site(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture
def answer() -> type[Answer]:
    """Return the class of answers."""
    return Answer
