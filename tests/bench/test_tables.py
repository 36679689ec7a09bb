"""Tables in the documentation are written from result files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tollkeeper.bench.experiment import Metric, Result
from tollkeeper.bench.tables import BEGIN, END, insert


def test_insert_replaces_only_what_is_between_the_markers(tmp_path: Path) -> None:
    """Numbers come from the file with three significant digits; inserting twice changes nothing."""
    metrics = {
        "a.b": Metric(1.98273, "ratio", "lower", interval=(1.8821, 1.99911)),
        "bytes": Metric(10240, "bytes", "lower"),
        "tiny": Metric(0.012345, "ms", "lower"),
    }
    manifest = {"git": {"sha": "0123456789abcdef"}, "hardware": {"cpu": "Toy", "cores": 2}}
    (tmp_path / "x-cpu.json").write_bytes(Result("x", "cpu", metrics, {}, manifest).to_json())
    page = f"before {BEGIN} old {END} after"
    written = insert(page, tmp_path)
    assert "| `a.b` | 1.98 | 1.88 to 2.00 | ratio | lower |" in written
    assert "| `bytes` | 10,240 |  | bytes | lower |" in written
    assert "| `tiny` | 0.0123 |" in written
    assert "Commit `0123456789ab`, Toy, 2 cores." in written
    assert written.startswith("before ")
    assert written.endswith(" after")
    assert " old " not in written
    assert insert(written, tmp_path) == written


def test_a_page_without_markers_is_refused(tmp_path: Path) -> None:
    """Nothing is written into a page that did not ask for it."""
    with pytest.raises(ValueError, match="expected the lines"):
        insert("no markers", tmp_path)
