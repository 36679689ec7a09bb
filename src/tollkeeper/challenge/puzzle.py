"""Puzzles: work that is checked in a moment. `docs/challenge.md` specifies both.

`HashPuzzle` is cheap friction: a few SHA-256 searches, checked with as many hashes.
`ScryptPuzzle` takes memory. Whoever makes one picks the answer and runs scrypt once; checking
an answer is one HMAC, so nobody can make a server run scrypt by sending proofs.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import scrypt, sha256
from typing import Any, Final, NamedTuple, Protocol

SHA_256: Final = "sha-256"
SCRYPT: Final = "scrypt"
SCALE: Final = 2**48
"""Hashes are compared by their first 48 bits: exact in every language's numbers."""

SEARCHES: Final = 3
"""Searches in one hash puzzle: the time of three varies .58 as much, next to its mean, as of one."""

MOST_WORK: Final = 2**44
MOST_FIRST: Final = 2**52
MAX_COUNTER_DIGITS: Final = 15  # a counter stays below 2**53
KEY_BYTES: Final = 32
PREFIX_CHARS: Final = 16
KEY_CHARS: Final = 43
MAX_SCRYPT_MEMORY: Final = 2**26
MAX_SALT_CHARS: Final = 64
MOST_SEARCHES: Final = 64


class Puzzle(Protocol):
    """Something to solve: a few searches, each over counters from 0 up."""

    @property
    def alg(self) -> str:
        """Return the algorithm's name in a challenge."""
        ...

    @property
    def searches(self) -> int:
        """Return how many searches there are."""
        ...

    @property
    def work(self) -> int:
        """Return how many evaluations it takes on average."""
        ...

    @property
    def counters(self) -> int:
        """Return below what number each solution is."""
        ...

    @property
    def chunk(self) -> int:
        """Return how many counters make some ten milliseconds of searching."""
        ...

    def fields(self) -> dict[str, Any]:
        """Return what a client needs to know, ready for JSON."""
        ...

    def search(self, part: int, start: int, stop: int) -> str | None:
        """Return the solution of search `part` among counters [start, stop), or None."""
        ...

    def is_solved(self, solution: str, *, secret: bytes) -> bool:
        """Return whether the solutions of all searches, joined by `-`, are right."""
        ...


class HashPuzzle(NamedTuple):
    """For each i below `searches` find a counter c with sha256("salt.i.c") below the target.

    Source: Juels and Brainard, "Client Puzzles", NDSS 1999 (several small puzzles in place of
    one); the search is Hashcash's, with a target in place of leading zero bits.

    Attributes:
        salt: text, fresh for each puzzle.
        target: the first 48 bits of each hash must be below it; 1 to 2**48.
        searches: how many.
    """

    salt: str
    target: int
    searches: int = SEARCHES

    @property
    def alg(self) -> str:
        """Return the algorithm's name in a challenge."""
        return SHA_256

    @property
    def counters(self) -> int:
        """Return what counters of the most digits stay below."""
        return 10**MAX_COUNTER_DIGITS

    @property
    def chunk(self) -> int:
        """Return counters for some ten milliseconds."""
        return 10_000

    @classmethod
    def of(cls, work: int, salt: str, searches: int = SEARCHES) -> HashPuzzle:
        """Return the puzzle that takes `work` hashes on average, from `searches` up."""
        return cls(salt, min(SCALE, max(1, SCALE * searches // work)), searches)

    @property
    def work(self) -> int:
        """Return the expected number of hashes."""
        return round(self.searches * SCALE / self.target)

    def fields(self) -> dict[str, Any]:
        """Return the algorithm, the salt, the target and the number of searches."""
        return {"alg": self.alg, **self._asdict()}

    def request(self, account: str, policy: str) -> str:
        """Return the fields, and whom the puzzle is for, as JSON; see `Issuer.issue`.

        Args:
            account: as all strings in it, without characters that JSON escapes.
            policy: version of the policy.
        """
        salt, target, searches = self
        return (
            f'{{"account":"{account}","alg":"{SHA_256}","policy":"{policy}","salt":"{salt}",'
            f'"searches":{searches},"target":{target}}}'
        )

    def search(self, part: int, start: int, stop: int) -> str | None:
        """Return the first counter of [start, stop) that solves search `part`, or None."""
        prefix, bound = f"{self.salt}.{part}.".encode(), _bound(self.target)
        for counter in range(start, stop):
            if sha256(b"%b%d" % (prefix, counter)).digest() < bound:
                return str(counter)
        return None

    def is_solved(self, solution: str, *, secret: bytes = b"") -> bool:
        """Return whether counters solve this; takes at most `searches` hashes."""
        del secret
        salt, target, searches = self
        counters = solution.encode("ascii", "replace").split(b"-")
        if len(counters) != searches:
            return False
        prefix, bound = salt.encode(), _bound(target)
        for part, counter in enumerate(counters):
            if len(counter) > MAX_COUNTER_DIGITS or not counter.isdigit():
                return False
            if sha256(b"%b.%d.%b" % (prefix, part, counter)).digest() >= bound:
                return False
        return True


class ScryptPuzzle(NamedTuple):
    """Find the counter from `first` on, of `cost`, whose scrypt key begins with `prefix`.

    The proof is the key. Where the range begins is chosen when the puzzle is issued, so keys can
    be made ahead, in quiet moments, for puzzles of any size.

    Source: the deterministic mode of ALTCHA's proof of work, version 2; RFC 7914 for scrypt.

    Attributes:
        salt: text, fresh for each puzzle.
        first: the smallest counter.
        cost: how many counters there are to choose among.
        prefix: first 16 characters of the key in URL-safe base64.
        seal: HMAC of the key under the issuer's secret; says nothing without it.
        n: scrypt's cost, a power of 2; memory is 128 n r bytes.
        r: scrypt's block size.
        p: scrypt's parallelization.
    """

    salt: str
    first: int
    cost: int
    prefix: str
    seal: str
    n: int = 2**14
    r: int = 8
    p: int = 1

    @classmethod
    def make(cls, salt: str, answer: int, *, secret: bytes, n: int = 2**14) -> ScryptPuzzle:
        """Make a puzzle with one counter to choose, for `over` to hide among others; runs scrypt.

        Args:
            salt: fresh text.
            answer: the counter to be found; secret and random, at least the largest cost.
            secret: the issuer's.
            n: scrypt's cost.
        """
        blank = cls(salt, answer, 1, "", "", n)
        key = blank._key(answer)
        return blank._replace(prefix=key[:PREFIX_CHARS], seal=_seal(key, secret))

    def over(self, work: int, before: int) -> ScryptPuzzle:
        """Return this puzzle made to take `work` runs of scrypt on average.

        Args:
            work: from 1 up.
            before: counters before the answer; secret, uniform below 2 * work - 1.
        """
        salt, first, _, prefix, seal, n, r, p = self
        return ScryptPuzzle(salt, first - before, 2 * work - 1, prefix, seal, n, r, p)

    @property
    def alg(self) -> str:
        """Return the algorithm's name in a challenge."""
        return SCRYPT

    @property
    def counters(self) -> int:
        """Return the cost."""
        return self.cost

    @property
    def chunk(self) -> int:
        """Return 1: a run takes long."""
        return 1

    @property
    def searches(self) -> int:
        """Return 1."""
        return 1

    @property
    def work(self) -> int:
        """Return the expected number of runs of scrypt."""
        return (self.cost + 1) // 2

    def fields(self) -> dict[str, Any]:
        """Return everything but the answer."""
        return {"alg": self.alg, **self._asdict()}

    def request(self, account: str, policy: str) -> str:
        """Return the fields, and whom the puzzle is for, as JSON; see `HashPuzzle.request`."""
        salt, first, cost, prefix, seal, n, r, p = self
        return (
            f'{{"account":"{account}","alg":"{SCRYPT}","cost":{cost},"first":{first},"n":{n},'
            f'"p":{p},"policy":"{policy}","prefix":"{prefix}","r":{r},"salt":"{salt}",'
            f'"seal":"{seal}"}}'
        )

    def search(self, part: int, start: int, stop: int) -> str | None:
        """Return the key if its counter is in [start, stop), or None."""
        del part
        for counter in range(start, min(stop, self.cost)):
            key = self._key(self.first + counter)
            if key.startswith(self.prefix):
                return key
        return None

    def is_solved(self, solution: str, *, secret: bytes) -> bool:
        """Return whether a key is the sealed one; runs no scrypt."""
        return hmac.compare_digest(_seal(solution, secret), self.seal)

    def _key(self, counter: int) -> str:
        key = scrypt(
            str(counter).encode(),
            salt=self.salt.encode(),
            n=self.n,
            r=self.r,
            p=self.p,
            maxmem=MAX_SCRYPT_MEMORY,
            dklen=KEY_BYTES,
        )
        return urlsafe_b64encode(key).decode().rstrip("=")


_KINDS: Final[Mapping[str, type[HashPuzzle | ScryptPuzzle]]] = {
    SHA_256: HashPuzzle,
    SCRYPT: ScryptPuzzle,
}


def read_puzzle(fields: Mapping[str, Any]) -> HashPuzzle | ScryptPuzzle:
    """Return the puzzle in a challenge's fields; fields of other things are passed over.

    Raises:
        ValueError: the algorithm is unknown, or a field is missing, of a wrong type or out of
            range. What a stranger sends may not cost more than its work says.
    """
    kind = _KINDS.get(str(fields.get("alg")))
    if kind is None:
        raise ValueError(f"expected a puzzle of {' or '.join(_KINDS)}")
    for name in kind._fields:
        wanted = str if name in {"salt", "prefix", "seal"} else int
        value = fields.get(name)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ValueError(f"expected {name} to be of type {wanted.__name__}")  # noqa: TRY004 - see Raises
    puzzle = own_puzzle(fields)
    _check_ranges(puzzle)
    return puzzle


def own_puzzle(fields: Mapping[str, Any]) -> HashPuzzle | ScryptPuzzle:
    """Return the puzzle in fields that are known to be our own; nothing is checked."""
    if fields["alg"] == SHA_256:
        return HashPuzzle(fields["salt"], fields["target"], fields["searches"])
    f = fields
    return ScryptPuzzle(
        f["salt"], f["first"], f["cost"], f["prefix"], f["seal"], f["n"], f["r"], f["p"]
    )


def _check_ranges(puzzle: HashPuzzle | ScryptPuzzle) -> None:
    if isinstance(puzzle, HashPuzzle):
        sound = 1 <= puzzle.target <= SCALE and 1 <= puzzle.searches <= MOST_SEARCHES
    else:
        power = puzzle.n > 1 and puzzle.n & (puzzle.n - 1) == 0
        memory = 128 * puzzle.n * puzzle.r * puzzle.p
        sound = power and puzzle.r > 0 and puzzle.p > 0 and memory <= MAX_SCRYPT_MEMORY // 2
        sound = (
            sound
            and 1 <= puzzle.cost <= MOST_WORK
            and 0 <= puzzle.first < MOST_FIRST
            and len(puzzle.prefix) == PREFIX_CHARS
            and _is_plain(puzzle.prefix)
        )
    if not (sound and len(puzzle.salt) <= MAX_SALT_CHARS and _is_plain(puzzle.salt)):
        raise ValueError("expected a puzzle within the limits of its algorithm")


def _is_plain(text: str) -> bool:
    """Tell whether all characters are ASCII and printable; JSON may even hold half a character."""
    return text.isascii() and text.isprintable()


def _bound(target: int) -> bytes:
    """Return what digests are compared with; it is shorter, so equal first bits are too much."""
    return b"\xff" * (KEY_BYTES + 1) if target == SCALE else target.to_bytes(6, "big")


def _seal(key: str, secret: bytes) -> str:
    return hmac.digest(secret, b"key|" + key.encode(errors="replace"), "sha256").hex()
