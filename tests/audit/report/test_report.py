"""Reports: the same words on paper and on the page, nothing promised that was not found."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from pypdf import PdfReader

from tollkeeper.audit.evidence.findings import Asking, Committed, Findings, Row
from tollkeeper.audit.report.content import conclusion, document, number
from tollkeeper.audit.report.figure import draw
from tollkeeper.audit.report.html import page
from tollkeeper.audit.report.pdf import pdf

SEAL = "ab" * 32


def findings(**changes: Any) -> Findings:
    """Return what an audit might have found."""
    found = Findings(
        claim="encoder-2026",
        method="randomized inclusion",
        null="data",
        alternative="the owner's data influenced this encoder",
        exact=True,
        alpha=0.001,
        family=3,
        opened=2000,
        views=6,
        rows=(
            Row("suspect", "suspect", "std", 0.3, 1e-4, 0.28, 0.2, 0.36, 5400.0),
            Row("control", "control", "std", 0.9, 1e-4, 0.9, 0.8, 1.0, 1e9),
            Row("reference 1", "reference", "std", 0.01, 0.4, 0.02, -0.06, 0.1, 0.9),
            Row("reference 2", "reference", "std", -0.02, 0.7, -0.03, -0.11, 0.05, 0.4),
        ),
        mode="std",
        corrected_p=3e-4,
        floor=0.03,
        asking=Asking(
            endpoint="https://suspect.test/v1/embeddings",
            models=("best-model",),
            certificates=("cd" * 32,),
            account="lab-7",
            first="2026-11-23T03:00:00+00:00",
            last="2026-11-23T03:10:00+00:00",
            calls=400,
            failed=2,
            inputs=12300,
            width=64,
            repeated=600,
            changed=0,
            deviation=0.0,
        ),
        committed=Committed(
            at="2026-01-01T00:00:00+00:00",
            root="12" * 32,
            key="34" * 32,
            stamps=(),
            items=4000,
            hashes={"weights": "56" * 32},
            drawn="drawn by a sealed seed",
        ),
        guards=("No picture is there twice.",),
        reasons=("The corrected p-value is 0.0003.",),
        verdict="derived",
        tool="tollkeeper test",
    )
    return replace(found, **changes)


def words(content: bytes) -> str:
    """Return the text of a PDF in one line."""
    pages = PdfReader(io.BytesIO(content)).pages
    return " ".join(" ".join(each.extract_text().split()) for each in pages)


@pytest.mark.parametrize("verdict", ["derived", "inconclusive"])
def test_page_and_paper_say_all_that_the_document_says(verdict: Any) -> None:
    """Every title, paragraph, point and fact stands in both."""
    found = findings(verdict=verdict)
    made = document(found, seal=SEAL)
    html, paper = page(found, seal=SEAL), words(pdf(found, seal=SEAL)).replace(" ", "")
    texts = [made.title, made.conclusion]
    for section in made.sections:
        texts += [section.title, *section.text, *section.points, *section.commands]
        texts += [part for fact in section.facts for part in fact]
        texts += [cell for table in section.tables for row in table.rows for cell in row]
    for text in texts:
        assert text.replace("'", "&#39;").replace('"', "&#34;") in html
        assert text.replace(" ", "") in paper


def test_nobody_is_called_innocent() -> None:
    """An inconclusive audit says that it shows nothing, in either direction."""
    told = conclusion(findings(verdict="inconclusive"))
    assert told.startswith("Inconclusive")
    assert "does not show the contrary either" in told
    assert "Derived" not in told


def test_names_from_outside_are_text_and_no_markup() -> None:
    """What the suspect or the owner calls itself cannot change the report."""
    evil = "<script>alert(1)</script><b>&amp;"
    found = findings(claim=evil)
    found = replace(found, asking=replace(found.asking, models=(evil, "北京"), endpoint=evil))
    html = page(found, seal=SEAL)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "北京" in html
    paper = words(pdf(found, seal=SEAL))
    assert "<script>" in paper
    assert "\\u5317\\u4eac" in paper


def test_the_same_findings_give_the_same_bytes() -> None:
    """A report holds no date of its own, so that two parties can compare theirs."""
    assert pdf(findings(), seal=SEAL) == pdf(findings(), seal=SEAL)
    assert page(findings(), seal=SEAL) == page(findings(), seal=SEAL)


def test_limits_follow_from_what_was_done() -> None:
    """No stamp, no TLS and no coins are each told; with them they are not."""
    found = findings()
    told = " ".join(document(found, seal=SEAL).sections[-2].points)
    assert "No independent service stamped" in told
    assert "exchangeable" not in told
    assert "TLS" not in told
    weaker = replace(found, exact=False, asking=replace(found.asking, certificates=()))
    told = " ".join(document(weaker, seal=SEAL).sections[-2].points)
    assert "argued and not guaranteed" in told
    assert "not asked over TLS" in told


def test_the_figure_shows_every_encoder_in_its_place() -> None:
    """Intervals lie in order on one axis, the suspect first."""
    drawing = draw(findings())
    assert [mark.label for mark in drawing.marks] == [
        "suspect",
        "control",
        "reference 1",
        "reference 2",
    ]
    for mark in drawing.marks:
        assert mark.low < mark.at < mark.high <= drawing.width
    suspect, _, reference, _ = drawing.marks
    assert drawing.zero < drawing.floor < suspect.low
    assert reference.low < drawing.zero < reference.high


def test_many_references_run_over_pages() -> None:
    """A report with a hundred references is whole and has more pages."""
    rows = tuple(
        Row(f"reference {n}", "reference", "std", 0.0, 0.5, 0.0, -0.1, 0.1, 1.0) for n in range(99)
    )
    content = pdf(findings(rows=findings().rows[:2] + rows), seal=SEAL)
    assert len(PdfReader(io.BytesIO(content)).pages) > 3
    assert "reference 98" in words(content)


def test_findings_are_read_as_they_were_written() -> None:
    """JSON and back loses nothing; another schema is refused."""
    found = findings()
    assert Findings.from_json(found.to_json()) == found
    with pytest.raises(Exception, match="schema 1"):
        Findings.from_json({**found.to_json(), "schema": 2})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.5, "0.5"),
        (1e-4, "1.0e-04"),
        (53.4, "53.4"),
        (12345.6, "12,346"),
        (-2.5, "-2.5"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    """Three digits, small ones as powers of ten."""
    assert number(value) == text
