"""Where data sets lie on this machine, and reading their files with a checksum."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tollkeeper.errors import DataError

_REPOSITORY = Path(__file__).resolve().parents[3]  # Of a source checkout; harmless elsewhere.

FOLDERS: Mapping[str, str] = {
    "ag_news": "text/ag_news",
    "banking77": "text/banking77",
    "cifar10": "cifar10",
    "cifar100": "cifar100",
    "emnist": "emnist",  # The archive that holds both letters and digits.
    "emnist_digits": "emnist-digits",
    "emnist_letters": "emnist-letters",
    "fashion_mnist": "fashion-mnist",
    "gtsrb32": "gtsrb32",
    "kmnist": "kmnist",
    "mnist": "mnist",
    "mr": "text/mr",
    "sst2": "text/sst2",
    "stl10": "stl10",
    "svhn": "svhn",
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
    if name not in FOLDERS:
        raise DataError(f"unknown data set {name!r}; expected one of {', '.join(FOLDERS)}")
    places = [root / FOLDERS[name] for root in roots(environ, cwd)]
    for place in places:
        if place.is_dir():
            return place
    raise not_found(name, places)


def roots(environ: Mapping[str, str], cwd: Path | None = None) -> list[Path]:
    """Return the folders of data sets in the order they are tried."""
    return list(dict.fromkeys(_roots(environ, cwd or Path.cwd())))


def cache_root(environ: Mapping[str, str]) -> Path:
    """Return the folder that downloads go to."""
    cache = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".cache"
    return Path(cache) / "tollkeeper" / "datasets"


def not_found(name: str, places: Sequence[Path], *, details: str = "") -> DataError:
    """Return the one-line error for a data set that lies in none of the places."""
    looked = ", ".join(map(str, places))
    return DataError(
        f"data set {name!r} not found{details}; set TOLLKEEPER_DATA (looked in {looked})"
    )


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
        self._compare(name, hashlib.sha256(content).hexdigest())
        return content

    def read_text(self, name: str, encoding: str = "utf-8") -> str:
        """Return one file as text, line ends as they are; raises DataError as `read` does."""
        try:
            return self.read(name).decode(encoding)
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path / name} is not {encoding} text") from error

    def archive(self, name: str) -> Path:
        """Return the path of a file too large to read at once; raises DataError as `read` does."""
        path = self.path / name
        try:
            with path.open("rb") as file:
                if f"{self._relative}/{name}" in self._sums:
                    self._compare(name, hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        return path

    def _compare(self, name: str, digest: str) -> None:
        """Raise DataError when a file is listed with another checksum."""
        if self._sums.get(f"{self._relative}/{name}", digest) != digest:
            raise DataError(
                f"{self.path / name} does not match its SHA-256 in SHA256SUMS; fetch it again"
            )


def _roots(environ: Mapping[str, str], cwd: Path) -> Iterator[Path]:
    """Yield the roots in order, some perhaps twice."""
    if environ.get("TOLLKEEPER_DATA"):
        yield Path(environ["TOLLKEEPER_DATA"])
    for start in (cwd, _REPOSITORY):
        yield start.parent / "shared" / "datasets"
    yield cache_root(environ)


def _read_sums(path: Path) -> dict[str, str]:
    """Return relative file name to SHA-256, empty when there is no list."""
    if not path.is_file():
        return {}
    pairs = (
        line.split(maxsplit=1) for line in path.read_text("utf-8").splitlines() if line.strip()
    )
    return {name.lstrip("*"): digest for digest, name in pairs}
