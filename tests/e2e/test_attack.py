"""A theft over real HTTP, from one process of the real command to another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tollkeeper.testing.victims import sentences

pytestmark = [pytest.mark.torch, pytest.mark.slow]
pytest.importorskip("torch")


def test_the_builtin_text_encoder_is_stolen_from_a_running_gateway(
    serve: Any, tmp_path: Path
) -> None:
    """The command asks 300 texts, pays for 300, and its copy points where the victim points."""
    served = serve("--encoder", "builtin:text", "--profile", "none")
    pool = tmp_path / "texts.txt"
    pool.write_text("\n".join(sentences(500)))
    command = [sys.executable, "-m", "tollkeeper", "attack", "run", "text-distillation"]
    command += ["--target", served.url, "--reference", "builtin:text", "--queries", str(pool)]
    command += ["--budget", "100,300", "--task", "none", "--seeds", "1", "--price", "0.01"]
    command += ["--set", "epochs=2", "--set", "batch=16", "--out", str(tmp_path / "out"), "--json"]
    command += ["--fail-on", "fidelity@300<0.1"]
    environment = {**os.environ, "TOLLKEEPER_TARGET_KEY": served.key("red-team")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert [row["queries"] for row in found["rows"]] == [100, 300]
    assert found["rows"][1]["money"] == pytest.approx(3.0)
    assert (found["spend"]["distinct"], found["spend"]["repeats"]) == (300, 0)
    assert found["spend"]["money"] == pytest.approx(3.0)
    cosine = found["rows"][1]["figures"]["centered_cosine"]["mean"]
    assert cosine > 0.3 > abs(found["untrained"]["centered_cosine"])
