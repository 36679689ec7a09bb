"""The real server as a subprocess, started the way an operator starts it."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from tollkeeper.bench.experiment import BenchError
from tollkeeper.bench.isolate import ONE_THREAD, child_environment

START_S = 60.0
"""Longest wait for `/readyz`; a cold start compiles and loads an ONNX session."""

STOP_S = 30.0
_POLL_S = 0.05


class Server:
    """A running gateway; use it as a context manager."""

    def __init__(
        self,
        folder: Path,
        *,
        profile: str,
        encoder: str,
        calibration: Path | None = None,
        key: str | None = None,
        config: Path | None = None,
    ) -> None:
        """Start the server on free ports and wait until it is ready.

        Args:
            folder: becomes, or is, the server's data directory.
            profile: guard profile.
            encoder: encoder spec.
            calibration: the encoder's, if it does not come with one.
            key: an API key made earlier; None makes one for tenant `bench`.
            config: file of further settings.

        Raises:
            BenchError: the key could not be made or the server did not come up.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "server.log"
        self.key = key or create_key(folder)
        self.port, admin_port = _free_ports(2)
        command = [
            *(sys.executable, "-m", "tollkeeper", "serve", "--host", "127.0.0.1"),
            *("--port", str(self.port), "--admin-port", str(admin_port)),
            *("--data-dir", str(folder), "--profile", profile, "--encoder", encoder),
        ]
        if calibration is not None:
            command += ["--calibration", str(calibration)]
        if config is not None:
            command += ["--config", str(config)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                command, stdout=log, stderr=log, env=_environment()
            )
        try:
            self._wait_ready()
            self.model = str(self._get("/v1/models")["data"][0]["id"])
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ask the server to finish, and kill it if it does not."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        """Kill the server at once, as a power cut or the kernel would (SIGKILL)."""
        self._process.kill()
        self._process.wait()

    def peak_memory_mb(self) -> float | None:
        """Return the largest resident set so far in MB (10^6 bytes), or None off Linux."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return None
        found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        return int(found[1]) * 1024 / 1e6 if found else None

    def cpu_seconds(self) -> float | None:
        """Return the processor time used so far by all threads, or None off Linux."""
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return None
        # The name in parentheses may hold spaces; user and system ticks are 12th and 13th after it.
        ticks = stat.rpartition(")")[2].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise BenchError(f"the server stopped at once: {_last_line(self._log)}")
            try:
                self._get("/readyz")
            except (OSError, http.client.HTTPException, BenchError):
                time.sleep(_POLL_S)
            else:
                return
        raise BenchError(f"the server was not ready after {START_S:.0f} s: {_last_line(self._log)}")

    def _get(self, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.key}"})
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise BenchError(f"GET {path}: {answer.status} {body[:200]!r}")
        return json.loads(body or b"null")


def _environment() -> dict[str, str]:
    """Return an environment in which the caller's own settings do not reach the server."""
    inherited = child_environment(ONE_THREAD)
    own = {name: value for name, value in inherited.items() if not name.startswith("TOLLKEEPER_")}
    # Load is as broad as can be, and a refusal would end it.
    return {**own, "TOLLKEEPER_REFUSE_AT_CEILING": "false"}


def create_key(folder: Path, tenant: str = "bench") -> str:
    """Make an API key in a data directory and return it.

    Raises:
        BenchError: it could not be made.
    """
    made = _operate("keys", "create", "--data-dir", str(folder), "--tenant", tenant)
    return str(made["key"])


def set_plan(folder: Path, tenant: str, plan: str, config: Path) -> None:
    """Let a plan hold for a tenant.

    Raises:
        BenchError: there is no such tenant, or no such plan in the settings.
    """
    where = ("--data-dir", str(folder), "--config", str(config))
    _operate("tenants", "plan", tenant, plan, *where)


def _operate(*words: str) -> Any:
    """Return what a verb of the operator prints as JSON."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "tollkeeper", *words, "--json"],
        capture_output=True,
        check=False,
        env=_environment(),
    )
    try:
        return json.loads(done.stdout)
    except ValueError as error:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise BenchError(f"{' '.join(words[:2])} failed: {last or done.returncode}") from error


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(open_.getsockname()[1]) for open_ in sockets]
    for open_ in sockets:
        open_.close()
    return ports


def _last_line(log: Path) -> str:
    return log.read_text(errors="replace").strip().rpartition("\n")[2] or "it wrote nothing"
