"""Run one function in a fresh Python process, so that its numbers are its own.

BLAS reads its thread count when numpy loads, and a load generator must not share
an interpreter with what it measures. The child gets one JSON document on standard
input and answers JSON lines on standard output: steps of progress, then the result.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tollkeeper.bench.experiment import BenchError, Progress

_BLAS_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

ONE_THREAD = dict.fromkeys(_BLAS_VARIABLES, "1")
"""Environment that pins every common BLAS to one thread."""

_CHILD = "from tollkeeper.bench.isolate import main; main()"


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with `extra`, able to import this very package."""
    package_root = str(Path(__file__).parents[2])
    paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, **extra, "PYTHONPATH": os.pathsep.join(paths)}


def run_apart(
    target: str, argument: Any, *, environment: Mapping[str, str], progress: Progress
) -> Any:
    """Call `target` in a new process and return what it returned.

    Args:
        target: `module:function`; takes the argument and a progress callback.
        argument: anything JSON can carry.
        environment: variables to add for the child.
        progress: told of the child's steps.

    Returns:
        The function's result after a round trip through JSON.

    Raises:
        BenchError: the child failed; carries the last line it wrote.
    """
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-c", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=child_environment(environment),
        )
        with child:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(json.dumps([target, argument]).encode())
            child.stdin.close()
            result = _follow(child.stdout, progress)
        if child.returncode or result is None:
            errors.seek(0)
            last = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise BenchError(f"{target} failed in its own process: {last or child.returncode}")
    return result["result"]


def _follow(lines: Any, progress: Progress) -> dict[str, Any] | None:
    for line in lines:
        message: dict[str, Any] = json.loads(line)
        if "result" in message:
            return message
        progress(*message["progress"])
    return None


def main() -> None:
    """Serve one `run_apart` call: the child's side."""
    target, argument = json.load(sys.stdin)
    module, _, function = target.partition(":")

    def say(message: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    def progress(done: int, total: int, what: str) -> None:
        say({"progress": [done, total, what]})

    say({"result": getattr(importlib.import_module(module), function)(argument, progress)})
