"""The toll-speed experiment: arithmetic on made-up rounds, fresh proofs, one real smoke run."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from tollkeeper.bench import toll_times
from tollkeeper.bench.experiment import BenchError, Context
from tollkeeper.bench.runner import run
from tollkeeper.bench.toll_load import MixedPlan, MixedReport, run_mixed, with_proof
from tollkeeper.bench.toll_speed import Turn, describe, describe_times, throughput_metric
from tollkeeper.bench.toll_speed import time_metrics as metrics_of
from tollkeeper.bench.toll_times import Stage, TimesSetting, time_proofs, time_spending
from tollkeeper.challenge.protocol import Issuer
from tollkeeper.challenge.puzzle import HashPuzzle
from tollkeeper.testing.clock import FakeClock

TINY = TimesSetting(repetitions=2, proofs=4, accounts=2, body_bytes=(10,), spendings=3)
ISSUER = Issuer(bytes(32), entropy=bytes)


def turn(per_second: float, challenged: int = 0, cpu_ms: float | None = 1.0) -> Turn:
    """Return a round of 100 answers."""
    return Turn(MixedReport(90, per_second, 1.0, 2.0, 100, challenged), cpu_ms)


PAIRS = [(turn(90, 5, 2.0), turn(100)), (turn(80, 5, 2.0), turn(100)), (turn(19, 5), turn(20))]


def test_throughput_is_compared_pair_by_pair() -> None:
    """The metric is the median of the pairs' ratios."""
    metric = throughput_metric(PAIRS, np.random.default_rng(0))
    assert (metric.value, metric.direction, metric.interval) == (0.9, "higher", (0.8, 0.95))


def test_diagnostics_tell_share_and_processor_time() -> None:
    """How many were challenged stands beside the ratio, and the server's own time."""
    found = describe(PAIRS)
    assert found["challenged_share"]["p50"] == 0.05
    assert found["cpu_without_over_challenged"]["p50"] == 0.5
    assert "server_cpu_ms" not in describe([(turn(9, 1, None), turn(9, 0, None))])


def test_every_contestant_takes_its_turns() -> None:
    """Both algorithms have all contestants, equally often; the first turn is not counted."""
    context = Context(0, FakeClock(step=1.0), lambda *_: None)
    found = time_proofs(TINY, context)
    assert set(found["proofs"]) == {"sha-256", "scrypt"}
    for times in found["proofs"].values():
        assert {"hmac", "verify", "issue", "refuse_forged", "refuse_expired"} < set(times)
        assert {tuple(taken) for taken in times.values()} == {(1 / 4, 1 / 4)}
    assert metrics_of(found["proofs"], np.random.default_rng(0)).keys() == {
        "verify_over_hmac.sha-256",
        "verify_over_hmac.scrypt",
        "issue_over_hmac.sha-256",
        "issue_over_hmac.scrypt",
    }
    shown = describe_times({**found, "spend": {"memory": [1.0]}})
    assert shown["refused_over_accepted"]["scrypt"]["refuse_forged"]["p50"] == 1.0
    assert shown["spend_microseconds"]["memory"]["p50"] == 1e6


@pytest.mark.parametrize("alg", ["sha-256", "scrypt"])
def test_no_two_cases_are_alike(alg: str) -> None:
    """No cache of proofs, texts or times of expiry can help."""
    stage = Stage(TimesSetting(proofs=5), np.random.default_rng(0))
    cases = stage.cases(alg) + stage.cases(alg)
    assert len({case.token for case in cases}) == len({case.text for case in cases}) == 10
    assert len({case.token.split(".")[2] for case in cases}) == 10
    assert all(stage.refuse(case) for case in cases)


def test_a_proof_that_is_misjudged_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times of a verification that accepts everything are worth nothing."""
    monkeypatch.setattr(toll_times, "_flipped", lambda token: token)
    with pytest.raises(BenchError, match="refuse_forged"):
        time_proofs(TINY, Context(0, FakeClock(step=1.0), lambda *_: None))


def test_every_store_at_hand_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no Redis the others are timed all the same."""
    monkeypatch.setattr("shutil.which", lambda _: None)
    found = time_spending(TINY, clock=FakeClock(step=1.0))
    assert found == {"memory": [1.0] * 3, "sqlite": [1.0] * 3}


# -- the load generator ----------------------------------------------------------

CHALLENGE = ISSUER.issue(
    HashPuzzle.of(20, "salt"), account="a", policy="p", digest="sha-256=:x:", expires_at=2e9
)


def test_a_proof_is_one_more_header() -> None:
    """The body stays as it was, and the proof is that of the challenge."""
    head = f"HTTP/1.1 402 X\r\nWWW-Authenticate: {CHALLENGE.header()}\r\n\r\n".encode()
    sent = with_proof(b"POST / HTTP/1.1\r\nHost: h\r\n\r\nbody", head)
    line, proof, *rest = sent.split(b"\r\n")
    assert (line, rest) == (b"POST / HTTP/1.1", [b"Host: h", b"", b"body"])
    token = proof.removeprefix(b"tollkeeper-proof: ").decode()
    assert ISSUER.verify(
        token, account="a", policy="p", digest=lambda: "sha-256=:x:", now=2e9 - 1
    ).work


def test_a_402_without_a_challenge_is_an_error() -> None:
    """Whatever refuses without a puzzle is not what is measured here."""
    with pytest.raises(BenchError, match="without a challenge"):
        with_proof(b"POST / HTTP/1.1\r\n\r\n", b"HTTP/1.1 402 X\r\n\r\n")


@asynccontextmanager
async def gate(seen: list[tuple[str, bytes, bool]], *, stubborn: bool) -> AsyncIterator[int]:
    """Serve: key `dear` has to pay; a stubborn server asks again and again."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"Content-Length: (\d+)", head)
                assert length is not None
                body = await reader.readexactly(int(length[1]))
                key = "dear" if b"Bearer dear" in head else "free"
                paid = b"tollkeeper-proof: " in head
                seen.append((key, hashlib.sha256(body).digest(), paid))
                status, extra, answer = "200 OK", "", b'{"data":[{"embedding":"AACAPw=="}]}'
                if key == "dear" and (stubborn or not paid):
                    status, answer = "402 X", b"{}"
                    extra = f"www-authenticate: {CHALLENGE.header()}\r\n"
                top = f"HTTP/1.1 {status}\r\n{extra}content-length: {len(answer)}\r\n\r\n"
                writer.write(top.encode() + answer)
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def load(seen: list[tuple[str, bytes, bool]], *, stubborn: bool = False) -> MixedReport:
    """Run a round of a second by a clock that steps at each look."""

    async def both() -> MixedReport:
        async with gate(seen, stubborn=stubborn) as port:
            plan = MixedPlan(port, "free", "m", 1, 1, 1, 0.0, 1.0, 0, 10**6, other="dear", every=4)
            return await run_mixed(plan, clock=FakeClock(step=0.01))

    return asyncio.run(both())


def test_every_fourth_request_pays_and_counts_once() -> None:
    """A challenged request is sent twice with one body, and is one answer."""
    seen: list[tuple[str, bytes, bool]] = []
    report = load(seen)
    assert [row[0] for row in seen[:6]] == ["dear", "dear", "free", "free", "free", "dear"]
    assert (seen[0][1], seen[0][2], seen[1][2]) == (seen[1][1], False, True)
    assert len({row[1] for row in seen}) == report.answered == len(seen) - report.challenged
    assert report.challenged == sum(row[2] for row in seen) > 1


def test_a_proof_that_is_refused_ends_the_round() -> None:
    """A server that takes no proof is not measured."""
    with pytest.raises(BenchError, match="402"):
        load([], stubborn=True)


@pytest.mark.slow
def test_smoke_run_against_the_real_server() -> None:
    """One server with tenants that pay and do not: valid metrics come out."""
    result = run("toll-speed", "smoke", overrides={"inputs": "1"})
    assert json.loads(result.to_json())["metrics"]["verify_over_hmac.scrypt"]["value"] > 0
    rounds = result.diagnostics["throughput_challenged_over_not.n1"]
    assert 0.02 < rounds["challenged_share"]["p50"] < 0.2
