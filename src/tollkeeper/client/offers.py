"""Reading `WWW-Authenticate`: which challenge is ours, and is it one to be solved?

Whatever a server sends, reading it raises nothing: what is not understood is not ours.
"""

from __future__ import annotations

import json
import re
from binascii import a2b_base64
from collections.abc import Iterator
from typing import Final, NamedTuple

from tollkeeper.challenge.protocol import INTENT, MAX_PROOF_CHARS, METHOD, REALM, Challenge
from tollkeeper.challenge.puzzle import (
    KEY_CHARS,
    MAX_COUNTER_DIGITS,
    HashPuzzle,
    ScryptPuzzle,
    read_puzzle,
)

SCHEME: Final = "payment"

_LONGEST = 16_384
"""Characters that are read; servers and proxies allow no longer headers."""

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's name for a word
_COMMAS = re.compile(r"[\s,]*")
_PARAMETER = re.compile(rf'({_TOKEN})\s*=\s*(?:({_TOKEN})|"((?:[^"\\]|\\.)*)")\s*(?=,|$)')
_SCHEME = re.compile(rf"({_TOKEN})(?:[ \t]+|(?=,|$))")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*\s*(?=,|$)")
_SAFE = re.compile(r"[A-Za-z0-9_:=+/-]*")
"""What goes into the proof as it came: no dots, which separate its parts, and no line breaks."""


class Offer(NamedTuple):
    """One challenge of a header, of any scheme.

    Attributes:
        scheme: in small letters.
        parameters: names in small letters; the text `token68` of other schemes is left out.
    """

    scheme: str
    parameters: dict[str, str]


def offered(header: str) -> Challenge | None:
    """Return the first challenge in a header that is ours, or None.

    Args:
        header: value of `WWW-Authenticate`; several are joined by commas.
    """
    for offer in parse(header):
        challenge = _ours(offer)
        if challenge is not None:
            return challenge
    return None


def parse(header: str) -> Iterator[Offer]:
    """Yield the challenges of a header up to where it cannot be read (RFC 9110, 11.6.1)."""
    header = header[:_LONGEST]
    at = _end(_COMMAS, header, 0)
    while at < len(header):
        scheme = _SCHEME.match(header, at)
        if scheme is None:
            return
        token68 = _TOKEN68.match(header, scheme.end())
        at = _end(_COMMAS, header, token68.end() if token68 else scheme.end())
        parameters: dict[str, str] = {}
        while found := _PARAMETER.match(header, at):
            name, token, quoted = found.groups()
            if name.lower() in parameters:
                return  # twice: who is to say which one counts?
            value = token if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters[name.lower()] = value
            at = _end(_COMMAS, header, found.end())
        if at < len(header) and _SCHEME.match(header, at) is None:
            return  # half a challenge is none
        yield Offer(scheme[1].lower(), parameters)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()


def _ours(offer: Offer) -> Challenge | None:
    """Return a challenge that can be solved within reason."""
    scheme, told = offer
    if scheme != SCHEME or (told.get("realm"), told.get("method"), told.get("intent")) != (
        REALM,
        METHOD,
        INTENT,
    ):
        return None
    parts = [told.get(name, "") for name in ("id", "request", "expires", "digest")]
    if not all(map(_SAFE.fullmatch, parts)) or not all(parts[:3]):
        return None
    identity, request, expires, digest = parts
    try:
        text = a2b_base64(request.replace("-", "+").replace("_", "/") + "==")
        fields = json.loads(text)
        puzzle = read_puzzle(fields if isinstance(fields, dict) else {})
    except (ValueError, RecursionError):
        return None
    challenge = Challenge(identity, request, expires, digest, puzzle)
    room = MAX_PROOF_CHARS - len(challenge.proof(""))
    return challenge if _longest_solution(puzzle) <= room else None


def _longest_solution(puzzle: HashPuzzle | ScryptPuzzle) -> int:
    """Return how many characters a solution may have."""
    if isinstance(puzzle, HashPuzzle):
        return puzzle.searches * (MAX_COUNTER_DIGITS + 1) - 1
    return KEY_CHARS
