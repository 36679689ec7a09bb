"""Reading members of a tar archive in one pass."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path


def members(path: Path, names: Sequence[str]) -> list[bytes]:
    """Return the contents of some members, reading no further than the last of them.

    Args:
        path: the archive, compressed or not.
        names: members, each with its folder.

    Returns:
        Their contents in the order of `names`.

    Raises:
        KeyError: a member that is not there.
    """
    found: dict[str, bytes] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            if member.name in names and (file := archive.extractfile(member)) is not None:
                found[member.name] = file.read()
            if len(found) == len(names):
                break
    return [found[name] for name in names]
