"""Prometheus metrics of one server: bounded labels, no keys, tenants or inputs in them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_FRACTIONS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_RANKS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)


class Metrics:
    """The server's instruments, on a registry of their own."""

    def __init__(self) -> None:
        """Create every instrument at zero."""
        registry = CollectorRegistry()
        self.registry = registry
        self.requests = Counter(
            "tollkeeper_requests_total",
            "Answered requests.",
            ["route", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "tollkeeper_request_seconds",
            "Time from the first byte read to the reply, queueing included.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.encoder_seconds = Histogram(
            "tollkeeper_encoder_seconds",
            "Time in the encoder.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.guard_seconds = Histogram(
            "tollkeeper_guard_seconds", "Time in the guard.", buckets=_SECONDS, registry=registry
        )
        self.inputs = Counter(
            "tollkeeper_inputs_total", "Inputs answered.", ["modality"], registry=registry
        )
        self.charged = Counter(
            "tollkeeper_charged_inputs_total", "Inputs that were charged.", registry=registry
        )
        self.noised = Counter(
            "tollkeeper_noised_inputs_total",
            "Inputs whose answer carries noise (in shadow mode: would carry).",
            registry=registry,
        )
        self.coverage = Histogram(
            "tollkeeper_request_coverage",
            "Coverage of the asking pool after each guard call.",
            buckets=_FRACTIONS,
            registry=registry,
        )
        self.conflicts = Counter(
            "tollkeeper_ledger_conflicts_total",
            "Commits repeated after a conflict.",
            registry=registry,
        )
        self.fallbacks = Counter(
            "tollkeeper_fallbacks_total",
            "Times a defense could not act and its failure policy decided.",
            ["defense", "policy"],
            registry=registry,
        )
        self.challenges = Counter(
            "tollkeeper_challenges_total", "Challenges issued.", ["alg"], registry=registry
        )
        self.proofs = Counter(
            "tollkeeper_proofs_total",
            "Proofs of work accepted, and refused or missing ones by their code.",
            ["outcome"],
            registry=registry,
        )
        self.puzzle_seconds = Counter(
            "tollkeeper_puzzle_seconds_total",
            "Seconds of the reference machine that clients paid.",
            registry=registry,
        )
        self.decisions = Counter(
            "tollkeeper_decisions_total",
            "What policy decided about embeddings, shadow decisions apart.",
            ["decision", "mode"],
            registry=registry,
        )
        self.predictions = Counter(
            "tollkeeper_predictions_total",
            "What policy decided about requests for predictions, shadow decisions apart.",
            ["decision", "mode"],
            registry=registry,
        )
        self.detector_seconds = Histogram(
            "tollkeeper_detector_seconds",
            "Time in the detector of queries, per call of the classifier.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.ranks = Histogram(
            "tollkeeper_prediction_rank",
            "Share of honest traffic that is less suspicious than a new input.",
            buckets=_RANKS,
            registry=registry,
        )
        self.running = Gauge(
            "tollkeeper_requests_running", "Requests in flight.", registry=registry
        )

    def render(self) -> bytes:
        """Return the exposition text."""
        return generate_latest(self.registry)
