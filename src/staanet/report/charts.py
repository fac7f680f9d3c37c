"""The charts of a transfer matrix: rates with intervals, and a heat map."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from staanet.report.chart_style import (
    BLUE,
    FAINT,
    INK,
    NARROW,
    VERMILION,
    Picture,
    draw_picture,
    short,
)
from staanet.results import formatting
from staanet.results.cells import Cell
from staanet.results.run_folder import RunFolder


def _label(cell: Cell, width: float) -> str:
    """The title of an attack, in lines that fit beside an axis."""
    return textwrap.fill(short(cell.title, 60), 27 if width > NARROW else 19)


def _pitch(cells: Sequence[Cell], width: float) -> float:
    """Inches from one row of a chart to the next; the longest label decides."""
    lines = max((_label(cell, width).count("\n") + 1 for cell in cells), default=1)
    return max(0.31, 0.125 * lines + 0.1)


# ---------------------------------------------------------------- rates with intervals


def forest_chart(cells: Sequence[Cell], width: float = 5.5) -> Picture:
    """Draws fooling rate and 95 % interval of each attack, grouped by target."""
    texts = [f"{c.title} on {c.target} {formatting.rate(c.fooling_rate, c.count)}" for c in cells]
    alt = "Fooling rates with 95 % intervals: " + "; ".join(texts)
    return draw_picture("fooling-rates", alt, width, lambda w: _forest(cells, w))


def _forest(cells: Sequence[Cell], width: float) -> Figure:
    targets = list(dict.fromkeys(cell.target for cell in cells))
    height = _pitch(cells, width) * (len(cells) + 1.2 * len(targets)) + 0.75
    figure = Figure(figsize=(width, height))
    name_width, figure_width = (2.15 if width > NARROW else 1.3), 0.62  # in inches
    span = width - name_width - figure_width
    axes = figure.add_axes((name_width / width, 0.55 / height, span / width, 1 - 0.58 / height))
    axis = axes.get_yaxis_transform()
    y = 0.0
    for target in targets:
        group = [cell for cell in cells if cell.target == target]
        axes.text(
            -name_width / span,
            y,
            short(target, 24) + _role(group),
            transform=axis,
            va="center",
            weight="bold",
        )
        for number, cell in enumerate(group, start=1):
            leading = cell.attack == cells[0].attack
            axes.text(
                -0.06,
                y + number,
                _label(cell, width),
                transform=axis,
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
                transform=axis,
                va="center",
                weight="bold" if leading else "normal",
            )
            _draw_interval(axes, y + number, cell, leading)
        y += len(group) + 1.2
    axes.set(xlim=(0, 100), ylim=(y - 0.55, -0.6), yticks=[], xticks=range(0, 101, 25))
    axes.set_xlabel("clips with a changed answer, %")
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=FAINT, alpha=0.35, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure


def _role(cells: Sequence[Cell]) -> str:
    """Whether the attacks on a target knew it; nothing where only some did."""
    if len({cell.white_box for cell in cells}) > 1:
        return ""
    return " · white box" if cells[0].white_box else " · transfer"


def _draw_interval(axes: Axes, y: float, cell: Cell, leading: bool) -> None:
    rate = cell.fooling_rate
    colour = FAINT if cell.control else VERMILION if leading else BLUE
    if rate.value is None:
        return
    if rate.low is not None and rate.high is not None:
        axes.hlines(y, 100 * rate.low, 100 * rate.high, color=colour, linewidth=3.2, alpha=0.45)
    marker = "D" if cell.control else "o"
    axes.plot([100 * rate.value], [y], marker, color=colour, markersize=6, clip_on=False, zorder=3)


# ---------------------------------------------------------------- fooling against time


def time_chart(cells: Sequence[Cell], width: float = 5.5) -> Picture | None:
    """Draws fooling rate against seconds per clip, for attacks at equal samples and level.

    Returns None where fewer than two of them have a time.
    """
    timed = [c for c in cells if c.seconds and c.fooling_rate.value is not None]
    if len(timed) < 2:
        return None
    texts = [
        f"{c.title} {formatting.percent(c.fooling_rate.value)} in {formatting.seconds(c.seconds)}"
        for c in timed
    ]
    alt = f"Fooling rate on {timed[0].target} against seconds per clip: " + "; ".join(texts)
    return draw_picture("fooling-against-time", alt, width, lambda w: _against_time(timed, w))


def _against_time(cells: Sequence[Cell], width: float) -> Figure:
    """Numbers the attacks by their time; a list below the axes names them."""
    listed = 0.17 * len(cells) + 0.1
    height = 3.2 + listed
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.6 / width, (listed + 0.5) / height, 1 - 0.75 / width, 2.6 / height))
    for number, cell in enumerate(sorted(cells, key=lambda cell: cell.seconds or 0.0), start=1):
        rate, seconds = cell.fooling_rate, cell.seconds or 0.0
        colour = FAINT if cell.control else VERMILION if cell is cells[0] else BLUE
        if rate.low is not None and rate.high is not None:
            axes.vlines(seconds, 100 * rate.low, 100 * rate.high, color=colour, alpha=0.45)
        marker = "D" if cell.control else "o"
        axes.plot([seconds], [100 * (rate.value or 0)], marker, color=colour, markersize=6)
        row = 104 + 7 * (number % 3)  # three rows, so that attacks of almost equal time stay apart
        axes.text(seconds, row, str(number), ha="center", va="bottom", fontsize=7.5)
        name = f"{number}  {_kind(cell)}: {formatting.percent(rate.value)} in {seconds:.3g} s"
        figure.text(0.6 / width, (listed - 0.17 * number) / height, name, fontsize=7.5)
    axes.set_xscale("log")
    axes.set(ylim=(-2, 126), yticks=range(0, 101, 25))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.4g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("seconds per clip")
    axes.set_ylabel("clips fooled, %")
    axes.grid(axis="y", color=FAINT, alpha=0.3, linewidth=0.6)
    return figure


def _kind(cell: Cell) -> str:
    """A title without its last part, which repeats the budget."""
    return short(
        ", ".join(cell.title.split(", ")[: 2 if re.search(" (step|iteration)", cell.title) else 1]),
        24,
    )


# ---------------------------------------------------------------- heat map


def heat_map_chart(run: RunFolder) -> Picture:
    """Draws the fooling rate of each source and attack on each target."""
    texts = [
        f"{c.title} from {c.source} on {c.target} {formatting.rate(c.fooling_rate, c.count)}"
        for c in run.cells
    ]
    width = min(10.0, 2.5 + 1.2 * len(run.targets))
    return draw_picture(
        "transfer-matrix",
        "Heat map of fooling rates: " + "; ".join(texts),
        width,
        lambda w: _heat_map(run, w),
    )


def _heat_map(run: RunFolder, width: float) -> Figure:
    targets, sources = run.targets, list(dict.fromkeys(source for _, source in run.keys))
    name_width = 2.2 if width > NARROW else 1.35
    lines = len(run.keys) + 1.35 * len(sources)
    height = _pitch(run.cells, width) * lines + 0.3
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes(
        (name_width / width, 0.01, 1 - (name_width + 0.03) / width, 1 - 0.31 / height)
    )
    axis = axes.get_yaxis_transform()
    margin = -name_width / (width - name_width - 0.03)
    for x, target in enumerate(targets):
        axes.text(x + 0.5, -0.5, f"on {short(target, 14)}", ha="center", va="bottom")
    y = 0.0
    for source in sources:
        axes.text(
            margin, y, f"from {short(source, 24)}", transform=axis, va="center", weight="bold"
        )
        for key in [key for key in run.keys if key[1] == source]:
            y += 1
            cells = [cell for cell in run.cells if cell.key == key]
            axes.text(
                -0.05,
                y,
                _label(cells[0], width),
                transform=axis,
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
    white_box = cell.white_box and not cell.control
    colour = matplotlib.colormaps["cividis"](value or 0.0)
    box = Rectangle(
        (x + 0.03, y - 0.44),
        0.94,
        0.88,
        facecolor="none" if value is None else colour,
        edgecolor=VERMILION if white_box else "none",
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
        weight="bold" if white_box else "normal",
    )
