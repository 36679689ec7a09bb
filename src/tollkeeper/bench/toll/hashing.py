"""How fast a puzzle's hashes are computed by what is at hand."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from functools import partial

from tollkeeper.bench.experiment import BenchError
from tollkeeper.bench.theft.jobs import run_jobs

PREFIX = b"\0" * 32
"""In front of a counter of eight bytes: one block of SHA-256, as in a challenge."""

PUBLISHED_GPU = 20_109.1e6
"""SHA2-256 on one NVIDIA L40S by hashcat 6.2.6 (`-b`, mode 1400), as published by bigpick,
https://gist.github.com/bigpick/5d2478209ba820a450148256ae708de0. Seen, not measured here."""

_CHUNK = 2000
_TIMEOUT_S = 60

_NODE = """
const {{createHash}} = require('node:crypto');
const input = Buffer.alloc(40);
let count = 0;
const end = process.hrtime.bigint() + BigInt(Math.round({seconds} * 1e9));
while (process.hrtime.bigint() < end)
  for (let i = 0; i < 1000; i++) {{
    input.writeUInt32BE(count++, 36);
    createHash('sha256').update(input).digest();
  }}
console.log(count);
"""


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
    """Return hashes per second of a plain loop."""
    count, began = 0, time.perf_counter()
    while (taken := time.perf_counter() - began) < seconds:
        for number in range(count, count + _CHUNK):
            hashlib.sha256(PREFIX + number.to_bytes(8, "big")).digest()
        count += _CHUNK
    return count / taken


def node_rate(seconds: float) -> float | None:
    """Return hashes per second of a loop in Node, None without Node."""
    said = _said("node", "-e", _NODE.format(seconds=seconds))
    return None if said is None else int(said) / seconds


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
