"""The charts: rates with intervals, heat map, training curves. Same input, same bytes.

Each is drawn at two widths, for a page and for a phone, as SVG whose ink and colours follow the
page's light or dark theme, and as a PNG on white for papers. Object-oriented matplotlib only.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.typing import RcKeyType

from staanet.errors import printable
from staanet.results import formatting
from staanet.results.cells import Cell
from staanet.results.run_folder import RunFolder, StoredModel

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
LEAST_RANGE = 0.5
"""Of the vertical axis of a training curve, in its unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One chart: the SVG for a page, the one for a phone, files for papers, what it shows in words."""

    name: str
    alt: str
    wide: str
    narrow: str
    svg: bytes
    png: bytes
    pdf: bytes


def drawn(name: str, alt: str, width: float, draw: Callable[[float], Figure]) -> Picture:
    """``draw(width in inches)`` in all forms."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Glyph.*")  # a script that the font lacks
        figure = draw(width)
        svg = to_svg(figure)
        return Picture(
            name=name,
            alt=alt,
            wide=inline(svg, f"{name}-w"),
            narrow=inline(to_svg(draw(NARROW)), f"{name}-n"),
            svg=svg,
            png=to_png(figure),
            pdf=to_pdf(figure),
        )


def to_svg(figure: Figure) -> bytes:
    """Without date and without any mark of the program that drew it."""
    out = io.BytesIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    return out.getvalue()


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    """On white."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return out.getvalue()


def to_pdf(figure: Figure) -> bytes:
    """Vectors whose letters stay letters; without date and without any mark of its maker."""
    out = io.BytesIO()
    nothing = {"CreationDate": None, "Creator": None, "Producer": None}
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(out, format="pdf", metadata=nothing)
    return out.getvalue()


def inline(svg: bytes, prefix: str) -> str:
    """The ``<svg>`` element alone, at its natural width or less, ids unique in the page, in its theme."""
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


def _label(cell: Cell, width: float) -> str:
    """The title of an attack in lines that fit beside an axis."""
    return textwrap.fill(short(cell.title, 60), 27 if width > NARROW else 19)


def _pitch(cells: Sequence[Cell], width: float) -> float:
    """Inches from one row of a chart to the next: the longest label decides."""
    lines = max((_label(cell, width).count("\n") + 1 for cell in cells), default=1)
    return max(0.31, 0.125 * lines + 0.1)


def short(name: str, length: int = 28) -> str:
    """A name that fits beside an axis, harmless to a renderer.

    >>> short("a" * 40, 8)
    'aaaaaaa…'
    """
    text = printable(name)
    return text if len(text) <= length else f"{text[: length - 1]}…"


# ---------------------------------------------------------------- rates with intervals


def forest(cells: Sequence[Cell], width: float = 5.5) -> Picture:
    """Fooling rate and 95 % interval of each attack, grouped by target."""
    said = [f"{c.title} on {c.target} {formatting.rate(c.fooling_rate, c.count)}" for c in cells]
    alt = "Fooling rates with 95 % intervals: " + "; ".join(said)
    return drawn("fooling-rates", alt, width, lambda w: _forest(cells, w))


def _forest(cells: Sequence[Cell], width: float) -> Figure:
    targets = list(dict.fromkeys(cell.target for cell in cells))
    height = _pitch(cells, width) * (len(cells) + 1.2 * len(targets)) + 0.75
    figure = Figure(figsize=(width, height))
    left, right = (2.15 if width > NARROW else 1.3), 0.62  # inches for names and for figures
    span = width - left - right
    axes = figure.add_axes((left / width, 0.55 / height, span / width, 1 - 0.58 / height))
    across = axes.get_yaxis_transform()
    y = 0.0
    for target in targets:
        own = [cell for cell in cells if cell.target == target]
        role = "white box" if own[0].white_box else "transfer"
        axes.text(
            -left / span,
            y,
            f"{short(target, 24)} · {role}",
            transform=across,
            va="center",
            weight="bold",
        )
        for number, cell in enumerate(own, start=1):
            leading = cell.attack == cells[0].attack
            axes.text(
                -0.06,
                y + number,
                _label(cell, width),
                transform=across,
                ha="right",
                va="center",
                style="italic" if cell.control else "normal",
                linespacing=1,
                fontsize=9 if width > NARROW else 7.5,
            )
            axes.text(
                1.04,
                y + number,
                formatting.percent(cell.fooling_rate.value),
                transform=across,
                va="center",
                weight="bold" if leading else "normal",
            )
            _interval(axes, y + number, cell, leading)
        y += len(own) + 1.2
    axes.set(xlim=(0, 100), ylim=(y - 0.55, -0.6), yticks=[], xticks=range(0, 101, 25))
    axes.set_xlabel("clips with a changed answer, %")
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=FAINT, alpha=0.35, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure


def _interval(axes: Axes, y: float, cell: Cell, leading: bool) -> None:
    rate = cell.fooling_rate
    colour = FAINT if cell.control else VERMILION if leading else BLUE
    if rate.value is None:
        return
    if rate.low is not None and rate.high is not None:
        axes.hlines(y, 100 * rate.low, 100 * rate.high, color=colour, linewidth=3.2, alpha=0.45)
    marker = "D" if cell.control else "o"
    axes.plot([100 * rate.value], [y], marker, color=colour, markersize=6, clip_on=False, zorder=3)


# ---------------------------------------------------------------- heat map


def heat_map(run: RunFolder) -> Picture:
    """Fooling rate of each (source, attack) on each target."""
    said = [
        f"{c.title} from {c.source} on {c.target} {formatting.rate(c.fooling_rate, c.count)}"
        for c in run.cells
    ]
    width = min(10.0, 2.5 + 1.2 * len(run.targets))
    return drawn(
        "transfer-matrix",
        "Heat map of fooling rates: " + "; ".join(said),
        width,
        lambda w: _heat_map(run, w),
    )


def _heat_map(run: RunFolder, width: float) -> Figure:
    targets, sources = run.targets, list(dict.fromkeys(source for _, source in run.keys))
    left = 2.2 if width > NARROW else 1.35
    lines = len(run.keys) + 1.35 * len(sources)
    height = _pitch(run.cells, width) * lines + 0.3
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, 0.01, 1 - (left + 0.03) / width, 1 - 0.31 / height))
    across = axes.get_yaxis_transform()
    margin = -left / (width - left - 0.03)
    for x, target in enumerate(targets):
        axes.text(x + 0.5, -0.5, f"on {short(target, 14)}", ha="center", va="bottom")
    y = 0.0
    for source in sources:
        axes.text(
            margin, y, f"from {short(source, 24)}", transform=across, va="center", weight="bold"
        )
        for key in [key for key in run.keys if key[1] == source]:
            y += 1
            cells = [cell for cell in run.cells if cell.key == key]
            axes.text(
                -0.05,
                y,
                _label(cells[0], width),
                transform=across,
                ha="right",
                va="center",
                linespacing=1,
                style="italic" if cells[0].control else "normal",
                fontsize=9 if width > NARROW else 7.5,
            )
            for cell in cells:
                _heat_cell(axes, targets.index(cell.target), y, cell)
        y += 1.35
    axes.set(xlim=(0, len(targets)), ylim=(y - 0.8, -0.45))
    axes.axis("off")
    return figure


def _heat_cell(axes: Axes, x: int, y: float, cell: Cell) -> None:
    value = cell.fooling_rate.value
    known = cell.white_box and not cell.control
    colour = matplotlib.colormaps["cividis"](value or 0.0)
    box = Rectangle(
        (x + 0.03, y - 0.44),
        0.94,
        0.88,
        facecolor="none" if value is None else colour,
        edgecolor=VERMILION if known else "none",
        linewidth=2,
    )
    axes.add_patch(box)
    linear = [((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]  # sRGB to luminance
    dark = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] < 0.18
    ink = INK if value is None else "#ffffff" if dark else "#000000"
    text = formatting.NONE if value is None else f"{100 * value:.1f}"
    axes.text(
        x + 0.5,
        y + 0.03,
        text,
        ha="center",
        va="center",
        color=ink,
        weight="bold" if known else "normal",
    )


# ---------------------------------------------------------------- training


def victim_curves(models: Sequence[StoredModel]) -> Picture | None:
    """UAR on dev clips while the victims were trained."""
    drawable = [m for m in models if len(_finite(m, "dev_uar"))]
    if not drawable:
        return None
    said = "; ".join(
        f"{m.name} reached {formatting.percent(max(_finite(m, 'dev_uar')))}" for m in drawable
    )

    def draw(width: float) -> Figure:
        figure = Figure(figsize=(width, 2.5))
        axes = figure.add_axes((0.42 / width, 0.5 / 2.5, 1 - 0.5 / width, 1 - 0.75 / 2.5))
        _lines(axes, [(m.name, m.curve, "dev_uar", 100.0) for m in drawable], "UAR on dev clips, %")
        axes.set_ylim(0, 100)
        axes.legend(fontsize=8, handlelength=1.4, borderaxespad=0.2)
        return figure

    return drawn("training-victims", f"UAR on dev clips during training: {said}", 5.4, draw)


def generator_curves(models: Sequence[StoredModel]) -> Picture | None:
    """Adversarial loss, fooling rate, density and SNR while the generators were trained."""
    drawable = [m for m in models if any(len(_finite(m, key)) for key, *_ in _PANELS)]
    if not drawable:
        return None

    def draw(width: float) -> Figure:
        columns = 2 if width > NARROW else 1
        rows = math.ceil(len(_PANELS) / columns)
        figure = Figure(figsize=(width, 2.4 * rows))
        figure.subplots_adjust(
            left=0.45 / width,
            right=1 - 0.08 / width,
            bottom=0.45 / (2.4 * rows),
            top=1 - 0.25 / (2.4 * rows),
            hspace=0.45,
            wspace=0.16,
        )
        for number, (key, dev, label, factor) in enumerate(_PANELS, start=1):
            axes = figure.add_subplot(rows, columns, number)
            series = [(m.name, m.curve, key, factor) for m in drawable]
            _lines(axes, series, label, dev)
            if number == 1 and axes.get_legend_handles_labels()[1]:
                axes.legend(fontsize=8, handlelength=1.4, borderaxespad=0.2)
        return figure

    ends = []
    for model in drawable:
        last = {key: found[-1] for key, *_ in _PANELS if (found := _finite(model, key))}
        ends.append(f"{model.name} ended at " + ", ".join(f"{k} {v:.3g}" for k, v in last.items()))
    return drawn("training-generators", "Generator training: " + "; ".join(ends), 8.6, draw)


_PANELS = (
    ("adversarial", "", "adversarial loss", 1.0),
    ("fooling_rate", "dev_fooling_rate", "fooling rate, %", 100.0),
    ("density", "dev_density", "samples changed, %", 100.0),
    ("snr_db", "dev_snr_db", "SNR, dB", 1.0),
)


def _lines(
    axes: Axes,
    series: Sequence[tuple[str, Mapping[str, Sequence[float]], str, float]],
    label: str,
    dev: str = "",
) -> None:
    colours = (VERMILION, BLUE, GREEN, SKY)
    for number, (name, curve, key, factor) in enumerate(series):
        colour, dash = colours[number % 4], (None, None) if number < 4 else (4, 1.5)
        x = curve.get("step") or curve.get("epoch") or range(1, len(curve.get(key, ())) + 1)
        for column, solid in ((key, not dev), (dev, True)):
            if column in curve:
                y = [factor * value for value in curve[column]]
                axes.plot(
                    x,
                    y,
                    color=colour,
                    linewidth=1.8 if solid else 1.0,
                    alpha=1.0 if solid else 0.55,
                    marker="o" if len(y) == 1 else "",
                    dashes=dash,
                    label=short(name, 18) if solid else "",
                )
    axes.set_title(label)
    axes.set_xlabel("step" if any("step" in curve for _, curve, *_ in series) else "epoch")
    axes.margins(x=0.01)
    axes.ticklabel_format(useOffset=False)
    last = axes.dataLim.x1 if axes.get_lines() else 0.0
    axes.set_xlim(0, 1.02 * last or 1.0)  # from the first step, also where there is one point
    low, high = axes.get_ylim()
    if high - low < LEAST_RANGE:  # what does not move shall not look as if it did
        axes.set_ylim((low + high - LEAST_RANGE) / 2, (low + high + LEAST_RANGE) / 2)
    axes.grid(axis="y", color=FAINT, alpha=0.3, linewidth=0.6)


def _finite(model: StoredModel, key: str) -> list[float]:
    return [value for value in model.curve.get(key, ()) if math.isfinite(value)]
