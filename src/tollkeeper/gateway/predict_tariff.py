"""What one plan asks of predictions, once the detectors of a classifier give its ranks a meaning."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from tollkeeper.challenge.difficulty import RankPrice
from tollkeeper.detectors.base import AccountDetector, Detector
from tollkeeper.errors import CalibrationError, ConfigurationError
from tollkeeper.gateway.plans import VERSION_CHARS, Plan, Plans
from tollkeeper.gateway.predict_archive import ACCOUNT_BYTES
from tollkeeper.gateway.predict_outputs import response_of
from tollkeeper.gateway.predict_plan import Predictions
from tollkeeper.graphs import Graph
from tollkeeper.responses.base import Perturbation
from tollkeeper.types import Images, Probabilities, Scores

Follow = Callable[[bytes, Scores], tuple[Scores, bytes]]
"""From an account's state and its next scores to its suspicion after each, and its new state."""


@runtime_checkable
class AlarmingDetector(AccountDetector, Protocol):
    """An account detector that knows how suspicious honest accounts get."""

    def alarm_at(self, rate: float) -> float:
        """Return the suspicion that at most a share `rate` of honest accounts ever reaches."""
        ...


@runtime_checkable
class FollowsScores(Protocol):
    """Capability: an account detector that looks at nothing but another detector's scores."""

    detector: Detector

    def follow(self, state: bytes, scores: Scores) -> tuple[Scores, bytes]:
        """Do as `AccountDetector.update`, with scores of `detector` that are known already."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What tells queries apart; without a detector nothing does.

    Attributes:
        fingerprint: of the classifier and the detectors; accounts are known under it.
        detector: scores queries.
        honest: its sorted scores of honest traffic.
        account: looks at whole accounts.
        graphs: networks that outputs need.
        follow: updates the account's state from scores of the detector, where it looks at the same.
    """

    fingerprint: str
    detector: Detector | None = None
    honest: Scores | None = None
    account: AlarmingDetector | None = None
    graphs: Mapping[str, Graph] | None = None
    follow: Follow | None = None

    def __post_init__(self) -> None:
        """Refuse an account detector whose state is too large to keep of everybody.

        Raises:
            ConfigurationError: says how large it may be.
        """
        if self.account is not None and self.account.state_bytes > ACCOUNT_BYTES:
            raise ConfigurationError(
                f"{self.account.name}: expected a state of at most {ACCOUNT_BYTES} bytes for each "
                f"account, got {self.account.state_bytes}"
            )

    def ranks(self, scores: Scores) -> Scores:
        """Return which share of honest traffic each query is more suspicious than, in [0, 1)."""
        if self.honest is None:
            return np.zeros(len(scores))
        # Counting the query itself, so that an honest one ranks r or above with chance 1 - r.
        below: Scores = np.searchsorted(self.honest, scores, side="left") / (len(self.honest) + 1)
        return below


@dataclass(frozen=True, slots=True, eq=False)
class Tariff:
    """What a plan asks of predictions.

    Attributes:
        plan: as the operator wrote it.
        version: changes with prices and detectors; challenges are bound to it.
        price: bits of a query by its score; None where there are no puzzles.
        refuse_rank: from which rank on an input is not answered.
        alarm_at: suspicion at which an account gets nothing new.
        responses: change every answer, in this order.
    """

    plan: Plan
    version: str
    price: RankPrice | None
    refuse_rank: float | None
    alarm_at: float | None
    responses: tuple[Perturbation, ...]

    @classmethod
    def of(cls, plan: Plan, evidence: Evidence) -> Tariff:
        """Give a plan its meaning.

        Raises:
            ConfigurationError: too few honest scores for its ranks, or nothing in the detector file
                that alarms or that its outputs need.
        """
        told = plan.predictions
        text = f"{told.model_dump_json(exclude={'outputs'})}|{plan.puzzle}|{evidence.fingerprint}"
        return cls(
            plan,
            hashlib.sha256(text.encode()).hexdigest()[:VERSION_CHARS],
            _price(told, evidence),
            _refuse_rank(told, evidence),
            _alarm_at(told, evidence),
            tuple(response_of(output, evidence.graphs or {}) for output in told.outputs),
        )

    @property
    def charges(self) -> bool:
        """Return whether there are puzzles at all."""
        return self.price is not None

    def alarms(self, suspicion: float) -> bool:
        """Return whether an account so suspicious gets nothing new."""
        return self.alarm_at is not None and suspicion >= self.alarm_at

    def work(self, scores: Scores) -> float:
        """Return the hashes that new inputs cost together; 0 is no puzzle."""
        if self.price is None:
            return 0.0
        bits = [self.price(float(score)) for score in scores]
        return math.fsum(2.0**one for one in bits if one)

    def respond(self, inputs: Images, answers: Probabilities, *, key: bytes) -> Probabilities:
        """Return what leaves for n inputs, (n, c, h, w)."""
        for response in self.responses:
            answers = response(inputs, answers, key=key)
        return answers


def alarms_of(plans: Plans, evidence: Evidence | None) -> dict[str, float]:
    """Return at what suspicion each plan's accounts are in alarm; without a detector none is."""
    account = None if evidence is None else evidence.account
    rates = {name: plans.of(name).plan.predictions.alarm for name in plans.names}
    return {
        name: account.alarm_at(rate)
        for name, rate in rates.items()
        if account is not None and rate is not None
    }


def _price(told: Predictions, evidence: Evidence) -> RankPrice | None:
    if told.challenge_rank is None or evidence.honest is None:
        return None
    try:
        return RankPrice(
            evidence.honest.tolist(),
            floor_bits=told.floor_bits,
            ceiling_bits=told.ceiling_bits,
            free_quantile=told.challenge_rank,
        )
    except CalibrationError as error:
        raise ConfigurationError(f"challenge_rank {told.challenge_rank}: {error}") from error


def _refuse_rank(told: Predictions, evidence: Evidence) -> float | None:
    if told.refuse_rank is None or evidence.honest is None:
        return None
    count = len(evidence.honest)
    if count / (count + 1) < told.refuse_rank:
        raise ConfigurationError(
            f"refuse_rank {told.refuse_rank}: expected at least "
            f"{math.ceil(told.refuse_rank / (1 - told.refuse_rank) - 1e-9)} honest scores, got "
            f"{count}; no query could rank so high"
        )
    return told.refuse_rank


def _alarm_at(told: Predictions, evidence: Evidence) -> float | None:
    if told.alarm is None:
        return None
    if evidence.account is not None:
        return evidence.account.alarm_at(told.alarm)
    # What every plan has unless it is written cannot end the start; `PredictAdmission` warns.
    if evidence.detector is not None and "alarm" in told.model_fields_set:
        raise ConfigurationError(
            f"alarm {told.alarm}: expected a detector file that follows accounts, got one with "
            f"{evidence.detector.name} alone; fit anew with `tollkeeper detectors fit`, or write "
            "`alarm: null`"
        )
    return None
