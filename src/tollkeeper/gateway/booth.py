"""The toll booth: quotes challenges, checks proofs, takes what they pay. No HTTP here."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Final

from tollkeeper.challenge.protocol import (
    LONGEST_LIFE_S,
    STALE,
    Challenge,
    Issuer,
    Proof,
    body_digest,
)
from tollkeeper.challenge.puzzle import SCRYPT, HashPuzzle, ScryptPuzzle
from tollkeeper.errors import ChallengeRequired, ProofError, RequestError, ThrottledError
from tollkeeper.gateway.asks import Ask
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.plans import Priced
from tollkeeper.ledger.spent import SpentStore

SHORTEST_LIFE_S: Final = 60.0
PATIENCE: Final = 4
"""A challenge lives for so many times what it takes the reference machine, and a minute."""

LONGEST_S: Final = (LONGEST_LIFE_S - SHORTEST_LIFE_S) / PATIENCE
"""Reference seconds of the largest challenge."""

SLACK: Final = 2
"""A proof of one level below the price counts: others of the account may have raised it."""

MOST_TENANTS: Final = 10_000
STOCK: Final = 128
"""Puzzles of scrypt that are made ahead: about a minute of one account's patience."""
ANSWERS: Final = 2**50

_HOW = (
    "This request needs a proof of work. A client of Tollkeeper's pays by itself: in Python "
    "`OpenAI(http_client=tollkeeper.client.paying_client())`, in JavaScript "
    "`new OpenAI({fetch: payingFetch()})` (docs/clients.md). Any other solves the challenge in "
    "`WWW-Authenticate` and sends the same body again with `Tollkeeper-Proof` (docs/challenge.md)."
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

    def verify(self, token: str, *, tenant: str, ladder: Priced, body: bytes) -> Proof | str:
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

    def collect(self, ask: Ask, seconds: float, ladder: Priced) -> float:
        """Take the toll of a request from its proof; what is taken stands in `ask.spendings`.

        Returns:
            Seconds of the reference machine that were paid.

        Raises:
            ChallengeRequired: no proof came, or one that is not enough.
            ThrottledError: too many challenges are unsolved, or none is in stock.
            RequestError: no challenge can be large enough.
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

    def prepay(self, tenant: str, inputs: int, ladder: Priced, seconds: float) -> Challenge:
        """Return the challenge of a pass.

        Args:
            tenant: who asks.
            inputs: new inputs to pay for.
            ladder: of the tenant.
            seconds: price of one input.

        Raises:
            RequestError: a pass would not live long enough to be solved.
            ThrottledError: too many challenges are unsolved, or none is in stock.
        """
        self.check_size(inputs, seconds)
        # Each use of a pass is rounded up, so each input is.
        each = max(1, math.ceil(seconds * self._rates[ladder.plan.puzzle]))
        return self._issue(tenant, inputs * each, ladder, digest="")

    @staticmethod
    def check_size(inputs: int, seconds: float) -> None:
        """Refuse a pass that would not live long enough to be solved.

        Raises:
            RequestError: says how many inputs a pass can be for.
        """
        most = int(LONGEST_S / seconds)
        if inputs > most:
            raise RequestError(f"expected at most {most} inputs for one pass", param="inputs")

    def _wait_for_payment(self, tenant: str, most: int) -> None:
        """Count a challenge that is about to be issued.

        Raises:
            ThrottledError: too many are unsolved; wait until some of them are a minute old.
        """
        now = self._ticks()
        with self._lock:
            waiting = self._unpaid.setdefault(tenant, deque())
            self._unpaid.move_to_end(tenant)
            while waiting and waiting[0] <= now - SHORTEST_LIFE_S:
                waiting.popleft()
            if len(waiting) < most:
                waiting.append(now)
                while len(self._unpaid) > MOST_TENANTS:
                    self._unpaid.popitem(last=False)
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
        self, ask: Ask, seconds: float, ladder: Priced, *, code: str
    ) -> ChallengeRequired:
        """Return the challenge of a request, or raise why there can be none."""
        if seconds > LONGEST_S:
            raise RequestError(
                "This request asks for more that is new than one challenge can be for. Send fewer "
                "inputs at a time.",
                param="input",
            )
        work = math.ceil(seconds * self._rates[ladder.plan.puzzle])
        digest = body_digest(ask.body)
        challenge = self._issue(ask.account.tenant, max(1, work), ladder, digest=digest)
        self._metrics.proofs.labels(code).inc()
        return ChallengeRequired(_HOW, challenge=challenge.header(), code=code)

    def _issue(self, tenant: str, work: int, ladder: Priced, *, digest: str) -> Challenge:
        self._wait_for_payment(tenant, ladder.plan.unpaid_per_minute)
        puzzle = self._puzzle(work, ladder.plan.puzzle)
        seconds = puzzle.work / self._rates[puzzle.alg]
        life_s = min(SHORTEST_LIFE_S + PATIENCE * seconds, LONGEST_LIFE_S - 1)
        self._metrics.challenges.labels(puzzle.alg).inc()
        return self._issuer.issue(
            puzzle,
            account=tenant,
            policy=ladder.version,
            digest=digest,
            expires_at=self._clock() + life_s,
        )

    def _puzzle(self, work: int, alg: str) -> HashPuzzle | ScryptPuzzle:
        """Return a fresh puzzle.

        Raises:
            ThrottledError: no puzzle of scrypt is in stock. Hashes instead would let whoever
                empties the stock choose what everybody solves.
        """
        if alg != SCRYPT:
            return HashPuzzle.of(work, self._issuer.salt())
        try:
            made = self._stock.popleft()
        except IndexError:
            raise ThrottledError(
                "No challenge is ready. Retry shortly.", retry_after_s=1.0
            ) from None
        return made.over(work, self._randbelow(2 * work - 1))
