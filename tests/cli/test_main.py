"""Promises of the command as a whole: light, quick to help, clear about bad usage."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import tollkeeper

# Not pydantic: typer itself loads it for the help of a verb.
HEAVY = ("numpy", "torch", "scipy", "onnxruntime", "rich", "starlette", "uvicorn", "asyncio")
VERBS = (
    ("serve",),
    ("keys", "create"),
    ("tenants", "link"),
    ("config", "show"),
    ("calibrate",),
    ("embed",),
    ("bench", "run"),
)


def _loaded(code: str) -> list[str]:
    """Return which heavy packages a fresh interpreter holds after `code`."""
    check = f"\nimport sys; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code + check], capture_output=True, text=True, check=True
    )
    names: list[str] = done.stdout.splitlines()[-1].strip("[]").replace("'", "").split(", ")
    return [name for name in names if name]


def test_the_package_is_light() -> None:
    """`import tollkeeper` loads no heavy package; using a name of it does."""
    assert _loaded("import tollkeeper") == []
    assert "numpy" in _loaded("import tollkeeper; tollkeeper.Guard")


@pytest.mark.parametrize("verb", [(), *VERBS], ids=" ".join)
def test_help_is_light(verb: tuple[str, ...]) -> None:
    """`--help` of the command and of each verb loads no heavy package."""
    words = [*verb, "--help"]
    code = f"from tollkeeper.cli import main\ntry: main({words})\nexcept SystemExit as end: assert not end.code"
    assert _loaded(code) == []


def test_the_module_is_the_command() -> None:
    """`python -m tollkeeper --version` prints the version."""
    command = [sys.executable, "-m", "tollkeeper", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"tollkeeper {tollkeeper.__version__}\n"


@pytest.mark.parametrize(
    "words", [("nonsense",), ("keys", "create"), ("serve", "--port", "high"), ("embed",)]
)
def test_bad_usage_exits_with_2(cli: Callable[..., Any], words: tuple[str, ...]) -> None:
    """Unknown verbs, missing and mistyped options exit with 2 and say so on stderr only."""
    failed = cli(*words)
    assert (failed.status, failed.out) == (2, "")
    assert failed.err.splitlines()[-1].startswith("Error: ")


def test_one_thread_per_product_unless_told_otherwise() -> None:
    """The command sets one BLAS thread before numpy loads, and respects what the user has set."""
    code = (
        "import os; os.environ.pop('OMP_NUM_THREADS', None); os.environ['MKL_NUM_THREADS'] = '7'\n"
        "from tollkeeper.cli import main\n"
        "try: main(['--version'])\nexcept SystemExit: pass\n"
        "print(os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "1 7"
