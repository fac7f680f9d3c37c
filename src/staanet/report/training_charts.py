"""The training curves of victims and generators."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
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
from staanet.results.stored import StoredModel

MIN_RANGE = 0.5
"""Least range of the vertical axis, in its unit; a constant curve must not look as if it moved."""


def victim_curves(models: Sequence[StoredModel]) -> Picture | None:
    """Draws UAR on dev clips during the training of victims; None where no curve is known."""
    drawable = [m for m in models if len(_finite(m, "dev_uar"))]
    if not drawable:
        return None
    reached = "; ".join(
        f"{m.name} reached {formatting.percent(max(_finite(m, 'dev_uar')))}" for m in drawable
    )

    def draw(width: float) -> Figure:
        figure = Figure(figsize=(width, 2.5))
        axes = figure.add_axes((0.42 / width, 0.5 / 2.5, 1 - 0.5 / width, 1 - 0.75 / 2.5))
        _lines(axes, [(m.name, m.curve, "dev_uar", 100.0) for m in drawable], "UAR on dev clips, %")
        axes.set_ylim(0, 100)
        axes.legend(fontsize=8, handlelength=1.4, borderaxespad=0.2)
        return figure

    return draw_picture(
        "training-victims", f"UAR on dev clips during training: {reached}", 5.4, draw
    )


def generator_curves(models: Sequence[StoredModel]) -> Picture | None:
    """Draws loss, fooling rate, density and SNR during the training of generators, or None."""
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

    ends: list[str] = []
    for model in drawable:
        last = {key: values[-1] for key, *_ in _PANELS if (values := _finite(model, key))}
        ends.append(f"{model.name} ended at " + ", ".join(f"{k} {v:.3g}" for k, v in last.items()))
    return draw_picture("training-generators", "Generator training: " + "; ".join(ends), 8.6, draw)


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
    if high - low < MIN_RANGE:
        axes.set_ylim((low + high - MIN_RANGE) / 2, (low + high + MIN_RANGE) / 2)
    axes.grid(axis="y", color=FAINT, alpha=0.3, linewidth=0.6)


def _finite(model: StoredModel, key: str) -> list[float]:
    return [value for value in model.curve.get(key, ()) if math.isfinite(value)]
