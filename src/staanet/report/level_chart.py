"""The chart of fooling against level: a curve for each attacker, the control in grey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from staanet.report.chart_style import (
    BLUE,
    FAINT,
    GREEN,
    NARROW,
    SKY,
    VERMILION,
    Picture,
    draw_picture,
    short,
)
from staanet.results import formatting

Point = tuple[float, float, float | None, float | None]
"""SNR in dB, then rate and the ends of its interval, in [0, 1]."""
COLOURS = (VERMILION, BLUE, GREEN, SKY)
MARKERS = "os^v"


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What one attacker does at several levels."""

    name: str
    control: bool
    points: Sequence[Point]


def level_chart(
    curves: Sequence[Curve], quiet_db: float | None = None, width: float = 5.5
) -> Picture | None:
    """Draws the fooling rate of each curve against SNR, louder to the right; None without any point.

    A dotted line marks ``quiet_db``, the level at which people begin to hear the change.
    """
    shown = [curve for curve in curves if curve.points]
    if not shown:
        return None
    texts = [
        f"{curve.name} {formatting.percent(rate)} at {snr:.0f} dB"
        for curve in shown
        for snr, rate, *_ in sorted(curve.points, reverse=True)
    ]
    alt = "Fooling rate against SNR: " + "; ".join(texts)
    return draw_picture("fooling-against-level", alt, width, lambda w: _draw(shown, quiet_db, w))


def _draw(curves: Sequence[Curve], quiet_db: float | None, width: float) -> Figure:
    columns = len(curves) if width > NARROW else 2
    legend = 0.24 * -(-len(curves) // columns)
    height = 3.1 + legend
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.6 / width, 0.5 / height, 1 - 0.75 / width, 2.45 / height))
    inks = iter(zip(COLOURS * len(curves), MARKERS * len(curves), strict=True))
    for curve in curves:
        colour, marker = (FAINT, "D") if curve.control else next(inks)
        points = sorted(curve.points)
        x, rates = [snr for snr, *_ in points], [100 * rate for _, rate, *_ in points]
        line = "--" if curve.control else "-"
        axes.plot(
            x, rates, line, marker=marker, markersize=5, color=colour, label=short(curve.name)
        )
        for snr, _, low, high in points:
            if low is not None and high is not None:
                axes.vlines(snr, 100 * low, 100 * high, color=colour, alpha=0.35, linewidth=2)
    if quiet_db is not None:
        axes.axvline(quiet_db, color=FAINT, linestyle=":", linewidth=1)
    axes.set(ylim=(-2, 102), yticks=range(0, 101, 25))
    axes.set_xlabel("mean SNR, dB (louder to the right)")
    axes.set_ylabel("clips with a changed answer, %")
    axes.invert_xaxis()
    axes.grid(axis="y", color=FAINT, alpha=0.3, linewidth=0.6)
    figure.legend(loc="upper center", ncols=columns, fontsize=8, borderaxespad=0.1)
    return figure
