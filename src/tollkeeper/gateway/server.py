"""Putting the gateway together and running it: both planes in one process."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import uvicorn

from tollkeeper import __version__
from tollkeeper.challenge.puzzle import SCRYPT, SHA_256
from tollkeeper.encoders.base import Encoder
from tollkeeper.errors import ConfigurationError, TollkeeperError
from tollkeeper.gateway import openapi, secrets, wire
from tollkeeper.gateway.admin import create_admin_app
from tollkeeper.gateway.app import DataPlane, Models
from tollkeeper.gateway.archive import windows
from tollkeeper.gateway.assembly import describe, make_guard, make_service, operator_of
from tollkeeper.gateway.desk import Desk
from tollkeeper.gateway.engine import Engine
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.places import Places
from tollkeeper.gateway.plans import Plans
from tollkeeper.gateway.pools import Deployment, check_unchanged
from tollkeeper.gateway.settings import Settings
from tollkeeper.gateway.stores import Stores
from tollkeeper.ledger.spent import open_spent_store

STANDING_POLL_S = 0.4
FIRST_STOCK = 16  # puzzles of scrypt, made before the first request
RESTING = 3  # making more takes at most a quarter of a core
SHORTEST_NAP_S = 0.1
TIDY_S = 600.0  # tenants are compared every ten minutes
PRUNE_TURNS = 6  # old records go once an hour
ENGINE_STOP_S = 5.0
_log = logging.getLogger("tollkeeper.server")


class Gateway:
    """A whole gateway: the two applications and what stands behind them."""

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        *,
        encoder: Encoder,
        clock: Callable[[], float],
        rng: np.random.Generator,
    ) -> None:
        """Assemble; nothing runs before `start`.

        Raises:
            ConfigurationError: settings do not fit the encoder.
            LedgerError: the ledger is damaged.
        """
        stores.store.check()
        metrics = Metrics()
        guard = make_guard(settings, master=stores.master, encoder=encoder)
        previous = Deployment.load(settings.data_dir)
        deployment = describe(settings, guard, encoder, previous, now=clock())
        self.spent = open_spent_store(settings.spent_url)
        self.service = make_service(
            encoder,
            guard,
            stores.store,
            clock=clock,
            rng=rng,
            metrics=metrics,
            shadow=settings.shadow,
            on_ledger_failure=settings.on_ledger_failure,
            key_version=settings.key_version,
            windows=windows(settings.window, settings.carry_over),
            window_since=deployment.window_since,
            plans=settings.plans,
            plan=settings.plan,
            refuses=settings.refuse_at_ceiling,
            spent=self.spent,
            secret=stores.master,
            rates={SHA_256: settings.hash_rate, SCRYPT: settings.scrypt_rate},
        )
        self.desk = Desk(self.service)
        self.engine = Engine(self.service)
        self.keyring = stores.keyring
        self.store = stores.store
        models = Models(encoder.name, settings.model_aliases, int(clock()))
        limits = wire.Limits(
            max_body_bytes=settings.max_body_bytes,
            max_inputs=settings.max_inputs,
            max_image_pixels=settings.max_image_pixels,
        )
        self.data_plane = DataPlane(
            self.engine,
            stores.keyring,
            desk=self.desk,
            models=models,
            limits=limits,
            places=Places(
                total=settings.max_concurrency,
                per_tenant=settings.max_tenant_concurrency,
                bytes_per_tenant=4 * settings.max_body_bytes,
            ),
            metrics=metrics,
            ready=self._ready,
            body_timeout_s=settings.body_timeout_s,
        )
        check_unchanged(previous, deployment, accepted=settings.accept_new_guard)
        deployment.save(settings.data_dir)
        token = settings.admin_token.get_secret_value() if settings.admin_token else None
        self._operator = operator_of(settings, stores, deployment, clock=clock)
        self._operator.check_plans(self.service.admission.plans)
        self._operator.unite_pools()
        self._warn_of_plans()
        self._retention_days = settings.retention_days
        self._link_overlap = settings.link_overlap
        if self._link_overlap is not None:
            self._operator.check_evidence()
        self.admin_plane = create_admin_app(
            self._operator,
            metrics=metrics,
            token=secrets.admin_token(settings.data_dir, token),
            document=openapi.document(
                limits=limits,
                version=__version__,
                embeds=openapi.Embeds(models.all, encoder.dim, encoder.accepts),
            ),
        )
        self._keeping: list[asyncio.Task[None]] = []
        # A thread of its own, so that no burst of large requests can delay a revocation.
        self._keeper = ThreadPoolExecutor(1, thread_name_prefix="tollkeeper-keeper")

    async def start(self) -> None:
        """Start the engine and the watch on keys and tenants."""
        self.engine.start()
        if self.desk.wants_stock:
            await asyncio.to_thread(self.desk.restock, FIRST_STOCK)
        self._keeping = [
            asyncio.create_task(one()) for one in (self._watch, self._tidy, self._stock_up)
        ]

    async def stop(self) -> None:
        """Finish what was charged, then close the ledger; call when no request is left."""
        for task in self._keeping:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self.engine.stop(ENGINE_STOP_S)
        close = getattr(self.service.encoder, "close", None)
        if close is not None:
            await asyncio.to_thread(close)
        self._keeper.shutdown()
        await asyncio.to_thread(partial(self._flush, last=True))
        await asyncio.to_thread(self.spent.close)
        await asyncio.to_thread(self.store.close)

    def reload(self, settings: Settings) -> None:
        """Take over the plans of settings that were read anew; nothing else of them.

        Raises:
            ConfigurationError: the default plan, or that of a tenant, is not written.
        """
        plans = Plans(settings.plans, settings.plan, self.service.admission.plans.scale)
        self._operator.check_plans(plans)
        self.service.admission.plans = plans
        self._operator.replace_plans(plans)
        self._warn_of_plans()
        _log.warning("plans.reloaded default=%s", settings.plan)

    def _warn_of_plans(self) -> None:
        """Say which plans cannot do what they say, and whose plan is not written."""
        for warning in self._operator.plan_warnings():
            _log.warning("plans.doubtful %s", warning)

    def _flush(self, *, last: bool = False) -> None:
        """Write down what was refused lately."""
        try:
            self.service.journal.flush(last=last)
        except TollkeeperError as error:
            _log.warning("journal.unwritten error=%s", error)

    async def _ready(self) -> None:
        """Raise unless the ledger can be read; cheap, because anyone may ask."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._keeper, self.store.standing_version)

    async def _watch(self) -> None:
        """Notice new and revoked keys and changed tenants, whoever changed them."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.run_in_executor(self._keeper, self.keyring.refresh)
            except TollkeeperError as error:
                _log.warning("ledger.unreadable error=%s", error)
            await loop.run_in_executor(self._keeper, self._flush)
            await asyncio.sleep(STANDING_POLL_S)

    async def _tidy(self) -> None:
        """Delete old records and link tenants now and then; beside the watch, which may not wait."""
        for turn in itertools.count():
            try:
                await asyncio.to_thread(self.desk.prune)
                if self._retention_days is not None and turn % PRUNE_TURNS == 0:
                    await asyncio.to_thread(self._operator.prune, self._retention_days)
                if self._link_overlap is not None:
                    await asyncio.to_thread(self._link, self._link_overlap)
            except TollkeeperError as error:
                _log.warning("ledger.untidy error=%s", error)
            await asyncio.sleep(TIDY_S)

    async def _stock_up(self) -> None:
        """Make puzzles of scrypt ahead, in a task of its own: revocation may not wait for them."""
        while True:
            began = time.monotonic()
            if self.desk.wants_stock:
                await asyncio.to_thread(self.desk.restock)
            took_s = time.monotonic() - began
            await asyncio.sleep(max(SHORTEST_NAP_S, RESTING * took_s))

    def _link(self, share: float) -> None:
        """Link tenants that asked the same."""
        for pair in self._operator.link_overlapping(share):
            named = (pair.first, pair.second, pair.shared)
            _log.warning("tenants.linked first=%s second=%s shared=%.3f", *named)


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to `run`, which stops both planes together."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield


async def run(
    gateway: Gateway,
    settings: Settings,
    *,
    announce: Callable[[int, int], None],
    stop: asyncio.Event,
) -> None:
    """Serve both planes until `stop` is set, then finish what was charged.

    Args:
        gateway: assembled, not started.
        settings: hosts and ports; port 0 picks a free one.
        announce: called with the data and the admin port once both accept requests.
        stop: ends serving; see `stop_on_signals`.

    Raises:
        ConfigurationError: a port cannot be bound.
    """
    sockets = _bind(settings)
    servers = [_server(app, settings) for app in (gateway.data_plane, gateway.admin_plane)]
    await gateway.start()
    tasks = [
        asyncio.create_task(server.serve([bound]))
        for server, bound in zip(servers, sockets, strict=True)
    ]
    try:
        while not all(server.started for server in servers):
            for task in tasks:
                if task.done():  # it can only have failed
                    await task
            await asyncio.sleep(0.01)
        data_port, admin_port = (bound.getsockname()[1] for bound in sockets)
        announce(data_port, admin_port)
        await stop.wait()
    finally:
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*tasks)
        await gateway.stop()


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGINT and SIGTERM set; call inside the event loop."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def reload_on_hangup(gateway: Gateway, reread: Callable[[], Settings]) -> None:
    """Let SIGHUP read the plans anew; what cannot be read changes nothing. Call inside the loop."""

    def reload() -> None:
        try:
            gateway.reload(reread())
        except ConfigurationError as error:
            _log.warning("plans.kept error=%s", error)

    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is not None:
        asyncio.get_running_loop().add_signal_handler(hangup, reload)


def _server(app: Callable[..., Any], settings: Settings) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        access_log=False,
        server_header=False,
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout_s),
    )
    return _Server(config)


def _bind(settings: Settings) -> list[socket.socket]:
    """Take both ports before anything starts."""
    bound: list[socket.socket] = []
    for host, port in (
        (settings.host, settings.port),
        (settings.admin_host, settings.admin_port),
    ):
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            bound.append(socket.create_server((host, port), family=family, backlog=2048))
        except OSError as error:
            for taken in bound:
                taken.close()
            raise ConfigurationError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another with "
                "--host, --port, --admin-host or --admin-port"
            ) from error
    return bound


def wall_clock() -> float:
    """Return seconds since the epoch."""
    return time.time()
