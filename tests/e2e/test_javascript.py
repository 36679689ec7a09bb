"""The JavaScript client: its own tests, under Node."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tollkeeper.client import paying_client
from tollkeeper.testing import HashEncoder

JAVASCRIPT = Path(__file__).parents[2] / "javascript"
SCRIPT = str(Path(__file__).parent / "javascript_script.mjs")
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


@pytest.mark.parametrize("puzzle", ["sha-256", "scrypt"])
@pytest.mark.parametrize("ahead", ["", "100"])
def test_a_script_pays_the_gateway_itself(start_gateway: Any, puzzle: str, ahead: str) -> None:
    """With the fetch that pays, a script past the knee gets its answers, and a receipt."""
    plan = {
        "challenge": 0.0,
        "first_seconds": 0.001,
        "last_seconds": 0.002,
        "puzzle": puzzle,
        "noise": None,
        "refuse": None,
    }
    live = start_gateway(HashEncoder(16), plans={"pays": plan}, plan="pays")
    model = live.gateway.service.encoder.name
    with paying_client(headers={"authorization": f"Bearer {live.key}"}) as past_the_knee:
        for number in range(4):
            texts = [f"walk {number} {i}" for i in range(60)]
            body = {"model": model, "input": texts}
            past_the_knee.post(f"{live.url}/embeddings", json=body).raise_for_status()
    texts = [f"text {i}" for i in range(20)]
    done = subprocess.run(
        [_node(), SCRIPT, live.url, live.key, *texts],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "MODEL": model, "AHEAD": ahead},
    )
    assert done.stdout.split() == ["20", "true"], done.stderr


def test_javascript_client() -> None:
    """Every test of the JavaScript client passes, and none is missed."""
    # Named one by one: what `node --test` finds in a folder differs between its versions.
    files = sorted(str(path) for path in (JAVASCRIPT / "test").glob("*.test.js"))
    assert files
    command = [_node(), "--test", "--test-reporter=tap", *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n# fail 0\n" in done.stdout
