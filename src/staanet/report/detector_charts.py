"""Draws the charts of the commands ``certify`` and ``detect`` from their JSON results, as PNG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from staanet.errors import printable
from staanet.report.chart_style import BLUE, FAINT, GREEN, SKY, STYLE, VERMILION, short, to_png

COLOURS = (VERMILION, BLUE, GREEN, SKY)


def certificate_chart(results: Mapping[str, Any]) -> bytes:
    """Draws certified accuracy in per cent against radius, with its 95 % intervals; returns PNG."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(5.0, 3.4)
        points = results["curve"]
        radii = [p["radius"] for p in points]
        # the accuracy holds up to and at each radius, so the step lies to its left
        axes.step(radii, [100 * p["certified_accuracy"] for p in points], where="pre", color=BLUE)
        bounded = [p for p in points if p["low"] is not None]
        axes.fill_between(
            [p["radius"] for p in bounded],
            [100 * p["low"] for p in bounded],
            [100 * p["high"] for p in bounded],
            step="pre",
            color=BLUE,
            alpha=0.15,
            linewidth=0,
        )
        axes.set_ylim(0, 100)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"radius: {results['unit']}")
        axes.set_ylabel("certified accuracy, %")
        alpha = results["votes"]["alpha"]
        axes.set_title(
            f"{printable(short(results['victim']))} by {results['method']}, {results['clips']} "
            f"clips, each certified at {100 * (1 - alpha):g} %"
        )
        return to_png(figure)


def roc_chart(results: Mapping[str, Any]) -> bytes:
    """Draws detection rate against false positive rate for each attack, in per cent; returns PNG.

    The diagonal is the ROC of chance.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(4.6, 4.0)
        axes.plot([0, 100], [0, 100], color=FAINT, linewidth=0.8, linestyle=":")
        for number, attack in enumerate(results["attacks"]):
            axes.plot(
                [100 * p["false_positive_rate"] for p in attack["roc"]],
                [100 * p["detected"] for p in attack["roc"]],
                color=COLOURS[number % len(COLOURS)],
                linestyle=("-", "--", "-.")[number // len(COLOURS) % 3],
                label=f"{printable(short(attack['attack']))}: AUROC {attack['auroc']:.3f}",
            )
        axes.set_xlim(-1, 100)
        axes.set_ylim(0, 101)
        axes.set_xlabel("false positive rate, % of clean clips")
        axes.set_ylabel("detected, % of attacked clips")
        axes.set_title(f"detector {printable(short(results['detector']))}")
        axes.legend(loc="lower right", fontsize=8)
        return to_png(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
