"""Experiment `ledger-durability`: kill -9 under load, again and again (law 1).

A real server answers several clients that ask distinct questions and repeat old ones.
At a random moment it is killed. Then the ledger is opened as a third party would open
it: every answer that any client ever received must be in the records and in the sketch.
In the end every received answer must be one that the guard, asked apart from any server,
gives to this question at some price level: the same bytes before and after each kill.
"""

from __future__ import annotations

import base64
import http.client
import json
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tollkeeper.bench.experiment import BenchError, Context, Experiment, Measurement, Metric
from tollkeeper.bench.server import Server
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.load import load_encoder
from tollkeeper.gateway.admission import identity
from tollkeeper.gateway.assembly import guard_secret
from tollkeeper.gateway.calibrations import read_calibration
from tollkeeper.gateway.pools import Deployment, pool_key
from tollkeeper.gateway.settings import Settings
from tollkeeper.gateway.stores import open_stores
from tollkeeper.guard import profiles
from tollkeeper.guard.calibration import Calibration
from tollkeeper.guard.guard import Guard
from tollkeeper.types import Sketch

TENANT = "bench"
CALIBRATION_TEXTS = 2000


@dataclass(frozen=True, slots=True)
class Setting:
    """How often to kill what.

    Attributes:
        encoder: spec of a cheap encoder.
        profile: the guard.
        kills: how often the server is killed and started again.
        clients: connections that ask at the same time.
        inputs: texts per request.
        longest_s: the kill comes this many seconds after the first answer, or sooner.
    """

    encoder: str = "python:tollkeeper.testing.encoders:hash_encoder_384"
    profile: str = "recommended"
    kills: int = 50
    clients: int = 8
    inputs: int = 3
    longest_s: float = 0.3


@dataclass(slots=True)
class _Seen:
    """What clients received since the first start.

    Attributes:
        answers: text to its embeddings in base64: one, or one per price level.
        requests: ids of answered requests.
        repeats: questions that were answered before.
    """

    answers: dict[str, set[str]] = field(default_factory=dict)
    requests: set[str] = field(default_factory=set)
    repeats: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, texts: list[str], embeddings: list[str], request_id: str) -> None:
        """Note one answered request."""
        with self.lock:
            self.requests.add(request_id)
            for text, embedding in zip(texts, embeddings, strict=True):
                known = self.answers.setdefault(text, set())
                self.repeats += bool(known)
                known.add(embedding)


class _Client(threading.Thread):
    """Asks until its server dies; every fourth request repeats an old question."""

    def __init__(self, server: Server, seen: _Seen, *, name: str, inputs: int) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._seen = seen
        self._label = name
        self._inputs = inputs
        self.failure = ""
        self.first = threading.Event()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=20)
        asked: list[list[str]] = []
        try:
            while not self.failure:
                number = len(asked)
                fresh = [f"{self._label} {number} {i}" for i in range(self._inputs)]
                texts = asked[number // 2] if number % 4 == 3 else fresh
                self._ask(connection, texts)
                asked.append(texts)
                self.first.set()
        except (OSError, http.client.HTTPException, ValueError):
            pass  # the server is gone: what this experiment is about
        finally:
            connection.close()
            self.first.set()

    def _ask(self, connection: http.client.HTTPConnection, texts: list[str]) -> None:
        body = {"model": self._server.model, "input": texts, "encoding_format": "base64"}
        headers = {"Authorization": f"Bearer {self._server.key}"}
        connection.request("POST", "/v1/embeddings", json.dumps(body), headers)
        reply = connection.getresponse()
        content = reply.read()
        if reply.status != http.client.OK:
            self.failure = f"{reply.status} {content[:200]!r}"
            return
        rows = [row["embedding"] for row in json.loads(content)["data"]]
        self._seen.add(texts, rows, reply.getheader("x-request-id", ""))


def measure(setting: Setting, context: Context) -> Measurement:
    """Kill the server `setting.kills` times; check the ledger after each."""
    rng = context.rng(0)
    encoder = load_encoder(setting.encoder)
    seen = _Seen()
    lost = 0
    key: str | None = None
    with tempfile.TemporaryDirectory() as folder:
        data_dir, calibration = Path(folder) / "data", Path(folder) / "calibration"
        sample = encoder.embed([f"sample {i}" for i in range(CALIBRATION_TEXTS)])
        calibration.write_bytes(Calibration.fit(sample, rng=context.rng(1)).to_bytes())
        for number in range(setting.kills):
            context.progress(number, setting.kills, f"{len(seen.answers)} answers")
            server = Server(
                data_dir,
                profile=setting.profile,
                encoder=setting.encoder,
                calibration=calibration,
                key=key,
            )
            key = server.key
            _load_and_kill(server, setting, seen, number, float(rng.uniform(0, setting.longest_s)))
            guard, missing = _lost(data_dir, calibration, setting.profile, encoder, seen)
            lost += missing
        wrong = _wrong(guard, encoder, seen)
    metrics = {
        "kills": Metric(setting.kills, "count", "higher"),
        "lost_charges": Metric(lost, "count", "lower"),
        "wrong_answers": Metric(wrong, "count", "lower"),
    }
    diagnostics = {"answers": len(seen.answers), "repeats": seen.repeats}
    return Measurement(metrics, diagnostics)


def _load_and_kill(
    server: Server, setting: Setting, seen: _Seen, number: int, after_s: float
) -> None:
    clients = [
        _Client(server, seen, name=f"{number}/{i}", inputs=setting.inputs)
        for i in range(setting.clients)
    ]
    try:
        for client in clients:
            client.start()
        clients[0].first.wait(30)
        time.sleep(after_s)
    finally:
        server.kill()
    for client in clients:
        client.join(30)
        if client.failure:
            raise BenchError(f"a request failed before the kill: {client.failure}")


def _wrong(guard: Guard, encoder: Encoder, seen: _Seen) -> int:
    """Count received answers that the guard gives to their question at no price level."""
    key = guard.tenant_key(TENANT)
    texts = list(seen.answers)
    sketches = _sketches(guard)
    wrong = 0
    # One by one: several new inputs could leave the level.
    for at in range(len(texts)):
        part = texts[at : at + 1]
        possible: list[set[bytes]] = [set() for _ in part]
        for sketch in sketches:
            verdict = guard.admit(
                sketch,
                encoder.embed(part),
                key=key,
                rng=np.random.default_rng(0),
                identities=[identity(text, key) for text in part],
            )
            for answers, row in zip(possible, verdict.embeddings, strict=True):
                answers.add(row.astype("<f4").tobytes())
        for text, answers in zip(part, possible, strict=True):
            wrong += sum(base64.b64decode(got) not in answers for got in seen.answers[text])
    return wrong


def _sketches(guard: Guard) -> list[Sketch]:
    """Return a sketch inside each price level, 0 included."""
    fractions = np.linspace(0.0, 0.98, 99)
    _, firsts = np.unique(guard.profile.price(fractions), return_index=True)
    found = []
    for first in firsts:
        # A little inside, so that one more input does not leave the level.
        layout = guard.profile.layout
        bits = np.unpackbits(layout.empty())
        share = fractions[first] + 0.005 * bool(first)
        bits[layout.priced][: int(share * layout.priced_count)] = 1
        found.append(np.packbits(bits))
    return found


def _lost(
    data_dir: Path, calibration: Path, profile: str, encoder: Encoder, seen: _Seen
) -> tuple[Guard, int]:
    """Count answered requests without a record, and answered inputs without their buckets."""
    stores = open_stores(Settings(data_dir=data_dir), clock=time.time)
    deployment = Deployment.load(data_dir)
    if deployment is None:
        raise BenchError("the server left no deployment.json")
    secret = guard_secret(stores.master, deployment.model)
    # Without a ceiling, as the server ran: what is missing must be charged, not refused.
    open_ended = replace(profiles.get(profile), ceiling=None)
    guard = Guard(open_ended, read_calibration(calibration), secret=secret)
    stores.store.check()
    entry = stores.store.read(pool_key(TENANT, guard.fingerprint))
    recorded = {record.request_id for record in stores.store.records(limit=10**9)}
    stores.store.close()
    verdict = guard.admit(
        guard.load(entry.sketch),
        encoder.embed(list(seen.answers)),
        key=guard.tenant_key(TENANT),
        rng=np.random.default_rng(0),
    )
    return guard, len(seen.requests - recorded) + int(verdict.charge)


EXPERIMENT = Experiment(
    id="ledger-durability",
    title="kill -9 under load: no answer without its charge, no answer changed",
    scales={"smoke": Setting(kills=3, clients=4, longest_s=0.1), "cpu": Setting()},
    measure=measure,
    promises=("kills", "lost_charges", "wrong_answers"),
)
