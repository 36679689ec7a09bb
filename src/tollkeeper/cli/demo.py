"""`tollkeeper demo`: the whole story in about two minutes, over real HTTP."""

from __future__ import annotations

import importlib
import math
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tollkeeper.cli.bars import bar
from tollkeeper.cli.options import Json
from tollkeeper.cli.output import emit, note, table
from tollkeeper.errors import ConfigurationError

if TYPE_CHECKING:
    from tollkeeper.bench.theft.demo import Copy, Story
    from tollkeeper.bench.theft.scoring import Scores
    from tollkeeper.lab.progress import Step

INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ended
PICTURE = "demo.png"

UNHINDERED, STOPPED = 0.9, 0.1
"""Share of the unguarded thief's fidelity from which a guard did nothing, and to which it won."""

_LAB = ("matplotlib.figure", "scipy", "sklearn.linear_model", "torch")
_SIGNALS = (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))


def demo(
    *,
    out: Annotated[Path, typer.Option(help="Folder of the picture.")] = Path("tollkeeper-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Root of all randomness.")] = 0,
    as_json: Json = False,
) -> None:
    """Play an honest user, a thief and two sybils at two gateways, one of them guarded."""
    _require_lab()
    from tollkeeper.bench.theft import demo_picture

    # A demonstration shows what is here; it does not begin with a download.
    os.environ.setdefault("TOLLKEEPER_OFFLINE", "1")
    picture = _picture_in(out)
    try:
        with _stoppable():
            story = _play(seed)
    except KeyboardInterrupt:
        note("interrupted; both gateways are stopped")
        raise typer.Exit(INTERRUPTED) from None
    demo_picture.draw(story, picture)
    emit(asdict(story), as_json=as_json, prose=lambda _: _prose(story, picture))


def _play(seed: int) -> Story:
    """Play with a progress bar, and a line on stderr for each scene."""
    from tollkeeper.bench.theft import demo as stage

    began = time.perf_counter()
    shown = ""
    with bar() as show, tempfile.TemporaryDirectory(prefix="tollkeeper-demo-") as folder:

        def told(scene: str, step: Step) -> None:
            nonlocal shown
            if scene != shown:
                shown = scene
                note(f"{time.perf_counter() - began:4.0f} s  {scene}")
            show(scene, step)

        return stage.play(
            stage.TWO_MINUTES, seed=seed, folder=Path(folder), clock=time.perf_counter, told=told
        )


def _require_lab() -> None:
    """Raise ConfigurationError if a package is missing, before anything is started."""
    try:
        for name in _LAB:
            importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the demo needs the lab tools ({error.name} is missing): pip install 'tollkeeper[lab]'"
        ) from error


def _picture_in(folder: Path) -> Path:
    """Return the path of the picture, before anything is spent on it."""
    picture = folder / PICTURE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        picture.touch()
    except OSError as error:
        raise ConfigurationError(f"cannot write {picture}: {error.strerror}") from error
    return picture


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let other ways to end this process end the gateways too, as Ctrl-C does."""
    before = {each: signal.signal(each, signal.default_int_handler) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _prose(story: Story, picture: Path) -> str:
    parts = [
        f"An honest user on {story.task}:",
        _honest(story),
        "Copies, each with probe accuracies and the share of ten nearest neighbors kept:",
        _copies(story),
        "What the operator of the guarded gateway saw:",
        _visits(story),
        "\n".join(sentences(story)),
        f"{picture}, {story.seconds:.0f} s in all",
    ]
    return "\n\n".join(parts)


def _honest(story: Story) -> str:
    rows = [
        {
            "guard": user.guard,
            "client": user.client,
            "queries": user.queries,
            "seconds": f"{user.seconds:.1f}",
            "accuracy": f"{user.accuracy:.3f}",
            "recall@10": f"{user.recall10:.3f}",
        }
        for user in story.honest
    ]
    return table(rows, tuple(rows[0]))


def _copies(story: Story) -> str:
    rows = [
        _row("encoder itself", story.victim, fidelity="1"),
        *(_copy(copy) for copy in story.copies),
        _row("untrained copy", story.untrained, fidelity="0"),
    ]
    return table(rows, tuple(rows[0]))


def _copy(copy: Copy) -> Mapping[str, Any]:
    return _row(
        copy.who,
        copy.scores,
        guard=copy.guard,
        queries=f"{copy.queries}{' (partial)' if copy.partial else ''}",
        asking=f"{copy.asking_s:.1f} s",
        training=f"{copy.training_s:.1f} s",
        fidelity=f"{copy.fidelity:.2f}",
    )


def _row(who: str, scores: Scores, **known: str) -> Mapping[str, Any]:
    columns = ("guard", "queries", "asking", "training", "fidelity")
    return {
        "copy by": who,
        **{column: known.get(column) for column in columns},
        **{task: f"{accuracy:.3f}" for task, accuracy in scores.accuracy.items()},
        "recall@10": f"{scores.recall10:.3f}",
    }


def _visits(story: Story) -> str:
    rows = [
        {
            "tenant": visit.tenant,
            "inputs": visit.queries,
            "charged": int(visit.charged),
            "without noise": visit.free,
            "coverage": f"{visit.coverage:.2f}",
            "noise in the end": visit.noise,
        }
        for visit in story.visits
    ]
    return table(rows, tuple(rows[0]))


def sentences(story: Story) -> list[str]:
    """Return what the numbers say, whatever it is."""
    bare, guarded, sybils = story.copies
    if bare.fidelity <= 0:
        return [
            _of_the_honest(story),
            "The thief learned nothing even without a guard, so nothing is known about the guard.",
        ]
    return [
        _of_the_honest(story),
        _of_the_thief(bare),
        _of_a_copy(story, guarded, bare),
        _of_a_copy(story, sybils, bare),
        f"The sybils spent {story.anchors} queries twice, to map one's answers to the other's.",
    ]


def _of_the_honest(story: Story) -> str:
    before, after = story.honest
    lost = before.accuracy - after.accuracy
    spread = sum(one.accuracy * (1 - one.accuracy) for one in story.honest) / story.test
    chance = 2 * math.sqrt(spread)  # two standard errors of a difference of proportions
    effect = "costs" if lost > chance else "does not measurably cost"
    return (
        f"The guard {effect} the honest user accuracy: {before.accuracy:.3f} without it, "
        f"{after.accuracy:.3f} with it, where {chance:.3f} may be chance; "
        f"recall {before.recall10:.3f} and {after.recall10:.3f}."
    )


def _of_the_thief(bare: Copy) -> str:
    return (
        f"Without a guard {bare.queries:,} queries in {bare.asking_s:.0f} s bought a copy of "
        f"fidelity {bare.fidelity:.2f} (0 is an untrained copy, 1 the encoder itself) and "
        f"recall {bare.scores.recall10:.2f}."
    )


def _of_a_copy(story: Story, copy: Copy, bare: Copy) -> str:
    kept = copy.fidelity / bare.fidelity
    if kept >= UNHINDERED:
        effect = "did not stop"
    else:
        effect = "stopped" if kept <= STOPPED else "hindered but did not stop"
    seen = "; ".join(
        f"{visit.tenant} had {visit.free:,} inputs free, ended at coverage "
        f"{visit.coverage:.2f} and noise {visit.noise:.3g}"
        for visit in story.visits
        if visit.tenant in copy.tenants
    )
    return (
        f"The guard {effect} the {copy.who}: fidelity {copy.fidelity:.2f}, {kept:.0%} of the "
        f"unguarded thief's, and recall {copy.scores.recall10:.2f} ({seen})."
    )
