"""Jobs in worker processes: order, threads, errors, and children that do not stay behind."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tollkeeper.bench.experiment import BenchError
from tollkeeper.bench.isolate import child_environment
from tollkeeper.bench.theft.jobs import run_jobs
from tollkeeper.bench.theft.payload import shared
from tollkeeper.errors import ConfigurationError

TARGETS = """
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

SET_FIRST = "numpy" not in sys.modules


@dataclass(frozen=True)
class Job:
    name: str
    n: int = 0


def square(job):
    print("noise on standard output")
    time.sleep(0.2 if job.n == 0 else 0)
    return job.n**2, os.getpid(), os.environ.get("OMP_NUM_THREADS")


def threads(job):
    import torch
    return torch.get_num_threads()


def fail(job):
    if job.n == 1:
        raise ValueError("the\\nreason")
    time.sleep(60)


def die(job):
    sys.stderr.write("last words\\n")
    sys.stderr.flush()
    os._exit(7)


def unpicklable(job):
    return lambda: 0


def weigh(payload, job):
    rows, texts = payload.load()
    total = float(rows.sum()) + job.n
    rows[:] = -1
    return total, texts


def beside(folder, job):
    (Path(folder) / f"{os.getpid()}.pid").write_text("")
    time.sleep(60)
"""


@pytest.fixture
def targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a module of targets that children can import too."""
    (tmp_path / "theft_targets.py").write_text(TARGETS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    import theft_targets  # type: ignore[import-not-found]  # written above

    yield theft_targets
    del sys.modules["theft_targets"]


Step = tuple[int, int, str]


def silent(done: int, total: int, name: str) -> None:
    """Take progress."""


@pytest.mark.parametrize("workers", [1, 2])
def test_results_keep_the_order_of_jobs(
    targets: Any, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finishes first, result i belongs to job i; each finished job is progress.

    The environment pins children to one thread, whatever this process uses.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    jobs = [targets.Job(f"job {n}", n) for n in range(5)]
    steps: list[Step] = []
    found = run_jobs(
        targets.square, jobs, workers=workers, progress=lambda *step: steps.append(step)
    )
    assert [square for square, _, _ in found] == [0, 1, 4, 9, 16]
    assert [(done, total) for done, total, _ in steps] == [(n, 5) for n in range(1, 6)]
    assert {name for _, _, name in steps} == {job.name for job in jobs}
    processes = {process for _, process, _ in found}
    assert (processes == {os.getpid()}) == (workers == 1)
    assert len(processes) == workers
    assert {threads for _, _, threads in found} == {"9" if workers == 1 else "1"}


@pytest.mark.torch
@pytest.mark.slow
def test_torch_has_one_thread(targets: Any) -> None:
    """So does torch."""
    pytest.importorskip("torch")
    assert run_jobs(targets.threads, [targets.Job("a")], workers=2, progress=silent) == [1]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failed_job_is_named_and_ends_the_others(targets: Any, workers: int) -> None:
    """One line with the job's name, long before its sleeping neighbor is done.

    Who debugs finds the child's own lines as a note.
    """
    jobs = [targets.Job("bad", 1), targets.Job("slow", 0)]
    started = time.monotonic()
    with pytest.raises(BenchError) as caught:
        run_jobs(targets.fail, jobs, workers=workers, progress=silent)
    assert str(caught.value) == "bad: ValueError: the reason"
    assert time.monotonic() - started < 30
    if workers == 2:
        assert 'raise ValueError("the' in caught.value.__notes__[0]


def test_a_dead_process_is_no_riddle(targets: Any) -> None:
    """A child that vanishes names its job, its status and its last words."""
    with pytest.raises(BenchError, match=r"gone: its process ended with status 7\. last words"):
        run_jobs(targets.die, [targets.Job("gone")], workers=2, progress=silent)


def test_what_cannot_be_pickled_is_said_so(targets: Any) -> None:
    """Results and jobs that cannot travel are errors of their job."""
    with pytest.raises(BenchError, match=r"^odd: .*lambda"):
        run_jobs(targets.unpicklable, [targets.Job("odd")], workers=2, progress=silent)
    with pytest.raises(BenchError, match=r"^a: cannot be sent to a worker"):
        run_jobs(lambda job: job, [targets.Job("a")], workers=2, progress=silent)


def test_shared_data_is_mapped_not_sent(targets: Any) -> None:
    """Every job sees the same arrays and texts; what one writes no other sees."""
    rows = np.ones((500, 20), np.float32)
    jobs = [targets.Job(str(n), n) for n in range(4)]
    with shared((rows, ["ä", "b"])) as payload:
        assert len(pickle.dumps(payload)) < 1000
        found = run_jobs(partial(targets.weigh, payload), jobs, workers=2, progress=silent)
        again = run_jobs(partial(targets.weigh, payload), jobs, workers=1, progress=silent)
    assert found == again == [(10_000.0 + n, ["ä", "b"]) for n in range(4)]
    assert not payload.folder.exists()


def test_payloads_keep_types_and_empty_arrays() -> None:
    """Values come back equal, writable for torch, and not as a subclass of an array."""
    arrays = np.arange(6.0).reshape(2, 3), np.empty((0, 4)), np.broadcast_to(np.uint8(3), (2, 2))
    with shared({"arrays": arrays, "name": "x"}) as payload:
        found: Any = payload.load()
        assert found["name"] == "x"
        for array, expected in zip(found["arrays"], arrays, strict=True):
            np.testing.assert_array_equal(array, expected)
            assert type(array) is np.ndarray
            assert array.flags.writeable


def test_no_jobs_are_no_results() -> None:
    """An empty list is not an error; no worker is."""
    assert run_jobs(str, [], workers=2, progress=silent) == []
    with pytest.raises(ConfigurationError, match="at least 1 worker, got 0"):
        run_jobs(str, [], workers=0, progress=silent)


PARENT = """
import signal

# A test run in the background of a shell is started with this signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
import sys
from functools import partial
sys.path.insert(0, sys.argv[1])
import theft_targets
from tollkeeper.bench.theft.jobs import run_jobs
jobs = [theft_targets.Job(str(n), n) for n in range(2)]
run_jobs(partial(theft_targets.beside, sys.argv[1]), jobs, workers=2, progress=print)
"""


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll until a condition holds or the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_an_interrupt_leaves_no_child(targets: Any, tmp_path: Path) -> None:
    """Ctrl-C in the parent ends the children, though they sleep."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        env=child_environment({"PYTHONPATH": str(tmp_path)}),
        stderr=subprocess.PIPE,
    )
    with parent:
        assert wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2, 60)
        children = [int(path.stem) for path in tmp_path.glob("*.pid")]
        parent.send_signal(signal.SIGINT)
        _, errors = parent.communicate(timeout=30)
    assert b"KeyboardInterrupt" in errors
    assert wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children), 10)
