"""Fixtures of the command line: verbs in this process, and a real server beside it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tollkeeper.cli import main

START_S = 60.0


@dataclass(frozen=True)
class Outcome:
    """What a command did: its exit status, stdout and stderr."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Served:
    """A running `tollkeeper serve`.

    Attributes:
        text: what it printed when it was up.
        folder: its data folder.
        process: its process.
        log: file of its stderr, with one line per import.
    """

    text: str
    folder: Path
    process: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> int:
        """Ask the server to finish and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(START_S)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a verb in this process: `cli("keys", "list")`."""

    def run(*words: str | Path) -> Outcome:
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), captured.out, captured.err)

    return run


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[Served]:
    """Run a server on free ports until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    out, log = folder / "out.txt", folder / "log.txt"
    command = [
        *(sys.executable, "-X", "importtime", "-m", "tollkeeper", "serve"),
        *("--port", "0", "--admin-port", "0", "--data-dir", str(folder / "data"), *words),
    ]
    with out.open("wb") as stdout, log.open("wb") as stderr:
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr)
    try:
        deadline = time.monotonic() + START_S
        while not out.read_bytes().endswith(b"\n"):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, "the server did not start in time"
            time.sleep(0.05)
        yield Served(out.read_text(), folder / "data", process, log)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start servers with `serve("--option", ...)`; all share a data folder and stop with the test."""
    with ExitStack() as stack:
        yield lambda *words: stack.enter_context(serving(tmp_path / "served", *words))


@pytest.fixture(scope="module", params=["builtin:text", "builtin:image"])
def first_start(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server on its first start, once for each built-in encoder."""
    with serving(tmp_path_factory.mktemp("first"), "--encoder", request.param) as served:
        yield served


@pytest.fixture(scope="module")
def text_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the built-in text encoder that tells machines where it is."""
    with serving(tmp_path_factory.mktemp("text"), "--json") as served:
        yield served
