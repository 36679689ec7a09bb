"""Deployments: what was served last, and which changes need the operator's word."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tollkeeper.errors import ConfigurationError
from tollkeeper.gateway.pools import Deployment, check_unchanged

LAST = Deployment("m", 8, "recommended", "f1", spec="onnx:m.onnx")


def test_a_deployment_survives_the_file(tmp_path: Path) -> None:
    """What is saved is loaded; a file from before SPECs were kept loads without one."""
    assert Deployment.load(tmp_path) is None
    LAST.save(tmp_path)
    assert Deployment.load(tmp_path) == LAST
    path = tmp_path / "deployment.json"
    fields = json.loads(path.read_text())
    del fields["spec"]
    path.write_text(json.dumps(fields))
    assert Deployment.load(tmp_path) == replace(LAST, spec="")


@pytest.mark.parametrize(
    "now",
    [
        replace(LAST, fingerprint="f2"),
        replace(LAST, model="n", fingerprint="f2"),
        replace(LAST, model="n"),
        replace(LAST, dim=16),
    ],
    ids=["calibration", "name-and-guard", "name", "width"],
)
def test_a_guard_changed_in_place_needs_consent(now: Deployment) -> None:
    """The same SPEC and profile that became another guard end the start, unless accepted."""
    with pytest.raises(ConfigurationError, match=r"start anew.*--accept-new-guard"):
        check_unchanged(LAST, now, accepted=False)
    check_unchanged(LAST, now, accepted=True)


@pytest.mark.parametrize(
    "now",
    [
        replace(LAST, spec="onnx:other.onnx", fingerprint="f2"),
        replace(LAST, spec="onnx:other.onnx", model="n", dim=16, fingerprint="f2"),
        replace(LAST, profile="b4b-2023", fingerprint="f2"),
    ],
    ids=["spec", "spec-and-model", "profile"],
)
def test_a_wish_is_logged(now: Deployment, caplog: pytest.LogCaptureFixture) -> None:
    """Another SPEC or profile is what the operator asked for: one line in the log."""
    check_unchanged(LAST, now, accepted=False)
    assert [record.message.split()[0] for record in caplog.records] == ["guard.changed"]


def test_nothing_changed(caplog: pytest.LogCaptureFixture) -> None:
    """A first start, a restart, and a SPEC written differently for the same guard are silent."""
    check_unchanged(None, LAST, accepted=False)
    check_unchanged(LAST, LAST, accepted=False)
    check_unchanged(LAST, replace(LAST, spec="onnx:./m.onnx"), accepted=False)
    assert not caplog.records


def test_a_file_without_a_spec() -> None:
    """Of an older version's file only the same model under another guard is refused."""
    old = replace(LAST, spec="")
    check_unchanged(old, replace(LAST, model="n", fingerprint="f2"), accepted=False)
    with pytest.raises(ConfigurationError):
        check_unchanged(old, replace(LAST, fingerprint="f2"), accepted=False)


PREDICTS = Deployment("", 0, "none", "", spec="none", predictions="p1")


def test_a_start_without_an_encoder_forgets_no_guard(tmp_path: Path) -> None:
    """After a start that served predictions only, another model under the same SPEC is refused."""
    between = PREDICTS.after(LAST)
    check_unchanged(LAST, between, accepted=False)
    between.save(tmp_path)
    read = Deployment.load(tmp_path)
    assert read == between
    again = PREDICTS.after(read)
    with pytest.raises(ConfigurationError, match="was m"):
        check_unchanged(
            again, replace(LAST, model="n", fingerprint="f2").after(again), accepted=False
        )
    check_unchanged(again, LAST.after(again), accepted=False)


def test_a_start_without_a_classifier_forgets_no_accounts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Accounts of predictions begin anew when other detectors come, and not when none do."""
    first = replace(LAST, predictions="p1")
    between = LAST.after(first)
    check_unchanged(first, between, accepted=False)
    check_unchanged(between, first.after(between), accepted=False)
    assert not caplog.records
    check_unchanged(between, replace(LAST, predictions="p2").after(between), accepted=False)
    assert [row.message.split()[0] for row in caplog.records] == ["predictions.changed:"]
    assert first.after(between).former == Deployment.after(LAST, None).former
