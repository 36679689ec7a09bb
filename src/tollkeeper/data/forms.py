"""The forms in which one split may lie on disk, and loading the first that does."""

from __future__ import annotations

import os
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tollkeeper.data import folders
from tollkeeper.data.dataset import Dataset
from tollkeeper.data.download import Progress, download
from tollkeeper.data.folders import Folder
from tollkeeper.data.sources import SOURCES
from tollkeeper.errors import DataError
from tollkeeper.types import Batch

Content = tuple[Batch, Sequence[int] | NDArray[Any] | None, tuple[str, ...]]
"""Inputs, labels (None for an unlabeled split) and names of the classes."""

_DAMAGE = (
    ValueError,
    LookupError,
    OSError,
    EOFError,
    zlib.error,
    zipfile.BadZipFile,
    tarfile.TarError,
    NotImplementedError,  # a compression that the standard library cannot undo
    pickle.UnpicklingError,
    AttributeError,  # a pickle of something else
    TypeError,  # the same
)


@dataclass(frozen=True, slots=True)
class Form:
    """One way in which a split is stored.

    Attributes:
        place: key of `FOLDERS`.
        files: names inside that folder; where one of them lies, the split lies.
        read: reader of the folder.
        subset: what part of the official split this is; empty for all of it.
    """

    place: str
    files: tuple[str, ...]
    read: Callable[[Folder], Content]
    subset: str = ""


Splits = Mapping[str, tuple[Form, ...]]
"""Split to its forms, fullest first; one of them at least is downloadable."""


def load(
    kind: str,
    table: Mapping[str, Splits],
    name: str,
    split: str,
    *,
    environ: Mapping[str, str] = os.environ,
    progress: Progress | None = None,
) -> Dataset:
    """Load one split from where it lies first, or download it.

    Args:
        kind: what they are, for messages: `image` or `text`.
        table: the data sets there are.
        name: one of them.
        split: one of its splits.
        environ: environment variables: `TOLLKEEPER_DATA` names a folder of data sets,
            `TOLLKEEPER_OFFLINE=1` forbids downloads; see `locate` for the others.
        progress: told of a download's progress.

    Returns:
        The split in file order.

    Raises:
        DataError: unknown name or split, not found, not to be had, or damaged.
    """
    if name not in table:
        raise DataError(f"unknown {kind} data set {name!r}; expected one of {', '.join(table)}")
    if split not in table[name]:
        raise DataError(f"{name} has no split {split!r}; expected one of {', '.join(table[name])}")
    form, folder = _find(name, split, table[name][split], environ, progress)
    try:
        inputs, labels, classes = form.read(folder)
        numbers = None if labels is None else np.asarray(labels, dtype=np.int64)
    except _DAMAGE as error:
        raise DataError(f"{folder.path}: {name} {split} is damaged ({error!r})") from error
    return Dataset(name, split, inputs, numbers, classes, form.subset)


def _find(
    name: str,
    split: str,
    forms: Sequence[Form],
    environ: Mapping[str, str],
    progress: Progress | None,
) -> tuple[Form, Folder]:
    """Return the first form that lies somewhere, downloading the official one if none does."""
    roots, cache = folders.roots(environ), folders.cache_root(environ)
    for root in roots:
        # Half a set in a folder that somebody filled is a mistake to tell of; half a set in
        # the cache is a download to finish.
        is_enough = all if root == cache else any
        for form in forms:
            if is_enough(path.exists() for path in _paths(root, form)):
                return form, Folder(root, folders.FOLDERS[form.place])
    form = next(form for form in forms if set(form.files) <= set(SOURCES.get(form.place, ())))
    try:
        _download(form, cache, environ, progress)
    except DataError as error:
        places = [root / folders.FOLDERS[form.place] for root in roots for form in forms]
        details = f" with split {split!r} ({error})"
        raise folders.not_found(name, list(dict.fromkeys(places)), details=details) from error
    return form, Folder(cache, folders.FOLDERS[form.place])


def _paths(root: Path, form: Form) -> list[Path]:
    """Return where the files of a form would lie."""
    return [root / folders.FOLDERS[form.place] / file for file in form.files]


def _download(
    form: Form, cache: Path, environ: Mapping[str, str], progress: Progress | None
) -> None:
    """Fetch the files of a form that the cache lacks; raise DataError if one cannot be had."""
    for path in _paths(cache, form):
        source = SOURCES[form.place][path.name]
        if path.exists():
            continue
        if environ.get("TOLLKEEPER_OFFLINE", "0") not in ("", "0"):
            raise DataError(f"{source.url} not asked: TOLLKEEPER_OFFLINE is set")
        download(source, path, progress=progress)
