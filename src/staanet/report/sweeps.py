"""Success against budget, drawn: a row of panels per target, from the tables of a finished sweep."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from staanet import storage
from staanet.errors import InvalidInput
from staanet.report.figures import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    NARROW,
    SKY,
    STYLE,
    VERMILION,
    Picture,
    drawn,
    short,
    to_pdf,
    to_png,
    to_svg,
)
from staanet.results import formatting

ORANGE, PURPLE = "#e69f00", "#cc79a7"
COLOURS = (VERMILION, BLUE, GREEN, ORANGE, SKY, PURPLE, INK)  # Okabe and Ito, 2008, less yellow
MARKERS = "os^DvPX*<>"
Rows = Sequence[Mapping[str, Any]]
Place = tuple[float, float, float | None, float | None]
"""Where a point stands: x, and rate, low and high in per cent."""


@dataclass(frozen=True, slots=True)
class Swept:
    """A finished sweep from one source: its points, and the clips of those without a limit."""

    source: str
    points: Rows
    clips: Rows

    @property
    def targets(self) -> list[str]:
        """The source first, as far as it was a target."""
        found = list(dict.fromkeys(str(row["target"]) for row in self.points))
        return sorted(found, key=lambda target: target != self.source)

    @property
    def attacks(self) -> list[str]:
        return list(dict.fromkeys(str(row["attack"]) for row in self.points))


def read(folder: Path) -> Swept:
    """The tables of a sweep; ``InvalidInput`` where one is missing or is not what staanet writes."""
    return tables_of(folder, str(storage.read_card(folder, "sweep").get("source")))


def tables_of(folder: Path, source: str) -> Swept:
    """The tables of a sweep whose card is yet to be written."""
    points = _rows(folder / "sweep.parquet", _POINTS)
    return Swept(source, points, _rows(folder / "clips.parquet", _CLIPS))


def of_run(run: Path) -> list[Swept]:
    """All finished sweeps of a run."""
    parent = run / "sweeps"
    folders = sorted(parent.iterdir()) if parent.is_dir() else []
    return [read(folder) for folder in folders if (folder / storage.CARD).is_file()]


_POINTS = (
    "attack",
    "title",
    "control",
    "minimising",
    "target",
    "epsilon",
    "max_density",
    "fooling_rate",
    "fooling_rate_low",
    "fooling_rate_high",
    "density_mean",
    "snr_db_mean",
)
_CLIPS = ("attack", "target", "clean_prediction", "adversarial_prediction", "density", "snr_db")


def _rows(path: Path, needed: Sequence[str]) -> Rows:
    import pandas

    try:
        frame = pandas.read_parquet(path, columns=list(needed))
    except (OSError, ValueError, KeyError) as problem:  # pyarrow's errors derive from these
        raise InvalidInput(
            f"not a table of a sweep ({problem})", where=path, remedy="Run staanet sweep again"
        ) from None
    clean = frame.astype(object).where(frame.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in clean.to_dict("records")]


def chart(swept: Swept) -> Picture:
    """The figure for a page."""
    said = [
        f"{row['title']} on {row['target']} at epsilon {row['epsilon']:g}, "
        f"{formatting.percent(row['density_mean'])} of the samples: {formatting.percent(row['fooling_rate'])}"
        for row in swept.points
    ]
    name = re.sub(r"[^A-Za-z0-9._-]", "-", swept.source)  # it comes from a file and names one
    return drawn(
        f"success-against-budget-{name}",
        "Success against budget: " + "; ".join(said),
        9.6,
        lambda width: figure(swept, width),
    )


def write(folder: Path, swept: Swept) -> None:
    """``sweep.png``, ``sweep.svg`` and ``sweep.pdf`` beside the tables."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Glyph.*")  # a script that the font lacks
        made = figure(swept, 9.6)
        files = {"png": to_png(made), "svg": to_svg(made), "pdf": to_pdf(made)}
    for kind, data in files.items():
        storage.write_bytes(folder / f"sweep.{kind}", data)


def figure(swept: Swept, width: float) -> Figure:
    """Epsilon, density and SNR side by side, or one below the other where it is narrow."""
    across = 3 if width > NARROW else 1
    targets, names = swept.targets, swept.attacks
    rows = len(targets) * 3 // across
    legend = 0.22 * -(-len(names) // (5 if across == 3 else 2)) + 0.12
    height = 2.45 * rows + legend
    made = Figure(figsize=(width, height))
    made.subplots_adjust(
        left=0.62 / width,
        right=1 - 0.12 / width,
        bottom=0.5 / height,
        top=1 - (legend + 0.3) / height,
        hspace=0.62,
        wspace=0.13,
    )
    for number, target in enumerate(targets):
        for panel, draw in enumerate((_epsilon, _density, _snr)):
            same = made.axes[panel] if number else None  # one scale for all targets
            axes = made.add_subplot(rows, across, 3 * number + panel + 1, sharex=same)
            for attack in names:
                draw(axes, *_of(swept, attack, target), _style(swept, attack))
            _finish(axes, swept, target, panel, first=panel == 0 or across == 1)
    handles = [
        made.axes[0].plot([], [], label=short(_title(swept, name), 34), **_style(swept, name))[0]
        for name in names
    ]
    made.legend(
        handles=handles,
        loc="upper center",
        ncol=5 if across == 3 else 2,
        fontsize=8,
        handlelength=2.2,
        columnspacing=1.4,
        borderaxespad=0.1,
    )
    return made


def _title(swept: Swept, attack: str) -> str:
    return next(str(row["title"]) for row in swept.points if row["attack"] == attack)


def _style(swept: Swept, attack: str) -> dict[str, Any]:
    """Colour, marker and line of an attack: told apart without colour, too."""
    number = swept.attacks.index(attack)
    control = any(row["control"] for row in swept.points if row["attack"] == attack)
    hollow = {"markerfacecolor": "none"} if control else {}
    return {
        "color": FAINT if control else COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 4.5,
        "linewidth": 1.6,
        "linestyle": (0, (4, 1.5)) if control or number >= len(COLOURS) else "-",
        **hollow,
    }


def _of(swept: Swept, attack: str, target: str) -> tuple[Rows, Rows]:
    """Points and, where the attack had no limit, clips of one attack on one target."""

    def own(rows: Rows) -> Rows:
        return [row for row in rows if (row["attack"], row["target"]) == (attack, target)]

    points = own(swept.points)
    free = any(row["minimising"] for row in points)
    return points, own(swept.clips) if free else []


# ---------------------------------------------------------------- the three panels


def _epsilon(axes: Axes, points: Rows, clips: Rows, style: Mapping[str, Any]) -> None:
    densest = max((row["max_density"] or 0 for row in points), default=0)
    chosen = [row for row in points if (row["max_density"] or 0) == densest]
    _line(axes, [_place(row, row["epsilon"]) for row in chosen], style)


def _density(axes: Axes, points: Rows, clips: Rows, style: Mapping[str, Any]) -> None:
    if clips:
        _steps(axes, clips, [row["density"] for row in clips], style)
        return
    loudest = max(row["epsilon"] for row in points) if points else 0
    places = [
        _place(row, row["density_mean"])
        for row in points
        if row["epsilon"] == loudest and row["density_mean"]
    ]
    _line(axes, places, style)


def _snr(axes: Axes, points: Rows, clips: Rows, style: Mapping[str, Any]) -> None:
    if clips:
        known = [row for row in clips if row["snr_db"] is not None]
        _steps(axes, known, [-row["snr_db"] for row in known], style, of=len(clips), sign=-1)
        return
    loudest = max(row["epsilon"] for row in points) if points else 0
    densest = max((row["max_density"] or 0 for row in points), default=0)
    audible = [row for row in points if row["snr_db_mean"] is not None]
    along = [row for row in audible if row["epsilon"] == loudest]
    other = [row for row in audible if (row["max_density"] or 0) == densest]
    _line(axes, [_place(row, row["snr_db_mean"]) for row in along], style)
    if len(other) > 1:
        dotted = {**style, "linestyle": ":", "linewidth": 1.0}
        _line(axes, [_place(row, row["snr_db_mean"]) for row in other], dotted, band=False)


def _place(row: Mapping[str, Any], x: float) -> Place:
    low, high = (
        None if row[name] is None else 100 * row[name]
        for name in ("fooling_rate_low", "fooling_rate_high")
    )
    return x, 100 * row["fooling_rate"], low, high


def _line(
    axes: Axes, places: Sequence[Place], style: Mapping[str, Any], *, band: bool = True
) -> None:
    found = sorted(places, key=lambda place: place[0])
    axes.plot([x for x, *_ in found], [y for _, y, *_ in found], clip_on=False, zorder=3, **style)
    inside = [(x, low, high) for x, _, low, high in found if low is not None and high is not None]
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
    """The share of all clips fooled at a cost of at most x; ``sign`` turns costs back into x."""
    total = of or len(clips)
    paid = sorted(
        cost
        for cost, row in zip(costs, clips, strict=True)
        if row["clean_prediction"] != row["adversarial_prediction"] and (cost > 0 or sign < 0)
    )
    if paid:
        y = [100 * (number + 1) / total for number in range(len(paid))]
        plain = {**style, "marker": ""}
        axes.step([sign * cost for cost in paid], y, where="post", zorder=3, **plain)
        axes.plot([sign * paid[-1]], [y[-1]], zorder=3, **style)


_LABELS = ("epsilon, of full scale", "samples changed, %", "SNR, dB (louder to the right)")


def _finish(axes: Axes, swept: Swept, target: str, panel: int, *, first: bool) -> None:
    role = "white box" if target == swept.source else f"transfer from {short(swept.source, 14)}"
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
    axes.set_xscale("log")
    factor = 100 if panel else 1
    if panel == 0:
        axes.set_xticks(sorted({row["epsilon"] for row in swept.points}))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{factor * x:.4g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
