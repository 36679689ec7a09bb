"""Promises of the tables that verbs print."""

from __future__ import annotations

from tollkeeper.cli.output import table


def test_columns_are_aligned_and_chosen() -> None:
    """A table shows the named columns in order, aligned, with short numbers and words for bools."""
    rows = [
        {"name": "a", "on": True, "share": 0.123456789, "extra": 1},
        {"name": "longer", "on": False, "share": None, "extra": 2},
    ]
    assert table(rows, ("name", "on", "share")) == (
        "name    on   share\na       yes  0.123457\nlonger  no   -"
    )


def test_no_rows_is_a_line_of_names() -> None:
    """An empty table still says what its columns are."""
    assert table([], ("id", "tenant")) == "id  tenant"
