"""What the edge asks of tolls before a request reaches the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tollkeeper.challenge.protocol import Proof
from tollkeeper.errors import RefusalError
from tollkeeper.gateway.policy import check_standing
from tollkeeper.gateway.service import Guarded, Service
from tollkeeper.types import Account

KEPT_S: Final = 3600.0
"""How long used proofs are remembered after they expired, for clocks that jump."""


@dataclass(frozen=True, slots=True)
class Paid:
    """A proof that came with a request.

    Attributes:
        proof: if it holds.
        fault: if not, and a new challenge settles that, why.
    """

    proof: Proof | None = None
    fault: str = ""


class Door:
    """Stands before one service; any thread may ask."""

    def __init__(self, service: Service) -> None:
        """Look after the tolls of `service`."""
        self._service = service

    def check(self, account: Account, request_id: str) -> None:
        """Refuse what needs neither body nor encoder, and write it down.

        Raises:
            SuspendedError: the tenant is suspended.
        """
        try:
            check_standing(account)
        except RefusalError as error:
            self._service.refuse(account, request_id, error)
            raise

    def verify(self, token: str, account: Account, body: bytes) -> Paid:
        """Check the proof of a request; nothing is taken yet.

        Where nothing is charged a proof is passed over: its status would tell that there are
        tolls, and a client that holds one from before must not fail.

        Raises:
            ProofError: it can never hold.
        """
        admission = self._service.admission
        ladder = admission.ladder(account)
        if not (ladder.charges and admission.enforces(account)):
            return Paid()
        found = admission.booth.verify(token, tenant=account.tenant, ladder=ladder, body=body)
        return Paid(fault=found) if isinstance(found, str) else Paid(found)

    def restock(self, count: int = 1) -> None:
        """Make scrypt puzzles ahead, each as long as scrypt takes, until the stock is full."""
        self._service.admission.booth.restock(count)

    @property
    def wants_stock(self) -> bool:
        """Return whether any plan asks for scrypt."""
        return self._service.admission.plans.uses_scrypt

    def prune(self) -> None:
        """Forget used proofs that nobody can use any more.

        Raises:
            LedgerError: the store failed.
        """
        self._service.admission.prune(KEPT_S)


class Desk(Door):
    """Sells passes beside."""

    _service: Guarded

    def prepay(self, account: Account, inputs: int) -> str | None:
        """Return the challenge of a pass for so many new inputs; None if nothing is to pay.

        Raises:
            RequestError: more than a pass can be for.
            ThrottledError: too many challenges are unsolved.
            LedgerError: the ledger cannot be read.
        """
        admission = self._service.admission
        ladder = admission.ladder(account)
        if not (ladder.charges and admission.enforces(account)) or admission.granted(account):
            return None
        # Before the ledger is read: no price is lower.
        admission.booth.check_size(inputs, ladder.plan.first_seconds)
        price = max(ladder.seconds(self._service.exposure(account)), ladder.plan.first_seconds)
        return admission.booth.prepay(account.tenant, inputs, ladder, price).header()
