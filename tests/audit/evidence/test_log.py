"""Promises of the signed log."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tollkeeper.audit.evidence.keys import Signer, create
from tollkeeper.audit.evidence.log import START, Head, SignedLog, head_path, read
from tollkeeper.errors import AuditRefused, EvidenceError

Clock = Callable[[], float]


@pytest.fixture
def path(tmp_path: Path, signer: Signer, clock: Clock) -> Path:
    """Return a log of four lines."""
    found = tmp_path / "audit.log"
    with SignedLog(found, signer, clock=clock) as log:
        for index in range(4):
            log.append("call", {"n": index, "ms": 1.5, "text": "é"})
    return found


def test_what_was_written_is_read(path: Path, signer: Signer) -> None:
    """Lines come back in order, chained, with the writer's time."""
    entries = read(path, key=signer.public)

    assert [entry.seq for entry in entries] == [0, 1, 2, 3]
    assert entries[0].prev == START
    assert all(later.prev == entry.hash for entry, later in itertools.pairwise(entries))
    assert entries[2].kind == "call"
    assert entries[2].body == {"n": 2, "ms": 1.5, "text": "é"}
    assert entries[0].at == "2027-01-15T08:00:00.000000+00:00"


def test_any_changed_byte_is_found(tmp_path: Path, signer: Signer, clock: Clock) -> None:
    """Each byte of the log and of its head matters, even the case of a letter."""
    path = tmp_path / "audit.log"
    with SignedLog(path, signer, clock=clock) as log:
        log.append("call", {"n": 1, "ms": 1.5, "text": "é"})
    for file in (path, head_path(path)):
        whole = file.read_bytes()
        for at in range(len(whole)):
            changed = bytearray(whole)
            changed[at] ^= (
                0x20 if chr(whole[at]).isalpha() else 0x01
            )  # Hex parsers often pass A for a.
            file.write_bytes(changed)
            with pytest.raises(EvidenceError):
                read(path)
        file.write_bytes(whole)
    read(path)


def test_dropped_moved_doubled_and_foreign_lines_are_found(
    path: Path, tmp_path: Path, signer: Signer, clock: Clock
) -> None:
    """Only the lines that were written, in their order, are a log."""
    lines = path.read_bytes().splitlines(keepends=True)
    with SignedLog(tmp_path / "other.log", signer, clock=clock) as other:
        other.append("call", {"n": 0})
    foreign = (tmp_path / "other.log").read_bytes()
    for forged in (
        *(lines[:at] + lines[at + 1 :] for at in range(4)),
        [lines[0], lines[2], lines[1], lines[3]],
        [lines[0], *lines],
        [*lines, lines[-1]],
        [foreign, *lines[1:]],
        [*lines, foreign],
        [*lines[:3], lines[3].rstrip(b"\n")],
        [*lines, b"\n"],
        [],
    ):
        path.write_bytes(b"".join(forged))
        with pytest.raises(EvidenceError):
            read(path)


def test_a_log_cut_back_with_an_old_head_is_found_by_who_saw_a_later_one(
    path: Path, signer: Signer, clock: Clock
) -> None:
    """A stamped or published head cannot be gone back behind."""
    old, old_head = path.read_bytes(), head_path(path).read_bytes()
    with SignedLog(path, signer, clock=clock) as log:
        log.append("call", {"n": 4})
        seen = log.head
        log.append("call", {"n": 5})
    read(path, since=seen)
    path.write_bytes(old)
    head_path(path).write_bytes(old_head)

    read(path)
    with pytest.raises(EvidenceError, match="does not continue"):
        read(path, since=seen)


def test_another_key_is_refused(path: Path, tmp_path: Path, clock: Clock) -> None:
    """Whoever holds another key can neither pass for the owner nor write on."""
    other = create(tmp_path / "other.pem")
    with pytest.raises(EvidenceError, match="was signed by the key"):
        read(path, key=other.public)
    with pytest.raises(EvidenceError, match="was started by the key"):
        SignedLog(path, other, clock=clock)


def test_a_signature_of_a_line_is_none_of_a_head(path: Path, signer: Signer) -> None:
    """A head that nobody signed as a head is refused, though the key is right."""
    told = json.loads(path.read_bytes().splitlines()[1])
    head = {"count": 2, "hash": told["hash"], "key": signer.public, "signature": told["signature"]}
    data = json.dumps(head, sort_keys=True, separators=(",", ":")).encode()
    head_path(path).write_bytes(data + b"\n")
    with pytest.raises(EvidenceError, match="signature of log head"):
        read(path)


def test_it_goes_on_after_a_break(path: Path, signer: Signer, clock: Clock) -> None:
    """A whole line without a head is kept, a half one is cut off, and both are told."""
    head = head_path(path).read_bytes()
    with SignedLog(path, signer, clock=clock) as log:
        log.append("call", {"n": 4})
    head_path(path).write_bytes(head)
    with path.open("ab") as file:
        file.write(b'{"at":"20')
    with pytest.raises(EvidenceError):
        read(path)

    with SignedLog(path, signer, clock=clock) as log:
        log.append("call", {"n": 5})
    kinds = [(entry.kind, entry.body) for entry in read(path, key=signer.public)]
    assert kinds[4:] == [
        (
            "call",
            {
                "n": 4,
            },
        ),
        ("resumed", {"lines": 1, "bytes_cut": 9}),
        ("call", {"n": 5}),
    ]


def test_a_break_does_not_adopt_lines_that_nobody_signed(
    path: Path, signer: Signer, clock: Clock, tmp_path: Path
) -> None:
    """A line behind the head that another key made is refused."""
    other = create(tmp_path / "other.pem")
    told = json.loads(path.read_bytes().splitlines()[3])
    told |= {"seq": 4, "prev": told["hash"]}
    told["signature"] = other.sign(bytes.fromhex(told["hash"]), purpose="log line")
    with path.open("ab") as file:
        file.write(json.dumps(told, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    with pytest.raises(EvidenceError, match="line 4"):
        SignedLog(path, signer, clock=clock)


def test_a_log_without_its_head_is_refused(path: Path, signer: Signer, clock: Clock) -> None:
    """It may have been cut off, so it is neither read nor continued."""
    head_path(path).unlink()
    with pytest.raises(EvidenceError, match=r"audit\.log\.head"):
        read(path)
    with pytest.raises(EvidenceError, match=r"audit\.log\.head"):
        SignedLog(path, signer, clock=clock)


def test_an_empty_log_is_a_log(tmp_path: Path, signer: Signer, clock: Clock) -> None:
    """Its head says that there are no lines."""
    path = tmp_path / "new.log"
    with SignedLog(path, signer, clock=clock) as log:
        assert log.head == Head(0, START)
    assert read(path, key=signer.public, since=Head(0, START)) == ()


def test_one_writer_at_a_time(path: Path, signer: Signer, clock: Clock) -> None:
    """A second one is told so, and may write when the first has closed."""
    with (
        SignedLog(path, signer, clock=clock),
        pytest.raises(AuditRefused, match="another process is writing"),
    ):
        SignedLog(path, signer, clock=clock)
    SignedLog(path, signer, clock=clock).close()


def test_what_json_does_not_know_is_refused_and_nothing_is_written(
    path: Path, signer: Signer, clock: Clock
) -> None:
    """NaN, bytes and the like are one clear error, and the log stays whole."""
    with SignedLog(path, signer, clock=clock) as log:
        for body in ({"x": float("nan")}, {"x": b"bytes"}, {"x": {1, 2}}):
            with pytest.raises(AuditRefused, match="values that JSON knows"):
                log.append("call", body)
    assert len(read(path)) == 4


def test_a_closed_log_takes_no_lines(path: Path, signer: Signer, clock: Clock) -> None:
    """Writing to it is one clear error."""
    log = SignedLog(path, signer, clock=clock)
    log.close()
    with pytest.raises(AuditRefused, match="cannot write the log"):
        log.append("call", {})


def test_a_folder_is_no_log(tmp_path: Path, signer: Signer, clock: Clock) -> None:
    """Unusable paths are clear errors."""
    with pytest.raises(AuditRefused, match="cannot write the log"):
        SignedLog(tmp_path, signer, clock=clock)
    with pytest.raises(EvidenceError, match="cannot read"):
        read(tmp_path / "absent.log")
