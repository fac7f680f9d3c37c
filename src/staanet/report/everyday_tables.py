"""What everyday change does to a model, as a table and in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from staanet.core.metrics import Estimate
from staanet.results.formatting import percent, seconds
from staanet.results.table import Table, TableCell, rate_cell

KINDS = {
    "unheard": "inaudible change",
    "noise": "noise, music and other voices",
    "device": "devices and rooms",
    "phone": "poor telephone",
}


def everyday_table(summary: Mapping[str, Any]) -> Table:
    """A row per condition: answers unchanged, the least share that passes, UAR or CCC, verdict, time."""
    figure = "uar" if summary.get("ccc") is None else "ccc"
    rows: list[list[object]] = [
        [
            KINDS[row["kind"]],
            row["name"],
            rate_cell(Estimate(**row["unchanged"]), summary["clips"]),
            percent(row["least_unchanged"]),
            _signed((row.get(f"{figure}_loss") or row["uar_loss"])["value"]),
            TableCell("pass" if row["passed"] else "FAIL"),
            seconds(row["seconds"]),
        ]
        for row in summary["conditions"]
    ]
    return Table(
        key=f"everyday-{summary['victim']}",
        caption=f"Everyday changes: answers of {summary['victim']} that stay. A condition passes "
        f"if enough answers stay and {figure.upper()} falls by at most "
        f"{summary['most_uar_loss']:g}",
        columns=["kind", "condition", "unchanged", "at least", figure.upper(), "verdict", "time"],
        rows=rows,
        names=2,
    )


def everyday_sentences(summary: Mapping[str, Any]) -> list[str]:
    """How many conditions pass, and the worst condition of each kind."""
    worst = [
        (
            f"{KINDS[kind]}: with {row['name']}, {_stays(row)} stay "
            f"({'passes' if row['passed'] else 'fails'})"
        )
        for kind, row in summary["worst"].items()
        if row["unchanged"]["value"] is not None
    ]
    return [
        f"Everyday changes: {summary['passed']} of {summary['of']} conditions pass. The worst "
        f"condition of each kind is: {'; '.join(worst)}."
    ]


def _stays(row: Mapping[str, Any]) -> str:
    stays = row["unchanged"]
    interval = (
        ""
        if stays["low"] is None
        else f", 95 % interval {100 * stays['low']:.0f} to {100 * stays['high']:.0f} %"
    )
    return f"{percent(stays['value'])} of {stays['count']} answers{interval}"


def _signed(loss: float | None) -> str | None:
    return None if loss is None else f"{-loss:+.3f}".replace("-", "\N{MINUS SIGN}")
