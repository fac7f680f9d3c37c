"""Renders a transfer matrix as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from staanet.results.formatting import NONE, percent
from staanet.results.table import Table


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows under a head, in columns."""
    return Table(columns=columns, rows=rows).to_terminal()


def matrix_text(summary: Mapping[str, Any]) -> str:
    """The whole matrix as tables for a terminal, with its flags."""
    targets = list(summary["targets"])
    plain = [cell for cell in summary["cells"] if cell["channel"] == "pcm16"]
    cells = {(c["attack"], c["source"], c["target"]): c for c in plain}
    is_targeted = any("targeted_success_rate" in cell for cell in plain)
    columns = ["attack", "source", *(f"reaches, {t}" for t in targets if is_targeted)]
    columns += [*(f"fools {t}" for t in targets), "density", "SNR dB", "s/clip"]
    rows = []
    for attack, source in dict.fromkeys(key[:2] for key in cells):
        across = [cells[attack, source, target] for target in targets]
        mean = across[0]["mean"]
        rows.append(
            [
                attack,
                source,
                *(_rate(cell, "targeted_success_rate") for cell in across if is_targeted),
                *(_rate(cell) for cell in across),
                _number(mean["density"], 3),
                _number(mean["snr_db"], 1),
                _number(across[0]["seconds_median"], 3),
            ]
        )
    parts = [table(columns, rows), _abstentions(plain), _after_channels(summary), _sound(summary)]
    flags = "".join(f"\nwarning: {flag}" for flag in summary["flags"])
    return "\n\n".join(filter(None, parts)) + flags


def _abstentions(cells: Sequence[Mapping[str, Any]]) -> str:
    """How often targets with a detector abstain, and how often they are fooled and answer."""
    rates = ("clean", "adversarial", "fooling_rate_answered")
    rows = [
        [*(c[name] for name in ("attack", "source", "target"))]
        + [percent(c["abstention"][rate]["value"]) for rate in rates]
        for c in cells
        if "abstention" in c
    ]
    columns = ["attack", "source", "target", "abstains: clean", "attacked", "fooled and answered"]
    return table(columns, rows) if rows else ""


def _after_channels(summary: Mapping[str, Any]) -> str:
    targets = list(summary["targets"])
    cells = {(c["channel"], c["attack"], c["source"], c["target"]): c for c in summary["cells"]}
    keys = dict.fromkeys(key[:3] for key in cells if key[0] != "pcm16")
    rows = [[*key, *(_rate(cells[*key, target]) for target in targets)] for key in keys]
    columns = ["after channel", "attack", "source", *(f"fools {target}" for target in targets)]
    return table(columns, rows) if rows else ""


def _sound(summary: Mapping[str, Any]) -> str:
    rows = [
        [
            entry["attack"],
            entry["source"],
            name,
            _number(score["value"], 3),
            f"{score['count']} of {score['of']}",
            "; ".join(score["missing"]),
        ]
        for entry in summary.get("sets", [])
        for name, score in entry["perceptual"].items()
    ]
    columns = ["attack", "source", "sounds like", "mean", "clips", "others"]
    return table(columns, rows) if rows else ""


def _rate(cell: Mapping[str, Any], metric: str = "fooling_rate") -> str:
    if metric not in cell:
        return "untargeted"
    value, count = cell[metric]["value"], cell[metric]["count"]
    knowledge = f", {cell['defence']}" if cell.get("defence") else ""  # static or adaptive
    return (
        f"{NONE} (0 of {cell['count']})"
        if value is None
        else f"{percent(value)} of {count}{knowledge}"
    )


def _number(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:.{digits}f}"
