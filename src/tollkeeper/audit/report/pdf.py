"""Findings as a PDF: the same words as the page, on paper."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any
from xml.sax.saxutils import escape

from tollkeeper.audit.evidence.findings import Findings, Role
from tollkeeper.audit.report.content import Document, Section, Table, document
from tollkeeper.audit.report.figure import Drawing, draw
from tollkeeper.errors import ConfigurationError

_COLORS: dict[Role, str] = {"suspect": "#b42318", "control": "#175cd3", "reference": "#667085"}
_INK, _DIM, _LINE, _FLOOR = "#1c2330", "#667085", "#d9dee6", "#8a6100"
_MARGIN, _FACT = 56.0, 130.0


def pdf(found: Findings, *, seal: str) -> bytes:
    """Return the report as PDF; the same findings give the same bytes.

    Args:
        found: what was found.
        seal: the hash that stands for the whole bundle.

    Raises:
        ConfigurationError: the audit extra is not installed.
    """
    try:
        from reportlab.lib.pagesizes import A4
        from reportlab.platypus import SimpleDocTemplate
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "a report needs an extra: pip install 'tollkeeper[audit]'"
        ) from error
    told, buffer = document(found, seal=seal), io.BytesIO()
    made = SimpleDocTemplate(
        buffer,
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
        title=_plain(told.title),
        author=_plain(found.tool),
        invariant=1,  # no date of printing
    )

    def foot(canvas: Any, _: Any) -> None:
        canvas.setFont("Helvetica", 7)
        canvas.setFillColor(_DIM)
        canvas.drawString(_MARGIN, _MARGIN / 2, f"bundle {seal}")
        canvas.drawRightString(A4[0] - _MARGIN, _MARGIN / 2, f"page {canvas.getPageNumber()}")

    flow = list(_Pages(A4[0] - 2 * _MARGIN).document(told, draw(found)))
    made.build(flow, onFirstPage=foot, onLaterPages=foot)
    return buffer.getvalue()


class _Pages:
    """Makes what reportlab flows onto pages."""

    def __init__(self, width: float) -> None:
        from reportlab.lib.styles import ParagraphStyle

        self._width = width
        text = {"fontName": "Helvetica", "textColor": _INK, "splitLongWords": 1}
        self._body = ParagraphStyle("body", fontSize=9, leading=12.5, spaceAfter=4, **text)
        self._cell = ParagraphStyle("cell", fontSize=8, leading=10, **text)
        self._dim = ParagraphStyle("dim", parent=self._cell, textColor=_DIM)
        self._code = ParagraphStyle("code", parent=self._cell, fontName="Courier", fontSize=7)
        bold = {**text, "fontName": "Helvetica-Bold"}
        self._title = ParagraphStyle("title", fontSize=16, leading=20, spaceAfter=8, **bold)
        self._head = ParagraphStyle(
            "head", fontSize=11, leading=14, spaceBefore=12, spaceAfter=4, keepWithNext=1, **bold
        )
        self._conclusion = ParagraphStyle(
            "conclusion",
            fontSize=10.5,
            leading=14.5,
            spaceAfter=6,
            borderPadding=8,
            leftIndent=8,
            rightIndent=8,
            backColor="#f2f4f7",
            spaceBefore=8,
            **bold,
        )

    def document(self, told: Document, drawing: Drawing) -> Iterator[Any]:
        """Yield the whole report."""
        yield self._text(told.title, self._title)
        yield self._text(told.conclusion, self._conclusion)
        for section in told.sections:
            yield from self._section(section, drawing)

    def _section(self, section: Section, drawing: Drawing) -> Iterator[Any]:
        from reportlab.platypus import Paragraph, Spacer

        yield self._text(section.title, self._head)
        for text in section.text:
            yield self._text(text, self._body)
        for point in section.points:
            yield Paragraph(_markup(point), self._body, bulletText="\u2022")
        if section.facts:
            cells = [
                [self._text(name, self._dim), self._text(value, self._cell)]
                for name, value in section.facts
            ]
            yield self._grid(cells, [_FACT, self._width - _FACT], lines=False)
        for table in section.tables:
            yield Spacer(0, 6)
            yield self._table(table)
        if section.figure:
            yield Spacer(0, 6)
            yield _figure(drawing, self._width)
            yield self._text(drawing.caption, self._dim)
        for line in section.commands:
            yield self._text(line, self._code)

    def _table(self, table: Table) -> Any:
        count = len(table.heads)
        last = 0.34 * self._width  # the interval is the widest cell
        widths = [(self._width - last) / (count - 1)] * (count - 1) + [last]
        cells = [[self._text(head, self._dim) for head in table.heads]]
        cells += [[self._text(cell, self._cell) for cell in row] for row in table.rows]
        return self._grid(cells, widths, lines=True)

    def _grid(self, cells: Sequence[Sequence[Any]], widths: Sequence[float], *, lines: bool) -> Any:
        from reportlab.platypus import Table as Grid
        from reportlab.platypus import TableStyle

        style = [("VALIGN", (0, 0), (-1, -1), "TOP"), ("LEFTPADDING", (0, 0), (-1, -1), 0)]
        style += [(side, (0, 0), (-1, -1), 2) for side in ("TOPPADDING", "BOTTOMPADDING")]
        if lines:
            style.append(("LINEBELOW", (0, 0), (-1, -1), 0.5, _LINE))
        return Grid(cells, widths, style=TableStyle(style), repeatRows=int(lines), hAlign="LEFT")

    def _text(self, text: str, style: Any) -> Any:
        from reportlab.platypus import Paragraph

        return Paragraph(_markup(text), style)


def _figure(drawing: Drawing, width: float) -> Any:
    """Return the drawing; its y axis points up where ours points down."""
    from reportlab.graphics import shapes
    from reportlab.lib.colors import HexColor

    scale, height = width / drawing.width, drawing.height
    made = shapes.Drawing(width, height * scale)
    group = shapes.Group(transform=(scale, 0, 0, scale, 0, 0))

    def line(x1: float, y1: float, x2: float, y2: float, color: str, **style: Any) -> None:
        group.add(
            shapes.Line(x1, height - y1, x2, height - y2, strokeColor=HexColor(color), **style)
        )

    def text(x: float, y: float, words: str, anchor: str) -> None:
        group.add(
            shapes.String(
                x,
                height - y,
                _plain(words),
                fontSize=9,
                fillColor=HexColor(_DIM),
                textAnchor=anchor,
            )
        )

    line(drawing.zero, 0, drawing.zero, drawing.bottom, _LINE)
    line(drawing.floor, 0, drawing.floor, drawing.bottom, _FLOOR, strokeDashArray=[4, 3])
    for mark in drawing.marks:
        color = _COLORS[mark.role]
        text(4, mark.y + 4, mark.label, "start")
        line(mark.low, mark.y, mark.high, mark.y, color, strokeWidth=1.5)
        group.add(
            shapes.Circle(
                mark.at, height - mark.y, 3, fillColor=HexColor(color), strokeColor=HexColor(color)
            )
        )
    for x, words in drawing.ticks:
        text(x, height - 6, words, "middle")
    made.add(group)
    return made


def _markup(text: str) -> str:
    """Return text for a paragraph: names from outside are text and no markup."""
    return escape(_plain(text))


def _plain(text: str) -> str:
    """Return text in the characters that the fonts of every PDF reader have."""
    return text.replace("…", "...").encode("cp1252", "backslashreplace").decode("cp1252")
