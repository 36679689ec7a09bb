"""The rule by which commits land or conflict."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.errors import ConflictError
from tollkeeper.ledger.base import Submission
from tollkeeper.ledger.commits import new_commit, settle
from tollkeeper.types import Entry, Record

RECORD = Record(1.0, "t", "k", "r", "m", 1, 1, 1.0, 0.0, 0.0, "p/1")

requests = st.tuples(
    st.sampled_from("ab"), st.integers(0, 4), st.lists(st.integers(0, 5), min_size=1, max_size=3)
)


@given(st.lists(requests, max_size=12))
def test_a_group_lands_as_its_commits_would_one_by_one(
    group: list[tuple[str, int, list[int]]],
) -> None:
    """Settling a group equals a slow ledger that takes one commit after the other."""
    commits = [
        new_commit(
            Submission(
                pool,
                [replace(RECORD, inputs=inputs, charge=inputs / 2) for inputs in sizes],
                bytes([i]),
                expected,
            )
        )
        for i, (pool, expected, sizes) in enumerate(group)
    ]
    heads = {"a": Entry("a"), "b": Entry("b")}
    outcomes = settle(heads, commits)

    versions, queries, spent, sketches = ({"a": 0, "b": 0} for _ in range(4))
    for i, ((pool, expected, sizes), outcome) in enumerate(zip(group, outcomes, strict=True)):
        if versions[pool] != expected:
            assert isinstance(outcome, ConflictError)
            assert outcome.found == versions[pool]
            continue
        versions[pool] += 1
        queries[pool] += sum(sizes)
        spent[pool] += sum(sizes)  # in halves
        sketches[pool] = i
        assert outcome == Entry(pool, versions[pool], bytes([i]), spent[pool] / 2, queries[pool])
    for pool, head in heads.items():
        assert (head.version, head.queries) == (versions[pool], queries[pool])
        assert head.sketch == (bytes([sketches[pool]]) if versions[pool] else b"")
