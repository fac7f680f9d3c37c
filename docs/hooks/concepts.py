"""mkdocs hook: draws the pictures of *Concepts* in the colours of the page.

The pictures explain terms and show no results. Their intervals come from the function that reports use.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from staanet.core import metrics
from staanet.report.chart_style import BLUE, FAINT, GREEN, INK, NARROW, VERMILION, draw_picture

MARK = re.compile(r"^<!-- picture (\w+) -->$", re.M)
TIME = np.linspace(0.0, 1.0, 400)
SPEECH = np.sin(2 * np.pi * 23 * TIME) * np.sin(np.pi * TIME) ** 2 * np.cos(5 * np.pi * TIME)
"""A waveform that resembles one or two syllables."""


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Replaces each mark of a page by its picture."""
    return MARK.sub(lambda mark: drawing(mark[1]), markdown)


def drawing(name: str) -> str:
    """Returns one picture, for a screen and for a phone."""
    draw, alt = PICTURES[name]
    picture = draw_picture(f"concept-{name}", alt, 6.6, draw)
    both = f'<div class="wide">{picture.wide}</div><div class="narrow">{picture.narrow}</div>'
    flat = re.sub(r"\n\s*\n", "\n", re.sub(r"<!--.*?-->", "", both, flags=re.S))
    return f'<div class="drawing" role="img" aria-label="{alt}">{flat}</div>'


def _panels(width: float, number: int, height: float) -> tuple[Figure, list[Axes]]:
    """Returns panels without axes. A phone shows the panels one below the other."""
    is_narrow = width <= NARROW
    figure = Figure(figsize=(width, height * number if is_narrow else height))
    shape = (number, 1) if is_narrow else (1, number)
    panels = list(np.ravel(figure.subplots(*shape, squeeze=False)))
    for axes in panels:
        axes.axis("off")
    figure.subplots_adjust(left=0.02, right=0.98, top=0.8, bottom=0.04, hspace=0.4, wspace=0.12)
    return figure, panels


def _box(axes: Axes, x: float, y: float, text: str, colour: str = INK) -> Text:
    frame = {"boxstyle": "round,pad=0.45", "facecolor": "none", "edgecolor": colour}
    return axes.text(x, y, text, ha="center", va="center", color=colour, fontsize=8, bbox=frame)


def _arrow(axes: Axes, start: Text, end: Text) -> None:
    """An arrow from the edge of one box to that of another."""
    ends = {"patchA": start.get_bbox_patch(), "patchB": end.get_bbox_patch()}
    style = {"arrowstyle": "->", "color": FAINT, "shrinkA": 1, "shrinkB": 1, **ends}
    axes.annotate("", end.get_position(), start.get_position(), arrowprops=style)


def _flow(axes: Axes, row: list[tuple[str, str]], y: float = 0.5) -> list[Text]:
    """Boxes from left to right, with arrows between them."""
    axes.set(xlim=(0, 1), ylim=(0, 1))
    x = [(index + 0.5) / len(row) for index in range(len(row))]
    boxes = [_box(axes, at, y, *box) for at, box in zip(x, row, strict=True)]
    for start, end in pairwise(boxes):
        _arrow(axes, start, end)
    return boxes


def setting(width: float) -> Figure:
    """An attack is crafted on the source and given to targets."""
    figure, (axes,) = _panels(width, 1, 1.7 if width > NARROW else 2.2)
    gap = " " if width > NARROW else "\n"
    row = [
        ("clip x", INK),
        (f"attack on{gap}the source", VERMILION),
        ("x_adv", VERMILION),
        (f"source:{gap}white box", VERMILION),
    ]
    boxes = _flow(axes, row, 0.78)
    _arrow(axes, boxes[2], _box(axes, 0.84, 0.2, f"another model:{gap}transfer", BLUE))
    return figure


def _stems(axes: Axes, clean: Any, changed: Any, epsilon: float) -> None:
    x = np.arange(len(clean))
    moved = clean != changed
    axes.fill_between(x, clean - epsilon, clean + epsilon, color=FAINT, alpha=0.25, linewidth=0)
    axes.plot(x, clean, "o", markersize=3.5, color=INK)
    axes.vlines(x[moved], clean[moved], changed[moved], color=VERMILION, linewidth=1.6)
    axes.plot(x[moved], changed[moved], "o", markersize=3.5, color=VERMILION)
    axes.set_ylim(-1.4, 1.6)


def budget(width: float) -> Figure:
    """Changed samples inside the band of epsilon."""
    figure, (axes,) = _panels(width, 1, 1.8)
    clean = np.sin(np.linspace(0, 5.5, 24))
    changed = clean.copy()
    changed[[3, 4, 9, 15, 16]] += 0.3 * np.array([1, 1, -1, -1, 1])
    _stems(axes, clean, changed, 0.3)
    axes.set_title("grey: range of epsilon; red: changed samples", fontsize=8.5)
    return figure


def level(width: float) -> Figure:
    """Speech, and below it a change at three levels."""
    figure, panels = _panels(width, 3, 1.4)
    noise = np.random.default_rng(0).choice([-1.0, 1.0], TIME.size)
    for axes, snr_db in zip(panels, (40, 20, 0), strict=True):
        scale = np.sqrt(np.mean(SPEECH**2)) / 10 ** (snr_db / 20)
        axes.plot(TIME, SPEECH + 1, color=INK, linewidth=0.9)
        axes.plot(TIME, scale * noise - 1, color=VERMILION, linewidth=0.9)
        axes.set_title(f"SNR {snr_db} dB", fontsize=8.5)
        axes.set_ylim(-2, 2.1)
    return figure


def control(width: float) -> Figure:
    """The attack and random signs change equally many samples by the same size."""
    figure, panels = _panels(width, 2, 1.7)
    clean = np.sin(np.linspace(0, 5.5, 24))
    rng = np.random.default_rng(2)
    chosen = {"attack: samples and signs from the gradient": (np.r_[7:13], np.ones(6))}
    chosen["control: random samples and signs"] = (
        rng.choice(24, 6, replace=False),
        rng.choice([-1.0, 1.0], 6),
    )
    for axes, (title, (places, signs)) in zip(panels, chosen.items(), strict=True):
        changed = clean.copy()
        changed[places] += 0.3 * signs
        _stems(axes, clean, changed, 0.3)
        axes.set_title(title, fontsize=8)
    return figure


def transfer(width: float) -> Figure:
    """A transfer matrix: white box on the diagonal."""
    figure, (axes,) = _panels(width, 1, 2.3)
    names = ("A", "B", "yours")
    axes.set(xlim=(-1.5, 3.1), ylim=(2.7, -0.9))
    for row, source in enumerate(names[:2]):
        axes.text(-0.15, row + 0.4, f"crafted on {source}", ha="right", va="center", fontsize=8)
        for column in range(3):
            colour, text = (VERMILION, "white box") if row == column else (BLUE, "transfer")
            _box(axes, column + 0.5, row + 0.4, text, colour)
    for column, target in enumerate(names):
        axes.text(column + 0.5, -0.45, f"on {target}", ha="center", fontsize=8)
    axes.text(-0.15, 2.4, "control", ha="right", va="center", fontsize=8, style="italic")
    for column in range(3):
        axes.text(column + 0.5, 2.4, "noise", ha="center", va="center", fontsize=8, color=FAINT)
    return figure


def adaptive(width: float) -> Figure:
    """A static attack is crafted without the defence. An adaptive attack is crafted through the defence."""
    figure, panels = _panels(width, 2, 1.1)
    for axes, title, crafted in (
        (panels[0], "static", "crafted on\nthe model"),
        (panels[1], "adaptive", "crafted on\ndefence + model"),
    ):
        _flow(axes, [(crafted, VERMILION), ("defence", GREEN), ("model", INK)])
        axes.set_title(title, fontsize=9)
    return figure


def interval(width: float) -> Figure:
    """The interval of one rate for different numbers of speakers."""
    figure = Figure(figsize=(width, 2.1))
    axes = figure.add_axes((1.1 / width, 0.26, 1 - 1.3 / width, 0.68))
    counts = (2, 4, 8, 16, 40)
    for row, speakers in enumerate(counts):
        each = 80 // speakers
        shares = [0.25 if index % 2 else 0.75 for index in range(speakers)]
        hits = [i < round(share * each) for share in shares for i in range(each)]
        estimate = metrics.rate(hits, [str(s) for s in range(speakers) for _ in range(each)])
        low, high = 100 * (estimate.low or 0.0), 100 * (estimate.high or 0.0)
        axes.hlines(row, low, high, color=VERMILION, linewidth=3, alpha=0.5)
        axes.plot(100 * (estimate.value or 0.0), row, "o", color=VERMILION, markersize=5)
    axes.set_yticks(range(len(counts)), [f"{count} speakers" for count in counts], fontsize=8)
    axes.set(xlim=(0, 100), ylim=(len(counts) - 0.5, -0.5))
    axes.set_xlabel("fooling rate of 80 clips, 95 % interval", fontsize=8)
    return figure


PICTURES: dict[str, tuple[Callable[[float], Figure], str]] = {
    "setting": (
        setting,
        "The attack on the source turns clip x into x_adv. The source and another model receive x_adv.",
    ),
    "budget": (
        budget,
        "The picture shows 24 samples. Five samples change within the range of epsilon.",
    ),
    "level": (level, "Three panels show a waveform above a change. The SNR is 40, 20 and 0 dB."),
    "control": (
        control,
        "An attack and random signs change the same number of samples by the same size.",
    ),
    "transfer": (
        transfer,
        "The matrix has a row per source and a column per target. The diagonal is white box.",
    ),
    "adaptive": (
        adaptive,
        "A static attack is crafted on the model. An adaptive attack is crafted on defence and model.",
    ),
    "interval": (
        interval,
        "The 95 % interval of 80 clips is wide with 2 speakers and narrow with 40 speakers.",
    ),
}
"""The function that draws each picture, and its description."""
