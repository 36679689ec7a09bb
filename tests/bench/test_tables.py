"""Tables in the documentation are written from result files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tollkeeper.bench.experiment import Metric, Result
from tollkeeper.bench.tables import insert, mentioned

PAGE = """before
<!-- table: x-cpu a.* bytes tiny -->
old
<!-- end -->
between
<!-- grid: x-cpu user.* -->
<!-- end -->
after
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with one result."""
    metrics = {
        "a.b": Metric(1.98273, "ratio", "lower", interval=(1.8821, 1.99911)),
        "bytes": Metric(10240, "bytes", "lower"),
        "tiny": Metric(0.012345, "ms", "lower"),
        "user.none.cars": Metric(0.5, "accuracy", "higher", interval=(0.4, 0.6)),
        "user.none.cats": Metric(0.75, "accuracy", "higher"),
        "user.guard.cats": Metric(0.25, "accuracy", "higher"),
        "user.noisy.s0.05": Metric(0.125, "accuracy", "higher"),
        "gain.floor_untrained.cars": Metric(0.5, "ratio", "higher"),
        "gain.floor_untrained.text": Metric(0.25, "ratio", "higher"),
        "gain.floor_ssl.cars": Metric(0.625, "ratio", "higher"),
        "gain.good.cars": Metric(0.75, "ratio", "higher"),
        "gain.good.text": Metric(0.25, "ratio", "higher"),
        "gain.bad.cars": Metric(0.625, "ratio", "higher"),
        "gain.bad.text": Metric(0.125, "ratio", "higher"),
        "other.low.cars": Metric(0.0625, "ratio", "higher"),
    }
    manifest = {
        "git": {"sha": "0123456789abcdef"},
        "hardware": {"cpu": "Toy", "cores": 2},
        "setting": {"seeds": 3, "budget": 4000, "text_budget": 800, "examples": 0, "width": 8},
    }
    (tmp_path / "x-cpu.json").write_bytes(Result("x", "cpu", metrics, {}, manifest).to_json())
    return tmp_path


def test_a_table_has_a_line_for_each_metric_asked_for(folder: Path) -> None:
    """Numbers come from the file with three significant digits."""
    written = insert(PAGE, folder)
    assert "| `a.b` | 1.98 | 1.88 to 2.00 | ratio | lower |" in written
    assert "| `bytes` | 10,240 |  | bytes | lower |" in written
    assert "| `tiny` | 0.0123 |" in written
    assert "`tollkeeper bench run x --scale cpu`, commit `0123456789ab`, Toy, 2 cores; " in written
    assert "old" not in written


def test_a_grid_has_the_last_part_of_names_as_columns(folder: Path) -> None:
    """One line for each beginning of a name; what was not measured stays empty."""
    written = insert(PAGE, folder)
    assert "|  | cars | cats | s0.05 |" in written
    assert "| `user.none` | 0.500 (0.400 to 0.600) | 0.750 |  |" in written
    assert "| `user.guard` |  | 0.250 |  |" in written


def test_a_turned_grid_has_the_beginnings_as_columns(folder: Path) -> None:
    """What all columns begin with stands once, in the corner; rounding errors of zero are zero."""
    page = "<!-- turned: x-cpu gain.good.* gain.bad.* -->\n<!-- end -->\n"
    written = insert(page, folder)
    assert "| `gain.` | `good` | `bad` |" in written
    assert "| `cars` | 0.750 | 0.625 |" in written
    assert "| `text` | 0.250 | 0.125 |" in written
    metrics = {"gain.cars": Metric(1e-16, "ratio", "higher", interval=(-1e-17, 0.5))}
    (folder / "y-cpu.json").write_bytes(Result("y", "cpu", metrics, {}, {}).to_json())
    alone = insert("<!-- turned: y-cpu -->\n<!-- end -->\n", folder)
    assert "|  | `gain` |" in alone
    assert "| `cars` | 0 (0 to 0.500) |" in alone


def test_the_origin_says_how_much_was_spent(folder: Path) -> None:
    """Budget, examples and seeds stand above every table, as far as the setting has them."""
    assert insert(PAGE, folder).count("2 cores; budget 4,000, text budget 800, seeds 3.\n") == 2


def test_a_grid_names_what_is_not_above_the_floors(folder: Path) -> None:
    """A tie counts as not above, a column has the floors it has, and families are apart."""
    page = "<!-- grid: x-cpu gain.* other.* -->\n<!-- end -->\n"
    listed = "Not above every floor: `gain.good` (text), `gain.bad` (cars, text).\n"
    assert listed in insert(page, folder)
    good = page.replace("gain.*", "gain.floor_* gain.good.cars")
    assert "Not above every floor: none.\n" in insert(good, folder)
    assert "floor" not in insert(PAGE, folder)


def test_only_what_is_between_markers_changes(folder: Path) -> None:
    """Everything else stays, and inserting twice changes nothing."""
    written = insert(PAGE, folder)
    assert written.startswith("before\n<!-- table: x-cpu a.* bytes tiny -->\n")
    assert "<!-- end -->\nbetween\n<!-- grid:" in written
    assert written.endswith("<!-- end -->\nafter\n")
    assert insert(written, folder) == written
    assert mentioned(written) == {"x-cpu"}


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("no markers", "expected `<!-- table"),
        ("<!-- table: x-cpu gone.* -->\n<!-- end -->", "no metric like gone"),
    ],
)
def test_a_page_that_would_show_nothing_is_refused(folder: Path, page: str, complaint: str) -> None:
    """A page without markers and a pattern without metrics are errors, not empty tables."""
    with pytest.raises(ValueError, match=complaint):
        insert(page, folder)


def test_a_report_is_what_the_experiment_makes_of_its_metrics(tmp_path: Path) -> None:
    """The tables of a paper are asked for by the experiment's name."""
    pytest.importorskip("torch")
    metrics = {
        f"{name}.mnist.1000.same.jbda": Metric(0.5, "share", "higher")
        for name in ("auroc", "aupr", "fpr95")
    }
    result = Result("same-detection", "cpu", metrics, {}, {})
    (tmp_path / "same-detection-cpu.json").write_bytes(result.to_json())
    page = "<!-- report: same-detection-cpu -->\n<!-- end -->\n"
    assert "50.0 / 50.0 / 50.0 [93.3 / 93.0 / 27.4]" in insert(page, tmp_path)


def test_a_report_of_an_experiment_without_one_is_refused(tmp_path: Path) -> None:
    """What has no report is shown by other means, which the message names."""
    result = Result("guard-speed", "cpu", {"a.b": Metric(1, "ratio", "lower")}, {}, {})
    (tmp_path / "guard-speed-cpu.json").write_bytes(result.to_json())
    with pytest.raises(ValueError, match="guard-speed has no report; ask for a `table`"):
        insert("<!-- report: guard-speed-cpu -->\n<!-- end -->\n", tmp_path)
