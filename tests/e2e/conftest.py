"""The real command in a process of its own, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest


@dataclass
class Served:
    """A `tollkeeper serve` process.

    Attributes:
        url: base of the data plane, `/v1` included.
        data_dir: its data directory.
        process: the process.
        output: file with what it printed.
    """

    url: str
    data_dir: Path
    process: subprocess.Popen[bytes]
    output: Path

    def key(self, tenant: str) -> str:
        """Make a key for a tenant with the command line, while the server runs."""
        command = [sys.executable, "-m", "tollkeeper", "keys", "create", "--tenant", tenant]
        done = subprocess.run(
            [*command, "--data-dir", str(self.data_dir), "--json"],
            check=True,
            capture_output=True,
        )
        return str(json.loads(done.stdout)["key"])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return self.process.wait(timeout=30)


Serve = Callable[..., Served]


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait(url: str, process: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, output.read_text()
        try:
            if httpx2.get(url.removesuffix("/v1") + "/readyz", timeout=5).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"the server did not start: {output.read_text()}")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start servers with `serve("--profile", "b4b-2023", ...)`; all end with the test."""
    with ExitStack() as stack:

        def start(*arguments: str, data_dir: Path | None = None) -> Served:
            data_dir = data_dir or tmp_path / "data"
            port, admin_port = _free_port(), _free_port()
            output = tmp_path / f"serve-{port}.log"
            command = [sys.executable, "-m", "tollkeeper", "serve", "--port", str(port)]
            command += ["--admin-port", str(admin_port), "--data-dir", str(data_dir), *arguments]
            with output.open("wb") as file:
                process = subprocess.Popen(
                    command, stdout=file, stderr=subprocess.STDOUT, env=dict(os.environ)
                )
            stack.callback(_end, process)
            url = f"http://127.0.0.1:{port}/v1"
            _wait(url, process, output)
            return Served(url, data_dir, process, output)

        yield start


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait(timeout=30)
