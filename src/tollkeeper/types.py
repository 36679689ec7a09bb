"""The values that travel between rooms: frozen, without behavior.

Letters used throughout: n inputs in one call, d embedding width, b hash bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Embeddings = NDArray[np.float32]
"""(n, d) float32, finite."""

Sketch = NDArray[np.uint8]
"""Packed coverage bitmaps of one pool; only the guard knows their layout."""

Images = NDArray[np.float32]
"""(n, c, h, w) float32 in [0, 1]: what classifiers and detectors see of pictures."""

Probabilities = NDArray[np.float32]
"""(n, k) float32, no entry negative, each row's sum 1."""

Scores = NDArray[np.float64]
"""(n,) float64, higher is more suspicious."""

Batch = Sequence[Any] | NDArray[Any]
"""n inputs of one modality: strings, token lists, (h, w, 3) uint8 RGB images, or (c, h, w)
float32 tensors in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Account:
    """One API identity: who asks, and whose coverage is charged.

    Attributes:
        tenant: the customer; transforms and keys are scoped to it.
        key_id: public id of the API key used (never the key itself).
        pool: the sketch that is charged; equals `tenant` unless tenants are linked.
        suspended: whether the operator suspended the tenant.
        budget: inputs the pool may be charged under one guard, a new model or profile
            starting anew; None means no limit.
        plan: name of its policy plan; empty means the default.
        mode: `enforce`, `shadow`, or empty: as the plan says.
        grant: a signed allowance grant; empty without one.
    """

    tenant: str
    key_id: str
    pool: str
    suspended: bool = False
    budget: float | None = None
    plan: str = ""
    mode: str = ""
    grant: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What the guard decided about one request.

    Attributes:
        embeddings: (n, d') float32, what may leave.
        sketch: the pool's sketch with these inputs in it.
        coverage: fraction of the embedding space visited afterwards, in [0, 1], as the
            profile's price reads it.
        noise_scale: (n,) float32 standard deviation per coordinate added to each
            input, in the units of the clean embeddings.
        opened: (n,) whether each input reached at least one bucket unseen before it.
        charge: how many inputs did; repeats cost nothing.
        before: coverage before them; secret.
        fractions: (n,) coverage after each input; secret.
        places: (n, k) the bits of a sketch that each input sets, new or not; secret.
        spared: what of the sketch does not count as breadth, packed; None where all does.
        refused: whether the request asks for something new of a pool at the profile's ceiling.
            Then nothing may leave: there are no embeddings, and the sketch is as it was.
    """

    embeddings: Embeddings
    sketch: Sketch
    coverage: float
    noise_scale: NDArray[np.float32]
    opened: NDArray[np.bool_]
    charge: float
    before: float
    fractions: NDArray[np.float64]
    places: NDArray[np.intp]
    spared: Sketch | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """One decision as the ledger keeps it: numbers and names, never inputs.

    Attributes:
        at: seconds since the epoch.
        tenant: who asked.
        key_id: with which key.
        request_id: the id the client saw in `x-request-id`.
        model: the served model's name.
        inputs: how many inputs the request held.
        tokens: usage reported to the client.
        charge: new inputs charged.
        coverage: fraction in [0, 1] after the request and those gathered with it.
        noise_scale: largest noise scale of the request.
        profile: guard profile and version that decided, for example `recommended/1`.
        shadow: whether the decision was only logged.
        decision: what policy decided: answered, metered, paid, noised, granted, challenged,
            throttled, refused, suspended, or an operator's note.
        reason: one line for the operator, never shown to a client.
        paid_s: puzzle seconds paid, on the reference machine.
    """

    at: float
    tenant: str
    key_id: str
    request_id: str
    model: str
    inputs: int
    tokens: int
    charge: float
    coverage: float
    noise_scale: float
    profile: str
    shadow: bool = False
    decision: str = "answered"
    reason: str = ""
    paid_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Entry:
    """The ledger's state of one pool.

    Attributes:
        pool: its name.
        version: grows by one with each commit; 0 means nothing is stored yet.
        sketch: the guard's bytes, empty when nothing is stored.
        spent: sum of all charges.
        queries: sum of all inputs answered.
    """

    pool: str
    version: int = 0
    sketch: bytes = b""
    spent: float = 0.0
    queries: int = 0


@dataclass(frozen=True, slots=True)
class Tenant:
    """A customer as the operator sees it.

    Attributes:
        name: unique, chosen by the operator.
        pool: the sketch it is charged on.
        suspended: whether requests are refused with 403.
        budget: inputs that its pool may be charged under one guard, a new model or
            profile starting anew; None means no limit.
        created_at: seconds since the epoch.
        note: the operator's free text.
        plan: name of its policy plan; empty means the default.
        mode: `enforce`, `shadow`, or empty: as the plan says.
        grant: a signed allowance grant; empty without one.
    """

    name: str
    pool: str
    suspended: bool = False
    budget: float | None = None
    created_at: float = 0.0
    note: str = ""
    plan: str = ""
    mode: str = ""
    grant: str = ""


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """An API key as it is stored: never the key itself.

    Attributes:
        id: public id, safe to log.
        tenant: owner.
        digest: keyed hash of the secret, hex.
        created_at: seconds since the epoch.
        revoked_at: seconds since the epoch, or None while it is valid.
    """

    id: str
    tenant: str
    digest: str = field(repr=False)
    created_at: float = 0.0
    revoked_at: float | None = None
