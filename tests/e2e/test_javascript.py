"""The JavaScript client: its own tests, under Node."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

JAVASCRIPT = Path(__file__).parents[2] / "javascript"
OLDEST = 18


def _node() -> str:
    """Return the path of a Node that is new enough, or skip the test."""
    node = shutil.which("node")
    if node is None:
        pytest.skip(f"needs node >= {OLDEST} on PATH; there is none")
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    version = done.stdout.strip()
    if int(version.removeprefix("v").split(".")[0]) < OLDEST:
        pytest.skip(f"needs node >= {OLDEST} on PATH; {node} is {version}")
    return node


def test_javascript_client() -> None:
    """Every test of the JavaScript client passes, and none is missed."""
    # Named one by one: what `node --test` finds in a folder differs between its versions.
    files = sorted(str(path) for path in (JAVASCRIPT / "test").glob("*.test.js"))
    assert files
    command = [_node(), "--test", "--test-reporter=tap", *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n# fail 0\n" in done.stdout
