"""Putting the parts of a gateway together: what each is made of, and from which secret."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from typing import Final, Literal

import numpy as np

from tollkeeper.challenge.protocol import Issuer
from tollkeeper.challenge.puzzle import SCRYPT, SHA_256
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.load import load_encoder
from tollkeeper.gateway.admission import Admission
from tollkeeper.gateway.archive import Archive, windows
from tollkeeper.gateway.booth import Booth
from tollkeeper.gateway.calibrations import calibration_for, check_model
from tollkeeper.gateway.embedder import Embedder
from tollkeeper.gateway.grants import Grants
from tollkeeper.gateway.journal import Journal
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.operator import Operator
from tollkeeper.gateway.plans import GUARD, Plan, Plans, Scale
from tollkeeper.gateway.policy import Policy
from tollkeeper.gateway.pools import Deployment
from tollkeeper.gateway.predict_tariff import Evidence
from tollkeeper.gateway.service import Guarded, ServiceLedger
from tollkeeper.gateway.settings import Settings
from tollkeeper.gateway.stores import Stores
from tollkeeper.guard import keys, profiles
from tollkeeper.guard.guard import Guard
from tollkeeper.guard.profiles import Profile
from tollkeeper.guard.windows import Windows
from tollkeeper.ledger.spent import Fuse, MemorySpent, SpentStore, open_spent_store

NO_ENCODER: Final = "none"

RATES: Final[Mapping[str, float]] = {SHA_256: 1_000_000.0, SCRYPT: 20.0}
"""Evaluations a second on the reference machine: one core of a slow laptop with our Python client,
below what was measured (`pow-calibration`: hash_rate.python)."""


def make_guard(settings: Settings, master: bytes, encoder: Encoder) -> Guard:
    """Build the guard of a profile for an encoder.

    Raises:
        ConfigurationError: unknown profile, or no calibration where one is needed.
    """
    profile = profiles.get(settings.profile)
    calibration = calibration_for(
        settings.encoder,
        encoder.dim,
        given=settings.calibration,
        required=profile.needs_calibration,
    )
    check_model(calibration, encoder)
    return Guard(profile, calibration, secret=guard_secret(master, encoder.name))


def guard_secret(master: bytes, model: str) -> bytes:
    """Return the secret that everything about one guarded model is derived from: 32 bytes."""
    return keys.derive(master, "guard", model)


def describe(
    settings: Settings,
    guard: Guard | None,
    encoder: Encoder | None,
    evidence: Evidence | None,
    previous: Deployment | None,
    *,
    now: float,
) -> Deployment:
    """Return what a data directory is about to serve; without an encoder there is no guard."""
    turning = windows(settings.window, settings.carry_over)
    since = previous.window_since if previous and previous.window is not None else 0.0
    now_served = Deployment(
        encoder.name if encoder else "",
        encoder.dim if encoder else 0,
        settings.profile if encoder else "none",
        guard.fingerprint if guard else "",
        settings.encoder,
        guard.calibration.knee if guard else None,
        settings.window,
        settings.carry_over,
        settings.key_version,
        settings.refuse_at_ceiling,
        0.0 if turning is None else since or turning.start(now),
        evidence.fingerprint if evidence else "",
    )
    return now_served.after(previous)


def make_service(
    encoder: Encoder,
    guard: Guard,
    ledger: ServiceLedger,
    *,
    clock: Callable[[], float],
    rng: np.random.Generator,
    metrics: Metrics,
    shadow: bool = False,
    on_ledger_failure: Literal["closed", "open"] = "closed",
    key_version: int = 1,
    marked: Collection[str] = (),
    windows: Windows | None = None,
    window_since: float = 0.0,
    plans: Mapping[str, Plan] | None = None,
    plan: str = GUARD,
    refuses: bool = True,
    spent: SpentStore | None = None,
    secret: bytes = bytes(32),
    rates: Mapping[str, float] = RATES,
    ticks: Callable[[], float] = time.monotonic,
) -> Guarded:
    """Put a service together.

    Args:
        encoder: the clean encoder.
        guard: of that encoder.
        ledger: durable state.
        clock: seconds since the epoch.
        rng: source of fresh noise, for profiles that use it.
        metrics: instruments of this server.
        shadow: enforce nothing for anyone.
        on_ledger_failure: see `Service`.
        key_version: version of the tenants' transform keys.
        marked: tenants whose answers carry their mark.
        windows: when pools forget; None never.
        window_since: start of the first window.
        plans: the operator's.
        plan: name of the default plan.
        refuses: whether anything is refused at the ceiling.
        spent: what proofs and grants are used up; None keeps that in memory.
        secret: the deployment's master key, of which challenges and grants are signed.
        rates: evaluations a second of each puzzle on the reference machine.
        ticks: seconds that never jump.

    Raises:
        ConfigurationError: the default plan is not written.
        GuardError: tenants are marked whom the guard cannot mark.
    """
    # Of one model: two deployments may share a master key, and not their store of used proofs.
    issuer = Issuer(keys.derive(secret, "challenges", encoder.name), entropy=os.urandom)
    spent = Fuse(MemorySpent() if spent is None else spent, ticks=ticks)
    booth = Booth(
        issuer,
        spent,
        rates=rates,
        clock=clock,
        ticks=ticks,
        metrics=metrics,
        randbelow=secrets.randbelow,
    )
    profile = guard.profile
    admission = Admission(
        guard,
        Policy(booth, ticks=ticks),
        booth=booth,
        plans=Plans(plans or {}, plan, scale_of(profile, refuses=refuses)),
        grants=Grants(keys.derive(secret, "grants")),
        spent=spent,
        clock=clock,
        rng=rng,
        metrics=metrics,
        shadow=shadow,
        key_version=key_version,
        marked=marked,
    )
    return Guarded(
        Embedder(encoder, metrics),
        admission,
        Archive(profile.layout, windows, guard.fingerprint, window_since),
        ledger,
        clock=clock,
        metrics=metrics,
        journal=Journal(ledger),
        on_ledger_failure=on_ledger_failure,
    )


def scale_of(profile: Profile, *, refuses: bool) -> Scale:
    """Return what places on a ladder mean under a profile with its knee."""
    ceiling = profile.ceiling
    return Scale(
        profile.price.free_until,
        1.0 if ceiling is None else ceiling,
        refuses=refuses and ceiling is not None,
    )


def operator_of(
    settings: Settings,
    stores: Stores,
    deployment: Deployment | None,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None] = time.sleep,
) -> Operator:
    """Build the operator's verbs over what a deployment serves."""

    def spent(name: str) -> int:
        # Opened for the moment: most verbs have no use for it.
        with closing(open_spent_store(settings.spent_url)) as store:
            return store.spent(name)

    profile = profiles.get(deployment.profile if deployment else "none")
    profile = profile.with_knee(deployment.knee if deployment else None)
    refuses = deployment.refuses if deployment else True
    return Operator(
        stores.store,
        stores.keyring,
        deployment,
        clock=clock,
        sleep=sleep,
        plans=Plans(settings.plans, settings.plan, scale_of(profile, refuses=refuses)),
        grants=Grants(keys.derive(stores.master, "grants")),
        spent=spent,
    )


def make_operator(settings: Settings, stores: Stores, *, clock: Callable[[], float]) -> Operator:
    """Build the operator's verbs for a data directory; no encoder is loaded.

    Raises:
        ConfigurationError: the data directory is damaged, or a plan is wrong.
    """
    return operator_of(settings, stores, Deployment.load(settings.data_dir), clock=clock)


def served_encoder(settings: Settings) -> Encoder | None:
    """Load the encoder that is to be guarded; `none` is none.

    Raises:
        ConfigurationError: as for `make_encoder`.
    """
    return None if settings.encoder == NO_ENCODER else make_encoder(settings)


def make_encoder(settings: Settings) -> Encoder:
    """Load the encoder that is to be guarded.

    Raises:
        ConfigurationError: the SPEC is unknown or the encoder cannot be loaded.
    """
    key = settings.upstream_api_key
    return load_encoder(
        settings.encoder,
        threads=settings.encoder_threads,
        api_key=key.get_secret_value() if key else None,
        timeout_s=settings.upstream_timeout_s,
        concurrency=settings.upstream_concurrency,
    )
