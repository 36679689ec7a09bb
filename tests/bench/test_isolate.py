"""Running a function in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tollkeeper.bench.experiment import BenchError
from tollkeeper.bench.isolate import ONE_THREAD, run_apart

TARGETS = """
import os

def echo(argument, progress):
    progress(0, 2, "first")
    progress(1, 2, "second")
    return {"argument": argument, "pid": os.getpid(), "omp": os.environ["OMP_NUM_THREADS"]}

def fail(argument, progress):
    raise ValueError("the reason")

def leave(argument, progress):
    raise SystemExit(0)
"""


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return `run_apart` with a module of targets on the child's path."""
    (tmp_path / "targets.py").write_text(TARGETS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def call(name: str, steps: list[tuple[int, int, str]]) -> Any:
        return run_apart(
            f"targets:{name}",
            {"n": [1, 2]},
            environment=ONE_THREAD,
            progress=lambda *step: steps.append(step),
        )

    return call


def test_result_and_progress_come_back(call: Callable[..., Any]) -> None:
    """The child gets the argument and the environment; its steps and result arrive."""
    steps: list[tuple[int, int, str]] = []
    found = call("echo", steps)
    assert (found["argument"], found["omp"]) == ({"n": [1, 2]}, "1")
    assert found["pid"] != os.getpid()
    assert steps == [(0, 2, "first"), (1, 2, "second")]


@pytest.mark.parametrize(("name", "complaint"), [("fail", "the reason"), ("leave", "failed")])
def test_failure_is_reported(call: Callable[..., Any], name: str, complaint: str) -> None:
    """A child that raises or leaves without a result is an error with its last line."""
    with pytest.raises(BenchError, match=complaint):
        call(name, [])
