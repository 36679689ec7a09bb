"""Fetching one official file: whole and verified, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import httpx2

from tollkeeper.data.sources import Source
from tollkeeper.errors import DataError

Progress = Callable[[int, int, str], None]
"""Called with the bytes done, the bytes in all and the file's name."""

# Without a network this must fail within seconds; a slow server may think for longer.
_TIMEOUT = httpx2.Timeout(30.0, connect=5.0)


def download(source: Source, target: Path, *, progress: Progress | None = None) -> None:
    """Fetch a file into place; a failure leaves no part of it and no empty folder.

    The content goes to a temporary file beside `target`, which gets its name only
    when size and checksum are right, so that others never see half a file.

    Args:
        source: what to fetch and what it must be.
        target: where it shall lie; its folder is made.
        progress: told of every piece that arrives.

    Raises:
        DataError: unreachable, refused, cut short, too long, different from its
            checksum, or not writable; one line with the address.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{target.name}-", suffix=".part", dir=target.parent
        )
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                _fetch(source, file, progress or _silent)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # raised, and right, when files lie in it
                target.parent.rmdir()
    except (httpx2.HTTPError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{source.url} failed: {reason}") from error


def _fetch(source: Source, file: BinaryIO, progress: Progress) -> None:
    """Write the content while counting and hashing it; raise DataError if it is another."""
    algorithm, _, expected = source.digest.partition(":")
    # Not for security: md5 is all that some publishers give, and it finds damage as well.
    digest = hashlib.new(algorithm, usedforsecurity=False)
    done = 0
    # Unchanged bytes: a server that compresses on the way would spoil size and checksum.
    headers = {"Accept-Encoding": "identity"}
    with httpx2.stream(
        "GET", source.url, headers=headers, follow_redirects=True, timeout=_TIMEOUT
    ) as response:
        if response.status_code != httpx2.codes.OK:
            raise DataError(f"{source.url} failed: status {response.status_code}")
        progress(0, source.size, source.file)
        for piece in response.iter_raw():
            file.write(piece)
            digest.update(piece)
            done += len(piece)
            if done > source.size:
                raise DataError(f"{source.url} failed: more than the {source.size} bytes expected")
            progress(done, source.size, source.file)
    if done != source.size:
        raise DataError(f"{source.url} failed: {done} of {source.size} bytes came")
    if digest.hexdigest() != expected:
        raise DataError(f"{source.url} failed: expected {source.digest}, came {digest.hexdigest()}")


def _silent(_done: int, _total: int, _name: str) -> None:
    """Draw nothing."""
