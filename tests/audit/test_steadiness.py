"""Whether a suspect answers the audit as it answered others."""

from __future__ import annotations

import numpy as np
import pytest

from tollkeeper.audit.steadiness import Drift, check_same_model, drift
from tollkeeper.errors import AuditRefused
from tollkeeper.types import Embeddings

STEADY = Drift(50, 0.0, 0.0, 0.0)


def _answers(seed: int = 0, noise: float = 0.0) -> Embeddings:
    rows = np.random.default_rng(0).normal(size=(50, 8))
    noisy: Embeddings = (rows + noise * np.random.default_rng(seed).normal(size=rows.shape)).astype(
        np.float32
    )
    return noisy


def test_equal_answers_do_not_drift() -> None:
    """The same bytes, and those of another machine, count as unchanged."""
    assert drift(_answers(), _answers()) == STEADY
    assert drift(_answers(), _answers(1, 1e-5)).changed == 0


def test_drift_is_relative() -> None:
    """Answers and changes twice as long drift as much; one answer is told from all."""
    now = _answers()
    now[7] += now[7]
    found = drift(_answers(), now)
    assert found.inputs == 50
    assert found.changed == pytest.approx(1 / 50)
    assert found.median == 0
    assert found.largest == pytest.approx(1)
    twice = drift(2 * _answers(), 2 * _answers(1, 0.3))
    assert twice.median == pytest.approx(drift(_answers(), _answers(1, 0.3)).median)


def test_answers_of_nan_have_changed() -> None:
    """A suspect that starts to fail is not steady."""
    now = _answers()
    now[0, 0] = np.nan
    assert drift(_answers(), now).largest == np.inf


def test_another_model_is_refused() -> None:
    """A suspect that is itself noisy passes, one that answers from elsewhere does not."""
    noise = drift(_answers(1, 0.3), _answers(2, 0.3))
    check_same_model(_answers(3, 0.3), _answers(4, 0.3), repeats=noise)
    check_same_model(_answers(), _answers(), repeats=STEADY)
    other = np.random.default_rng(9).normal(size=(50, 8)).astype(np.float32)
    for repeats in (STEADY, noise):
        with pytest.raises(AuditRefused, match="another model answers"):
            check_same_model(_answers(), other, repeats=repeats)
    with pytest.raises(AuditRefused, match="it is another model"):
        check_same_model(_answers(), other[:, :4], repeats=STEADY)
    with pytest.raises(AuditRefused, match="at least 20 inputs"):
        drift(_answers()[:5], _answers()[:5])
