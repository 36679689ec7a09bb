"""Promises of live targets that pay: within the caps, counted, and never without being told to."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollkeeper.client import Allowance, Caps, Solver
from tollkeeper.errors import BudgetExhausted, ProofError, RefusalError

Open = Callable[..., Any]
TEXTS = [f"text {i}" for i in range(10)]


@pytest.fixture
def paying(connect: Open, toll: Any, solver: Solver) -> Open:
    """Open targets at the gateway that asks for proof of work."""

    def make(**options: Any) -> Any:
        return connect(**{"url": toll.url, "solver": solver, "batch": 5, **options})

    return make


def calls(path: Path) -> list[tuple[Any, ...]]:
    """Return status, retry and puzzle seconds of all calls in a transcript."""
    with closing(sqlite3.connect(path)) as file:
        return file.execute("SELECT status, retry, puzzle_s FROM calls ORDER BY id").fetchall()


def test_without_a_solver_a_challenge_is_a_refusal(toll: Any, paying: Open) -> None:
    """One call, one line, which says how paying is allowed."""
    with pytest.raises(RefusalError, match=r"asks for proof of work: .*--solve SECONDS") as caught:
        paying(solver=None).embed(TEXTS)
    assert "\n" not in str(caught.value)
    assert len(toll.heard) == 1


def test_challenges_are_paid_and_counted(
    server: Any, paying: Open, solver: Solver, tmp_path: Path
) -> None:
    """Answers are those of the target; spend, allowance, transcript and tally agree."""
    allowance = Allowance()
    target = paying(allowance=allowance)
    expected = np.stack([server.vector(text) for text in TEXTS])
    np.testing.assert_array_equal(target.embed(TEXTS), expected)
    spend, tally = target.spend(), solver.tally()
    assert (spend.calls, spend.distinct, spend.retries, spend.challenges) == (4, 10, 0, 2)
    assert spend.challenges == tally.challenges
    assert spend.puzzle_seconds == pytest.approx(tally.seconds)
    assert spend.puzzle_seconds == pytest.approx(allowance.spend().puzzle_seconds)
    assert allowance.spend().challenges == 2
    target.close()
    rows = calls(tmp_path / "transcript.sqlite")
    assert [(status, retry, puzzle_s is None) for status, retry, puzzle_s in rows] == [
        (402, 0, True),
        (200, 0, False),
    ] * 2


def test_what_an_earlier_run_paid_counts_under_the_cap(toll: Any, paying: Open) -> None:
    """A run that is repeated pays only for what is new, and the seconds before count."""
    target = paying()
    target.embed(TEXTS[:5])
    paid = target.spend().puzzle_seconds
    target.close()
    allowance = Allowance(Caps(puzzle_seconds=paid))
    again = paying(allowance=allowance)
    again.embed(TEXTS[:5])
    with pytest.raises(BudgetExhausted, match="seconds of proofs of work is reached"):
        again.embed(TEXTS)
    assert again.spend().puzzle_seconds == paid


def test_a_challenge_over_the_cap_is_not_begun(toll: Any, paying: Open, solver: Solver) -> None:
    """Nothing is solved, and what was held is let go."""
    toll.work = 10**12
    allowance = Allowance(Caps(puzzle_seconds=1.0))
    with pytest.raises(BudgetExhausted, match=r"cap of 1\.0 seconds of proofs of work"):
        paying(allowance=allowance).embed(TEXTS)
    assert solver.tally().challenges == 0
    allowance.hold(type(allowance.spend())(puzzle_seconds=1.0))


def test_a_target_that_asks_again_and_again_is_left(toll: Any, paying: Open) -> None:
    """After three challenges in a row the fourth is a refusal."""
    toll._charge = lambda one, price: toll._challenge(one, price, "proof_spent")
    with pytest.raises(RefusalError, match="proof of work: proof_spent"):
        paying().embed(["a"])
    assert len(toll.heard) == 4


def test_a_puzzle_without_a_solution_ends_the_run(toll: Any, paying: Open) -> None:
    """It is an error of one line, and no call is sent for it."""
    toll.work = 3
    toll.puzzle = lambda work: toll.scrypt(work)._replace(prefix="!" * 16)
    with pytest.raises(ProofError, match="no solution"):
        paying().embed(["a"])
    assert len(toll.heard) == 1


def test_a_proof_outlives_a_failure(toll: Any, paying: Open, tmp_path: Path) -> None:
    """A call that fails after it was paid for is tried again with the same proof, paid once."""
    charge, failures = toll._charge, [toll._error(503, "busy")]
    del failures[0].headers["x-should-retry"]
    toll._charge = lambda one, price: (
        failures.pop() if one.proof and failures else charge(one, price)
    )
    target = paying()
    target.embed(["a"])
    proofs = [one.proof for one in toll.heard]
    assert proofs[0] is None
    assert proofs[1] == proofs[2] is not None
    spend = target.spend()
    assert (spend.calls, spend.retries, spend.challenges) == (3, 1, 1)
    target.close()
    rows = calls(tmp_path / "transcript.sqlite")
    assert [(status, retry) for status, retry, _ in rows] == [(402, 0), (503, 0), (200, 1)]
    assert [puzzle_s is None for *_, puzzle_s in rows] == [True, False, True]
