"""Where data sets lie on this machine, and reading their files with a checksum."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from tollkeeper.errors import DataError

_REPOSITORY = Path(__file__).resolve().parents[3]  # Of a source checkout; harmless elsewhere.

FOLDERS: Mapping[str, str] = {
    "ag_news": "text/ag_news",
    "banking77": "text/banking77",
    "cifar10": "cifar10",
    "cifar100": "cifar100",
    "emnist_letters": "emnist-letters",
    "fashion_mnist": "fashion-mnist",
    "gtsrb32": "gtsrb32",
    "kmnist": "kmnist",
    "mnist": "mnist",
    "mr": "text/mr",
    "sst2": "text/sst2",
    "tiny_imagenet": "tiny-imagenet",
    "wikitext2": "text/wikitext2",
}
"""Data set name to its folder inside a data root."""


def locate(name: str, *, environ: Mapping[str, str] = os.environ, cwd: Path | None = None) -> Path:
    """Return the folder of a data set.

    Looked for in `TOLLKEEPER_DATA`, then in `../shared/datasets` beside the current
    directory and beside the repository, then in the user's cache.

    Args:
        name: a key of `FOLDERS`.
        environ: environment variables.
        cwd: current directory; None asks the system.

    Returns:
        An existing folder.

    Raises:
        DataError: unknown name, or the folder is nowhere; says where it was looked for.
    """
    return Folder.find(name, environ=environ, cwd=cwd).path


class Folder:
    """The files of one data set; each is checked against `SHA256SUMS` when it is read.

    Attributes:
        path: the data set's folder.
    """

    def __init__(self, root: Path, relative: str) -> None:
        """Open `root / relative`; checksums come from `root / "SHA256SUMS"` if there is one."""
        self.path = root / relative
        self._relative = relative
        self._sums = _read_sums(root / "SHA256SUMS")

    @classmethod
    def find(
        cls, name: str, *, environ: Mapping[str, str] = os.environ, cwd: Path | None = None
    ) -> Folder:
        """Open the data set `name`; arguments and errors as for `locate`."""
        relative = FOLDERS.get(name)
        if relative is None:
            raise DataError(f"unknown data set {name!r}; expected one of {', '.join(FOLDERS)}")
        roots = list(dict.fromkeys(_roots(environ, cwd or Path.cwd())))
        for root in roots:
            if (root / relative).is_dir():
                return cls(root, relative)
        looked = ", ".join(str(root / relative) for root in roots)
        raise DataError(f"data set {name!r} not found; set TOLLKEEPER_DATA (looked in {looked})")

    def read(self, name: str) -> bytes:
        """Return the bytes of one file.

        Args:
            name: file name inside the folder.

        Returns:
            Its content, equal to its listed checksum if one is listed.

        Raises:
            DataError: missing, unreadable or different from its checksum.
        """
        path = self.path / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        expected = self._sums.get(f"{self._relative}/{name}")
        if expected is not None and hashlib.sha256(content).hexdigest() != expected:
            raise DataError(f"{path} does not match its SHA-256 in SHA256SUMS; fetch it again")
        return content

    def read_text(self, name: str, encoding: str = "utf-8") -> str:
        """Return one file as text, line ends as they are; raises DataError as `read` does."""
        try:
            return self.read(name).decode(encoding)
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path / name} is not {encoding} text") from error


def _roots(environ: Mapping[str, str], cwd: Path) -> Iterator[Path]:
    """Yield data roots in the order they are tried."""
    if environ.get("TOLLKEEPER_DATA"):
        yield Path(environ["TOLLKEEPER_DATA"])
    for start in (cwd, _REPOSITORY):
        yield start.parent / "shared" / "datasets"
    cache = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".cache"
    yield Path(cache) / "tollkeeper" / "datasets"


def _read_sums(path: Path) -> dict[str, str]:
    """Return relative file name to SHA-256, empty when there is no list."""
    if not path.is_file():
        return {}
    pairs = (
        line.split(maxsplit=1) for line in path.read_text("utf-8").splitlines() if line.strip()
    )
    return {name.lstrip("*"): digest for digest, name in pairs}
