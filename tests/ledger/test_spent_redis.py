"""Used proofs in Redis: when keys end, and one sentence for each way it can fail."""

from __future__ import annotations

import select
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from tollkeeper.errors import LedgerError
from tollkeeper.ledger.spent_redis import PREFIX, RedisSpent

LATER = 4e9


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client that looks behind the store, on an empty Redis."""
    with redis.Redis.from_url(redis_url) as made:
        made.flushdb()
        yield made


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisSpent]:
    """A store on the same Redis."""
    made = RedisSpent(redis_url)
    yield made
    made.close()


def test_a_key_outlives_its_expiry_by_an_hour(client: redis.Redis, store: RedisSpent) -> None:
    """Redis forgets a name an hour after it expires, and never before its latest expiry."""

    def left_s() -> float:
        left: Any = client.pttl(PREFIX + "pass")
        return float(left) / 1000

    now = time.time()
    store.spend("pass", 1, limit=9, expires=now + 1000)
    assert 4500 < left_s() <= 4601
    store.spend("pass", 1, limit=9, expires=now + 9000)
    assert 12500 < left_s() <= 12601
    store.spend("pass", 1, limit=9, expires=now)
    store.refund("pass", 2)
    assert 12500 < left_s() <= 12601
    assert store.spent("pass") == 1


def test_a_redis_whose_clock_is_ahead_keeps_a_name(client: redis.Redis, store: RedisSpent) -> None:
    """A name that expired long ago by the clock of Redis is kept for an hour after its use."""
    assert store.spend("proof", 1, limit=1, expires=5.0)
    left: Any = client.pttl(PREFIX + "proof")
    assert 3_500_000 < left <= 3_600_000


def test_a_refusal_or_refund_makes_no_key(client: redis.Redis, store: RedisSpent) -> None:
    """What spends nothing leaves nothing behind."""
    assert not store.spend("pass", 2, limit=1, expires=LATER)
    store.refund("pass", 1)
    assert client.dbsize() == 0


def test_a_script_that_redis_forgot_is_sent_again(client: redis.Redis, store: RedisSpent) -> None:
    """After `SCRIPT FLUSH`, as after a restart, a name is spent once as before."""
    client.script_flush()
    assert store.spend("proof", 1, limit=1, expires=LATER)
    assert not store.spend("proof", 1, limit=1, expires=LATER)


def test_foreign_content_under_our_keys_is_told(client: redis.Redis, store: RedisSpent) -> None:
    """Keys that somebody else wrote raise LedgerError instead of being taken for numbers."""
    client.lpush(PREFIX + "list", "x")
    client.set(PREFIX + "word", "x")
    for name in ("list", "word"):
        with pytest.raises(LedgerError, match="who else writes its keys"):
            store.spend(name, 1, limit=1, expires=LATER)
        with pytest.raises(LedgerError, match="who else writes its keys"):
            store.spent(name)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "is full; give it more memory"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "is a replica; name its primary"),
    ],
)
def test_a_redis_that_cannot_write_is_told(
    start_redis: Callable[[], Any], before: str, after: str, told: str
) -> None:
    """A full Redis and a replica refuse the use with advice, and nothing is spent."""
    server = start_redis()
    store = RedisSpent(server.url)
    with redis.Redis.from_url(server.url) as client:
        client.execute_command(*before.split())
        with pytest.raises(LedgerError, match=told):
            store.spend("proof", 1, limit=1, expires=LATER)
        client.execute_command(*after.split())
    assert store.spent("proof") == 0
    assert store.spend("proof", 1, limit=1, expires=LATER)
    store.close()
    server.process.kill()


def test_a_redis_that_died_is_told(start_redis: Callable[[], Any]) -> None:
    """When Redis is gone each use and each opening is a LedgerError that names it."""
    server = start_redis()
    store = RedisSpent(server.url)
    assert store.spend("proof", 1, limit=1, expires=LATER)
    server.process.kill()
    server.process.wait()
    for use in (
        lambda: store.spend("proof", 1, limit=1, expires=LATER),
        lambda: store.refund("proof", 1),
        lambda: store.spent("proof"),
        lambda: RedisSpent(server.url),
    ):
        with pytest.raises(LedgerError, match=r"Redis at 127\.0\.0\.1:\d+ does not answer; start"):
            use()
    store.close()


def test_a_redis_that_never_answers_is_told() -> None:
    """A port that accepts and stays silent costs the timeout, no more."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(LedgerError, match="does not answer"):
            RedisSpent(f"redis://127.0.0.1:{port}", timeout_s=0.05)


class LosesAnswers(socketserver.BaseRequestHandler):
    """Stands between store and Redis; hangs up when Redis has run a script."""

    upstream: tuple[str, int]

    def handle(self) -> None:
        """Carry bytes both ways until a script's answer is due."""
        with socket.create_connection(self.upstream) as server:
            asked = b""
            while True:
                for one in select.select([self.request, server], [], [])[0]:
                    data = one.recv(65_536)
                    if not data or (one is server and b"EVALSHA" in asked):
                        return
                    asked = data if one is self.request else asked
                    (server if one is self.request else self.request).sendall(data)


def test_a_use_whose_answer_is_lost_is_not_sent_again(
    store: RedisSpent, client: redis.Redis
) -> None:
    """When the connection breaks after a use, the error comes at once and it was spent once."""
    assert store.spend("pass", 1, limit=9, expires=LATER)
    where = client.get_connection_kwargs()
    between = type("Between", (LosesAnswers,), {"upstream": (where["host"], where["port"])})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), between) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.01,)).start()
        lossy = RedisSpent(f"redis://127.0.0.1:{proxy.server_address[1]}")
        with pytest.raises(LedgerError, match="does not answer"):
            lossy.spend("pass", 1, limit=9, expires=LATER)
        lossy.close()
        proxy.shutdown()
    assert store.spent("pass") == 2


def test_a_wrong_password_is_told_without_it(start_redis: Callable[[], Any]) -> None:
    """A refused user is told what to correct, and no error holds the password."""
    server = start_redis()
    with redis.Redis.from_url(server.url) as client:
        client.config_set("requirepass", "right-one")
    where = server.url.removeprefix("redis://")
    with pytest.raises(LedgerError, match="correct name and password") as caught:
        RedisSpent(f"redis://:wrong-one@{where}")
    assert "wrong-one" not in str(caught.value)
    store = RedisSpent(f"redis://:right-one@{where}")
    assert store.spend("proof", 1, limit=1, expires=LATER)
    store.close()
    server.process.kill()
