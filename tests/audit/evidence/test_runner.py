"""Runs: what they refuse, how they go on, and what they count."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollkeeper.audit.evidence import case, log
from tollkeeper.audit.evidence.bundle import LOG, read_json
from tollkeeper.audit.evidence.case import Case
from tollkeeper.audit.evidence.plan import read_plan
from tollkeeper.audit.evidence.verify import verify
from tollkeeper.errors import AuditRefused, EncoderError, EvidenceError


def test_an_encoder_that_never_met_the_pictures_is_inconclusive(toys: Any, owned: Case) -> None:
    """The verdict on an independent is inconclusive, its bundle holds, and nobody is innocent."""
    found, folder = toys.run(owned, "python:toys:stranger", "stranger")
    assert found.verdict == "inconclusive"
    assert found.corrected_p > owned.fixed.alpha
    assert found.family == 6
    assert verify(folder).found.verdict == "inconclusive"


def test_a_run_goes_on_after_a_break_and_asks_nothing_twice(toys: Any, owned: Case) -> None:
    """A suspect that fails half-way is asked for the rest; what was answered is kept."""
    with pytest.raises(EncoderError, match="out of memory"):
        toys.run(owned, "python:toys:flaky", "flaky")
    folder = toys.folder / "flaky"
    before = len(log.read(folder / "calls.jsonl"))
    found, _ = toys.run(owned, "python:toys:flaky", "flaky")
    planned = 3 * 600 + 64
    assert found.asking.inputs == planned
    assert found.asking.calls == -(-(planned + round(0.05 * planned)) // 32)
    assert before == 1 + 8
    assert found.verdict == verify(folder).found.verdict == "derived"


def test_another_suspect_cannot_continue_a_run(toys: Any, owned: Case) -> None:
    """A folder belongs to one suspect, and to one run that is over when it is finished."""
    toys.run(owned, "python:toys:r1", "first")
    with pytest.raises(AuditRefused, match="is over"):
        toys.run(owned, "python:toys:copy", "first")


def test_repeats_that_change_are_told(toys: Any, owned: Case, monkeypatch: Any) -> None:
    """A suspect that adds fresh noise to each answer is seen by the inputs that it got twice."""
    encoders = importlib.import_module("toys")
    rng = np.random.default_rng(0)
    plain = encoders.copy.embed
    monkeypatch.setattr(
        encoders.copy,
        "embed",
        lambda inputs: (plain(inputs) + rng.normal(0, 0.2, (len(inputs), 16))).astype(np.float32),
    )
    found, _ = toys.run(owned, "python:toys:copy", "noisy")
    assert found.asking.changed == found.asking.repeated > 50
    assert found.asking.deviation > 0.05


def test_more_runs_than_were_planned_are_refused(make_world: Callable[..., Any]) -> None:
    """Looking again until it fits is not possible: the plan counts all looks."""
    world = make_world()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(world.folder)
        owned = world.commit()
        world.run(owned, name="one")
        with pytest.raises(AuditRefused, match="the plan allows 1"):
            world.run(owned, name="two")


def test_a_victim_that_the_test_cannot_tell_refuses_the_audit(
    make_world: Callable[..., Any],
) -> None:
    """Without a working positive control nothing is said, and the log tells of the look."""
    world = make_world(control="python:toys:stranger")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(world.folder)
        owned = world.commit()
        with pytest.raises(AuditRefused, match="positive control failed"):
            world.run(owned)
        lines = log.read(owned.folder / LOG)
        assert [each.kind for each in lines] == ["commitment", "run", "refused"]
        with pytest.raises(AuditRefused, match="is over"):
            world.run(owned)


def test_encoders_other_than_the_committed_ones_are_refused(
    toys: Any, owned: Case, monkeypatch: Any
) -> None:
    """New weights under the name of the control or of a reference do not pass."""
    encoders = importlib.import_module("toys")
    monkeypatch.setattr(encoders.victim, "overlooked", 0.8)
    with pytest.raises(EvidenceError, match="weights do not match the commitment"):
        toys.run(owned, "python:toys:copy", "swapped")


def test_a_commitment_is_never_replaced(toys: Any, owned: Case) -> None:
    """A case is made once, in a folder that did not exist."""
    with pytest.raises(AuditRefused, match="never replaced"):
        toys.commit()


def test_a_case_whose_secrets_were_changed_is_refused(make_world: Callable[..., Any]) -> None:
    """Items, seeds and key must be those of the commitment."""
    world = make_world()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(world.folder)
        owned = world.commit()
    path = owned.folder / "secret" / "items.npy"
    items = np.load(path)
    items[0, 0, 0, 0] ^= 1
    np.save(path, items)
    with pytest.raises(EvidenceError, match="not those that were committed"):
        case.open_case(owned.folder)


def test_pictures_that_cannot_carry_the_plan_are_refused_before_committing(
    make_world: Callable[..., Any],
) -> None:
    """Public pictures that are private ones, and a draw that is larger than the pool, are named."""
    world = make_world(draw=400)
    with pytest.raises(AuditRefused, match="draws 400"):
        world.commit()
    world = make_world(public="held.npy")
    with pytest.raises(AuditRefused, match="public"):
        world.commit()
    assert not (world.folder / "case").exists()


def test_the_suspect_is_asked_in_an_order_that_mixes_everything(
    against_copy: tuple[Any, Path], owned: Case
) -> None:
    """Pictures of both sides and public ones are spread over all calls alike."""
    from tollkeeper.audit.evidence.asking import order

    places = order(1864, repeats=0.05, rng=np.random.default_rng(0))
    assert sorted(set(places.tolist())) == list(range(1864))
    halves = np.array_split(places >= 1800, 2)
    assert abs(halves[0].mean() - halves[1].mean()) < 0.03
    told = read_json(against_copy[1], "result.json")
    assert told["asking"]["repeated"] == round(0.05 * 1864)


def test_a_plan_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    """Unknown names, missing inputs and impossible numbers are named in one line."""
    path = tmp_path / "plan.yaml"
    base = "claim: a\nmethod: inclusion\ncontrol: x\npublic: p.npy\n"
    for text, reason in [
        ("- a list\n", "names and values"),
        (base, "`audit include` wrote"),
        (base + "inclusion: pool\nalfa: 1\n", "unknown alfa"),
        (base + "inclusion: pool\nalpha: 0.5\nviews: 1\n", "alpha in .*|views"),
        (base + "inclusion: pool\nviews: many\n", "views"),
        (base + "inclusion: pool\ntrained: t.npy\n", "another method"),
        (base.replace("inclusion", "guessing"), "method"),
    ]:
        path.write_text(text)
        with pytest.raises(Exception, match=reason) as caught:
            read_plan(path)
        assert "\n" not in str(caught.value)
        assert type(caught.value).__name__ == "ConfigurationError"
