"""Putting the parts together that guard predictions."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, cast

from tollkeeper.challenge.protocol import Issuer
from tollkeeper.challenge.puzzle import SHA_256
from tollkeeper.detectors.base import Detector
from tollkeeper.detectors.builtin import builtin_bundle_path
from tollkeeper.detectors.bundle import Bundle, Victim, load_bundle, probe_for
from tollkeeper.detectors.choosing import NO_DETECTOR, chosen, located
from tollkeeper.detectors.packing import pack
from tollkeeper.encoders.classifiers.base import Classifier
from tollkeeper.encoders.classifiers.load import load_classifier
from tollkeeper.errors import ConfigurationError
from tollkeeper.gateway.assembly import NO_ENCODER, RATES
from tollkeeper.gateway.booth import Booth
from tollkeeper.gateway.grants import Grants
from tollkeeper.gateway.journal import Journal
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.plans import Plans
from tollkeeper.gateway.predict_admission import PredictAdmission
from tollkeeper.gateway.predict_archive import PredictArchive
from tollkeeper.gateway.predict_tariff import AlarmingDetector, Evidence, Follow, FollowsScores
from tollkeeper.gateway.predictor import Predictor
from tollkeeper.gateway.service import Service, ServiceLedger
from tollkeeper.gateway.settings import Settings
from tollkeeper.graphs import Graph
from tollkeeper.guard import keys
from tollkeeper.guard.windows import Windows
from tollkeeper.ledger.spent import Fuse, MemorySpent, SpentStore

STATES = "2"
"""Version of how accounts lie in the ledger; another one starts them anew."""

_log = logging.getLogger("tollkeeper.predictions")


def make_classifier(settings: Settings) -> Classifier | None:
    """Load the classifier that is to be guarded, if one is.

    Raises:
        ConfigurationError: the SPEC is unknown or the classifier cannot be loaded, or a detector
            is named without one, or there is no encoder either.
        EncoderError: a Python classifier does not answer with probabilities.
    """
    if settings.classifier is None:
        if settings.encoder == NO_ENCODER:
            raise ConfigurationError("encoder is none: name a classifier to serve, or an encoder")
        if settings.detector not in (None, NO_DETECTOR):
            raise ConfigurationError(
                f"the detector {settings.detector} looks at predictions: name a classifier beside "
                "it, or leave it out"
            )
        return None
    key = settings.upstream_api_key
    found = load_classifier(
        settings.classifier,
        threads=settings.encoder_threads,
        api_key=key.get_secret_value() if key else None,
        timeout_s=settings.upstream_timeout_s,
        concurrency=settings.upstream_concurrency,
    )
    if settings.classifier.startswith("python:") and found.input_shape is not None:
        found.embed(probe_for(found.input_shape))  # Rows that are no probabilities are told now.
    return found


def make_evidence(settings: Settings, classifier: Classifier) -> Evidence:
    """Read the detectors of a classifier; unless told otherwise there are those that it comes with.

    Raises:
        ConfigurationError: the file cannot be used, has no such detector, or is for another
            classifier.
        EncoderError: the classifier does not answer.
    """
    spec = settings.detector or settings.classifier or ""
    path, name = located(spec)
    if spec == NO_DETECTOR or not (settings.detector or builtin_bundle_path(spec)):
        return Evidence(fingerprint_of(classifier, b""))
    threads = settings.encoder_threads
    found = chosen(load_bundle(path, threads=threads), name)
    # Another detector, or another one for the history, knows nothing of the accounts of this one.
    digest = _digest(path) + name.encode()
    return evidence_of(found, classifier, digest=digest, threads=threads)


def evidence_of(
    bundle: Bundle, classifier: Classifier, *, digest: bytes, threads: int = 1
) -> Evidence:
    """Return what a bundle tells about queries to a classifier.

    Raises:
        ConfigurationError: it was fitted for another classifier.
        EncoderError: the classifier does not answer.
    """
    bundle = chosen(bundle)
    bundle.check_victim(cast("Victim", classifier))
    detector, account = bundle.detectors[bundle.recommended], bundle.account
    if account is not None and not isinstance(account, AlarmingDetector):
        raise ConfigurationError(
            f"the account detector {account.name} does not say when it alarms; fit anew with "
            "`tollkeeper detectors fit`"
        )
    return Evidence(
        fingerprint_of(classifier, digest),
        detector,
        bundle.honest[bundle.recommended],
        account,
        {name: Graph(data, threads=threads, name=name) for name, data in bundle.graphs.items()},
        _follow(account, detector),
    )


def _follow(account: object, detector: Detector) -> Follow | None:
    """Return how an account is followed by scores of `detector`; None if it looks at others.

    With it each query is scored once, and not once more for its account.
    """
    if isinstance(account, FollowsScores) and pack(account.detector) == pack(detector):
        return account.follow
    return None


def fingerprint_of(classifier: Classifier, digest: bytes) -> str:
    """Return under what name accounts are kept: other detectors know nothing of them."""
    parts = (STATES, classifier.name, str(classifier.dim), digest.hex())
    return "p" + hashlib.sha256("|".join(parts).encode()).hexdigest()[:15]


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def make_predictions(
    classifier: Classifier,
    evidence: Evidence,
    ledger: ServiceLedger,
    *,
    plans: Plans,
    clock: Callable[[], float],
    metrics: Metrics,
    shadow: bool = False,
    on_ledger_failure: Literal["closed", "open"] = "closed",
    windows: Windows | None = None,
    spent: SpentStore | None = None,
    secret: bytes = bytes(32),
    rates: Mapping[str, float] = RATES,
    ticks: Callable[[], float] = time.monotonic,
) -> Service:
    """Put a service of predictions together.

    Args:
        classifier: the clean one.
        evidence: what tells queries apart.
        ledger: durable state.
        plans: the operator's.
        clock: seconds since the epoch.
        metrics: instruments of this server.
        shadow: enforce nothing for anyone.
        on_ledger_failure: see `Service`.
        windows: when suspicion is forgotten; None never.
        spent: what proofs and grants are used up; None keeps that in memory.
        secret: the deployment's master key.
        rates: evaluations a second of each puzzle on the reference machine.
        ticks: seconds that never jump.

    Raises:
        ConfigurationError: a plan's ranks or outputs cannot be had.
    """
    spent = Fuse(MemorySpent() if spent is None else spent, ticks=ticks)
    booth = Booth(
        Issuer(
            keys.derive(secret, "challenges", "predictions", classifier.name), entropy=os.urandom
        ),
        spent,
        rates=rates,
        clock=clock,
        ticks=ticks,
        metrics=metrics,
        randbelow=secrets.randbelow,
    )
    admission = PredictAdmission(
        evidence,
        booth=booth,
        plans=plans,
        grants=Grants(keys.derive(secret, "grants")),
        spent=spent,
        clock=clock,
        metrics=metrics,
        shadow=shadow,
        hash_rate=rates[SHA_256],
        marking_key=keys.derive(secret, "marks", evidence.fingerprint),
        response_key=keys.derive(secret, "responses", classifier.name),
    )
    if evidence.detector is None:
        _log.warning("predictions.undetected: no detector, so plans only change outputs")
    return Service(
        Predictor(classifier, metrics, evidence.detector),
        admission,
        PredictArchive(evidence.fingerprint, windows),
        ledger,
        clock=clock,
        metrics=metrics,
        journal=Journal(ledger),
        decisions=metrics.predictions,
        on_ledger_failure=on_ledger_failure,
    )
