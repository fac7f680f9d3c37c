"""Which differences the clips of a matrix show: attacks, victims and defences, paired clip by clip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from staanet.core import NO_CHANNEL
from staanet.core.groups import group_rates
from staanet.core.paired import paired_difference

METHOD = "staa"
"""The attack that others are compared with, where it was evaluated."""
CELL_NAMES = ("attack", "source", "target")
LOUDNESS = ("quiet third", "middle third", "loud third")
Cell = Mapping[str, Any]
Row = Mapping[str, Any]


def leading_attack(cells: Sequence[Cell]) -> str:
    """The attack that a matrix is about: STAA-Net, or else the first that is no control."""
    ranked = sorted(cells, key=lambda c: (c["control"], c["algorithm"] != METHOD))
    return str(ranked[0]["attack"]) if ranked else ""


def compare_cells(
    cells: Sequence[Cell], rows_of_cells: Sequence[Sequence[Row]]
) -> list[dict[str, Any]]:
    """Compares the leading attack with each other, and the targets of its sets with each other.

    Every entry names two cells, and holds the difference of their fooling rates over the clips that
    both have: ``value``, its interval, ``p``, ``least`` (what these clips would have shown with a power
    of 80 %) and ``is_real`` (see ``core.paired``). ``what`` is ``attacks``, ``victims`` or ``defences``.
    """
    plain = [
        (cell, rows)
        for cell, rows in zip(cells, rows_of_cells, strict=True)
        if cell["channel"] == NO_CHANNEL and rows
    ]
    leader = leading_attack([cell for cell, _ in plain])
    comparisons = []
    for what, (first, first_rows), (second, second_rows) in _pairs(plain, leader):
        others = {row["id"]: row for row in second_rows}
        pairs = [(row, others[row["id"]]) for row in first_rows if row["id"] in others]
        difference = paired_difference(
            [is_fooled(row) for row, _ in pairs],
            [is_fooled(row) for _, row in pairs],
            [str(row["speaker"]) for row, _ in pairs],
        )
        comparisons.append(
            {
                "what": what,
                "first": {key: first[key] for key in CELL_NAMES},
                "second": {key: second[key] for key in CELL_NAMES},
                **asdict(difference),
                "is_real": difference.is_real,
            }
        )
    return comparisons


Entry = tuple[Cell, Sequence[Row]]


def _pairs(plain: Sequence[Entry], leader: str) -> Iterator[tuple[str, Entry, Entry]]:
    for first in plain:
        if first[0]["attack"] != leader:
            continue
        for second in plain:
            a, b = first[0], second[0]
            if a["source"] != b["source"]:
                continue
            if a["target"] == b["target"] and b["attack"] != leader:
                yield "attacks", first, second
            elif a["attack"] == b["attack"] and a["target"] < b["target"]:
                yield ("defences" if a["defence"] or b["defence"] else "victims"), first, second


def leading_groups(
    cells: Sequence[Cell], rows_of_cells: Sequence[Sequence[Row]]
) -> list[dict[str, Any]]:
    """The groups of the leading attack's clips, for each of its sources and targets."""
    leader = leading_attack(cells)
    return [
        {**{key: cell[key] for key in CELL_NAMES}, "groups": describe_groups(rows)}
        for cell, rows in zip(cells, rows_of_cells, strict=True)
        if cell["attack"] == leader and cell["channel"] == NO_CHANNEL and rows
    ]


def describe_groups(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """How often the clips of each class, speaker, sex and level were fooled; see ``group_rates``.

    Sex and level are looked at where the rows have them.
    """
    kinds = {"class": [str(row["label"]) for row in rows]}
    kinds["speaker"] = [str(row["speaker"]) for row in rows]
    kinds["sex"] = [str(row.get("sex") or "") for row in rows]
    kinds["loudness"] = _thirds([row.get("level_db") for row in rows])
    rates = group_rates([is_fooled(row) for row in rows], kinds, kinds["speaker"])
    return [{**asdict(rate), "is_worse": rate.is_worse} for rate in rates]


def _thirds(levels: Sequence[float | None]) -> list[str]:
    """The third of the clips, by level, that each is in; empty where a level is missing.

    >>> _thirds([-30.0, -10.0, -20.0])
    ['quiet third', 'loud third', 'middle third']
    """
    if any(level is None or not np.isfinite(level) for level in levels):
        return [""] * len(levels)
    values = np.asarray(levels, dtype=float)
    edges = np.quantile(values, [1 / 3, 2 / 3])
    return [LOUDNESS[int(index)] for index in np.searchsorted(edges, values, side="left")]


def is_fooled(row: Row) -> bool:
    """Whether the answer changed, whatever the label."""
    return bool(row["clean_prediction"] != row["adversarial_prediction"])
