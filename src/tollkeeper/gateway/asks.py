"""One request inside the gateway: the ask, its answer, and the charge between them."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from tollkeeper.challenge.protocol import Proof
from tollkeeper.errors import TollkeeperError
from tollkeeper.ledger.base import Submission
from tollkeeper.types import Account, Embeddings, Entry, Scores


@dataclass(slots=True)
class Ask:
    """One request on its way through the service.

    Attributes:
        account: who asks.
        inputs: n inputs of one modality.
        modality: `"text"`, `"tokens"`, `"image"` or `"tensor"`.
        dimensions: width the client wants, or None for the full width.
        request_id: what the client sees in `x-request-id`.
        embeddings: (n, d) clean, once all inputs are embedded.
        parts: embeddings of the first inputs, until then.
        scores: of the detector for the first inputs, where there is one; as many as `parts`.
        tokens: usage of the inputs embedded so far.
        abandoned: whether nobody waits for the answer any more; not charged from then on.
        ticket: how the engine delivers the outcome.
        attempts: how often a commit of it was refused with a conflict.
        body: of the request, for a challenge to be bound to.
        proof: of work that came with it, if it holds.
        fault: why the proof that came does not hold, where a new challenge settles that.
        rationed: pool and seconds of its ration that it took.
        spendings: names and amounts that it used up, to be given back if it is not answered.
    """

    account: Account
    inputs: tuple[Any, ...]
    modality: str
    dimensions: int | None = None
    request_id: str = ""
    embeddings: Embeddings | None = None
    parts: list[Embeddings] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    tokens: int = 0
    abandoned: bool = False
    ticket: Any = None
    attempts: int = 0
    body: bytes = b""
    proof: Proof | None = None
    fault: str = ""
    rationed: tuple[str, float] | None = None
    spendings: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answer:
    """What may be sent once the commit is durable.

    Attributes:
        embeddings: (n, d') float32.
        tokens: usage.
        receipt: id of the proof that paid for it, if one did.
        allowance: percent left of what is free, if the account may see that.
    """

    embeddings: Embeddings
    tokens: int
    receipt: str | None = None
    allowance: int | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """What one guard call did, for the metrics.

    Attributes:
        modality: of its inputs.
        requests: how many.
        inputs: how many.
        charged: how many opened new space.
        noised: how many answers carry noise.
        coverage: of the pool afterwards, in [0, 1]; None where nothing is covered.
        decision: policy's word for it.
        paid_s: seconds of the reference machine that were paid.
        enforced: whether the decision was carried out.
    """

    modality: str
    requests: int
    inputs: int
    charged: float
    noised: int
    coverage: float | None
    decision: str
    paid_s: float
    enforced: bool


@dataclass(slots=True)
class Charge:
    """One pool's commit and the answers that wait for it.

    Attributes:
        asks: the requests in it, in order.
        answers: for each, its answer, or the error to give instead.
        tallies: what to count once the commit is durable.
        stored: ids of the asks whose outcome the commit stores, answers and refusals alike.
        submission: what has to be stored, or None.
        future: done when it is durable; None if nothing has to be stored.
    """

    asks: list[Ask]
    answers: list[Answer | TollkeeperError]
    tallies: list[Tally] = field(default_factory=list)
    stored: set[int] = field(default_factory=set)
    submission: Submission | None = None
    future: Future[Entry] | None = None
