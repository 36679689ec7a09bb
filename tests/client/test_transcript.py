"""Promises of the transcript: durable, exact, private, and of one target only."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tollkeeper.client.allowance import Spend
from tollkeeper.client.transcript import Answered, Call, Outcome, Transcript
from tollkeeper.encoders.inputs import digest
from tollkeeper.errors import ConfigurationError, LedgerError

CALL = Call(at=1.7e9, inputs=2, digest=b"d" * 16, retry=0, throttled_s=0.0, money=9.0)
GOOD = Outcome(status=200, error="", latency_s=0.5, seconds=0.25, tokens=7, money=0.5)


def answer(mark: bytes, turn: int, *values: float) -> Answered:
    """Return an answer."""
    return Answered(mark, turn, np.array(values, np.float32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the transcript of a test lies."""
    return tmp_path / "transcript.sqlite"


@pytest.fixture
def transcript(path: Path) -> Iterator[Transcript]:
    """Return an empty transcript."""
    opened = Transcript(path)
    yield opened
    opened.close()


def test_answers_come_back_to_the_bit(transcript: Transcript) -> None:
    """Each turn of an input has its own answer; what was never answered is None."""
    values = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)
    transcript.end(
        transcript.begin(CALL), GOOD, [answer(b"a", turn, *values[turn]) for turn in (0, 1)]
    )
    for turn in (0, 1):
        found = transcript.find(b"a", turn)
        assert found is not None
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, values[turn])
    assert transcript.find(b"a", 2) is None
    assert transcript.find(b"b", 0) is None


def test_spend_adds_up_all_calls(transcript: Transcript) -> None:
    """Calls, answers, tokens, money, seconds and waits are those of the rows, failures included."""
    transcript.end(transcript.begin(CALL), GOOD, [answer(b"a", 0, 1), answer(b"b", 0, 2)])
    failed = Outcome(status=503, error="", latency_s=1, seconds=1.0, tokens=0, money=0.0)
    transcript.end(transcript.begin(CALL), failed)
    again = Call(at=1.7e9, inputs=1, digest=b"e", retry=1, throttled_s=4.0, money=9.0)
    transcript.end(transcript.begin(again), GOOD, [answer(b"a", 1, 1)])
    assert transcript.spend() == Spend(
        calls=3,
        distinct=2,
        repeats=1,
        tokens=14,
        money=1.0,
        seconds=1.5,
        retries=1,
        throttled_seconds=4.0,
    )


def test_an_empty_transcript_has_spent_nothing(transcript: Transcript) -> None:
    """Sums over no rows are zeros."""
    assert transcript.spend() == Spend()


def test_a_call_that_never_ended_counts_at_its_most(transcript: Transcript, path: Path) -> None:
    """What was sent before a crash may have been billed, and is counted when the file is reopened."""
    transcript.begin(CALL)
    transcript.close()
    again = Transcript(path)
    assert again.spend() == Spend(calls=1, money=9.0)
    again.close()


def test_an_end_is_stored_whole_or_not_at_all(transcript: Transcript) -> None:
    """When one of its answers cannot be stored, neither are the others nor the outcome."""
    number = transcript.begin(CALL)
    twice = [answer(b"a", 0, 1.0), answer(b"a", 0, 2.0)]
    with pytest.raises(LedgerError):
        transcript.end(number, GOOD, twice)
    assert transcript.find(b"a", 0) is None
    assert transcript.spend() == Spend(calls=1, money=9.0)


def test_a_full_disk_is_one_line_and_loses_nothing(transcript: Transcript) -> None:
    """When the file cannot grow the error says so, and what was stored before is there."""
    transcript.end(transcript.begin(CALL), GOOD, [answer(b"a", 0, 1.0)])
    ((pages,),) = transcript._file.execute("PRAGMA page_count")
    transcript._file.execute(f"PRAGMA max_page_count = {pages}")
    number = transcript.begin(CALL)
    with pytest.raises(LedgerError, match="full; check the disk") as caught:
        transcript.end(number, GOOD, [answer(b"b", 0, *range(5000))])
    assert "\n" not in str(caught.value)
    assert transcript.find(b"a", 0) is not None
    assert transcript.find(b"b", 0) is None


def test_facts_are_kept_and_compared(transcript: Transcript, path: Path) -> None:
    """A transcript says what it is of, and refuses to be taken for another one."""
    assert transcript.fact("target") is None
    transcript.belongs_to("target", "http://a/v1")
    transcript.belongs_to("target", "http://a/v1")
    transcript.close()
    again = Transcript(path)
    with pytest.raises(ConfigurationError, match=r"'http://a/v1', not 'http://b/v1'; name another"):
        again.belongs_to("target", "http://b/v1")
    assert again.fact("target") == "http://a/v1"
    again.close()


def test_two_runs_cannot_share_a_file(transcript: Transcript, path: Path) -> None:
    """While one run has it open no other can, in this process or another; later it can."""
    with pytest.raises(ConfigurationError, match="another run has it open"):
        Transcript(path)
    code = (
        "import sys; from tollkeeper.client.transcript import Transcript; Transcript(sys.argv[1])"
    )
    other = subprocess.run(
        [sys.executable, "-c", code, str(path)], check=False, capture_output=True
    )
    assert b"another run has it open" in other.stderr
    transcript.belongs_to("target", "x")
    transcript.close()
    again = Transcript(path)
    assert again.fact("target") == "x"
    again.close()


def test_only_the_owner_can_read_it(transcript: Transcript, path: Path) -> None:
    """The file and its log have mode 0600."""
    transcript.begin(CALL)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


@pytest.mark.parametrize("kind", ["text", "database", "folder", "missing folder", "newer"])
def test_what_is_no_transcript_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    """Foreign files are named in one line and keep their bytes."""
    path = tmp_path / "file"
    if kind == "text":
        path.write_text("something else, and long enough to be no SQLite header at all\n" * 99)
    elif kind == "folder":
        path.mkdir()
    elif kind == "missing folder":
        path = tmp_path / "none" / "file"
    else:
        if kind == "newer":
            Transcript(path).close()
        with sqlite3.connect(path) as other:
            other.execute("PRAGMA user_version = 3" if kind == "newer" else "CREATE TABLE t (x)")
        other.close()
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(ConfigurationError, match=r"name a(nother)? file") as caught:
        Transcript(path)
    assert "\n" not in str(caught.value)
    assert (path.read_bytes() if path.is_file() else None) == before


def test_a_closed_transcript_says_so(transcript: Transcript) -> None:
    """Use after closing is an error of ours."""
    transcript.close()
    with pytest.raises(LedgerError, match="closed"):
        transcript.find(b"a", 0)


def test_digests_are_equal_for_equal_inputs_only() -> None:
    """Containers do not matter; kinds, shapes, pixels and order do."""
    pixels = np.arange(24, dtype=np.uint8)
    inputs = [
        digest("ab", "text"),
        digest("ba", "text"),
        digest([97, 98], "tokens"),
        digest([98, 97], "tokens"),
        digest(pixels.reshape(2, 4, 3), "image"),
        digest(pixels.reshape(4, 2, 3), "image"),
        digest(pixels[::-1].reshape(4, 2, 3), "image"),
    ]
    assert len(set(inputs)) == len(inputs)
    assert digest(np.array([97, 98], np.int32), "tokens") == digest((97, 98), "tokens")
    strided = np.zeros((4, 8, 3), np.uint8)[:, ::2]
    assert digest(strided, "image") == digest(np.zeros((4, 4, 3), np.uint8), "image")


def test_a_file_of_version_1_is_brought_up_to_date(transcript: Transcript, path: Path) -> None:
    """What it holds is kept, nothing in it was paid for with work, and later calls may be."""
    transcript.end(transcript.begin(CALL), GOOD, [answer(b"a", 0, 1)])
    before = transcript.spend()
    transcript._file.execute("ALTER TABLE calls DROP COLUMN puzzle_s")
    transcript._file.execute("PRAGMA user_version = 1")
    transcript.close()
    for _ in range(2):
        again = Transcript(path)
        assert again.find(b"a", 0) is not None
        assert again.spend() == before
        again.close()
    again = Transcript(path)
    again.begin(replace(CALL, puzzle_s=2.5))
    assert (again.spend().challenges, again.spend().puzzle_seconds) == (1, 2.5)
    again.close()
