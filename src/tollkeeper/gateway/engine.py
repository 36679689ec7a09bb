"""Between the event loop and the service: one thread that works on whatever has gathered.

While the thread is busy, new requests gather; then they are embedded in one encoder
call, admitted together and committed with one fsync. Tenants take turns, and large
requests are embedded in slices. Encoders that wait for another machine are called from
threads of their own first, and join the queue with their embeddings in hand.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any

from tollkeeper.encoders.base import Remote
from tollkeeper.errors import EncoderError, LedgerError, TollkeeperError
from tollkeeper.gateway.asks import Answer, Ask, Charge
from tollkeeper.gateway.backlog import Backlog, Piece
from tollkeeper.gateway.service import Service
from tollkeeper.types import Entry

MAX_GATHERED_INPUTS = 256
"""Inputs per encoder call: what a tenant waits for at most before its turn comes."""

LINGER_S = 0.0003
"""Wait for company when the last group had some; a lone client never waits."""

SMALL_BYTES = 256 * 1024  # above this, work on inputs leaves the event loop

_log = logging.getLogger("tollkeeper.engine")

Outcome = Answer | TollkeeperError


class Engine:
    """Runs asks through a service; lives as long as the server."""

    def __init__(self, service: Service) -> None:
        """Work for `service`; call `start` inside the event loop before the first ask."""
        self._service = service
        self._queue: queue.SimpleQueue[list[Ask] | None] = queue.SimpleQueue()
        self._fresh: list[Ask] = []
        self._thread = threading.Thread(target=self._run, name="tollkeeper-engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        encoder = service.encoder
        self._callers = (
            asyncio.Semaphore(encoder.concurrency) if isinstance(encoder, Remote) else None
        )
        self._running: dict[int, Ask] = {}
        self._stopped = False
        # Only the engine's thread touches what follows.
        self._backlog = Backlog(divisible=service.embedder.shares_calls)
        self._crowded = False

    @property
    def takes_data_uris(self) -> bool:
        """Whether images go to the encoder as the client sent them."""
        return self._callers is not None

    def start(self) -> None:
        """Start working; answers are delivered to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self, timeout_s: float = 30.0) -> None:
        """Finish what is under way, deliver it, and end the thread.

        Args:
            timeout_s: afterwards requests that are not charged yet are given up.
        """
        self._stopped = True
        if self._running:
            await asyncio.wait([ask.ticket for ask in self._running.values()], timeout=timeout_s)
        for ask in list(self._running.values()):
            ask.abandoned = True
            ask.ticket.cancel()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, timeout_s)

    async def answer(self, ask: Ask) -> Answer:
        """Take one ask through the service.

        An ask whose caller is cancelled is not charged, unless it is charged already.

        Raises:
            TollkeeperError: whatever stood in the way of an answer.
        """
        if self._loop is None or self._stopped:
            raise LedgerError("the engine is not running")
        await self._check(ask)
        ask.ticket = ticket = self._loop.create_future()
        self._running[id(ask)] = ask
        try:
            await self._embed_remotely(ask)
            self._enqueue(ask)
            outcome: Outcome = await ticket
        finally:
            ask.abandoned = True
            del self._running[id(ask)]
            ticket.cancel()
        if isinstance(outcome, TollkeeperError):
            raise outcome
        return outcome

    async def _check(self, ask: Ask) -> None:
        """Refuse what the encoder cannot take; what takes long is not done on the event loop."""
        size = sum(getattr(item, "nbytes", 0) for item in ask.inputs)
        if self._service.embedder.prepares and size > SMALL_BYTES:
            await asyncio.to_thread(self._service.check, ask)
        else:
            self._service.check(ask)

    def _enqueue(self, ask: Ask) -> None:
        """Hand over what one turn of the event loop brought together: one wake-up for all."""
        if not self._fresh and self._loop is not None:
            self._loop.call_soon(self._flush)
        self._fresh.append(ask)

    def _flush(self) -> None:
        fresh, self._fresh = self._fresh, []
        self._queue.put(fresh)

    async def _embed_remotely(self, ask: Ask) -> None:
        """Let an encoder that waits for another machine work in a thread of its own.

        A daemon thread: a call that hangs must not keep a stopped server alive.
        """
        if self._callers is None or self._loop is None:
            return
        loop, done = self._loop, self._loop.create_future()

        def work() -> None:
            error: TollkeeperError | None
            try:
                (error,) = self._service.embed([Piece(ask, slice(0, len(ask.inputs)))])
            except Exception as fault:  # noqa: BLE001 - whatever it was, somebody waits for it
                error = EncoderError(f"the encoder failed: {type(fault).__name__}")
            if not loop.is_closed():
                loop.call_soon_threadsafe(_set_result, done, error)

        async with self._callers:
            threading.Thread(target=work, name="tollkeeper-upstream", daemon=True).start()
            failure: TollkeeperError | None = await done
        if failure is not None:
            raise failure

    # -- the engine's thread -----------------------------------------------------

    def _run(self) -> None:
        while self._gather():
            pieces = self._backlog.take(MAX_GATHERED_INPUTS)
            try:
                self._work(pieces)
            except Exception as error:  # noqa: BLE001 - see below
                # The thread must outlive any request; the client gets a 503.
                _log.exception("engine.failed")
                self._service.give_back([piece.ask for piece in pieces])
                failure = LedgerError(f"the engine failed: {type(error).__name__}")
                self._finish([(piece.ask, failure) for piece in pieces])

    def _gather(self) -> bool:
        """Move what came into the backlog, waiting if that is empty; False means the end."""
        came = 0
        if not len(self._backlog):
            taken = self._queue.get()
            if taken is None:
                return False
            came = self._take_in(taken)
            if self._crowded:
                time.sleep(LINGER_S)
        while True:
            try:
                taken = self._queue.get_nowait()
            except queue.Empty:
                break
            if taken is None:
                return False
            came += self._take_in(taken)
        self._crowded = came > 1
        return True

    def _take_in(self, asks: list[Ask]) -> int:
        for ask in asks:
            self._backlog.add(ask)
        return len(asks)

    def _work(self, pieces: list[Piece]) -> None:
        failed: list[tuple[Ask, Outcome]] = []
        for alike in _by_modality(piece for piece in pieces if piece.ask.embeddings is None):
            errors = self._service.embed(alike)
            failed += [
                (piece.ask, error)
                for piece, error in zip(alike, errors, strict=True)
                if error is not None
            ]
        self._finish(failed)
        asks = [piece.ask for piece in pieces if piece.ask.embeddings is not None]
        waiting = [ask for ask in asks if not ask.abandoned]
        outcomes: list[tuple[Ask, Outcome]] = []
        for charge in self._service.charge(waiting) if waiting else ():
            if charge.future is None or charge.future.done():
                outcomes += self._settled(charge)
            else:
                charge.future.add_done_callback(partial(self._settle_later, charge))
        self._finish(outcomes)

    def _settle_later(self, charge: Charge, _: Future[Entry]) -> None:
        """Settle in the thread that made the commit durable, for ledgers that answer later."""
        self._finish(self._settled(charge))

    def _settled(self, charge: Charge) -> list[tuple[Ask, Outcome]]:
        """Return the outcomes of a charge whose commit ended; queue what must be repeated."""
        answers, again = self._service.settle(charge)
        if again:
            self._queue.put(again)
        return list(zip(charge.asks, answers, strict=True))

    def _finish(self, outcomes: list[tuple[Ask, Outcome]]) -> None:
        """Deliver outcomes to the event loop; what is left of these asks is dropped."""
        for ask, _ in outcomes:
            ask.abandoned = True
        if outcomes and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_set_results, outcomes)


def _set_results(outcomes: list[tuple[Ask, Outcome]]) -> None:
    for ask, outcome in outcomes:
        _set_result(ask.ticket, outcome)


def _set_result(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _by_modality(pieces: Iterable[Piece]) -> list[list[Piece]]:
    groups: dict[str, list[Piece]] = {}
    for piece in pieces:
        groups.setdefault(piece.ask.modality, []).append(piece)
    return list(groups.values())
