"""What becomes of one pool's asks while they are admitted together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tollkeeper.gateway.admits import Admitted
from tollkeeper.gateway.asks import Answer, Ask, Charge, Tally
from tollkeeper.gateway.heads import Head
from tollkeeper.ledger.base import Submission
from tollkeeper.types import Account, Record


@dataclass(slots=True)
class Work:
    """What becomes of one pool while its asks are admitted.

    Attributes:
        pool: the ledger's name of it.
        head: its newest state.
        now: seconds since the epoch.
        own: of each tenant that is linked to others, what it asked itself; changes with the
            pool, so that the link can be undone.
        records: of the asks that are answered.
    """

    pool: str
    head: Head
    now: float
    own: dict[str, Head] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)

    def spent_by(self, tenant: str) -> tuple[float, int]:
        """Return what a tenant was charged and how many of its inputs are answered."""
        rows = [record for record in self.records if record.tenant == tenant]
        return math.fsum(row.charge for row in rows), sum(row.inputs for row in rows)


def alike(asks: Sequence[Ask]) -> Iterable[list[Ask]]:
    """Group asks that one guard call can answer: same tenant, same width.

    Asks with a budget stay alone, so that each meets the spend of those before it. One account's
    asks may differ in what an operator changed between them.
    """
    groups: dict[tuple[Account, int | None, int], list[Ask]] = {}
    for ask in asks:
        account = ask.account
        # A grant covers a request whole or not at all, whoever came beside it.
        alone = id(ask) if account.budget is not None or account.grant else 0
        groups.setdefault((replace(account, key_id=""), ask.dimensions, alone), []).append(ask)
    return groups.values()


def take_stored(charge: Charge) -> list[Ask]:
    """Take the asks out of a charge whose outcome its commit stores; the others stay.

    A refusal that changes a state is among them: given without that change, it would be free.
    """
    pairs = list(zip(charge.asks, charge.answers, strict=True))
    taken = [ask for ask in charge.asks if id(ask) in charge.stored]
    charge.asks = [ask for ask, _ in pairs if id(ask) not in charge.stored]
    charge.answers = [answer for ask, answer in pairs if id(ask) not in charge.stored]
    return taken


def answer_of(ask: Ask, admitted: Admitted, rows: slice) -> Answer:
    """Return what one of several asks that were admitted together gets."""
    paid = ask.proof is not None and admitted.decision.paid_s > 0
    return Answer(
        admitted.outputs[rows],
        ask.tokens,
        receipt=ask.proof.id if paid and ask.proof is not None else None,
        allowance=admitted.decision.allowance,
    )


def tally_of(asks: Sequence[Ask], admitted: Admitted) -> Tally:
    """Return what to count of asks that were admitted together; of what is refused no input."""
    answered = admitted.refusal is None
    return Tally(
        asks[0].modality,
        len(asks),
        sum(len(ask.inputs) for ask in asks) if answered else 0,
        float(admitted.opened.sum()) if answered else 0.0,
        int(np.count_nonzero(admitted.noise_scale)),
        admitted.coverage,
        admitted.decision.action,
        admitted.decision.paid_s,
        admitted.enforced,
    )


def is_linked(ask: Ask) -> bool:
    """Return whether a tenant is charged on a pool that is not its own."""
    return ask.account.pool != ask.account.tenant


def entries_of(submission: Submission) -> list[str]:
    """Return the names of all entries that a commit changes."""
    return [submission.pool, *(part.pool for part in submission.beside)]
