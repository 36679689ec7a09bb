"""What stands behind each path that answers: a service, its engine, its tolls and its route."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tollkeeper import __version__
from tollkeeper.challenge.puzzle import SCRYPT, SHA_256
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.classifiers.base import Classifier
from tollkeeper.gateway import openapi, wire
from tollkeeper.gateway.archive import windows
from tollkeeper.gateway.assembly import make_service
from tollkeeper.gateway.calls import Models
from tollkeeper.gateway.desk import Desk, Door
from tollkeeper.gateway.engine import Engine
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.places import Allowance
from tollkeeper.gateway.plans import Plans
from tollkeeper.gateway.predict_assembly import make_predictions
from tollkeeper.gateway.predict_tariff import Evidence
from tollkeeper.gateway.routes import ClassifyRoute, EmbeddingsRoute, Route
from tollkeeper.gateway.service import Guarded, Service
from tollkeeper.gateway.settings import Settings
from tollkeeper.gateway.stores import Stores
from tollkeeper.guard.guard import Guard
from tollkeeper.ledger.spent import SpentStore


class Line(NamedTuple):
    """What stands behind one path."""

    path: str
    service: Service
    door: Door
    engine: Engine
    route: Route


@dataclass(frozen=True, slots=True)
class Common:
    """What all lines of a server share.

    Attributes:
        settings: what the operator wrote.
        stores: ledger and keys.
        spent: store of used proofs and grants.
        clock: seconds since the epoch.
        metrics: instruments of this server.
        limits: what a request may hold.
        pixels: what decoded images of all requests hold together.
    """

    settings: Settings
    stores: Stores
    spent: SpentStore
    clock: Callable[[], float]
    metrics: Metrics
    limits: wire.Limits
    pixels: Allowance

    @property
    def rates(self) -> dict[str, float]:
        """Evaluations a second of each puzzle on the reference machine."""
        return {SHA_256: self.settings.hash_rate, SCRYPT: self.settings.scrypt_rate}

    def models(self, name: str, *, aliased: bool) -> Models:
        """Return the names of a line's model."""
        aliases = self.settings.model_aliases if aliased else ()
        return Models(name, aliases, int(self.clock()))


def embeddings_line(
    common: Common,
    encoder: Encoder,
    guard: Guard,
    *,
    rng: np.random.Generator,
    window_since: float,
) -> tuple[Line, Guarded, Desk]:
    """Put together what answers `POST /v1/embeddings`.

    Returns:
        The line, and its service and desk with their own types.

    Raises:
        ConfigurationError: the default plan is not written.
    """
    settings = common.settings
    service = make_service(
        encoder,
        guard,
        common.stores.store,
        clock=common.clock,
        rng=rng,
        metrics=common.metrics,
        shadow=settings.shadow,
        on_ledger_failure=settings.on_ledger_failure,
        key_version=settings.key_version,
        marked=settings.marked,
        windows=windows(settings.window, settings.carry_over),
        window_since=window_since,
        plans=settings.plans,
        plan=settings.plan,
        refuses=settings.refuse_at_ceiling,
        spent=common.spent,
        secret=common.stores.master,
        rates=common.rates,
    )
    desk, engine = Desk(service), Engine(service)
    models = common.models(encoder.name, aliased=True)
    route = EmbeddingsRoute(engine, desk, models, limits=common.limits, pixels=common.pixels)
    return Line("/v1/embeddings", service, desk, engine, route), service, desk


def predictions_line(
    common: Common, classifier: Classifier, evidence: Evidence, plans: Plans, *, aliased: bool
) -> Line:
    """Put together what answers `POST /v1/classify`.

    Raises:
        ConfigurationError: a plan's ranks or outputs cannot be had.
    """
    settings = common.settings
    service = make_predictions(
        classifier,
        evidence,
        common.stores.store,
        plans=plans,
        clock=common.clock,
        metrics=common.metrics,
        shadow=settings.shadow,
        on_ledger_failure=settings.on_ledger_failure,
        windows=windows(settings.window, settings.carry_over),
        spent=common.spent,
        secret=common.stores.master,
        rates=common.rates,
    )
    door, engine = Door(service), Engine(service)
    route = ClassifyRoute(
        engine,
        door,
        common.models(classifier.name, aliased=aliased),
        classes=classifier.classes,
        limits=common.limits,
        pixels=common.pixels,
    )
    return Line("/v1/classify", service, door, engine, route)


def document_of(
    lines: Sequence[Line],
    limits: wire.Limits,
    encoder: Encoder | None,
    classifier: Classifier | None,
) -> openapi.Json:
    """Return the OpenAPI document of what is served."""
    names = {line.path: line.route.models.all for line in lines}
    embeds = classifies = None
    if encoder is not None:
        embeds = openapi.Embeds(names["/v1/embeddings"], encoder.dim, encoder.accepts)
    if classifier is not None:
        classifies = openapi.Classifies(
            names["/v1/classify"],
            classifier.classes,
            classifier.accepts,
            classifier.input_shape,
        )
    return openapi.document(
        limits=limits, version=__version__, embeds=embeds, classifies=classifies
    )
