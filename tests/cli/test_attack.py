"""Promises of `tollkeeper attack`: what it writes, how it ends, what it never shows."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tollkeeper.attacks.names import ATTACKS
from tollkeeper.testing import HashEncoder
from tollkeeper.testing.victims import sentences

TOY = "python:tollkeeper.testing.victims:ToyTextVictim"
TINY = ("network.buckets=64", "network.width=8", "network.hidden=8", "epochs=1")

STOPS = """
from tollkeeper.errors import ThrottledError
from tollkeeper.testing.victims import ToyTextVictim

class Stops(ToyTextVictim):
    calls = 0

    def embed(self, inputs):
        Stops.calls += 1
        if Stops.calls > {good}:
            raise {error}
        return super().embed(inputs)

def make():
    return Stops()
"""


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A text file, one text per line."""
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(sentences(400)))
    return file


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Leave the cores to other tests; skips the test where there is no torch."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def steal(cli: Callable[..., Any], texts: Path, tmp_path: Path, one_thread: None) -> Any:
    """Run a small text theft into `out`; later words override earlier ones."""

    def run(
        *words: str | Path,
        target: str = TOY,
        budget: str = "20,50",
        name: str = "text-distillation",
    ) -> Any:
        settings = [word for one in TINY for word in ("--set", one)]
        given = ("--target", target, "--queries", texts, "--budget", budget, "--task", "none")
        out = ("--out", tmp_path / "out")
        return cli("attack", "run", name, *given, *out, *settings, *words)

    return run


def result(folder: Path) -> Any:
    """Return what was written."""
    return json.loads((folder / "out" / "result.json").read_text())


def stopping(folder: Path, monkeypatch: pytest.MonkeyPatch, good: int, error: str) -> str:
    """Return the SPEC of a victim that fails after some calls."""
    module = f"stops_{abs(hash((str(folder), good, error)))}"
    (folder / f"{module}.py").write_text(STOPS.format(good=good, error=error))
    monkeypatch.syspath_prepend(folder)
    return f"python:{module}:make"


def test_attacks_are_listed(cli: Callable[..., Any]) -> None:
    """`attack list` names each attack, what it copies and where it was published."""
    rows = json.loads(cli("attack", "list", "--json").out)
    assert [row["name"] for row in rows] == list(ATTACKS)
    assert all(row["summary"] and row["source"] and row["inputs"] for row in rows)
    lines = cli("attack", "list").out.splitlines()
    assert lines[0].split() == ["name", "inputs", "summary", "source"]
    assert len(lines) == 1 + len(ATTACKS)


def test_help_and_list_load_no_torch() -> None:
    """Neither asks for the lab's packages."""
    code = (
        "import sys; from tollkeeper.cli import main\n"
        "for words in (['attack', 'list'], ['attack', 'run', '--help']):\n"
        "    try: main(words)\n"
        "    except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'scipy', 'sklearn', 'rich.progress'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.torch
def test_a_curve_is_printed_and_written(steal: Any, tmp_path: Path) -> None:
    """One row a budget, on stdout, in the report and in the result file; nothing on stderr."""
    done = steal("--price", "0.5", "--seeds", "3")
    assert (done.status, done.err) == (0, "")
    head, small, large = (line.split() for line in done.out.splitlines()[:3])
    assert head[:6] == ["budget", "queries", "repeats", "calls", "money", "seconds"]
    assert small[:5] == ["20", "20", "0", "1", "10.00"]
    assert large[:5] == ["50", "50", "0", "1", "25.00"]
    tree = result(tmp_path)
    assert [row["budget"] for row in tree["rows"]] == [20, 50]
    assert [len(row["runs"]) for row in tree["rows"]] == [3, 3]
    low, high = tree["rows"][1]["figures"]["fidelity"]["interval"]
    assert low < high
    assert (tree["complete"], tree["settings"]["network.width"]) == (True, 8)
    assert "<svg" in (tmp_path / "out" / "report.html").read_text()
    assert not list((tmp_path / "out").glob("*.new"))


@pytest.mark.torch
def test_machines_get_the_result_file(steal: Any, tmp_path: Path) -> None:
    """`--json` prints what is in result.json, and the same seeds give the same figures."""
    done = json.loads(steal("--json", "--seeds", "1").out)
    assert done == result(tmp_path)
    again = json.loads(steal("--json", "--seeds", "1").out)
    for one, other in zip(done["rows"], again["rows"], strict=True):
        assert one["figures"] == other["figures"]


@pytest.mark.torch
def test_a_disguise_takes_its_filler_from_the_pool(steal: Any, tmp_path: Path) -> None:
    """`merged-inputs` runs with no word about a filler, and spends what it may."""
    assert steal("--seeds", "1", name="merged-inputs").status == 0
    assert [row["queries"] for row in result(tmp_path)["rows"]] == [20, 50]


@pytest.mark.torch
@pytest.mark.parametrize(("name", "accounts"), [("stop-at-noise", "1"), ("sybil-stop", "3")])
def test_accounts_with_a_canary_are_left(
    steal: Any, tmp_path: Path, name: str, accounts: str
) -> None:
    """Behind a guard they stop in time, at the cost of a repeat for every look; else never."""
    words = ("--accounts", accounts, "--seeds", "1", "--set", "every=2")
    guarded = steal(*words, "--profile", "cheapest", name=name, budget="200")
    assert guarded.status == 0, guarded.err
    (run,) = result(tmp_path)["rows"][0]["runs"]
    assert 2 <= run["queries"] < 100
    assert run["repeats"] >= run["queries"] // 2
    assert steal(*words, name=name, budget="200").status == 0
    assert result(tmp_path)["rows"][0]["runs"][0]["queries"] == 200


@pytest.mark.torch
def test_a_folder_of_images_is_a_pool(
    cli: Callable[..., Any], tmp_path: Path, one_thread: None
) -> None:
    """Images of any size are asked at 32x32, and get a floor that never asked."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(60):
        small = rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)
        Image.fromarray(small).resize((20 + number, 30)).save(folder / f"{number}.png")
    words: tuple[Any, ...] = ("--queries", folder, "--budget", "32", "--task", "none")
    words += (
        "--seeds",
        "1",
        "--set",
        "network.width=4",
        "--set",
        "network.side=16",
        "--set",
        "epochs=1",
    )
    target = ("--target", "python:tollkeeper.testing.victims:ToyImageVictim")
    out = ("--out", tmp_path / "out")
    assert cli("attack", "run", "direct-cosine", *target, *words, *out).status == 0
    (row,) = result(tmp_path)["rows"]
    assert (row["queries"], result(tmp_path)["pool"]) == (32, "images")
    assert row["self_trained"]["fidelity"] > 0


@pytest.mark.torch
def test_a_condition_that_holds_fails_the_run(steal: Any, tmp_path: Path) -> None:
    """Exit status 1 and a line for each; conditions that do not hold pass."""
    words = ("--seeds", "1", "--fail-on", "fidelity@50>=0", "--fail-on", "recall10@20>1")
    done = steal(*words)
    assert done.status == 1
    (line,) = done.err.splitlines()
    assert line.startswith("tollkeeper: fidelity@50>=0 holds: 0.")
    assert [one["failed"] for one in result(tmp_path)["verdicts"]] == [True, False]
    assert "FAILED" in (tmp_path / "out" / "report.html").read_text()
    assert steal("--seeds", "1", "--fail-on", "fidelity@50>1").status == 0


@pytest.mark.torch
def test_a_victim_that_stops_leaves_what_there_is(
    steal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of before are kept, the reason is told, and a check is not passed by being cut short."""
    # Held-out inputs are one call, and each run with 20 queries is one.
    spec = stopping(tmp_path, monkeypatch, 3, "ThrottledError('slow down', retry_after_s=9)")
    words = ("--seeds", "2", "--fail-on", "fidelity@50>1")
    done = steal(*words, target=spec)
    assert done.status == 2
    assert done.err.splitlines() == [
        "tollkeeper: 50 queries: partial: slow down",
        "tollkeeper: not measured to the end, so not known to pass: fidelity@50>1",
    ]
    first, second = result(tmp_path)["rows"]
    assert (first["partial"], len(first["runs"])) == ("", 2)
    assert (second["partial"], second["queries"], second["figures"]) == ("slow down", 0, {})
    assert not result(tmp_path)["complete"]


@pytest.mark.torch
def test_ctrl_c_keeps_finished_runs(
    steal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result file has every run that was finished before."""
    spec = stopping(tmp_path, monkeypatch, 4, "KeyboardInterrupt")
    done = steal("--seeds", "2", target=spec)
    assert done.status == 130
    assert (done.out, len(done.err.splitlines())) == ("", 1)
    assert [len(row["runs"]) for row in result(tmp_path)["rows"]] == [2, 1]


@pytest.mark.torch
def test_a_live_target_is_asked_once_and_its_key_stays_secret(
    steal: Any, start_gateway: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second command with the same folder pays nothing; no file and no output has the key."""
    gateway = start_gateway(HashEncoder(16))
    monkeypatch.setenv("TOLLKEEPER_TARGET_KEY", gateway.key)
    words = ("--seeds", "2", "--price", "0.1", "--reference", TOY)
    done = steal(*words, target=gateway.url)
    assert done.status == 0, done.err
    assert result(tmp_path)["spend"]["distinct"] == 50
    assert gateway.entry().queries == 50
    again = steal(*words, target=gateway.url)
    assert gateway.entry().queries == 50
    for text in (done.out, done.err, again.out, again.err):
        assert gateway.key not in text
    written = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert len(written) >= 3
    assert not any(gateway.key.encode() in file.read_bytes() for file in written)


@pytest.mark.torch
def test_budgets_of_the_target_and_of_the_user_end_in_partial_rows(
    steal: Any, start_gateway: Any, tmp_path: Path
) -> None:
    """A hard budget of the service and an own cap both keep the rows of before."""
    gateway = start_gateway(HashEncoder(16))
    keys = tmp_path / "keys"
    keys.write_text(f"{gateway.key}\n")
    words: tuple[Any, ...] = ("--seeds", "1", "--price", "1", "--api-key-file", keys)
    words += ("--reference", TOY)
    capped = steal(*words, "--max-money", "30", target=gateway.url)
    assert (capped.status, len(capped.err.splitlines())) == (0, 1)
    assert result(tmp_path)["spend"]["money"] == 30
    assert "50 queries: partial: the cap of 30.0 in money is reached" in capped.err
    store = gateway.gateway.store
    store.update_tenant(replace(store.find_tenant("default"), budget=40))
    gateway.gateway.keyring.refresh()
    refused = steal(*words, target=gateway.url)
    assert "50 queries: partial: the target takes no more from this account" in refused.err
    assert [row["partial"] == "" for row in result(tmp_path)["rows"]] == [True, False]


@pytest.mark.torch
def test_challenges_are_paid_when_that_is_allowed(
    steal: Any, start_gateway: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --solve the attack ends at a challenge, in one line; with it the report has the seconds."""
    plan = {"challenge": 0.0, "first_seconds": 0.001, "last_seconds": 0.001}
    plans = {"pays": {**plan, "noise": None, "refuse": None}}
    gateway = start_gateway(HashEncoder(16), plans=plans, plan="pays")
    monkeypatch.setenv("TOLLKEEPER_TARGET_KEY", gateway.key)
    words = ("--seeds", "1", "--reference", TOY)
    refused = steal(*words, budget="20,300", target=gateway.url)
    assert "the target asks for proof of work: " in refused.err
    assert "; allow that with --solve SECONDS" in refused.err
    assert len(refused.err.splitlines()) == 1
    done = steal(*words, "--solve", "60", budget="20,300", target=gateway.url)
    assert (done.status, done.err) == (0, "")
    spend = result(tmp_path)["spend"]
    assert spend["challenges"] > 0
    assert 0 < spend["puzzle_seconds"] < 60
    report = (tmp_path / "out" / "report.html").read_text()
    assert f"{spend['challenges']:,}, of {spend['puzzle_seconds']:,.1f} s computing" in report


@pytest.mark.torch
def test_bad_input_is_one_line(steal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever cannot be run ends with status 2, one line, and nothing on stdout."""
    (tmp_path / "empty").touch()
    (tmp_path / "twice").write_text("sk-tk-one sk-tk-one")
    (tmp_path / "rows.npy").write_bytes(b"")
    np.save(tmp_path / "rows.npy", np.ones((4, 4)))
    broken, breaks = (
        stopping(tmp_path, monkeypatch, good, "ValueError('broken')") for good in (0, 1)
    )
    url = "http://127.0.0.1:1/v1"
    for words, options, named in (
        ((), {"budget": "0"}, "at least 1 query"),
        ((), {"budget": "20,9k"}, "got 9,000"),
        ((), {"budget": "many"}, "'many'"),
        (("--queries", tmp_path / "missing"), {}, "tiny_imagenet"),
        (("--queries", tmp_path / "empty"), {}, "no inputs in"),
        (("--queries", tmp_path / "rows.npy"), {}, ".npy"),
        (("--task", "sst2"), {}, "tasks or `none`"),
        (("--scale", "huge"), {}, "choose cpu, gpu"),
        (("--set", "color=red"), {}, "no setting 'color'"),
        (("--set", "color"), {}, "KEY=VALUE"),
        (("--fail-on", "fidelty@50>0"), {}, "no metric 'fidelty'"),
        (("--fail-on", "fidelity@60>0"), {}, "60, which is not run"),
        (("--max-money", "3"), {}, "not a URL"),
        (("--solve", "3"), {}, "not a URL"),
        (("--solve", "-1"), {"target": url}, "at least 0, got puzzle_seconds=-1"),
        (("--accounts", "1"), {"name": "sybil-trunk"}, "at least 2 accounts, got 1"),
        (("--profile", "cheapest"), {"target": url}, "not an encoder of this process"),
        (("--api-key-file", tmp_path / "missing"), {"target": url}, "cannot read API keys"),
        (("--api-key-file", tmp_path / "empty"), {"target": url}, "no API key"),
        (("--api-key-file", tmp_path / "twice"), {"target": url}, "given twice"),
        (("--max-money", "3"), {"target": url}, "needs --price"),
        ((), {"target": url}, "cannot reach the target"),
        ((), {"target": broken}, "the victim failed when asked for scoring: ValueError"),
        ((), {"target": breaks}, "the victim failed: ValueError"),
        (("--out", tmp_path / "empty" / "below"), {}, "cannot write into"),
    ):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        failed = steal(*words, **options)
        assert not (tmp_path / "out" / "result.json.new").exists()
        assert (failed.status, failed.out) == (2, ""), words
        assert len(failed.err.splitlines()) == 1, failed.err
        assert named in failed.err, failed.err


@pytest.mark.torch
def test_a_missing_data_set_says_where_it_was_looked_for(
    steal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pools and tasks that cannot be had end with status 2 before anything is asked."""
    monkeypatch.setenv("TOLLKEEPER_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("tollkeeper.data.folders.roots", lambda environ, cwd=None: [tmp_path])
    failed = steal("--queries", "broad_text")
    assert failed.status == 2
    assert str(tmp_path) in failed.err


def test_without_torch_one_line_says_what_to_install(
    cli: Callable[..., Any], texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A serving installation has the verb, and is told what it lacks."""
    for name in [one for one in sys.modules if one.startswith("tollkeeper.attacks.presets")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [
        one
        for one in sys.modules
        if one.startswith("tollkeeper.attacks.") and one != "tollkeeper.attacks.names"
    ]:
        monkeypatch.delitem(sys.modules, name)
    words = ("--target", TOY, "--queries", texts, "--budget", "20", "--out", tmp_path / "out")
    failed = cli("attack", "run", "text-distillation", *words, "--task", "none")
    assert (failed.status, failed.out) == (2, "")
    assert "pip install 'tollkeeper[lab]'" in failed.err
