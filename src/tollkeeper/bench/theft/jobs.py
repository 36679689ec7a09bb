"""Independent jobs in worker processes of one thread each.

Two processes of one thread finish two trainings sooner than one process of two threads,
and a job's numbers do not depend on how many workers there are. A worker is a new
interpreter whose environment pins BLAS and torch before either is imported. It reads
pickled jobs from a pipe and exits when the pipe closes, so it outlives its parent by the
job at hand at most.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, Self, TypeVar

from tollkeeper.bench.experiment import BenchError, Progress
from tollkeeper.bench.isolate import ONE_THREAD, child_environment
from tollkeeper.errors import ConfigurationError, TollkeeperError

_CHILD = "from tollkeeper.bench.theft.jobs import main; main()"


class Job(Protocol):
    """What a job needs to have: a name for progress and errors."""

    @property
    def name(self) -> str:
        """One line."""
        ...


J = TypeVar("J", bound=Job)
R = TypeVar("R")


def run_jobs(
    function: Callable[[J], R], jobs: Sequence[J], *, workers: int, progress: Progress
) -> list[R]:
    """Call `function` with every job.

    Args:
        function: of a module that can be imported, or a `functools.partial` of one.
        jobs: picklable, as are the results; large data belongs into a `Payload`.
        workers: processes; 1 runs in this one, with this one's threads. More need an
            operating system that hands file descriptors on, so not Windows.
        progress: told after each finished job: how many are, of how many, and its name.

    Returns:
        One result a job, in the order of `jobs`.

    Raises:
        BenchError: a job failed or its process died; names the job. The others are stopped.
        ConfigurationError: not at least one worker.
    """
    if workers < 1:
        raise ConfigurationError(f"expected at least 1 worker, got {workers}")
    found: dict[int, R] = {}
    outcomes = _here(function, jobs) if workers == 1 else _apart(function, jobs, workers)
    with closing(outcomes):
        for number, result in outcomes:
            found[number] = result
            progress(len(found), len(jobs), jobs[number].name)
    return [found[number] for number in range(len(jobs))]


# -- the parent's side -----------------------------------------------------------

_Outcomes = Generator[tuple[int, R], None, None]


def _here(function: Callable[[J], R], jobs: Sequence[J]) -> _Outcomes[R]:
    for number, job in enumerate(jobs):
        try:
            result = function(job)
        except Exception as error:
            raise BenchError(f"{job.name}: {_summary(error)}") from error
        yield number, result


def _apart(function: Callable[[J], R], jobs: Sequence[J], workers: int) -> _Outcomes[R]:
    """Yield results as they come; whatever ends the loop ends the workers."""
    with ExitStack() as stack:
        idle = [stack.enter_context(_Worker()) for _ in range(min(workers, len(jobs)))]
        busy: dict[Any, _Worker] = {}
        waiting = list(enumerate(jobs))[::-1]
        while waiting or busy:
            while waiting and idle:
                worker = idle.pop()
                worker.give(function, *waiting.pop())
                busy[worker.pipe] = worker
            for pipe in wait(busy):
                worker = busy.pop(pipe)
                yield worker.take()
                idle.append(worker)


class _Worker:
    """One child process; a context manager that kills it in the end.

    Attributes:
        pipe: becomes readable when the job is done or the process is dead.
    """

    def __init__(self) -> None:
        # Not inherited: what a dying interpreter writes would tear the progress bar.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self.pipe, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-c", _CHILD, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                pass_fds=[theirs.fileno()],
                env=child_environment(ONE_THREAD),
            )
        self._number, self._name = -1, ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self.pipe.close()
        self._output.close()

    def give(self, function: Callable[..., Any], number: int, job: Job) -> None:
        """Start a job."""
        self._number, self._name = number, job.name
        try:
            self.pipe.send((function, job))
        except OSError:
            raise self._died() from None
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise BenchError(f"{job.name}: cannot be sent to a worker: {error}") from error

    def take(self) -> tuple[int, Any]:
        """Return the finished job's number and result.

        Raises:
            BenchError: it failed, or the process died.
        """
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):
            raise self._died() from None
        if not isinstance(message, _Failure):
            return self._number, message
        failure = BenchError(f"{self._name}: {message.summary}")
        failure.add_note(message.details)
        raise failure

    def _died(self) -> BenchError:
        code = self._process.wait()
        self._output.seek(0)
        last = self._output.read().decode(errors="replace").strip().rpartition("\n")[2]
        return BenchError(f"{self._name}: its process ended with status {code}. {last}".strip())


@dataclass(frozen=True, slots=True)
class _Failure:
    """What a job raised.

    Attributes:
        summary: one line.
        details: the traceback, for whoever debugs.
    """

    summary: str
    details: str


def _summary(error: Exception) -> str:
    """Return one line; ours explain themselves, others need their type."""
    own = isinstance(error, TollkeeperError)
    return " ".join((str(error) if own else f"{type(error).__name__}: {error}").split())


# -- the child's side ------------------------------------------------------------


def main() -> None:
    """Serve one parent: receive a function and a job, send what it returned, until the end."""
    pipe: Connection[Any, Any] = Connection(int(sys.argv[1]))
    while True:
        try:
            function, job = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(function(job))
        except Exception as error:  # noqa: BLE001 - whatever a job raises is the parent's
            pipe.send(_Failure(_summary(error), traceback.format_exc()))
