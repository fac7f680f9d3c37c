"""The chart of a sweep: success against budget, a row of panels per target."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from staanet import storage
from staanet.config import epsilon_order, epsilon_text
from staanet.report.chart_style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    NARROW,
    SKY,
    STYLE,
    VERMILION,
    Picture,
    draw_picture,
    short,
    to_pdf,
    to_png,
    to_svg,
)
from staanet.report.sweep_tables import Rows, Sweep
from staanet.results import formatting

ORANGE, PURPLE = "#e69f00", "#cc79a7"
COLOURS = (VERMILION, BLUE, GREEN, ORANGE, SKY, PURPLE, INK)  # Okabe and Ito, 2008, less yellow
MARKERS = "os^DvPX*<>"
Point = tuple[float, float, float | None, float | None]
"""x, then rate, low and high in per cent."""


def draw_chart(sweep: Sweep) -> Picture:
    """Draws the chart of a sweep for a page."""
    values = [
        f"{row['title']} on {row['target']} at epsilon {epsilon_text(row['epsilon'])}, "
        f"{formatting.percent(row['density_mean'])} of the samples: {formatting.percent(row['fooling_rate'])}"
        for row in sweep.points
    ]
    name = re.sub(r"[^A-Za-z0-9._-]", "-", sweep.source)  # from a file; it names a file
    return draw_picture(
        f"success-against-budget-{name}",
        "Success against budget: " + "; ".join(values),
        9.6,
        lambda width: build_figure(sweep, width),
    )


def write(folder: Path, sweep: Sweep) -> None:
    """Writes ``sweep.png``, ``sweep.svg`` and ``sweep.pdf`` beside the tables."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Glyph.*")  # a script that the font lacks
        chart = build_figure(sweep, 9.6)
        files = {"png": to_png(chart), "svg": to_svg(chart), "pdf": to_pdf(chart)}
    for kind, data in files.items():
        storage.write_bytes(folder / f"sweep.{kind}", data)


def build_figure(sweep: Sweep, width: float) -> Figure:
    """Epsilon, density and SNR side by side, or one below the at_top_density where it is narrow."""
    columns = 3 if width > NARROW else 1
    targets, names = sweep.targets, sweep.attacks
    rows = len(targets) * 3 // columns
    legend = 0.22 * -(-len(names) // (5 if columns == 3 else 2)) + 0.12
    height = 2.45 * rows + legend
    chart = Figure(figsize=(width, height))
    chart.subplots_adjust(
        left=0.62 / width,
        right=1 - 0.12 / width,
        bottom=0.5 / height,
        top=1 - (legend + 0.3) / height,
        hspace=0.62,
        wspace=0.13,
    )
    for number, target in enumerate(targets):
        for panel, draw in enumerate((_epsilon, _density, _snr)):
            shared = chart.axes[panel] if number else None  # one scale for all targets
            axes = chart.add_subplot(rows, columns, 3 * number + panel + 1, sharex=shared)
            for attack in names:
                draw(axes, *_rows_of(sweep, attack, target), _style(sweep, attack))
            _finish(axes, sweep, target, panel, first=panel == 0 or columns == 1)
    handles = [
        chart.axes[0].plot([], [], label=short(_title(sweep, name), 34), **_style(sweep, name))[0]
        for name in names
    ]
    chart.legend(
        handles=handles,
        loc="upper center",
        ncol=5 if columns == 3 else 2,
        fontsize=8,
        handlelength=2.2,
        columnspacing=1.4,
        borderaxespad=0.1,
    )
    return chart


def _title(sweep: Sweep, attack: str) -> str:
    return next(str(row["title"]) for row in sweep.points if row["attack"] == attack)


def _style(sweep: Sweep, attack: str) -> dict[str, Any]:
    """Colour, marker and line of an attack; the marker alone identifies the attack, too."""
    number = sweep.attacks.index(attack)
    control = any(row["control"] for row in sweep.points if row["attack"] == attack)
    hollow = {"markerfacecolor": "none"} if control else {}
    return {
        "color": FAINT if control else COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 4.5,
        "linewidth": 1.6,
        "linestyle": (0, (4, 1.5)) if control or number >= len(COLOURS) else "-",
        **hollow,
    }


def _rows_of(sweep: Sweep, attack: str, target: str) -> tuple[Rows, Rows]:
    """The points of one attack on one target, and its clips where it had no limit."""

    def select(rows: Rows) -> Rows:
        return [row for row in rows if (row["attack"], row["target"]) == (attack, target)]

    points = select(sweep.points)
    unlimited = any(row["minimising"] for row in points)
    return points, select(sweep.clips) if unlimited else []


# ---------------------------------------------------------------- the three panels


def _epsilon(axes: Axes, points: Rows, clips: Rows, style: Mapping[str, Any]) -> None:
    densest = max((row["max_density"] or 0 for row in points), default=0)
    chosen = [row for row in points if (row["max_density"] or 0) == densest]
    _line(axes, [_point(row, _size(row)) for row in chosen], style)


def _density(axes: Axes, points: Rows, clips: Rows, style: Mapping[str, Any]) -> None:
    if clips:
        _steps(axes, clips, [row["density"] for row in clips], style)
        return
    largest = max(map(_size, points), default=0)
    dots = [
        _point(row, row["density_mean"])
        for row in points
        if _size(row) == largest and row["density_mean"]
    ]
    _line(axes, dots, style)


def _snr(axes: Axes, points: Rows, clips: Rows, style: Mapping[str, Any]) -> None:
    if clips:
        with_snr = [row for row in clips if row["snr_db"] is not None]
        _steps(axes, with_snr, [-row["snr_db"] for row in with_snr], style, of=len(clips), sign=-1)
        return
    largest = max(map(_size, points), default=0)
    densest = max((row["max_density"] or 0 for row in points), default=0)
    with_snr = [row for row in points if row["snr_db_mean"] is not None]
    at_top_epsilon = [row for row in with_snr if _size(row) == largest]
    at_top_density = [row for row in with_snr if (row["max_density"] or 0) == densest]
    _line(axes, [_point(row, row["snr_db_mean"]) for row in at_top_epsilon], style)
    if len(at_top_density) > 1:
        dotted = {**style, "linestyle": ":", "linewidth": 1.0}
        _line(axes, [_point(row, row["snr_db_mean"]) for row in at_top_density], dotted, band=False)


def _size(row: Mapping[str, Any]) -> float:
    """Epsilon of full scale, or in decibels relative to the speech."""
    return epsilon_order(row["epsilon"])[1]


def _point(row: Mapping[str, Any], x: float) -> Point:
    low, high = (
        None if row[name] is None else 100 * row[name]
        for name in ("fooling_rate_low", "fooling_rate_high")
    )
    return x, 100 * row["fooling_rate"], low, high


def _line(
    axes: Axes, dots: Sequence[Point], style: Mapping[str, Any], *, band: bool = True
) -> None:
    ordered = sorted(dots, key=lambda point: point[0])
    axes.plot(
        [x for x, *_ in ordered], [y for _, y, *_ in ordered], clip_on=False, zorder=3, **style
    )
    inside = [(x, low, high) for x, _, low, high in ordered if low is not None and high is not None]
    if band and len(inside) > 1:
        x, low, high = zip(*inside, strict=True)
        axes.fill_between(x, low, high, color=style["color"], alpha=0.08, linewidth=0)
    elif band and inside:
        axes.vlines(*inside[0], color=style["color"], alpha=0.35, linewidth=2.5)


def _steps(
    axes: Axes,
    clips: Rows,
    costs: Sequence[float],
    style: Mapping[str, Any],
    *,
    of: int = 0,
    sign: int = 1,
) -> None:
    """Draws the share of all clips fooled at a cost of at most x; ``sign`` turns costs into x."""
    total = of or len(clips)
    fooled = sorted(
        cost
        for cost, row in zip(costs, clips, strict=True)
        if row["clean_prediction"] != row["adversarial_prediction"] and (cost > 0 or sign < 0)
    )
    if fooled:
        y = [100 * (number + 1) / total for number in range(len(fooled))]
        line = {**style, "marker": ""}
        axes.step([sign * cost for cost in fooled], y, where="post", zorder=3, **line)
        axes.plot([sign * fooled[-1]], [y[-1]], zorder=3, **style)


_LABELS = ("epsilon, of full scale", "samples changed, %", "SNR, dB (louder to the right)")


def _finish(axes: Axes, sweep: Sweep, target: str, panel: int, *, first: bool) -> None:
    role = "white box" if target == sweep.source else f"transfer from {short(sweep.source, 14)}"
    axes.set_title(f"{short(target, 18)} · {role}" if first else "", fontsize=9)
    axes.set_xlabel(_LABELS[panel])
    axes.set_ylim(-2, 102)
    axes.set_yticks(range(0, 101, 25))
    if first:
        axes.set_ylabel("clips fooled, %")
    else:
        axes.tick_params(labelleft=False)
    axes.grid(axis="y", color=FAINT, alpha=0.3, linewidth=0.6)
    if panel == 2:
        if not axes.xaxis_inverted():
            axes.invert_xaxis()
        return
    if panel == 0 and any(isinstance(row["epsilon"], str) for row in sweep.points):
        axes.set_xlabel("epsilon, dB to the speech")
    else:
        axes.set_xscale("log")
    factor = 100 if panel else 1
    if panel == 0:
        axes.set_xticks(sorted(set(map(_size, sweep.points))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{factor * x:.4g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
