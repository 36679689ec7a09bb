"""Text data sets: intent, topic and sentiment labels, and plain paragraphs."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping
from functools import partial

from tollkeeper.data.dataset import Dataset
from tollkeeper.data.download import Progress
from tollkeeper.data.folders import Folder
from tollkeeper.data.forms import Content, Form, Splits, load

_POLARITY = ("negative", "positive")
_TOPICS = ("World", "Sports", "Business", "Sci/Tech")
_AG_NEWS_SUBSET = "train_subset10k.tsv"


def load_text(
    name: str,
    split: str,
    *,
    environ: Mapping[str, str] = os.environ,
    progress: Progress | None = None,
) -> Dataset:
    """Load one split of a text data set.

    ===========  =========================  =======================================
    name         splits                     inputs
    ===========  =========================  =======================================
    banking77    train, test                bank customers' questions, 77 intents
    ag_news      train, test                news, 4 topics: title and description
    sst2         train, validation, test    film reviews' sentences, tokenized
    mr           all                        film reviews' sentences, tokenized;
                                            shares sentences with sst2
    wikitext2    validation, test           paragraphs without headings, no labels
    ===========  =========================  =======================================

    The first place of `locate` that holds the split counts, even if it holds a part of
    it: then `Dataset.subset` says which. Held nowhere, the split is downloaded.

    Args:
        name: the data set.
        split: one of its splits.
        environ: environment variables, see `locate`; `TOLLKEEPER_OFFLINE=1` forbids
            downloads.
        progress: told of a download's progress.

    Returns:
        The split in file order.

    Raises:
        DataError: unknown name or split, not found and not to be had, or damaged.
    """
    return load("text", _SETS, name, split, environ=environ, progress=progress)


def _banking77(folder: Folder, split: str) -> Content:
    """Parse `text,category` rows; classes are in the order of the published list."""
    classes = tuple(json.loads(folder.read_text("categories.json")))
    rows = list(csv.DictReader(io.StringIO(folder.read_text(f"{split}.csv"), newline="")))
    position = {name: index for index, name in enumerate(classes)}
    return [row["text"] for row in rows], [position[row["category"]] for row in rows], classes


def _ag_news(folder: Folder, split: str) -> Content:
    """Parse the official rows: class from 1, title, description."""
    rows = list(csv.reader(io.StringIO(folder.read_text(f"{split}.csv"), newline="")))
    return [f"{row[1]} {row[2]}" for row in rows], [int(row[0]) - 1 for row in rows], _TOPICS


def _ag_news_subset(folder: Folder) -> Content:
    """Parse lines of a description and the name of its class."""
    pairs = [line.rsplit("\t", 1) for line in _lines(folder.read_text(_AG_NEWS_SUBSET))]
    return [pair[0] for pair in pairs], [_TOPICS.index(pair[1]) for pair in pairs], _TOPICS


def _sst2(folder: Folder, file: str) -> Content:
    """Parse lines of a digit and a sentence."""
    pairs = [line.split(" ", 1) for line in _lines(folder.read_text(file))]
    return [pair[1] for pair in pairs], [int(pair[0]) for pair in pairs], _POLARITY


def _mr(folder: Folder) -> Content:
    """Parse both files, negative ones first; there is no official split."""
    texts: list[str] = []
    labels: list[int] = []
    for label, suffix in enumerate(("neg", "pos")):
        lines = _lines(folder.read_text(f"rt-polarity.{suffix}", "latin-1"))
        texts += [line.strip() for line in lines]
        labels += [label] * len(lines)
    return texts, labels, _POLARITY


def _wikitext2(folder: Folder, file: str) -> Content:
    """Parse paragraphs; headings look like ` = Title = `."""
    lines = (line.strip() for line in _lines(folder.read_text(file)))
    return [line for line in lines if line and not _is_heading(line)], None, ()


def _lines(text: str) -> list[str]:
    """Split at line feeds only: `splitlines` would also cut at control characters in the text."""
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def _is_heading(line: str) -> bool:
    """Tell whether a stripped line is a heading."""
    return len(line) > 1 and line.startswith("=") and line.endswith("=")


def _banking77_form(split: str) -> Form:
    """Return the form of a split; both need the list of classes."""
    files = ("categories.json", f"{split}.csv")
    return Form("banking77", files, partial(_banking77, split=split))


def _ag_news_form(split: str) -> Form:
    """Return the official form of a split."""
    return Form("ag_news", (f"{split}.csv",), partial(_ag_news, split=split))


def _sst2_form(file: str) -> Form:
    """Return the form of a split."""
    return Form("sst2", (file,), partial(_sst2, file=file))


def _wikitext2_form(file: str) -> Form:
    """Return the form of a split."""
    return Form("wikitext2", (file,), partial(_wikitext2, file=file))


_SETS: Mapping[str, Splits] = {
    "banking77": {"train": (_banking77_form("train"),), "test": (_banking77_form("test"),)},
    "ag_news": {
        "train": (
            _ag_news_form("train"),
            Form(
                "ag_news",
                (_AG_NEWS_SUBSET,),
                _ag_news_subset,
                "10,001 of 120,000, descriptions without titles",
            ),
        ),
        "test": (_ag_news_form("test"),),
    },
    "sst2": {
        "train": (_sst2_form("stsa.binary.train"),),
        "validation": (_sst2_form("stsa.binary.dev"),),
        "test": (_sst2_form("stsa.binary.test"),),
    },
    "mr": {"all": (Form("mr", ("rt-polarity.neg", "rt-polarity.pos"), _mr),)},
    "wikitext2": {
        "validation": (_wikitext2_form("valid.txt"),),
        "test": (_wikitext2_form("test.txt"),),
    },
}
