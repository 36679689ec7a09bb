"""Puts inputs to a suspect in an order that tells it nothing, and goes on after a break."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import numpy as np
from numpy.typing import NDArray

from tollkeeper.audit.evidence.custody import (
    Call,
    Custody,
    Witnessed,
    WitnessTransport,
    read_call,
)
from tollkeeper.audit.evidence.findings import Asking
from tollkeeper.encoders.base import Encoder
from tollkeeper.encoders.inputs import digest, modality
from tollkeeper.encoders.load import load_encoder
from tollkeeper.encoders.upstream import UpstreamEncoder
from tollkeeper.errors import AuditRefused, EncoderError, EvidenceError
from tollkeeper.types import Batch

BATCH = 32
"""Inputs in one call."""

Row = NDArray[np.float32]
"""(d,) one answer."""


def mark(item: Any) -> bytes:
    """Return 16 bytes that are equal for equal inputs."""
    return digest(item, modality([item]))


def order(count: int, *, repeats: float, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return positions of inputs in the order in which they are asked.

    All kinds of input are mixed, so that the suspect cannot tell scored pictures from ordinary
    ones by when they come, and some are asked twice, so that it cannot answer at random unseen.

    Args:
        count: of distinct inputs.
        repeats: share of them that is asked twice.
        rng: a sealed one.
    """
    again = rng.choice(count, round(repeats * count), replace=False)
    return rng.permutation(np.concatenate([np.arange(count), again]))


def ask(
    suspect: Encoder,
    inputs: Batch,
    asked: Sequence[int] | NDArray[np.intp],
    *,
    answered: Counter[bytes],
    told: Callable[[int, int], None] = lambda _done, _all: None,
) -> None:
    """Ask whatever has no answer yet, in order, `BATCH` at a time.

    Args:
        suspect: a witnessed one.
        inputs: n distinct inputs.
        asked: positions in the order of `order`.
        answered: how often each was answered before a break.
        told: inputs answered so far, and all.

    Raises:
        RequestError: the suspect refused an input.
        EncoderError: the suspect failed.
    """
    left, known = [], Counter(answered)
    for position in asked:
        key = mark(inputs[position])
        if known[key]:
            known[key] -= 1
        else:
            left.append(int(position))
    done = len(asked) - len(left)
    told(done, len(asked))
    for start in range(0, len(left), BATCH):
        part = left[start : start + BATCH]
        suspect.embed([inputs[position] for position in part])
        done += len(part)
        told(done, len(asked))


@dataclass(frozen=True, slots=True)
class Answers:
    """What the kept calls hold.

    Attributes:
        first: the first answer to each input, (d,) by `mark`.
        again: all later ones.
        count: answers to each input.
    """

    first: Mapping[bytes, Row]
    again: Sequence[tuple[bytes, Row]]
    count: Counter[bytes]


def read_answers(folder: Path, calls: Sequence[Call]) -> Answers:
    """Read every kept call.

    Raises:
        EvidenceError: a file is not what was logged.
    """
    first: dict[bytes, Row] = {}
    again = []
    count: Counter[bytes] = Counter()
    for place, call in enumerate(calls, start=1):
        if call.number != place:
            raise EvidenceError(f"call {place} of the log has the number {call.number}")
        for key, row in read_call(folder, call):
            count[key] += 1
            if key in first:
                again.append((key, row))
            else:
                first[key] = row
    return Answers(first, again, count)


def summary(calls: Sequence[Call], answers: Answers) -> Asking:
    """Return how the suspect was asked.

    Raises:
        EvidenceError: nothing was answered.
    """
    if not calls or not answers.first:
        raise EvidenceError("the record of calls holds no answer of the suspect")
    moved = [
        float(np.linalg.norm(row - answers.first[key])) / (float(np.linalg.norm(row)) or 1.0)
        if row.shape == answers.first[key].shape
        else 1.0
        for key, row in answers.again
    ]
    return Asking(
        endpoint=calls[-1].endpoint,
        models=tuple(sorted({call.model for call in calls if call.model})),
        certificates=tuple(sorted({call.tls for call in calls if call.tls})),
        account=calls[0].account,
        first=calls[0].at,
        last=calls[-1].at,
        calls=len(calls),
        failed=sum(bool(call.error) or call.status not in {0, 200} for call in calls),
        inputs=len(answers.first),
        width=len(next(iter(answers.first.values()))),
        repeated=len({key for key, _ in answers.again}),
        changed=sum(each > 0 for each in moved),
        deviation=max(moved, default=0.0),
    )


def is_address(spec: str) -> bool:
    """Return whether a SPEC names a service and not an encoder of this process."""
    return spec.startswith(("http://", "https://"))


@contextmanager
def connected(spec: str, custody: Custody, *, api_key: str | None) -> Iterator[Encoder]:
    """Yield the suspect, each exchange with it witnessed.

    Args:
        spec: SPEC or address; `#model` picks one of several models of a service.
        custody: keeps the exchanges.
        api_key: credential for an address; it is never kept.

    Raises:
        ConfigurationError: unusable SPEC or credential.
        AuditRefused: the service has several models and none is named.
        EncoderError: the suspect cannot be reached.
    """
    if not is_address(spec):
        yield Witnessed(load_encoder(spec), custody, endpoint=spec)
        return
    base, _, model = spec.partition("#")
    with httpx2.Client(transport=WitnessTransport(custody)) as client:
        # Width 0 is learned from the answers: a first text would be refused by a picture model.
        yield UpstreamEncoder(
            base,
            model=model or _only_model(client, base, api_key),
            api_key=api_key,
            dim=0,
            max_batch=BATCH,
            client=client,
        )


def _only_model(client: httpx2.Client, base: str, api_key: str | None) -> str | None:
    """Return the one model that a service lists; None where it keeps no list."""
    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    try:
        reply = client.get(f"{base.rstrip('/')}/models", headers=headers, timeout=60)
    except httpx2.RequestError as error:
        raise EncoderError(f"the suspect cannot be reached: {type(error).__name__}") from error
    if reply.status_code != 200:
        return None
    try:
        names = [str(each["id"]) for each in msgspec.json.decode(reply.content)["data"]]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise AuditRefused(
            "the suspect's list of models cannot be read; name one as http://host/v1#model"
        ) from error
    if len(names) > 1:
        raise AuditRefused(
            f"the suspect serves {', '.join(names[:8])}; name one as {base}#{names[0]}"
        )
    return names[0] if names else None
