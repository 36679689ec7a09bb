"""The verb `demo`: what it prints, refuses and leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.slow]
torch = pytest.importorskip("torch")

from tollkeeper.attacks.networks.ngram import NGram  # noqa: E402
from tollkeeper.attacks.text import TextDistillation  # noqa: E402
from tollkeeper.bench.theft import demo  # noqa: E402
from tollkeeper.bench.theft.demo import Copy, Honest, Story  # noqa: E402
from tollkeeper.bench.theft.scoring import Scores  # noqa: E402
from tollkeeper.bench.theft.served import Answered, Visit  # noqa: E402
from tollkeeper.cli.demo import _prose, _stoppable, sentences  # noqa: E402
from tollkeeper.lab.fit import Schedule  # noqa: E402

TINY = replace(
    demo.TWO_MINUTES,
    queries=200,
    tasks=("sst2",),
    train=60,
    test=40,
    attack=TextDistillation(
        network=NGram(buckets=64, width=8, hidden=8), schedule=Schedule(epochs=2, batch=64)
    ),
    anchors=10,
)


_LONG = """
from dataclasses import replace
from tollkeeper.bench.theft import demo
from tollkeeper.cli import main
demo.TWO_MINUTES = replace(demo.TWO_MINUTES, tasks=("sst2",), train=60, test=40)
main()
"""
"""Quick to begin and long to finish."""


def story(*fidelities: float, accuracy: float = 0.8) -> Story:
    """Return a story in which the copies have these fidelities."""
    honest = [Honest("none", "openai", 3000, 1.0, 0.8, 1.0)]
    honest.append(Honest("recommended", "openai", 3000, 1.0, accuracy, 0.99))
    who = [("none", ("thief",)), ("recommended", ("thief",)), ("recommended", ("a", "b"))]
    copies = [
        Copy(guard, tenants, 20_000, 5.0, 20.0, "", fidelity, Scores({"sst2": 0.7}, recall10=0.5))
        for (guard, tenants), fidelity in zip(who, fidelities, strict=True)
    ]
    course = (Answered(128, 0.1, 0.0), Answered(256, 0.9, 0.5))
    visits = [Visit(name, 256, 250.0, 0.9, 2.0, course) for name in ("honest", "thief", "a", "b")]
    return Story(
        seed=0,
        task="sst2",
        test=1000,
        anchors=500,
        victim=Scores({"sst2": 0.8}, recall10=1.0),
        untrained=Scores({"sst2": 0.6}, recall10=0.1),
        honest=(honest[0], honest[1]),
        copies=(copies[0], copies[1], copies[2]),
        visits=tuple(visits),
        seconds=100.0,
    )


@pytest.mark.parametrize(
    ("fidelities", "thief", "sybils"),
    [
        ((0.8, 0.78, 0.8), "did not stop the thief", "did not stop the 2 sybils"),
        ((0.8, 0.4, 0.05), "hindered but did not stop the thief", "guard stopped the 2 sybils"),
        ((0.8, -0.1, 0.1), "guard stopped the thief", "hindered but did not stop the 2 sybils"),
    ],
)
def test_the_verdict_follows_from_the_numbers(
    fidelities: tuple[float, ...], thief: str, sybils: str
) -> None:
    """A guard that did not stop an attacker is said not to have."""
    _, _, one, two, _ = sentences(story(*fidelities))
    assert thief in one
    assert f"{fidelities[1] / fidelities[0]:.0%}" in one
    assert "thief had 128 inputs free" in one
    assert sybils in two
    assert "a had 128 inputs free" in two
    assert "b had 128 inputs free" in two


def test_a_thief_that_learned_nothing_proves_no_guard() -> None:
    """Without an unguarded copy there is nothing to compare with."""
    said = sentences(story(0.0, -0.2, 0.1))
    assert len(said) == 2
    assert "nothing is known about the guard" in said[1]


def test_a_loss_within_chance_is_no_cost() -> None:
    """The honest user's loss counts from two standard errors on."""
    assert "does not measurably cost" in sentences(story(1, 1, 1, accuracy=0.78))[0]
    assert "guard costs the honest user" in sentences(story(1, 1, 1, accuracy=0.7))[0]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, data_dir: Path, tmp_path: Path) -> Path:
    """Make the demo tiny, and run it in a folder of its own."""
    monkeypatch.setenv("TOLLKEEPER_DATA", str(data_dir))
    monkeypatch.setattr(demo, "TWO_MINUTES", TINY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_json_holds_every_number(tiny: Path, cli: Callable[..., Any]) -> None:
    """The whole story goes to stdout, scenes to stderr, the picture into the named folder."""
    done = cli("demo", "--json", "--seed", "3", "--out", "pictures")
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert told["seed"] == 3
    assert [copy["guard"] for copy in told["copies"]] == ["none", "recommended", "recommended"]
    assert [visit["tenant"] for visit in told["visits"]] == [
        "honest",
        "thief",
        "sybil-1",
        "sybil-2",
    ]
    assert (tiny / "pictures" / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert "thief, profile recommended" in done.err


def test_prose_shows_three_tables_and_what_they_say() -> None:
    """Honest user, copies and the operator's view, then the sentences and the picture's place."""
    told = story(0.8, 0.4, 0.8)
    text = _prose(told, Path("here") / "demo.png")
    for words in ("openai", "untrained copy", "without noise", *sentences(told), "here/demo.png"):
        assert words in text


@pytest.mark.parametrize("missing", ["torch", "matplotlib.figure", "sklearn.linear_model"])
def test_without_the_lab_it_says_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Any], tmp_path: Path
) -> None:
    """One line and status 2 before anything is started."""
    monkeypatch.setitem(sys.modules, missing, None)
    done = cli("demo", "--out", tmp_path / "out")
    assert done.status == 2
    assert "tollkeeper[lab]" in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_without_data_it_says_where_it_looked(
    monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Any], tmp_path: Path
) -> None:
    """A missing data set is one line with status 2, and no gateway is left behind."""
    from tollkeeper.data import folders

    monkeypatch.setattr(folders, "_REPOSITORY", tmp_path / "nowhere" / "repository")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TOLLKEEPER_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    done = cli("demo")
    assert done.status == 2
    assert "data set 'ag_news' not found" in done.err.splitlines()[-1]


def test_a_picture_that_cannot_be_written_is_told_at_once(
    cli: Callable[..., Any], tmp_path: Path
) -> None:
    """Nobody waits two minutes for that."""
    (tmp_path / "file").touch()
    done = cli("demo", "--out", tmp_path / "file")
    assert done.status == 2
    assert "cannot write" in done.err


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
def test_ctrl_c_stops_both_gateways(data_dir: Path, tmp_path: Path) -> None:
    """The demo, interrupted while it asks, leaves no process behind."""
    environment = {**os.environ, "TOLLKEEPER_DATA": str(data_dir)}
    command = [sys.executable, "-c", _LONG, "demo", "--out", str(tmp_path)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
    ) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if "honest user" in line:
                break
        children = _children(running.pid)
        running.send_signal(signal.SIGINT)
        rest = running.stderr.read()
        assert running.wait(30) == 130, rest
    assert len(children) == 2
    assert "both gateways are stopped" in rest
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "a gateway survived"


def test_a_termination_is_handled_as_ctrl_c_is() -> None:
    """SIGTERM unwinds like SIGINT inside the block, and has its own meaning back after it."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), _stoppable():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def _children(process: int) -> list[int]:
    """Return the processes that a process started and that still run."""
    return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))
