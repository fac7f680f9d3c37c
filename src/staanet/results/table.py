"""``Table``: columns, rows, caption and notes, rendered as Markdown, LaTeX, HTML or terminal text.

Every table that this package prints or writes is a ``Table``. Each renderer escapes what its format
would obey, so that a name is shown as it is.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from staanet.core.metrics import Estimate
from staanet.errors import printable
from staanet.results import formatting

CONTROL, WHITE_BOX = "control", "white box"
"""The two marks that LaTeX sets in type: italics, and a raised w."""


@dataclass(frozen=True, slots=True)
class TableCell:
    """A value as text; for a measurement also its interval and the number of clips behind it.

    >>> TableCell("75.0 %", interval="25.0 to 100.0 %", count=4, mark="white box").line
    '75.0 % (25.0 to 100.0 %, N 4) (white box)'
    """

    text: str
    note: str = ""
    """What stands in smaller type below the value."""
    mark: str = ""
    """A label such as ``control`` or ``white box``."""
    bar: float | None = None
    """Length of a bar below the value in HTML, in per cent."""
    interval: str = ""
    count: int | None = None
    """How many clips the value counts (N)."""

    @property
    def detail(self) -> str:
        """Interval, N and note as one line of small type."""
        clips = "" if self.count is None else f"N {self.count:,}"
        measured = ", ".join(filter(None, [self.interval, clips]))
        return "; ".join(filter(None, [measured, self.note]))

    @property
    def line(self) -> str:
        """The whole cell in one line of text."""
        more = [f"({part})" for part in (self.detail, self.mark) if part]
        return " ".join(filter(None, [self.text, *more]))


def rate_cell(estimate: Estimate, of: int, mark: str = "") -> TableCell:
    """A rate in per cent with its 95 % interval and N; ``of`` is the number of clips of the set.

    >>> rate_cell(Estimate(0.5, 0.25, 0.75, 8, 4), 8).line
    '50.0 % (25.0 to 75.0 %, N 8)'
    """
    text, interval = formatting.rate(estimate, of), formatting.interval(estimate)
    return TableCell(text, mark=mark, interval=interval, count=estimate.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns and rows; an entry of a row is a ``TableCell`` or any value, which ``str`` shows.

    >>> table = Table(columns=["model", "fooled"], rows=[["emo18", "85.2 %"], ["zhao19", None]])
    >>> print(table.to_terminal())
    model   fooled
    ------  ------
    emo18   85.2 %
    zhao19  n/a
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""
    notes: Sequence[str] = field(default=())
    """Sentences below the table."""
    key: str = "table"
    """Names the table in HTML and LaTeX."""
    names: int = 1
    """How many leading columns hold names; the others hold figures and are set to the right."""

    @property
    def cells(self) -> list[list[TableCell]]:
        """Every row as cells."""
        return [[_cell(value) for value in row] for row in self.rows]

    def to_terminal(self) -> str:
        """Aligned columns under a rule, without a line end.

        The caption stands above, the notes below.
        """
        body = [[printable(cell.line) for cell in row] for row in self.cells]
        lines = [list(self.columns), *body]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        lines.insert(1, ["-" * width for width in widths])
        text = [
            "  ".join(
                entry.ljust(width) for entry, width in zip(line, widths, strict=True)
            ).rstrip()
            for line in lines
        ]
        return "\n".join([*filter(None, [printable(self.caption)]), *text, *self.notes])

    def to_markdown(self) -> str:
        r"""A table of GitHub's Markdown; figures are aligned to the right.

        >>> print(Table(columns=["a"], rows=[[TableCell("x|y", "z")]], caption="C").to_markdown())
        **C**
        <BLANKLINE>
        | a |
        |---|
        | x\|y (z) |
        <BLANKLINE>
        """
        head = [markdown_text(column) for column in self.columns]
        rule = ["---"] * self.names + ["---:"] * (len(head) - self.names)
        body = [[markdown_text(cell.line) for cell in row] for row in self.cells]
        lines = [f"| {' | '.join(row)} |" for row in [head, *body]]
        lines.insert(1, f"|{'|'.join(rule[: len(head)])}|")
        caption = f"**{markdown_text(self.caption)}**\n\n" if self.caption else ""
        notes = "".join(f"\n{markdown_text(note)}\n" for note in self.notes)
        return caption + "\n".join(lines) + "\n" + notes

    def to_latex(self) -> str:
        r"""A ``table`` environment for the packages booktabs and graphicx.

        A control stands in italics, a white box has a raised w.

        >>> print(Table(columns=["a"], rows=[["x_y"]], caption="50 %").to_latex())
        \begin{table}
        \centering
        \caption{50 \%}
        \label{tab:table}
        \resizebox{\linewidth}{!}{%
        \begin{tabular}{l}
        \toprule
        a \\
        \midrule
        x\_y \\
        \bottomrule
        \end{tabular}}
        \end{table}
        <BLANKLINE>
        """
        kinds = "l" * self.names + "r" * (len(self.columns) - self.names)
        cells = self.cells
        caption = " ".join(filter(None, [self.caption, *self.notes]))
        marks = {cell.mark for row in cells for cell in row}
        if WHITE_BOX in marks:
            caption += f" ({WHITE_BOX}: w)"
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(caption)}}}",
            rf"\label{{tab:{re.sub('[^A-Za-z0-9-]', '-', self.key)}}}",
            r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{{kinds}}}",
            r"\toprule",
            _latex_row(latex_text(column) for column in self.columns),
            r"\midrule",
            *(_latex_row(map(_latex_cell, row)) for row in cells),
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"

    def to_html(self) -> str:
        """A captioned ``table`` in a region of its own; empty where there are no rows.

        Each cell names its column, for a narrow window that shows a row as a list.
        """
        if not self.rows:
            return ""
        name = f"table-{_html_text(self.key)}"
        head = "".join(
            f'<th scope="col"{_html_class("" if i < self.names else "figure")}>{_html_text(c)}</th>'
            for i, c in enumerate(self.columns)
        )
        notes = "".join(f'<p class="note">{_html_text(note)}</p>\n' for note in self.notes)
        rows = "\n".join(self._html_row(row) for row in self.cells)
        return (
            f'<div class="table">\n<p class="caption" id="{name}">{_html_text(self.caption)}</p>\n'
            f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{name}">\n'
            f'<table aria-labelledby="{name}">\n<thead><tr>{head}</tr></thead>\n'
            f"<tbody>\n{rows}\n</tbody>\n</table>\n</div>\n{notes}</div>\n"
        )

    def _html_row(self, row: Sequence[TableCell]) -> str:
        entries = []
        for index, cell in enumerate(row):
            label = f' data-label="{_html_text(self.columns[index])}"'
            mark = cell.mark and (
                f'<span class="mark {_html_text(cell.mark.replace(" ", "-"))}">'
                f"{_html_text(cell.mark)}</span>"
            )
            text = _html_text(cell.text)
            if index == 0:
                entries.append(f'<th scope="row"{label}>{text}{mark}</th>')
                continue
            kind = "name" if index < self.names else "figure"
            kind += " own" if cell.mark == WHITE_BOX else ""
            width = "" if cell.bar is None else f"{cell.bar:.1f}%"
            bar = width and (
                f'<span class="bar" aria-hidden="true"><span style="width:{width}"></span></span>'
            )
            detail = cell.detail and f"<small>{_html_text(cell.detail)}</small>"
            entries.append(f"<td{_html_class(kind)}{label}>{text}{bar}{detail}{mark}</td>")
        control = "control" if any(cell.mark == CONTROL for cell in row) else ""
        return f"<tr{_html_class(control)}>{''.join(entries)}</tr>"


def markdown_text(text: str) -> str:
    r"""Text in which Markdown finds no markup and no column.

    >>> markdown_text("a|b_c")
    'a\\|b\\_c'
    """
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", printable(text))


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "\N{GREEK SMALL LETTER EPSILON}": r"$\epsilon$",
    "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
    "\N{MINUS SIGN}": "$-$",
}


def latex_text(text: str) -> str:
    r"""Text in which TeX finds nothing to obey.

    >>> latex_text("50 % of a_b")
    '50 \\% of a\\_b'
    """
    return "".join(_LATEX.get(character, character) for character in printable(text))


def _cell(value: object) -> TableCell:
    if isinstance(value, TableCell):
        return value
    return TableCell(formatting.NONE if value is None else str(value))


def _latex_row(entries: Iterable[str]) -> str:
    return " & ".join(entries) + r" \\"


def _latex_cell(cell: TableCell) -> str:
    text = latex_text(cell.text)
    detail = [latex_text(cell.detail)] if cell.detail else []
    if cell.mark == CONTROL:
        text = rf"\textit{{{text}}}"
    elif cell.mark == WHITE_BOX:
        text += r"$^{\mathrm{w}}$"
    elif cell.mark:
        detail.append(latex_text(cell.mark))
    return rf"{text} {{\footnotesize ({'; '.join(detail)})}}" if detail else text


def _html_text(text: str) -> str:
    return html.escape(printable(text))


def _html_class(name: str) -> str:
    return f' class="{name}"' if name else ""
