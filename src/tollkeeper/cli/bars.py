"""Progress bars on stderr; none where stderr is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tollkeeper.lab.progress import Step

Told = Callable[[str, "Step"], None]


@contextmanager
def bar() -> Iterator[Told]:
    """Show a bar while the block runs; yields the callback that moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeLeft(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as all_:
        task = all_.add_task("preparing", total=None, loss="")
        shown = ""

        def told(label: str, step: Step) -> None:
            nonlocal shown
            what = f"{label}: {step.phase}"
            if what != shown:  # the time left is that of a phase
                all_.reset(task, description=what)
                shown = what
            loss = "" if step.loss is None else f"loss {step.loss:.4g}"
            all_.update(task, completed=step.done, total=step.total, loss=loss)

        yield told


@contextmanager
def counting(what: str, *, total: int) -> Iterator[Callable[[int, int], None]]:
    """Show how far something has come whose length is known on average only.

    Args:
        what: is being done.
        total: steps it takes on average.

    Yields:
        The callback that moves the bar: steps done, and steps expected.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:,} of about {task.fields[expected]:,}"),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as all_:
        task = all_.add_task(what, total=total, expected=total)
        yield lambda done, expected: all_.update(task, completed=done, expected=expected)
