"""Text data sets: intent, topic and sentiment labels, and plain paragraphs."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping

import numpy as np

from tollkeeper.data.dataset import Dataset
from tollkeeper.data.folders import Folder
from tollkeeper.errors import DataError

_Parsed = tuple[list[str], list[int] | None, tuple[str, ...]]

_POLARITY = ("negative", "positive")


def load_text(name: str, split: str, *, environ: Mapping[str, str] = os.environ) -> Dataset:
    """Load one split of a text data set.

    ===========  =========================  =======================================
    name         splits                     inputs
    ===========  =========================  =======================================
    banking77    train, test                bank customers' questions, 77 intents
    ag_news      train, test                news, 4 topics; train holds descriptions
                                            only, test title and description
    sst2         train, validation, test    film reviews' sentences, tokenized
    mr           all                        film reviews' sentences, tokenized;
                                            shares sentences with sst2
    wikitext2    validation, test           paragraphs without headings, no labels
    ===========  =========================  =======================================

    Args:
        name: the data set.
        split: one of its splits.
        environ: environment variables, see `locate`.

    Returns:
        The split in file order.

    Raises:
        DataError: unknown name or split, not found, or damaged.
    """
    if name not in _SETS:
        raise DataError(f"unknown text data set {name!r}; expected one of {', '.join(_SETS)}")
    parse, splits = _SETS[name]
    if split not in splits:
        raise DataError(f"{name} has no split {split!r}; expected one of {', '.join(splits)}")
    folder = Folder.find(name, environ=environ)
    try:
        texts, labels, classes = parse(folder, split)
    except (ValueError, KeyError, IndexError) as error:
        raise DataError(f"{folder.path}: {name} {split} is damaged ({error!r})") from error
    return Dataset(
        name=name,
        split=split,
        inputs=texts,
        labels=None if labels is None else np.asarray(labels, dtype=np.int64),
        classes=classes,
    )


def _banking77(folder: Folder, split: str) -> _Parsed:
    """Parse `text,category` rows; classes are in the order of the published list."""
    classes = tuple(json.loads(folder.read_text("categories.json")))
    rows = list(csv.DictReader(io.StringIO(folder.read_text(f"{split}.csv"), newline="")))
    position = {name: index for index, name in enumerate(classes)}
    return [row["text"] for row in rows], [position[row["category"]] for row in rows], classes


def _ag_news(folder: Folder, split: str) -> _Parsed:
    """Parse the official test file, or the published subset of the training descriptions."""
    classes = tuple(folder.read_text("classes.txt").split())
    if split == "test":
        rows = list(csv.reader(io.StringIO(folder.read_text("test.csv"), newline="")))
        return [f"{row[1]} {row[2]}" for row in rows], [int(row[0]) - 1 for row in rows], classes
    pairs = [line.rsplit("\t", 1) for line in _lines(folder.read_text("train_subset10k.tsv"))]
    return [pair[0] for pair in pairs], [classes.index(pair[1]) for pair in pairs], classes


def _sst2(folder: Folder, split: str) -> _Parsed:
    """Parse lines of a digit and a sentence."""
    suffix = "dev" if split == "validation" else split
    pairs = [line.split(" ", 1) for line in _lines(folder.read_text(f"stsa.binary.{suffix}"))]
    return [pair[1] for pair in pairs], [int(pair[0]) for pair in pairs], _POLARITY


def _mr(folder: Folder, _split: str) -> _Parsed:
    """Parse both files, negative ones first; there is no official split."""
    texts: list[str] = []
    labels: list[int] = []
    for label, suffix in enumerate(("neg", "pos")):
        lines = _lines(folder.read_text(f"rt-polarity.{suffix}", "latin-1"))
        texts += [line.strip() for line in lines]
        labels += [label] * len(lines)
    return texts, labels, _POLARITY


def _wikitext2(folder: Folder, split: str) -> _Parsed:
    """Parse paragraphs; headings look like ` = Title = `."""
    name = "valid" if split == "validation" else split
    lines = (line.strip() for line in _lines(folder.read_text(f"{name}.txt")))
    return [line for line in lines if line and not _is_heading(line)], None, ()


def _lines(text: str) -> list[str]:
    """Split at line feeds only: `splitlines` would also cut at control characters in the text."""
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def _is_heading(line: str) -> bool:
    """Tell whether a stripped line is a heading."""
    return len(line) > 1 and line.startswith("=") and line.endswith("=")


_SETS: dict[str, tuple[Callable[[Folder, str], _Parsed], tuple[str, ...]]] = {
    "banking77": (_banking77, ("train", "test")),
    "ag_news": (_ag_news, ("train", "test")),
    "sst2": (_sst2, ("train", "validation", "test")),
    "mr": (_mr, ("all",)),
    "wikitext2": (_wikitext2, ("validation", "test")),
}
