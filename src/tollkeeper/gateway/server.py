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
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import uvicorn

from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.classifiers.base import Classifier
from tollkeeper.errors import ConfigurationError, TollkeeperError
from tollkeeper.gateway import secrets, wire
from tollkeeper.gateway.admin import create_admin_app
from tollkeeper.gateway.app import DataPlane
from tollkeeper.gateway.assembly import describe, make_guard, operator_of
from tollkeeper.gateway.desk import Desk
from tollkeeper.gateway.lines import (
    Common,
    Line,
    document_of,
    embeddings_line,
    predictions_line,
)
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.places import Allowance, Places
from tollkeeper.gateway.plans import Plans
from tollkeeper.gateway.pools import Deployment, check_unchanged
from tollkeeper.gateway.predict_assembly import make_evidence
from tollkeeper.gateway.predict_tariff import Evidence, alarms_of
from tollkeeper.gateway.service import Guarded, Service
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
        encoder: Encoder | None,
        clock: Callable[[], float],
        rng: np.random.Generator,
        classifier: Classifier | None = None,
        evidence: Evidence | None = None,
    ) -> None:
        """Assemble; nothing runs before `start`.

        Args:
            settings: what the operator wrote.
            stores: ledger and keys.
            encoder: answers embeddings, if any are served; it or a classifier is.
            clock: seconds since the epoch.
            rng: source of fresh noise.
            classifier: answers predictions, if any are served.
            evidence: what tells queries to it apart; that of the settings unless given.

        Raises:
            ConfigurationError: settings do not fit the encoder or the classifier.
            EncoderError: the classifier does not answer.
            LedgerError: the ledger is damaged.
        """
        stores.store.check()
        metrics = Metrics()
        guard = None if encoder is None else make_guard(settings, stores.master, encoder)
        if classifier is not None and evidence is None:
            evidence = make_evidence(settings, classifier)
        previous = Deployment.load(settings.data_dir)
        deployment = describe(settings, guard, encoder, evidence, previous, now=clock())
        limits = wire.Limits(
            max_body_bytes=settings.max_body_bytes,
            max_inputs=settings.max_inputs,
            max_image_pixels=settings.max_image_pixels,
        )
        self.spent = open_spent_store(settings.spent_url)
        self.keyring = stores.keyring
        self.store = stores.store
        self._operator = operator_of(settings, stores, deployment, clock=clock)
        pixels = Allowance(limits.max_request_pixels)
        common = Common(settings, stores, self.spent, clock, metrics, limits, pixels)
        self.detector = evidence.detector.name if evidence and evidence.detector else None
        self._lines: list[Line] = []
        self._guarded: Guarded | None = None
        desk: Desk | None = None
        if encoder is not None and guard is not None:
            line, self._guarded, desk = embeddings_line(
                common, encoder, guard, rng=rng, window_since=deployment.window_since
            )
            self._lines.append(line)
        if classifier is not None and evidence is not None:
            plans, aliased = self._operator.plans, encoder is None
            line = predictions_line(common, classifier, evidence, plans, aliased=aliased)
            self._lines.append(line)
        self.data_plane = DataPlane(
            {line.path: line.route for line in self._lines},
            stores.keyring,
            desk=desk,
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
        self._evidence, self._data_dir, self._deployment = evidence, settings.data_dir, deployment
        token = settings.admin_token.get_secret_value() if settings.admin_token else None
        self._operator.check_plans(self._operator.plans)
        self._operator.unite_pools()
        self._warn_of_plans()
        self._retention_days = settings.retention_days
        self._link_overlap = settings.link_overlap if self._guarded else None
        if self._link_overlap is not None:
            self._operator.check_evidence()
        elif settings.link_overlap is not None:
            _log.warning("links.unwatched: link_overlap compares embeddings, and none are served")
        # Now that nothing can end the start any more.
        self._keep_deployment()
        self.admin_plane = create_admin_app(
            self._operator,
            metrics=metrics,
            token=secrets.admin_token(settings.data_dir, token),
            document=document_of(self._lines, limits, encoder, classifier),
        )
        self._keeping: list[asyncio.Task[None]] = []
        # A thread of its own, so that no burst of large requests can delay a revocation.
        self._keeper = ThreadPoolExecutor(1, thread_name_prefix="tollkeeper-keeper")

    @property
    def service(self) -> Guarded:
        """The service of embeddings.

        Raises:
            ConfigurationError: no encoder is served.
        """
        if self._guarded is None:
            raise ConfigurationError("this server has no encoder")
        return self._guarded

    @property
    def predictions(self) -> Service:
        """The service of predictions.

        Raises:
            ConfigurationError: no classifier is served.
        """
        for line in self._lines:
            if line.service is not self._guarded:
                return line.service
        raise ConfigurationError("this server has no classifier")

    @property
    def plans(self) -> Plans:
        """The plans that hold now."""
        return self._operator.plans

    async def start(self) -> None:
        """Start the engine and the watch on keys and tenants."""
        for line in self._lines:
            line.engine.start()
            if line.door.wants_stock:
                await asyncio.to_thread(line.door.restock, FIRST_STOCK)
        self._keeping = [
            asyncio.create_task(one()) for one in (self._watch, self._tidy, self._stock_up)
        ]

    async def stop(self) -> None:
        """Finish what was charged, then close the ledger; call when no request is left."""
        for task in self._keeping:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await asyncio.gather(*(line.engine.stop(ENGINE_STOP_S) for line in self._lines))
        for line in self._lines:
            close = getattr(line.service.encoder, "close", None)
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
        plans = Plans(settings.plans, settings.plan, self._operator.plans.scale)
        self._operator.check_plans(plans)
        for line in self._lines:
            line.service.admission.check(plans)
        for line in self._lines:
            line.service.admission.plans = plans
        self._operator.plans = plans
        self._keep_deployment()
        self._warn_of_plans()
        _log.warning("plans.reloaded default=%s", settings.plan)

    def _keep_deployment(self) -> None:
        """Write down what is served, with what the plans mean for it."""
        self._operator.alarms = alarms_of(self._operator.plans, self._evidence)
        self._deployment = replace(self._deployment, alarms=self._operator.alarms)
        self._deployment.save(self._data_dir)

    def _warn_of_plans(self) -> None:
        """Say which plans cannot do what they say, and whose plan is not written."""
        # Rungs are of embeddings; where none are served there is nothing to warn of.
        for warning in self._operator.plan_warnings() if self._guarded else ():
            _log.warning("plans.doubtful %s", warning)

    def _flush(self, *, last: bool = False) -> None:
        """Write down what was refused lately."""
        for line in self._lines:
            try:
                line.service.journal.flush(last=last)
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
                await asyncio.to_thread(self._lines[0].door.prune)
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
            for line in self._lines:
                if line.door.wants_stock:
                    await asyncio.to_thread(line.door.restock)
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
