"""Processes that search for solutions, so that several cores do and no thread is held up.

They are plain children that import the standard library and `tollkeeper.challenge` alone.
Those of `multiprocessing` would import the caller's main module again, so that a script
without `if __name__ == "__main__"` would run twice.
"""

from __future__ import annotations

import json
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

from tollkeeper.challenge.puzzle import Puzzle
from tollkeeper.challenge.solve import sweep

_ROOT = str(Path(__file__).parents[2])
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from tollkeeper.challenge.worker import main; main()"
)
_TRIES = 2
"""Processes that one slice is given to; after that something kills them, and it is done here."""


class Slice(NamedTuple):
    """What searching some counters gave.

    Attributes:
        evaluations: how many of the algorithm.
        found: the solution, or None.
        seconds: that it took.
    """

    evaluations: int
    found: str | None
    seconds: float


class Workers:
    """Some processes, each started when it is first needed, and a thread to talk to each.

    Attributes:
        count: processes.
    """

    def __init__(self, count: int, *, clock: Callable[[], float]) -> None:
        """Start nothing yet.

        Args:
            count: processes.
            clock: seconds.
        """
        self.count = count
        self._clock = clock
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="tollkeeper-solver")
        self._idle: SimpleQueue[_Process | None] = SimpleQueue()
        for _ in range(count):
            self._idle.put(None)
        self._end = weakref.finalize(self, _stop, self._threads, self._idle)

    def search(self, puzzle: Puzzle, part: int, start: int, stop: int) -> Future[Slice]:
        """Have counters [start, stop) searched as soon as a process is free.

        Raises:
            CancelledError: the workers were closed.
        """
        try:
            return self._threads.submit(self._search, puzzle, part, start, stop)
        except RuntimeError as error:
            raise CancelledError from error

    def close(self) -> None:
        """End the processes; what is being searched comes to its end first."""
        self._end()

    def abandon(self) -> None:
        """Let go of the processes in a forked child: they are its parent's."""
        self._end.detach()
        for process in _drained(self._idle):
            process.let_go()

    def _search(self, puzzle: Puzzle, part: int, start: int, stop: int) -> Slice:
        process = self._idle.get()
        try:
            for _ in range(_TRIES):
                began = self._clock()
                try:
                    process = process or _Process()
                    tried, found = process.ask(puzzle, part, start, stop)
                    return Slice(tried, found, self._clock() - began)
                except (OSError, ValueError):  # it cannot be started, or was killed
                    if process is not None:
                        process.end()
                    process = None
        finally:
            self._idle.put(process)
        return searched(puzzle, part, start, stop, clock=self._clock)


def searched(
    puzzle: Puzzle, part: int, start: int, stop: int, *, clock: Callable[[], float]
) -> Slice:
    """Search counters [start, stop) in this thread."""
    steps: list[int] = []
    began = clock()
    found = sweep(puzzle, part, start, stop, steps.append)
    return Slice(sum(steps), found, clock() - began)


class _Process:
    """One process; one thread at a time talks to it."""

    def __init__(self) -> None:
        # Isolated: no module of the working directory takes the place of a standard one.
        self._child = subprocess.Popen(  # noqa: S603 - this interpreter and our own program
            [sys.executable, "-I", "-S", "-c", _PROGRAM, _ROOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def ask(self, puzzle: Puzzle, part: int, start: int, stop: int) -> tuple[int, str | None]:
        """Return the evaluations and the solution, if it is there.

        Raises:
            OSError: the process has ended.
            ValueError: it ended in the middle of its answer.
        """
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps([puzzle.fields(), part, start, stop]).encode() + b"\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            raise BrokenPipeError
        tried, found = json.loads(line)
        return tried, found

    def end(self) -> None:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.kill()
        with suppress(OSError):  # a line may be left that nobody is going to read
            self._child.stdin.close()
        self._child.stdout.close()
        self._child.wait()

    def let_go(self) -> None:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.close()  # or it would not see its owner end
        self._child.stdout.close()
        self._child.returncode = 0  # of somebody else's child nothing is known


def _stop(threads: ThreadPoolExecutor, idle: SimpleQueue[_Process | None]) -> None:
    # Not cancelled: whoever waits for a future that is cancelled so is not woken. A slice is short.
    threads.shutdown()
    for process in _drained(idle):
        process.end()


def _drained(idle: SimpleQueue[_Process | None]) -> Iterator[_Process]:
    """Take all processes out."""
    with suppress(Empty):
        while True:
            process = idle.get_nowait()
            if process is not None:
                yield process
