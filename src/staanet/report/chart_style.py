"""Shared style of charts: colours, and one drawing rendered as SVG, PNG and PDF.

Same input gives the same bytes. Ink and colours of an SVG follow the light or dark theme of the page.
Only object-oriented matplotlib is used.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure

from staanet.errors import printable

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

INK, FAINT = "#1a1a19", "#8a8a87"
VERMILION, BLUE, GREEN, SKY = "#d55e00", "#0072b2", "#009e73", "#56b4e9"  # Okabe and Ito
THEME = {
    INK: "currentColor",
    FAINT: "var(--faint)",
    VERMILION: "var(--vermilion)",
    BLUE: "var(--blue)",
    GREEN: "var(--green)",
    SKY: "var(--sky)",
}
STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "staanet",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.titlesize": 9.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.unicode_minus": True,
    "legend.frameon": False,
}
NARROW = 3.4  # inches of 96 CSS pixels: what a phone of 360 pixels shows without scaling


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One chart: SVG for a page and for a phone, files for papers, and its description in words."""

    name: str
    alt: str
    wide: str
    narrow: str
    svg: bytes
    png: bytes
    pdf: bytes


def draw_picture(name: str, alt: str, width: float, draw: Callable[[float], Figure]) -> Picture:
    """Returns the chart that ``draw(width in inches)`` makes, in every form."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Glyph.*")  # a script that the font lacks
        figure = draw(width)
        svg = to_svg(figure)
        return Picture(
            name=name,
            alt=alt,
            wide=inline_svg(svg, f"{name}-w"),
            narrow=inline_svg(to_svg(draw(NARROW)), f"{name}-n"),
            svg=svg,
            png=to_png(figure),
            pdf=to_pdf(figure),
        )


def to_svg(figure: Figure) -> bytes:
    """Returns SVG without a date and without the name of the program, so that equal input gives equal bytes."""
    out = io.BytesIO()
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(out, format="svg", transparent=True, metadata=metadata)
    return out.getvalue()


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    """Returns PNG on white."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return out.getvalue()


def to_pdf(figure: Figure) -> bytes:
    """Returns PDF whose letters stay letters, without a date and without the name of the program."""
    out = io.BytesIO()
    metadata = {"CreationDate": None, "Creator": None, "Producer": None}
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(out, format="pdf", metadata=metadata)
    return out.getvalue()


def inline_svg(svg: bytes, prefix: str) -> str:
    """Returns the ``<svg>`` element for a page: at most its natural width, in the colours of the theme.

    ``prefix`` makes its ids unique in the page.
    """
    text = svg.decode("utf-8")
    text = text[text.index("<svg") :].strip()
    points = float(re.findall(r'width="([\d.]+)pt"', text)[0])
    text = re.sub(r'\s(?:xmlns(?::xlink)?|version|width|height)="[^"]*"', "", text, count=5)
    text = text.replace("<svg", f'<svg style="max-width:{points * 4 / 3:.0f}px"', 1)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", text)
    for ink, variable in THEME.items():
        text = text.replace(ink, variable)
    return text.replace("'DejaVu Sans'", "var(--sans)")


def short(name: str, length: int = 28) -> str:
    """Returns a name that fits beside an axis and that no renderer obeys.

    >>> short("a" * 40, 8)
    'aaaaaaa…'
    """
    text = printable(name)
    return text if len(text) <= length else f"{text[: length - 1]}…"
