"""Where a number comes from: code, versions, hardware. No host names and no paths."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = (
    "tollkeeper",
    "numpy",
    "onnxruntime",
    "starlette",
    "uvicorn",
    "uvloop",
    "torch",
    "scikit-learn",
    "scipy",
)
"""Distributions whose version can move a number."""


def git() -> dict[str, Any]:
    """Return the commit this package runs from and whether the package differs from it.

    Both are None outside a checkout, for example in an installed package.
    """
    sha = _git("rev-parse", "HEAD")
    changes = None if sha is None else _git("status", "--porcelain", "--", ".")
    return {"sha": sha, "dirty": None if changes is None else bool(changes)}


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of `PACKAGES`; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def hardware() -> dict[str, Any]:
    """Return processor model, usable cores, system and the BLAS that numpy was built with."""
    config: Any = np.show_config(mode="dicts")
    blas = config["Build Dependencies"]["blas"]
    return {
        "cpu": _cpu_model(),
        "cores": _usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "blas": f"{blas.get('name')} {blas.get('version')}",
        "blas_threads": int(os.environ.get("OPENBLAS_NUM_THREADS") or _usable_cores()),
    }


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", *arguments],  # noqa: S607 - whichever git the developer uses
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
