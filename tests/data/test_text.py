"""Promises of the text data sets: real ones where they lie, tiny ones for what can go wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tollkeeper.data import Dataset, load_text
from tollkeeper.errors import DataError

COUNTS = {
    ("banking77", "train"): (10_003, 77),
    ("banking77", "test"): (3_080, 77),
    ("ag_news", "train"): (10_001, 4),
    ("ag_news", "test"): (7_600, 4),
    ("sst2", "train"): (6_920, 2),
    ("sst2", "validation"): (872, 2),
    ("sst2", "test"): (1_821, 2),
    ("mr", "all"): (10_662, 2),
    ("wikitext2", "validation"): (1_841, 0),
    ("wikitext2", "test"): (2_185, 0),
}


def real(name: str, split: str) -> Dataset:
    """Load a real data set, or skip where it does not lie."""
    try:
        return load_text(name, split)
    except DataError as error:
        if "not found" in str(error):
            pytest.skip(str(error))
        raise


def write(tmp_path: Path, folder: str, **files: str) -> dict[str, str]:
    """Write files (`__` for a dot) of one set and return the environment that points there."""
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (tmp_path / folder / name.replace("__", ".")).write_bytes(content.encode("latin-1"))
    return {"TOLLKEEPER_DATA": str(tmp_path)}


def test_handmade_ag_news_is_whole(tmp_path: Path) -> None:
    """The official training file counts classes from 1; title and description become one text."""
    content = '"3","Title","One, ""two""."\n"1","T","D"\n'
    environ = write(tmp_path, "text/ag_news", train__csv=content)
    data = load_text("ag_news", "train", environ=environ)
    assert data.inputs == ['Title One, "two".', "T D"]
    assert data.labels is not None
    assert [data.classes[label] for label in data.labels] == ["Business", "World"]
    assert data.subset == ""


def test_handmade_ag_news_subset_says_so(tmp_path: Path) -> None:
    """Where only descriptions lie, they come with a note of what is missing."""
    environ = write(tmp_path, "text/ag_news", train_subset10k__tsv="A\tb\tSci/Tech\n")
    data = load_text("ag_news", "train", environ=environ)
    assert data.inputs == ["A\tb"]
    assert data.labels is not None
    assert [data.classes[label] for label in data.labels] == ["Sci/Tech"]
    assert data.subset == "10,001 of 120,000, descriptions without titles"


@pytest.mark.parametrize(("name", "split"), COUNTS)
def test_real_counts_and_classes(name: str, split: str) -> None:
    """Each split has its published size, every class occurs, and no text is blank."""
    data = real(name, split)
    if (name, split) == ("ag_news", "train") and not data.subset:
        pytest.skip("all of ag_news train lies here, not the part that is known")
    size, classes = COUNTS[name, split]
    assert (len(data), len(data.classes)) == (size, classes)
    assert all(isinstance(text, str) and text.strip() for text in data.inputs)
    if data.labels is None:
        assert classes == 0
    else:
        assert set(data.labels.tolist()) == set(range(classes))


def test_real_items_are_what_they_are_known_to_be() -> None:
    """A first item of each set reads as published, with its class."""
    banking = real("banking77", "test")
    assert banking.labels is not None
    assert banking.inputs[0] == "How do I locate my card?"
    assert banking.classes[banking.labels[0]] == "card_arrival"
    news = real("ag_news", "test")
    assert news.labels is not None
    assert news.inputs[0].startswith("Fears for T N pension after talks Unions representing")
    assert news.classes[news.labels[0]] == "Business"
    film = real("sst2", "validation")
    assert film.labels is not None
    assert (film.inputs[0], film.classes[film.labels[0]]) == (
        "one long string of cliches .",
        "negative",
    )


def test_handmade_banking77(tmp_path: Path) -> None:
    """Quoted commas, line ends inside a field and the class order of the list are kept."""
    environ = write(
        tmp_path,
        "text/banking77",
        categories__json=json.dumps(["b", "a"]),
        test__csv='text,category\r\n"one, two\nthree",a\r\nfour,b\r\n',
    )
    data = load_text("banking77", "test", environ=environ)
    assert data.inputs == ["one, two\nthree", "four"]
    assert data.labels is not None
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == [1, 0]


def test_handmade_mr_is_cut_at_line_feeds_only(tmp_path: Path) -> None:
    """Latin-1 control characters inside a review do not end it."""
    environ = write(
        tmp_path,
        "text/mr",
        **{"rt-polarity__neg": "ba\x85d \n", "rt-polarity__pos": "caf\xe9\ngood\n"},
    )
    data = load_text("mr", "all", environ=environ)
    assert data.inputs == ["ba\x85d", "caf\xe9", "good"]
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 1]


def test_handmade_wikitext2_has_no_headings(tmp_path: Path) -> None:
    """Headings of any depth and blank lines go, an equation stays."""
    content = " \n = Title = \n \n one = two \n = = Part = = \n x = y = \n"
    environ = write(tmp_path, "text/wikitext2", test__txt=content)
    data = load_text("wikitext2", "test", environ=environ)
    assert (data.inputs, data.labels, data.classes) == (["one = two", "x = y ="], None, ())


@pytest.mark.parametrize(
    ("name", "split", "words"),
    [
        ("imdb", "train", "unknown text data set 'imdb'.*banking77"),
        ("mr", "train", "no split.*all"),
    ],
)
def test_unknown_names_list_the_known_ones(name: str, split: str, words: str) -> None:
    """A wrong name or split is told with what there is."""
    with pytest.raises(DataError, match=words):
        load_text(name, split, environ={})


@pytest.mark.parametrize(
    "files",
    [
        {"categories__json": '["a"]', "test__csv": "text,category\nx,unknown\n"},
        {"categories__json": '["a"]', "test__csv": "text\nx\n"},
        {"categories__json": '["a"', "test__csv": "text,category\nx,a\n"},
        {"categories__json": '["a"]', "test__csv": "text,category\n\xff,a\n"},
        {"categories__json": '["a"]'},
    ],
)
def test_damaged_files_are_data_errors(tmp_path: Path, files: dict[str, str]) -> None:
    """Foreign classes, missing columns, broken JSON or text and missing files name the folder."""
    environ = write(tmp_path, "text/banking77", **files)
    with pytest.raises(DataError, match="banking77"):
        load_text("banking77", "test", environ=environ)


@pytest.mark.parametrize("content", ["1\n", "x good\n", "7 good\n"])
def test_damaged_lines_are_data_errors(tmp_path: Path, content: str) -> None:
    """A line without sentence, label or known class is not taken."""
    environ = write(tmp_path, "text/sst2", stsa__binary__dev=content)
    with pytest.raises(DataError, match="sst2"):
        load_text("sst2", "validation", environ=environ)
