"""As much of DER (ITU-T X.690) as time stamps need: read nested values, write a request."""

from __future__ import annotations

from dataclasses import dataclass

from tollkeeper.errors import EvidenceError

BOOLEAN, INTEGER, OCTETS, NULL, OID, TIME, SEQUENCE, SET = 1, 2, 4, 5, 6, 0x18, 0x30, 0x31
_LONG = 0x80
_MOST_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class Value:
    """One value.

    Attributes:
        tag: its first byte.
        content: its bytes without tag and length.
        whole: with them.
    """

    tag: int
    content: bytes
    whole: bytes

    def children(self) -> list[Value]:
        """Return the values inside.

        Raises:
            EvidenceError: the content is not a row of values.
        """
        found, rest = [], self.content
        while rest:
            value, rest = _first(rest)
            found.append(value)
        return found

    def expect(self, tag: int) -> Value:
        """Return this value if it has the tag.

        Raises:
            EvidenceError: it has another.
        """
        if self.tag != tag:
            raise EvidenceError(f"expected a DER value of tag {tag:#x}, got {self.tag:#x}")
        return self

    def integer(self) -> int:
        """Return the whole number; raises as `expect`."""
        return int.from_bytes(self.expect(INTEGER).content, "big", signed=True)


def read(data: bytes) -> Value:
    """Return the one value that bytes hold.

    Raises:
        EvidenceError: they are no DER, or there is more behind it.
    """
    value, rest = _first(data)
    if rest:
        raise EvidenceError(f"expected one DER value, got {len(rest)} more bytes")
    return value


def write(tag: int, *parts: bytes) -> bytes:
    """Return a value of these contents."""
    content = b"".join(parts)
    if len(content) < _LONG:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, _LONG | len(length)]) + length + content


def write_integer(number: int) -> bytes:
    """Return a whole number of at least 0."""
    return write(INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def write_oid(dotted: str) -> bytes:
    """Return an object identifier."""
    first, second, *others = map(int, dotted.split("."))
    made = bytearray()
    for arc in (40 * first + second, *others):
        sevens = [arc & 0x7F]
        while arc := arc >> 7:
            sevens.append(_LONG | arc & 0x7F)
        made += bytes(reversed(sevens))
    return write(OID, bytes(made))


def _first(data: bytes) -> tuple[Value, bytes]:
    """Split off the first value."""
    if len(data) < 2 or data[0] & 0x1F == 0x1F:
        raise EvidenceError("a DER value is cut off or has a long tag")
    length, start = data[1], 2
    if length & _LONG:
        start = 2 + (length & ~_LONG)
        raw = data[2:start]
        length = int.from_bytes(raw, "big")
        shortest = length >= _LONG and raw[:1] != b"\0"
        if not raw or len(raw) > _MOST_LENGTH_BYTES or not shortest:
            raise EvidenceError("a DER length is not written in the one accepted way")
    if len(data) < start + length:
        raise EvidenceError("a DER value is cut off")
    end = start + length
    return Value(data[0], data[start:end], data[:end]), data[end:]
