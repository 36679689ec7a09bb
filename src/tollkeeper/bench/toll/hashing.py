"""How fast a puzzle's hashes are computed by what is at hand."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tollkeeper.bench.experiment import BenchError
from tollkeeper.bench.theft.jobs import run_jobs
from tollkeeper.challenge.puzzle import HashPuzzle

CLIENT = Path(__file__).parents[4] / "javascript" / "sha256.js"
"""The search of the JavaScript client, which is in the repository and not in the package."""

_SALT = "0" * 16
_HARDEST = 1
"""Targets that nothing meets, so that a search tells its rate and not its luck: one hash in 2^48
for Python, none for JavaScript."""

PUBLISHED_GPU = 20_109.1e6
"""SHA2-256 on one NVIDIA L40S by hashcat 6.2.6 (`-b`, mode 1400), as published by bigpick,
https://gist.github.com/bigpick/5d2478209ba820a450148256ae708de0. Seen, not measured here."""

_TIMEOUT_S = 60

_NODE = """
const {pathToFileURL} = require('node:url');
import(pathToFileURL(process.argv[1])).then(({search}) => {
  const seconds = Number(process.argv[2]);
  const began = performance.now();
  let count = 0;
  for (; performance.now() < began + 1000 * seconds; count += 10000)
    search('SALT.0.', 0, count, 10000);
  console.log(1000 * count / (performance.now() - began));
});
""".replace("SALT", _SALT)


@dataclass(frozen=True, slots=True)
class Task:
    """One process that hashes.

    Attributes:
        name: for errors.
    """

    name: str


def rates(*, seconds: float, processes: int) -> dict[str, float]:
    """Return hashes per second of each solver that can be run here.

    Args:
        seconds: to hash for, each.
        processes: of Python, besides one alone.

    Raises:
        BenchError: a solver that is installed failed.
    """
    found = {"python": python_rate(Task("python"), seconds=seconds)}
    tasks = [Task(f"python {number}") for number in range(processes)]
    several = run_jobs(
        partial(python_rate, seconds=seconds),
        tasks,
        workers=processes,
        progress=lambda _done, _total, _what: None,
    )
    found[f"python_{processes}_processes"] = sum(several)
    others = {"node": node_rate(seconds), "openssl": openssl_rate(seconds)}
    return found | {name: rate for name, rate in others.items() if rate is not None}


def python_rate(_task: Task, *, seconds: float) -> float:
    """Return hashes per second of the Python client's search."""
    puzzle = HashPuzzle(_SALT, _HARDEST)
    count, began = 0, time.perf_counter()
    while (taken := time.perf_counter() - began) < seconds:
        puzzle.search(0, count, count + puzzle.chunk)
        count += puzzle.chunk
    return count / taken


def node_rate(seconds: float) -> float | None:
    """Return hashes per second of the JavaScript client's search, None without Node or its code."""
    if not CLIENT.exists():
        return None
    said = _said("node", "-e", _NODE, str(CLIENT), str(seconds))
    return None if said is None else float(said)


def openssl_rate(seconds: float) -> float | None:
    """Return hashes per second of one core of OpenSSL, None without its command.

    A thief's loop in C that skips the general interface is faster still.
    """
    whole = max(1, round(seconds))
    said = _said("openssl", "speed", "-bytes", "40", "-seconds", str(whole), "-evp", "sha256")
    if said is None:
        return None
    found = re.search(r"(\d+) sha256.* in ([\d.]+)s", said)
    if found is None:
        raise BenchError(f"expected a count from `openssl speed`, got {said[-100:]!r}")
    return int(found[1]) / float(found[2])


def _said(command: str, *arguments: str) -> str | None:
    """Return what a command wrote, None if there is no such command.

    Raises:
        BenchError: it failed.
    """
    path = shutil.which(command)
    if path is None:
        return None
    done = subprocess.run(  # noqa: S603 - a fixed list of arguments
        [path, *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise BenchError(f"{command}: {done.stderr.strip()[-200:]}")
    return done.stdout + done.stderr
