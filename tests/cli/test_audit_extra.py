"""Promise of `tollkeeper audit` where its packages are not installed."""

from __future__ import annotations

import pytest

from tollkeeper.cli import audit, main


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says what to install, before anything is read."""
    monkeypatch.setattr(audit, "find_spec", lambda name: None if name == "scipy" else object())
    with pytest.raises(SystemExit) as stopped:
        main(["audit", "verify", "nowhere"])
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert "scipy missing" in shown
    assert "tollkeeper[audit]" in shown
