"""The table of experiments, with and without the lab tools."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tollkeeper.bench.registry import EXPERIMENTS, find
from tollkeeper.errors import ConfigurationError

SERVING = ["guard-speed", "guard-coverage", "gateway-overhead", "ledger-durability", "toll-speed"]
THEFT = [
    "b4b-coverage",
    "b4b-remap",
    "b4b-theft",
    "noise-sweep",
    "ssl-losses",
    "stolen-encoder",
    "cont-steal",
    "rda",
    "guard-figures",
    "guard-pools",
    "guard-windows",
    "pow-calibration",
    "pow-logs",
    "toll-timelines",
    "classifier-theft",
    "same-detection",
    "same-ablation",
    "same-ratio",
    "same-addon",
    "same-speed",
    "prediction-responses",
    "tenant-mark",
    "audit-speed",
    "dataset-inference",
    "rotation-watermark",
    "sslguard",
    "text-watermark",
    "classifier-inference",
]


@pytest.mark.torch
def test_every_permanent_id_is_there() -> None:
    """Ids are what others compare releases by; none is missing or named twice."""
    pytest.importorskip("torch")
    assert [experiment.id for experiment in EXPERIMENTS] == SERVING + THEFT


def test_experiments_on_serving_need_no_torch() -> None:
    """Where torch is not installed those on theft are left out, and asking for one says why."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from tollkeeper.bench import registry\n"
        "print(*[experiment.id for experiment in registry.EXPERIMENTS])\n"
        "try: registry.find('b4b-theft')\n"
        "except Exception as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ids, error = done.stdout.splitlines()
    assert ids.split()[: len(SERVING)] == SERVING
    assert "b4b-theft" not in ids.split()
    assert "tollkeeper[lab]" in error


def test_an_unknown_id_names_the_known_ones() -> None:
    """A typo is answered with the list."""
    with pytest.raises(ConfigurationError, match="no experiment 'guard-sped'; choose guard-speed"):
        find("guard-sped")
