"""Promises of `audit trace`: the leaking tenant is named, other keys and bad input are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollkeeper.gateway.assembly import make_encoder, make_guard
from tollkeeper.gateway.settings import load
from tollkeeper.gateway.stores import open_stores
from tollkeeper.guard import Calibration

DIM, PROBES = 16, 260
TEXTS = [f"probe number {i}" for i in range(PROBES)]

VICTIM = f"""
import hashlib
import numpy as np

SPREAD = np.geomspace(2, 0.1, {DIM})


def embed(inputs):
    seeds = [list(hashlib.sha256(text.encode()).digest()) for text in inputs]
    rows = [np.random.default_rng(seed).standard_normal({DIM}) for seed in seeds]
    return (0.2 + np.stack(rows) * SPREAD).astype(np.float32)


embed.dim = {DIM}
embed.rows_independent = True
"""

THIEF = f"""
import json
from pathlib import Path
import numpy as np

ROWS = json.loads((Path(__file__).parent / "rows.json").read_text())


def embed(inputs):
    return np.asarray([ROWS[text] for text in inputs], np.float32)


embed.dim = {DIM}
"""


@pytest.fixture
def case(
    tmp_path: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Make a deployment of three marked tenants, and a mixed copy of the answers to one."""
    name = f"traced_{tmp_path.name}"
    (tmp_path / f"{name}_victim.py").write_text(VICTIM)
    (tmp_path / f"{name}_thief.py").write_text(THIEF)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "probes.txt").write_text("\n".join(TEXTS))
    config = tmp_path / "config.yaml"
    config.write_text(
        f"encoder: python:{name}_victim:embed\ncalibration: {tmp_path / 'calibration'}\n"
        f"data_dir: {tmp_path / 'data'}\nprofile: cheapest\nmarked: ['*']\n"
        # At 5% a random key would now and then have an innocent tenant named, as it may.
        f"master_key: '{'17' * 32}'\n"
    )
    settings = load(config)
    encoder = make_encoder(settings)
    sample = encoder.embed([f"sample {i}" for i in range(300)])
    fitted = Calibration.fit(sample, rng=np.random.default_rng(0))
    (tmp_path / "calibration").write_bytes(fitted.to_bytes())
    for tenant in ("ada", "bob", "cy"):
        cli("keys", "create", "--tenant", tenant, "--config", config)
    stores = open_stores(settings, clock=lambda: 0.0)
    guard = make_guard(settings, stores.master, encoder)
    stores.store.close()
    served = guard.view(encoder.embed(TEXTS), key=guard.tenant_key("bob"), marked=True)
    turned = (served @ np.random.default_rng(1).standard_normal((DIM, DIM))).tolist()
    (tmp_path / "rows.json").write_text(json.dumps(dict(zip(TEXTS, turned, strict=True))))
    return {
        "suspect": f"python:{name}_thief:embed",
        "victim": f"python:{name}_victim:embed",
        "probes": tmp_path / "probes.txt",
        "config": config,
        "commitment": guard.commitment,
    }


def trace(cli: Callable[..., Any], case: dict[str, Any], *more: object, who: str = "") -> Any:
    """Trace at 5% among few decoys."""
    words = ("--config", case["config"], "--decoys", "199", "--alpha", "0.05", *more)
    return cli("audit", "trace", who or case["suspect"], case["probes"], *words)


def test_the_leaking_tenant_is_named(cli: Callable[..., Any], case: dict[str, Any]) -> None:
    """A mixed copy names the tenant by the mark, in JSON and in a sentence."""
    made = json.loads(trace(cli, case, "--json").out)
    assert made["verdict"] == "derived"
    assert made["tenants"] == ["bob"]
    assert made["commitment"] == case["commitment"]
    assert len(made["findings"]) == 9
    told = trace(cli, case, "--commitment", case["commitment"])
    assert told.status == 0
    assert "derived: made from answers to bob; an innocent tenant is named in at most 0.05" in (
        told.out
    )


def test_the_victim_itself_is_inconclusive(cli: Callable[..., Any], case: dict[str, Any]) -> None:
    """Nobody is named for an encoder without anybody's secrets."""
    told = trace(cli, case, "--tenant", "bob", who=case["victim"])
    assert told.status == 0
    assert "inconclusive: no tenant stands out" in told.out


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--commitment", "00" * 32), "expected the keys of commitment 0000"),
        (("--tenant", "nobody"), "there is no tenant 'nobody'"),
        (("--alpha", "0.001"), "expected at least 8999 decoys"),
    ],
    ids=["other keys", "unknown tenant", "too few decoys"],
)
def test_what_cannot_be_traced_is_one_line(
    cli: Callable[..., Any], case: dict[str, Any], more: tuple[str, ...], expected: str
) -> None:
    """Other keys, an unknown tenant or too few decoys end with 2 and one line that says so."""
    told = trace(cli, case, *more)
    assert told.status == 2
    assert expected in told.err
    assert told.err.count("\n") == 1
