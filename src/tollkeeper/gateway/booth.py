"""The toll booth: quotes challenges, checks proofs, takes what they pay. No HTTP here."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from tollkeeper.challenge.protocol import (
    LONGEST_LIFE_S,
    STALE,
    Challenge,
    Issuer,
    Proof,
    body_digest,
)
from tollkeeper.challenge.puzzle import SCRYPT, SHA_256, HashPuzzle, ScryptPuzzle
from tollkeeper.errors import ChallengeRequired, ProofError, RequestError, ThrottledError
from tollkeeper.gateway.asks import Ask
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.plans import Ladder
from tollkeeper.ledger.spent import SpentStore

SHORTEST_LIFE_S: Final = 60.0
PATIENCE: Final = 4
"""A challenge lives for so many times what it takes the reference machine, and a minute."""

SLACK: Final = 2
"""A proof of one level below the price counts: others of the account may have raised it."""

MOST_TENANTS: Final = 10_000
STOCK: Final = 32
ANSWERS: Final = 2**50

_HOW = (
    "This request needs a proof of work. Solve the challenge in the `WWW-Authenticate` header and "
    "send the same body again with the solution in `Tollkeeper-Proof`: see docs/challenge.md of "
    "Tollkeeper, or use its client."
)


class Booth:
    """Takes tolls for one deployment; safe to use from several threads."""

    def __init__(
        self,
        issuer: Issuer,
        spent: SpentStore,
        *,
        rates: Mapping[str, float],
        clock: Callable[[], float],
        ticks: Callable[[], float],
        metrics: Metrics,
        randbelow: Callable[[int], int],
    ) -> None:
        """Hold the parts.

        Args:
            issuer: signs challenges.
            spent: what proofs have been used for; shared by replicas.
            rates: evaluations a second of each algorithm on the reference machine.
            clock: seconds since the epoch, for what expires.
            ticks: seconds that never jump, for patience.
            metrics: instruments of this server.
            randbelow: returns a secret number below another.
        """
        self._issuer = issuer
        self._spent = spent
        self._rates = dict(rates)
        self._clock = clock
        self._ticks = ticks
        self._metrics = metrics
        self._randbelow = randbelow
        self._lock = threading.Lock()
        self._unpaid: OrderedDict[str, deque[float]] = OrderedDict()
        self._stock: deque[ScryptPuzzle] = deque(maxlen=STOCK)

    # -- proofs ------------------------------------------------------------------

    def verify(self, token: str, *, tenant: str, ladder: Ladder, body: bytes) -> Proof | str:
        """Check a proof's header; nothing is taken yet.

        Returns:
            The proof; or the code of a fault that a new challenge settles.

        Raises:
            ProofError: it can never hold.
        """
        try:
            return self._issuer.verify(
                token,
                account=tenant,
                policy=ladder.version,
                digest=lambda: body_digest(body),
                now=self._clock(),
            )
        except ProofError as error:
            self._metrics.proofs.labels(error.code or "proof_malformed").inc()
            if error.code in STALE:
                return error.code
            raise

    def collect(self, ask: Ask, seconds: float, ladder: Ladder) -> float:
        """Take the toll of a request from its proof; what is taken stands in `ask.spendings`.

        Returns:
            Seconds of the reference machine that were paid.

        Raises:
            ChallengeRequired: no proof came, or one that is not enough.
            LedgerError: the store of spent proofs failed.
        """
        if ask.proof is None:
            raise self._required(ask, seconds, ladder, code=ask.fault or "challenge_required")
        rate = self._rates[ask.proof.alg]
        amount = math.ceil(seconds * rate) if ask.proof.is_pass else ask.proof.work
        if amount * SLACK < seconds * rate:
            raise self._required(ask, seconds, ladder, code="proof_too_easy")
        if not self._take(ask, ask.proof, amount):
            raise self._required(ask, seconds, ladder, code="proof_spent")
        return amount / rate

    def _take(self, ask: Ask, proof: Proof, amount: int) -> bool:
        """Note what is used of a proof; returns whether it covers that."""
        if not self._spent.spend(proof.id, amount, limit=proof.work, expires=proof.expires_at):
            return False
        ask.spendings.append((proof.id, amount))
        with self._lock:
            waiting = self._unpaid.get(ask.account.tenant)
            if waiting:
                waiting.popleft()
        self._metrics.proofs.labels("accepted").inc()
        return True

    # -- challenges --------------------------------------------------------------

    def prepay(self, tenant: str, inputs: int, ladder: Ladder, seconds: float) -> Challenge:
        """Return the challenge of a pass.

        Args:
            tenant: who asks.
            inputs: new inputs to pay for.
            ladder: of the tenant.
            seconds: price of one input.

        Raises:
            RequestError: a pass would not live long enough to be solved.
            ThrottledError: too many challenges are unsolved.
        """
        total = seconds * inputs
        if total * PATIENCE + SHORTEST_LIFE_S > LONGEST_LIFE_S:
            most = int((LONGEST_LIFE_S - SHORTEST_LIFE_S) / PATIENCE / seconds)
            raise RequestError(f"expected at most {most} inputs for one pass", param="inputs")
        self.check_patience(tenant, ladder)
        return self._issue(tenant, total, ladder, digest="")

    def check_patience(self, tenant: str, ladder: Ladder) -> None:
        """Refuse an account that leaves too many challenges unsolved.

        Raises:
            ThrottledError: wait until some of them are a minute old.
        """
        now = self._ticks()
        with self._lock:
            waiting = self._unpaid.get(tenant, deque())
            while waiting and waiting[0] <= now - SHORTEST_LIFE_S:
                waiting.popleft()
            if len(waiting) < ladder.plan.unpaid_per_minute:
                return
            wait_s = waiting[0] + SHORTEST_LIFE_S - now
        raise ThrottledError(
            "Too many challenges are left unsolved. Solve them, or retry later.",
            retry_after_s=min(max(wait_s, 1.0), SHORTEST_LIFE_S),
        )

    def restock(self, count: int = 1) -> None:
        """Make scrypt puzzles ahead; each runs scrypt once, so call it in quiet moments."""
        for _ in range(min(count, STOCK - len(self._stock))):
            # Above any cost, so that a range around it starts at 0 or later.
            answer = ANSWERS + self._randbelow(ANSWERS)
            self._stock.append(self._issuer.scrypt(answer))

    def _required(
        self, ask: Ask, seconds: float, ladder: Ladder, *, code: str
    ) -> ChallengeRequired:
        self._metrics.proofs.labels(code).inc()
        digest = body_digest(ask.body)
        challenge = self._issue(ask.account.tenant, seconds, ladder, digest=digest)
        return ChallengeRequired(_HOW, challenge=challenge.header(), code=code)

    def _issue(self, tenant: str, seconds: float, ladder: Ladder, *, digest: str) -> Challenge:
        puzzle = self._puzzle(seconds, ladder.plan.puzzle)
        life_s = min(SHORTEST_LIFE_S + PATIENCE * seconds, LONGEST_LIFE_S - 1)
        with self._lock:
            waiting = self._unpaid.setdefault(tenant, deque(maxlen=ladder.plan.unpaid_per_minute))
            waiting.append(self._ticks())
            self._unpaid.move_to_end(tenant)
            while len(self._unpaid) > MOST_TENANTS:
                self._unpaid.popitem(last=False)
        self._metrics.challenges.labels(puzzle.alg).inc()
        return self._issuer.issue(
            puzzle,
            account=tenant,
            policy=ladder.version,
            digest=digest,
            expires_at=self._clock() + life_s,
        )

    def _puzzle(self, seconds: float, alg: str) -> HashPuzzle | ScryptPuzzle:
        """Return a fresh puzzle; where none of scrypt is left, one of hashes that takes as long."""
        if alg == SCRYPT:
            with suppress(IndexError):
                made = self._stock.popleft()
                runs = max(1, round(seconds * self._rates[SCRYPT]))
                return made.over(runs, self._randbelow(2 * runs - 1))
        work = max(1, math.ceil(seconds * self._rates[SHA_256]))
        return HashPuzzle.of(work, self._issuer.salt())
