"""Promises of puzzles: the stated work, checked in a moment, and no solution but the right one."""

from __future__ import annotations

import hashlib
import json
import math
from base64 import urlsafe_b64encode
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.challenge import puzzle as module
from tollkeeper.challenge.puzzle import (
    MAX_COUNTER_DIGITS,
    SCALE,
    HashPuzzle,
    ScryptPuzzle,
    own_puzzle,
    read_puzzle,
)
from tollkeeper.challenge.solve import solve

SECRET = bytes(range(32))
LARGEST = 10**6


def scrypt_of(work: int, before: int = 0, salt: str = "salt", n: int = 16) -> ScryptPuzzle:
    """Return a memory-hard puzzle with short runs."""
    return ScryptPuzzle.make(salt, LARGEST, secret=SECRET, n=n).over(work, before)


def is_right(puzzle: HashPuzzle, solution: str) -> bool:
    """Check a solution as the page says, slowly."""
    counters = solution.split("-")
    hashes = [
        hashlib.sha256(f"{puzzle.salt}.{i}.{c}".encode()).digest() for i, c in enumerate(counters)
    ]
    firsts = [int.from_bytes(digest[:6], "big") for digest in hashes]
    return len(counters) == puzzle.searches and all(first < puzzle.target for first in firsts)


# Hash puzzles -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("work", "searches"), [(1, 1), (3, 3), (64, 64), (1000, 3), (5000, 1)])
def test_a_solution_is_right_by_the_page_and_by_us(work: int, searches: int) -> None:
    """What solving finds holds by a check that is written from the page."""
    puzzle = HashPuzzle.of(work, "salt", searches)
    solution = solve(puzzle)
    assert is_right(puzzle, solution)
    assert puzzle.is_solved(solution)


@given(st.text(alphabet="0123456789-x", max_size=12), st.integers(1, SCALE))
def test_checking_agrees_with_the_page(solution: str, target: int) -> None:
    """Of any text and target the two checks say the same, as far as the text is counters."""
    puzzle = HashPuzzle("salt", target, 2)
    parts = solution.split("-")
    is_counters = len(parts) == 2 and all(part.isdigit() for part in parts)
    assert puzzle.is_solved(solution) == (is_counters and is_right(puzzle, solution))


def test_the_first_48_bits_are_compared_exactly() -> None:
    """A hash whose bits equal the target is too much by one."""
    first = int.from_bytes(hashlib.sha256(b"salt.0.7").digest()[:6], "big")
    assert not HashPuzzle("salt", first, 1).is_solved("7")
    assert HashPuzzle("salt", first + 1, 1).is_solved("7")
    assert HashPuzzle("salt", first, 1).search(0, 7, 8) is None
    assert HashPuzzle("salt", first + 1, 1).search(0, 7, 8) == "7"


def test_the_largest_target_takes_every_hash() -> None:
    """A puzzle of the least work is solved by any counter."""
    assert HashPuzzle("salt", SCALE, 3).is_solved("0-1-2")


@pytest.mark.parametrize(
    "solution",
    ["", "-", "0-1", "0-1-2-3", "0-1-", "+0-1-2", " 0-1-2", "0-1-\n2", "0-1-٢", "0x0-1-2"],
)
def test_what_is_no_list_of_counters_solves_nothing(solution: str) -> None:
    """Signs, spaces, other alphabets' digits, too few and too many are refused."""
    assert not HashPuzzle("salt", SCALE, 3).is_solved(solution)


def test_a_counter_of_too_many_digits_solves_nothing() -> None:
    """Counters stay exact in every language's numbers."""
    easy = HashPuzzle("salt", SCALE, 1)
    assert easy.is_solved("9" * MAX_COUNTER_DIGITS)
    assert not easy.is_solved("9" * (MAX_COUNTER_DIGITS + 1))


def test_solutions_of_one_search_are_none_of_another() -> None:
    """Each search is over hashes of its own, so nothing found is used twice."""
    puzzle = HashPuzzle.of(3 * 2000, "salt")
    counters = solve(puzzle).split("-")
    assert not puzzle.is_solved("-".join([counters[0]] * 3))
    assert not puzzle.is_solved("-".join(reversed(counters)))


@given(st.integers(1, 2**36), st.integers(1, 64))
def test_the_work_is_what_was_wanted(work: int, searches: int) -> None:
    """From the number of searches up, to a part in a thousand."""
    made = HashPuzzle.of(work, "salt", searches).work
    assert made == pytest.approx(max(work, searches), rel=1e-3, abs=1)


def test_solving_takes_the_stated_work_on_average() -> None:
    """Over 300 puzzles the mean is within four standard errors, and the spread is that of three."""
    work, rounds = 600, 300
    taken = []
    for i in range(rounds):
        puzzle = HashPuzzle.of(work, f"seed {i}")
        taken.append(sum(int(counter) + 1 for counter in solve(puzzle).split("-")))
    # Each search is geometric, so the sum of three has the mean's share of 1/sqrt(3).
    deviation = work / math.sqrt(3)
    assert np.mean(taken) == pytest.approx(work, abs=4 * deviation / math.sqrt(rounds))
    assert np.std(taken) == pytest.approx(deviation, rel=0.25)


# Memory-hard puzzles ------------------------------------------------------------------------------


@pytest.mark.parametrize(("work", "before"), [(1, 0), (3, 0), (3, 4), (5, 7)])
def test_a_memory_hard_puzzle_is_solved_by_its_key(work: int, before: int) -> None:
    """Wherever in the range the answer lies it is found, and it is what the page says."""
    puzzle = scrypt_of(work, before)
    key = hashlib.scrypt(str(LARGEST).encode(), salt=b"salt", n=16, r=8, p=1, dklen=32)
    solution = solve(puzzle)
    assert solution == urlsafe_b64encode(key).decode().rstrip("=")
    assert puzzle.is_solved(solution, secret=SECRET)


def test_checking_runs_no_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody makes the server work by sending proofs."""
    puzzle = scrypt_of(3)
    solution = solve(puzzle)

    def no(*_: object, **__: object) -> bytes:
        raise AssertionError("checking runs scrypt")

    monkeypatch.setattr(module, "scrypt", no)
    assert puzzle.is_solved(solution, secret=SECRET)
    assert not puzzle.is_solved(solution[:-1] + "!", secret=SECRET)
    assert own_puzzle(puzzle.fields()) == puzzle


@given(st.text(max_size=50))
def test_any_other_text_solves_nothing(text: str) -> None:
    """Texts of any alphabet are refused, not an error."""
    assert not PUZZLE.is_solved(text, secret=SECRET)


PUZZLE = scrypt_of(3)


def test_a_solution_counts_only_under_the_secret_it_was_sealed_with() -> None:
    """Another deployment's puzzle is not solved here."""
    assert not PUZZLE.is_solved(solve(PUZZLE), secret=bytes(32))


def test_where_the_answer_lies_does_not_show() -> None:
    """The range says nothing: every place in it leads to the same fields but for its beginning."""
    fields = [scrypt_of(3, before).fields() for before in range(5)]
    assert [one.pop("first") for one in fields] == [LARGEST - before for before in range(5)]
    assert all(one == fields[0] for one in fields)


def test_runs_are_half_the_range_on_average() -> None:
    """Over all places of the answer the mean of the runs is the stated work."""
    work = 6
    runs = [before + 1 for before in range(2 * work - 1)]
    assert np.mean(runs) == work == scrypt_of(work).work
    assert scrypt_of(work).counters == 2 * work - 1


# Reading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("puzzle", [HashPuzzle.of(3000, "salt"), scrypt_of(3)])
def test_fields_survive_json(puzzle: Any) -> None:
    """What is written is read, with fields of other things beside it."""
    told = json.loads(json.dumps({"account": "a", "policy": "p", **puzzle.fields()}))
    assert read_puzzle(told) == own_puzzle(told) == puzzle


@pytest.mark.parametrize(
    "changes",
    [
        {"alg": "md5"},
        {"alg": None},
        {"alg": ["sha-256"]},
        {"salt": 5},
        {"salt": "\ud800"},
        {"salt": "ü"},
        {"target": 0},
        {"target": SCALE + 1},
        {"target": 1.5},
        {"target": True},
        {"target": "1"},
        {"searches": 0},
        {"searches": 65},
        {"searches": None},
    ],
)
def test_unreasonable_hash_puzzles_are_refused(changes: dict[str, Any]) -> None:
    """The error is a ValueError, whatever a stranger sends."""
    fields = {**HashPuzzle.of(3000, "salt").fields(), **changes}
    with pytest.raises(ValueError, match="expected"):
        read_puzzle(fields)


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 2**16, "r": 8},
        {"n": 3},
        {"n": 1},
        {"n": -16},
        {"r": 0},
        {"p": 0},
        {"p": 2**20},
        {"cost": 0},
        {"cost": 2**45},
        {"first": -1},
        {"first": 2**60},
        {"prefix": ""},
        {"prefix": "x"},
        {"seal": None},
    ],
)
def test_unreasonable_scrypt_puzzles_are_refused(changes: dict[str, Any]) -> None:
    """No stranger decides how much memory is taken, or that any key will do."""
    with pytest.raises(ValueError, match="expected"):
        read_puzzle({**PUZZLE.fields(), **changes})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)


@given(st.data())
def test_any_fields_are_read_or_refused(data: st.DataObject) -> None:
    """Nothing but ValueError comes out, whatever comes in."""
    known = data.draw(st.sampled_from([HashPuzzle.of(3000, "salt").fields(), PUZZLE.fields()]))
    names = st.sampled_from([*known, "other"])
    changes = data.draw(st.dictionaries(names, JSON, max_size=3))
    try:
        puzzle = read_puzzle({**known, **changes})
    except ValueError:
        return
    assert puzzle.work >= 1


@pytest.mark.parametrize("puzzle", [HashPuzzle.of(3000, "salt"), PUZZLE])
def test_a_request_is_sorted_json_without_spaces(puzzle: HashPuzzle | ScryptPuzzle) -> None:
    """What is written field by field is what a writer of JSON would write."""
    fields = {"account": "a1", "policy": "p1", **puzzle.fields()}
    assert puzzle.request("a1", "p1") == json.dumps(fields, sort_keys=True, separators=(",", ":"))
