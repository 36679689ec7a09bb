"""Challenges and proofs: signed, so that the server keeps nothing until one is redeemed.

A challenge names what it is for in the seven slots of its `id`, an HMAC: realm, method, intent,
request (with the account, the policy and the puzzle), expiry, body digest, and an empty slot.
The proof repeats what the challenge said, with the solution. `docs/challenge.md` specifies both.

Source: the `Payment` scheme of draft-ryan-httpauth-payment-00 for the challenge; the proof has a
header of its own, because `Authorization` holds the API key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Final, NamedTuple

from tollkeeper.challenge.puzzle import HashPuzzle, ScryptPuzzle, own_puzzle
from tollkeeper.errors import ProofError

REALM: Final = "tollkeeper"
METHOD: Final = "tollpow"
INTENT: Final = "charge"
PROOF_HEADER: Final = "tollkeeper-proof"
MAX_PROOF_CHARS: Final = 2048
LONGEST_LIFE_S: Final = 7200
"""A proof that expires later than this from now was issued by a clock that has jumped back."""

SALT_BYTES: Final = 12
TAG_CHARS: Final = 12
STALE: Final = frozenset({"proof_expired", "proof_wrong_policy"})
"""Faults that happen to honest clients: a new challenge settles them."""

_SLOTS = f"{REALM}|{METHOD}|{INTENT}|"


class Challenge(NamedTuple):
    """What a client is asked to solve.

    Attributes:
        id: signature over all of it.
        request: the puzzle and whom it is for, JSON in URL-safe base64 without padding.
        expires: RFC 3339, UTC, whole seconds.
        digest: of the request body, as RFC 9530 writes it; empty in a pass, which pays for any.
        puzzle: what `request` holds.
    """

    id: str
    request: str
    expires: str
    digest: str
    puzzle: HashPuzzle | ScryptPuzzle

    def header(self) -> str:
        """Return the value of `WWW-Authenticate`."""
        digest = f', digest="{self.digest}"' if self.digest else ""
        return (
            f'Payment id="{self.id}", realm="{REALM}", method="{METHOD}", intent="{INTENT}", '
            f'request="{self.request}", expires="{self.expires}"{digest}'
        )

    def proof(self, solution: str) -> str:
        """Return the value of the proof's header."""
        return f"{self.id}.{self.request}.{self.expires}.{self.digest}.{solution}"


class Proof(NamedTuple):
    """A proof that holds.

    Attributes:
        id: of its challenge.
        alg: of its puzzle.
        work: what was paid: evaluations of the algorithm, on average.
        is_pass: whether it pays for several requests, until its work is used up.
        expires_at: seconds since the epoch.
    """

    id: str
    alg: str
    work: int
    is_pass: bool
    expires_at: float


class Issuer:
    """Makes challenges and checks proofs; replicas with one secret understand each other."""

    def __init__(self, secret: bytes, *, entropy: Callable[[int], bytes]) -> None:
        """Sign with `secret`, 32 bytes of the deployment; `entropy` gives that many random bytes."""
        self._secret = secret
        self._entropy = entropy
        self._tag = lru_cache(4096)(self._make_tag)

    def salt(self) -> str:
        """Return a fresh salt."""
        return _base64url(self._entropy(SALT_BYTES))

    def scrypt(self, answer: int) -> ScryptPuzzle:
        """Make a scrypt puzzle with a fresh salt; see `ScryptPuzzle.make`."""
        return ScryptPuzzle.make(self.salt(), answer, secret=self._secret)

    def issue(
        self,
        puzzle: HashPuzzle | ScryptPuzzle,
        *,
        account: str,
        policy: str,
        digest: str,
        expires_at: float,
    ) -> Challenge:
        """Sign a puzzle for one account.

        Args:
            puzzle: with a fresh salt.
            account: whose proof will count.
            policy: version of the policy that set the price; no characters that JSON escapes.
            digest: of the body it is for (`body_digest`); empty for a pass.
            expires_at: seconds since the epoch.
        """
        # Text by text: a general writer of JSON takes longer than all the rest.
        request = _base64url(puzzle.request(self._tag(account), policy).encode())
        expires = stamp(expires_at)
        return Challenge(self._sign(request, expires, digest), request, expires, digest, puzzle)

    def verify(
        self, token: str, *, account: str, policy: str, digest: Callable[[], str], now: float
    ) -> Proof:
        """Check a proof, cheapest first; whether it was used before is for the caller to ask.

        Args:
            token: the header's value.
            account: who sent it.
            policy: version of the account's policy.
            digest: returns the digest of the body it came with; not called for what is forged.
            now: seconds since the epoch.

        Raises:
            ProofError: it does not hold; `code` says why.
        """
        if len(token) > MAX_PROOF_CHARS:
            raise ProofError(
                f"expected a proof of at most {MAX_PROOF_CHARS} characters", code="proof_too_large"
            )
        parts = token.split(".")
        if len(parts) != 5:
            raise _malformed()
        identity, request, expires, signed_digest, solution = parts
        signature = self._sign(request, expires, signed_digest)
        if not (identity.isascii() and hmac.compare_digest(signature, identity)):
            raise ProofError("this proof is not of a challenge of ours", code="proof_forged")
        fields = _read(_from_base64url(request).decode())[0]
        if fields["account"] != self._tag(account):
            raise ProofError("this proof is another account's", code="proof_wrong_account")
        expires_at = datetime.fromisoformat(expires).timestamp()
        if not now < expires_at <= now + LONGEST_LIFE_S:
            raise ProofError("this proof has expired; solve a new one", code="proof_expired")
        if fields["policy"] != policy:
            raise ProofError("prices have changed; solve a new one", code="proof_wrong_policy")
        if signed_digest and signed_digest != digest():
            raise ProofError("this proof is for another body", code="proof_wrong_body")
        puzzle = own_puzzle(fields)
        if not puzzle.is_solved(solution, secret=self._secret):
            raise ProofError("this does not solve the challenge", code="proof_unsolved")
        return Proof(identity, puzzle.alg, puzzle.work, not signed_digest, expires_at)

    def _sign(self, request: str, expires: str, digest: str) -> str:
        text = f"{_SLOTS}{request}|{expires}|{digest}|".encode("utf-8", "replace")
        return hmac.digest(self._secret, text, "sha256").hex()

    def _make_tag(self, account: str) -> str:
        """Return what stands for an account: its name is none of the client's business."""
        name = b"account|" + account.encode(errors="surrogatepass")
        return hmac.digest(self._secret, name, "sha256").hex()[:TAG_CHARS]


def body_digest(body: bytes) -> str:
    """Return the digest of a body as RFC 9530 writes it."""
    return f"sha-256=:{b2a_base64(hashlib.sha256(body).digest(), newline=False).decode()}:"


def stamp(at: float) -> str:
    """Return a time as RFC 3339 writes it, in UTC and whole seconds."""
    minute, second = divmod(int(at), 60)
    return f"{_minute(minute)}:{second:02d}Z"


@lru_cache(64)
def _minute(number: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M", time.gmtime(60 * number))


_read = json.JSONDecoder().raw_decode
_TO_URL = bytes.maketrans(b"+/", b"-_")


def _base64url(data: bytes) -> str:
    return b2a_base64(data, newline=False).translate(_TO_URL, b"=").decode()


def _from_base64url(text: str) -> bytes:
    try:
        return a2b_base64(text.replace("-", "+").replace("_", "/") + "==")
    except ValueError as error:
        raise _malformed() from error


def _malformed() -> ProofError:
    return ProofError(
        "expected a proof as docs/challenge.md describes: id.request.expires.digest.solution",
        code="proof_malformed",
    )
