"""Between the event loop and the service: one thread that works on whatever has gathered.

While the thread is busy, new requests gather; then they are embedded in one encoder
call, admitted together and committed with one fsync. A lone request starts at once. Encoders that wait for another machine are called from
threads of their own first, and join the queue with their embeddings in hand.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from tollkeeper.encoders.base import Remote
from tollkeeper.errors import LedgerError, TollkeeperError
from tollkeeper.gateway.asks import Answer, Ask, Charge
from tollkeeper.gateway.service import Service
from tollkeeper.types import Entry

MAX_GATHERED_INPUTS = 256

LINGER_S = 0.0003
"""Wait for company when the last group had some: a third more requests per second with 16
connections on two cores. A lone client never waits."""

_log = logging.getLogger("tollkeeper.engine")

Outcome = Answer | TollkeeperError
_Job = tuple[Ask, "asyncio.Future[Outcome]"]


class Engine:
    """Runs asks through a service; lives as long as the server."""

    def __init__(self, service: Service) -> None:
        """Work for `service`; call `start` inside the event loop before the first ask."""
        self._service = service
        self._queue: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._fresh: list[_Job] = []
        self._crowded = False
        self._thread = threading.Thread(target=self._run, name="tollkeeper-engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._callers: ThreadPoolExecutor | None = None
        if isinstance(service.encoder, Remote):
            self._callers = ThreadPoolExecutor(
                service.encoder.concurrency, thread_name_prefix="tollkeeper-upstream"
            )
        self._jobs: dict[int, asyncio.Future[Outcome]] = {}

    @property
    def takes_data_uris(self) -> bool:
        """Whether images go to the encoder as the client sent them."""
        return self._callers is not None

    def start(self) -> None:
        """Start working; answers are delivered to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Finish what is queued, deliver it, and end the thread."""
        while self._jobs:
            await asyncio.wait(list(self._jobs.values()))
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        if self._callers is not None:
            self._callers.shutdown()

    async def answer(self, ask: Ask) -> Answer:
        """Take one ask through the service.

        Raises:
            TollkeeperError: whatever stood in the way of an answer.
        """
        if self._loop is None:
            raise LedgerError("the engine is not running")
        self._service.check(ask)
        job: asyncio.Future[Outcome] = self._loop.create_future()
        self._jobs[id(ask)] = job
        job.add_done_callback(lambda _: self._jobs.pop(id(ask), None))
        try:
            await self._embed_remotely(ask)
        except BaseException:
            # Cancelled or failed before it was queued: nobody else will finish this job.
            job.cancel()
            raise
        self._enqueue(ask, job)
        # A client that hangs up must not leave a half-charged request behind.
        outcome = await asyncio.shield(job)
        if isinstance(outcome, TollkeeperError):
            raise outcome
        return outcome

    def _enqueue(self, ask: Ask, job: asyncio.Future[Outcome]) -> None:
        """Hand over what one turn of the event loop brought together: one wake-up for all."""
        if not self._fresh and self._loop is not None:
            self._loop.call_soon(self._flush)
        self._fresh.append((ask, job))

    def _flush(self) -> None:
        fresh, self._fresh = self._fresh, []
        self._queue.put(fresh)

    async def _embed_remotely(self, ask: Ask) -> None:
        """Let an encoder that waits for another machine work in a thread of its own."""
        if self._callers is None or self._loop is None:
            return
        (error,) = await self._loop.run_in_executor(self._callers, self._service.embed, [ask])
        if error is not None:
            raise error

    # -- the engine's thread -----------------------------------------------------

    def _run(self) -> None:
        while (jobs := self._gather()) is not None:
            try:
                self._work(jobs)
            except Exception as error:  # noqa: BLE001 - see below
                # The thread must outlive any request; the client gets a 503.
                _log.exception("engine.failed")
                failure = LedgerError(f"the engine failed: {type(error).__name__}")
                self._deliver([(job, failure) for _, job in jobs])

    def _gather(self) -> list[_Job] | None:
        """Wait for jobs, then take what else is there, up to a bound on inputs."""
        taken = self._queue.get()
        if taken is None:
            return None
        jobs = list(taken)
        if self._crowded:
            time.sleep(LINGER_S)
        while sum(len(ask.inputs) for ask, _ in jobs) < MAX_GATHERED_INPUTS:
            try:
                taken = self._queue.get_nowait()
            except queue.Empty:
                break
            if taken is None:
                self._queue.put(None)
                break
            jobs += taken
        self._crowded = len(jobs) > 1
        return jobs

    def _work(self, jobs: list[_Job]) -> None:
        futures = {id(ask): job for ask, job in jobs}
        outcomes: list[tuple[asyncio.Future[Outcome], Outcome]] = []
        ready: list[Ask] = []
        for asks in _by_modality([ask for ask, _ in jobs]):
            missing = [ask for ask in asks if ask.embeddings is None]
            errors = (
                dict(zip(map(id, missing), self._service.embed(missing), strict=True))
                if missing
                else {}
            )
            for ask in asks:
                error = errors.get(id(ask))
                if error is None:
                    ready.append(ask)
                else:
                    outcomes.append((futures[id(ask)], error))
        for charge in self._service.charge(ready) if ready else ():
            if charge.future is None or charge.future.done():
                outcomes += self._settled(charge, futures)
            else:
                charge.future.add_done_callback(partial(self._settle_later, charge, futures))
        self._deliver(outcomes)

    def _settle_later(
        self, charge: Charge, futures: dict[int, asyncio.Future[Outcome]], _: Future[Entry]
    ) -> None:
        self._deliver(self._settled(charge, futures))

    def _settled(
        self, charge: Charge, futures: dict[int, asyncio.Future[Outcome]]
    ) -> list[tuple[asyncio.Future[Outcome], Outcome]]:
        """Return what to deliver of a charge whose commit ended; queue what must be repeated."""
        answers, again = self._service.settle(charge)
        if again:
            self._queue.put([(ask, futures[id(ask)]) for ask in again])
            return []
        return [(futures[id(a)], o) for a, o in zip(charge.asks, answers, strict=True)]

    def _deliver(self, outcomes: list[tuple[asyncio.Future[Outcome], Outcome]]) -> None:
        if outcomes and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_set_results, outcomes)


def _set_results(outcomes: list[tuple[asyncio.Future[Outcome], Outcome]]) -> None:
    for future, outcome in outcomes:
        if not future.done():
            future.set_result(outcome)


def _by_modality(asks: list[Ask]) -> list[list[Ask]]:
    groups: dict[str, list[Ask]] = {}
    for ask in asks:
        groups.setdefault(ask.modality, []).append(ask)
    return list(groups.values())
