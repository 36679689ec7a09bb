"""What tenants see, and what is kept, when a calibration, a key or the ledger changes.

The table in docs/operations.md, kept by whole gateways.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollkeeper.errors import ConfigurationError
from tollkeeper.guard.calibration import Calibration
from tollkeeper.testing.encoders import hash_encoder

ENCODER = hash_encoder(32)
ASKED = ["a", "b", "c"]


def forget(folder: Path) -> None:
    """Lose the ledger."""
    for file in folder.glob("ledger.sqlite3*"):
        file.unlink()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The data folder of all servers of a test."""
    return tmp_path / "data"


@pytest.fixture
def before(start_gateway: Any) -> Any:
    """A server that has answered a tenant and stopped: its key, answers and charge."""
    served = start_gateway(ENCODER)
    answers, entry = served.embed(ASKED), served.entry()
    served.stop()
    assert entry.spent == 3
    return served.key, answers, entry


def test_another_key_version_is_another_view_and_nothing_else(
    start_gateway: Any, before: Any
) -> None:
    """Keys, coverage and spend stay; distances within the view stay; the former number goes back."""
    key, answers, entry = before
    raised = start_gateway(ENCODER, key_version=2)
    seen = raised.embed(ASKED, key=key)
    assert np.abs(seen - answers).max() > 0.1
    np.testing.assert_allclose(seen @ seen.T, answers @ answers.T, atol=1e-5)
    assert (raised.entry().spent, raised.entry().sketch) == (3, entry.sketch)
    raised.stop()
    with pytest.raises(ConfigurationError, match="key_version was 2 and is now 1"):
        start_gateway(ENCODER)
    back = start_gateway(ENCODER, key_version=1, accept_new_guard=True)
    assert np.array_equal(back.embed(ASKED, key=key), answers)


def test_another_calibration_keeps_answers_and_starts_coverage_anew(
    start_gateway: Any, before: Any, tmp_path: Path
) -> None:
    """It needs consent; below the knee answers stay; going back finds the former charges."""
    key, answers, entry = before
    sample = np.random.default_rng(7).standard_normal((300, 32)).astype(np.float32)
    other = tmp_path / "other.cal"
    other.write_bytes(Calibration.fit(sample, rng=np.random.default_rng(0)).to_bytes())
    with pytest.raises(ConfigurationError, match="--accept-new-guard"):
        start_gateway(ENCODER, calibration=other)
    accepted = start_gateway(ENCODER, calibration=other, accept_new_guard=True)
    assert accepted.entry().spent == 0
    assert np.array_equal(accepted.embed(ASKED, key=key), answers)
    accepted.stop()
    back = start_gateway(ENCODER, accept_new_guard=True)
    assert back.entry().sketch == entry.sketch


def test_a_lost_ledger_costs_keys_and_coverage_but_no_answer(
    start_gateway: Any, before: Any, folder: Path
) -> None:
    """Former keys are refused; a tenant of the former name sees its former space."""
    key, answers, _ = before
    forget(folder)
    with pytest.raises(ConfigurationError, match=r"ledger\.sqlite3 is missing"):
        start_gateway(ENCODER)
    (folder / "deployment.json").unlink()
    served = start_gateway(ENCODER)
    assert served.post({"model": ENCODER.name, "input": "a"}, key=key).status_code == 401
    assert np.array_equal(served.embed(ASKED), answers)
    assert served.entry().spent == 3


def test_a_lost_master_key_costs_everything(start_gateway: Any, before: Any, folder: Path) -> None:
    """Nothing starts over the old ledger; without it keys and views are new."""
    key, answers, _ = before
    (folder / "master.key").unlink()
    with pytest.raises(ConfigurationError, match=r"master\.key is missing"):
        start_gateway(ENCODER)
    forget(folder)
    (folder / "deployment.json").unlink()
    served = start_gateway(ENCODER)
    assert served.post({"model": ENCODER.name, "input": "a"}, key=key).status_code == 401
    assert np.abs(served.embed(ASKED) - answers).max() > 0.1


def test_a_damaged_deployment_is_made_anew_when_deleted(
    start_gateway: Any, before: Any, folder: Path
) -> None:
    """It ends the start; without it the server starts and the tenant goes on as before."""
    key, answers, entry = before
    path = folder / "deployment.json"
    fields = json.loads(path.read_text())
    for damaged in ('{"model": "m', json.dumps(fields | {"knee": "high"}), "[]"):
        path.write_text(damaged)
        with pytest.raises(ConfigurationError, match=r"cannot read .*deployment\.json"):
            start_gateway(ENCODER)
    (folder / "deployment.json").unlink()
    served = start_gateway(ENCODER)
    assert np.array_equal(served.embed(ASKED, key=key), answers)
    assert served.entry().sketch == entry.sketch
