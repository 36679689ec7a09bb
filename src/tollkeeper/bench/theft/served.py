"""A gateway in a process of its own, as its operator meets it."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx2
import msgspec

from tollkeeper.bench.experiment import BenchError
from tollkeeper.bench.isolate import ONE_THREAD, child_environment
from tollkeeper.types import Record

START_S = 60.0
"""Longest wait until both ports are bound; a cold start compiles and loads an ONNX session."""

STOP_S = 30.0
_ADMIN_TIMEOUT_S = 30.0
_MOST_RECORDS = 10_000


@dataclass(frozen=True, slots=True)
class Answered:
    """Where a tenant stood after one request.

    Attributes:
        inputs: answered so far.
        coverage: share of the buckets visited, in [0, 1].
        noise: largest scale in the request, in the units of the clean embeddings.
    """

    inputs: int
    coverage: float
    noise: float


@dataclass(frozen=True, slots=True)
class Visit:
    """One tenant of a guarded gateway, as the operator sees it.

    Attributes:
        tenant: its name.
        queries: inputs answered.
        charged: inputs that opened new space.
        coverage: share of the buckets visited, in [0, 1].
        noise: scale that a new answer would carry, in the profile's unit; for `recommended`
            feature standard deviations.
        course: every answered request, the oldest first.
    """

    tenant: str
    queries: int
    charged: float
    coverage: float
    noise: float
    course: tuple[Answered, ...]

    @property
    def free(self) -> int:
        """Inputs answered before the first request with noise."""
        return max((step.inputs for step in self.course if step.noise == 0), default=0)


class Served:
    """A running `tollkeeper serve`; a context manager.

    Attributes:
        url: base of the data plane, `/v1` included.
        model: name that clients ask for.
        profile: of its guard.
        process: the server's.
    """

    def __init__(
        self, folder: Path, *, profile: str, encoder: str, config: Path | None = None
    ) -> None:
        """Start a gateway on free ports and wait until it is up.

        It is in a session of its own, so that Ctrl-C reaches its starter alone, who stops it
        when nobody asks it any more.

        Args:
            folder: becomes its data folder.
            profile: guard profile.
            encoder: encoder spec.
            config: file with other settings.

        Raises:
            BenchError: it did not come up.
        """
        folder.mkdir(parents=True)
        self._log = folder / "server.log"
        command = [
            *(sys.executable, "-m", "tollkeeper", "serve", "--json", "--data-dir", str(folder)),
            *("--port", "0", "--admin-port", "0", "--profile", profile, "--encoder", encoder),
        ]
        if config is not None:
            command += ["--config", str(config)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own program
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(),
                start_new_session=True,
            )
        try:
            facts = self._facts()
            self.url, self.model, self.profile = facts["url"], facts["model"], facts["profile"]
            token = (folder / "admin.token").read_text().strip()
            self._admin = httpx2.Client(
                base_url=facts["admin_url"],
                headers={"Authorization": f"Bearer {token}"},
                timeout=_ADMIN_TIMEOUT_S,
            )
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._admin.close()
        self._end()

    def key(self, tenant: str) -> str:
        """Make an API key for a tenant.

        Raises:
            BenchError: the admin plane refused.
        """
        return str(self.ask("POST", "/keys", json={"tenant": tenant})["key"])

    def visit(self, tenant: str) -> Visit:
        """Return what the operator of a guarded gateway knows of a tenant.

        Raises:
            BenchError: the admin plane refused, or the guard keeps no books.
        """
        known = self.ask("GET", f"/tenants/{tenant}")
        if known["coverage"] is None:
            raise BenchError(f"profile {self.profile} keeps no books")
        newest_first = self.ask("GET", f"/records?tenant={tenant}&limit={_MOST_RECORDS}")
        course, answered = [], 0
        for record in reversed(newest_first):
            answered += record["inputs"]
            course.append(Answered(answered, record["coverage"], record["noise_scale"]))
        return Visit(
            tenant=tenant,
            queries=known["queries"],
            charged=known["spent"],
            coverage=known["coverage"],
            noise=known["noise_scale"],
            course=tuple(course),
        )

    def records(self, tenant: str) -> list[Record]:
        """Return a tenant's records, the oldest first.

        Raises:
            BenchError: the admin plane refused.
        """
        newest_first = self.ask("GET", f"/records?tenant={tenant}&limit={_MOST_RECORDS}")
        return msgspec.convert(newest_first[::-1], list[Record])

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """Ask the admin plane; `options` are those of `httpx2.Client.request`.

        Raises:
            BenchError: it refused, or cannot be reached.
        """
        try:
            answer = self._admin.request(method, path, **options)
        except httpx2.RequestError as error:
            raise BenchError(f"{method} {path}: {type(error).__name__}") from error
        if not answer.is_success:
            raise BenchError(f"{method} {path}: {answer.status_code} {answer.text[:200]!r}")
        return answer.json()

    def _facts(self) -> dict[str, Any]:
        """Return what the server prints when both ports accept requests."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], START_S)
        try:
            facts: dict[str, Any] = json.loads(self.process.stdout.readline() if ready else b"")
        except ValueError as error:
            lines = self._log.read_text(errors="replace").strip().rpartition("\n")
            raise BenchError(
                f"a gateway did not start: {lines[2] or 'it wrote nothing'}"
            ) from error
        return facts

    def _end(self) -> None:
        """Ask the server to finish, and kill it if it does not."""
        with self.process:  # closes the pipe
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()


def _environment() -> dict[str, str]:
    """Return an environment in which the caller's own settings do not reach the server."""
    inherited = child_environment(ONE_THREAD)
    return {name: value for name, value in inherited.items() if not name.startswith("TOLLKEEPER_")}
