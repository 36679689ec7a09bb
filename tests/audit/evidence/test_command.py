"""`tollkeeper audit`: what each verb prints, where it exits with 1, and one line where it cannot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tollkeeper.audit.evidence import log
from tollkeeper.audit.evidence.case import Case
from tollkeeper.audit.evidence.findings import Findings
from tollkeeper.cli import main

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a verb in this process; return status, stdout and stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["audit", *map(str, words)])
        told = capsys.readouterr()
        return int(stop.value.code or 0), told.out, told.err

    return run


def test_from_commitment_to_report(command: Command, make_world: Callable[..., Any]) -> None:
    """Commit, run, verify and report agree with each other, in JSON."""
    world = make_world()
    case, bundle = world.folder / "case", world.folder / "evidence"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(world.folder)
        status, out, err = command("commit", world.plan, "-o", case, "--json")
        assert (status, err) == (0, "")
        fixed = json.loads(out)
        words = ("--suspect", "python:toys:copy", "-o", bundle, "--beacon", "7", "--json")
        status, out, err = command("run", case, *words)
    assert (status, err) == (0, "")
    found = json.loads(out)
    status, out, err = command("verify", bundle, "--key", fixed["key"], "--json")
    assert (status, err) == (0, "")
    held = json.loads(out)
    assert held == {"holds": True, "key": fixed["key"], "seal": held["seal"], **found}
    status, out, _ = command("report", bundle, "--key", fixed["key"], "--json")
    assert json.loads(out) == {
        "verdict": found["verdict"],
        "files": [str(world.folder / f"evidence.{kind}") for kind in ("html", "pdf")],
    }
    assert (world.folder / "evidence.pdf").read_bytes().startswith(b"%PDF")
    assert held["seal"] in (world.folder / "evidence.html").read_text()


def test_prose_says_the_verdict_first(
    command: Command, against_copy: tuple[Findings, Path]
) -> None:
    """A person reads what holds, the verdict and why; and is told to compare the key."""
    status, out, err = command("verify", against_copy[1])
    assert status == 0
    assert out.splitlines()[:2] == ["the bundle holds", "derived: python:toys:copy"]
    assert "compare the key" in err


@pytest.mark.parametrize("verb", ["verify", "report"])
def test_a_changed_bundle_exits_with_1_and_the_reason(
    command: Command, bundle: Path, verb: str
) -> None:
    """Machines and people get the reason; no report is written."""
    (bundle / "public.npy").write_bytes(b"")
    status, out, err = command(verb, bundle)
    assert (status, err) == (1, "")
    assert out == "the bundle does not hold: public.npy was changed\n"
    status, out, _ = command(verb, bundle, "--json")
    assert (status, json.loads(out)["holds"]) == (1, False)
    assert not bundle.with_name("evidence.pdf").exists()


def test_reports_do_not_change_the_bundle(command: Command, bundle: Path) -> None:
    """A file inside the bundle is refused."""
    status, _, err = command("report", bundle, "--pdf", bundle / "report.pdf")
    assert status == 2
    assert "lies in the bundle" in err
    assert not (bundle / "report.pdf").exists()


def test_bad_input_is_one_line(command: Command, owned: Case, tmp_path: Path) -> None:
    """Plans, cases, bundles and suspects that are not there end with status 2."""
    plan, before = tmp_path / "plan.yaml", len(log.read(owned.folder / "log.jsonl"))
    plan.write_text("claim: a\n")
    for words, reason in [
        (("commit", plan, "-o", tmp_path / "case"), "required field"),
        (("commit", tmp_path / "none.yaml", "-o", tmp_path / "case"), "cannot read the plan"),
        (("run", tmp_path, "--suspect", "x", "-o", tmp_path / "b"), "cannot read"),
        (("run", owned.folder, "--suspect", "x", "-o", tmp_path), "unknown encoder spec"),
        (("run", owned.folder, "--suspect", "http://x/v1?a", "-o", "b"), "without user, query"),
        (("run", owned.folder, "--suspect", "python:toys:r1", "-o", tmp_path), "not empty"),
        (("verify", tmp_path / "none"), "there is no bundle"),
        (
            ("run", owned.folder, "--suspect", "x", "-o", "b", "--api-key-file", tmp_path),
            "cannot read an API key",
        ),
    ]:
        status, out, err = command(*words)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert reason in err
    assert len(log.read(owned.folder / "log.jsonl")) == before
