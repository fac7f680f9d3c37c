"""The tables of what the clips of a run can tell apart: attacks, victims, groups of clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from staanet.results.cells import Cell, finite_number
from staanet.results.formatting import NONE, percent, quantity
from staanet.results.run_folder import RunFolder
from staanet.results.table import Table, TableCell

GROUP_COLUMNS = (
    "of",
    "group",
    "clips",
    "fooled",
    "simultaneous 95 % interval",
    "others",
    "p (Holm)",
)
RULE = "A difference is called real if its interval excludes 0 and it reaches the least difference. The "
RULE += "least difference is the smallest one that these clips show with a power of 80 %."
Row = Mapping[str, Any]


def comparison_table(run: RunFolder) -> Table:
    """Returns the paired differences of the summary; no rows where it has none."""
    titles = {cell.key: cell.title for cell in run.cells}
    return Table(
        key="comparisons",
        caption="Differences of fooling rates in percentage points, paired by clip",
        columns=["first", "second", "difference", "p", "least difference shown", "verdict"],
        rows=[_comparison(row, titles) for row in run.summary.get("comparisons") or ()],
        names=2,
        notes=[RULE],
    )


def _comparison(row: Row, titles: Mapping[tuple[str, str], str]) -> list[object]:
    first, second = row["first"], row["second"]
    names = [
        f"{titles.get((side['attack'], side['source']), side['attack'])} from {side['source']}"
        f" on {side['target']}"
        for side in (first, second)
    ]
    if row["what"] != "attacks":  # the same clips, given to two classifiers
        names[1] = f"on {second['target']}"
    low, high = (points(row[key]) for key in ("low", "high"))
    return [
        *names,
        TableCell(
            points(row["value"]),
            interval=f"{low} to {high}" if row["low"] is not None else "",
            count=int(row["count"]),
        ),
        p_text(row["p"]),
        points(row["least"]).lstrip("+"),
        _verdict(row),
    ]


def _verdict(row: Row) -> str:
    """What may be said of a difference.

    >>> _verdict({"is_real": False, "low": 0.01, "high": 0.2, "value": 0.1, "clusters": 4})
    'too small for these clips'
    """
    if row["is_real"]:
        return "real"
    if row["low"] is None:
        return f"not known: {quantity(int(row['clusters']), 'speaker')}"
    if row["low"] > 0 or row["high"] < 0:
        return "too small for these clips"
    return "not shown"


def points(share: object) -> str:
    """A difference of shares in percentage points.

    >>> points(0.125), points(None)
    ('+12.5', 'n/a')
    """
    value = finite_number(share)
    return NONE if value is None else f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")


def p_text(p: object) -> str:
    """A p value with two digits.

    >>> p_text(0.0213), p_text(1e-9), p_text(None)
    ('0.021', '< 0.001', 'n/a')
    """
    value = finite_number(p)
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def worst_groups_table(run: RunFolder, cell: Cell) -> Table:
    """Returns the groups of the clips of one cell, those fooled more often than others marked."""
    key = {"attack": cell.attack, "source": cell.source, "target": cell.target}
    entries = [
        entry["groups"]
        for entry in run.summary.get("groups") or ()
        if all(entry[name] == value for name, value in key.items())
    ]
    return groups_table(
        entries[0] if entries else [],
        f"groups-{cell.source}",
        f"Fooling rates of {cell.title} from {cell.source} on {cell.target} in groups of clips. "
        "The group with the highest rate of each kind is first",
    )


def groups_table(groups: Sequence[Row], key: str, caption: str) -> Table:
    """Returns a row per group of ``evaluation.describe_groups``."""
    return Table(
        key=key,
        caption=caption,
        columns=GROUP_COLUMNS,
        rows=[
            [
                group["kind"],
                TableCell(str(group["name"]), mark="worse" if group["is_worse"] else ""),
                f"{group['count']:,} of {quantity(int(group['speakers']), 'speaker')}",
                percent(group["value"]),
                _interval(group),
                percent(group["others"]),
                p_text(group["p"]),
            ]
            for group in groups
        ],
        names=3,
        notes=[
            f"The table tests {quantity(len(groups), 'group')}. The p values and intervals hold "
            "for all groups together. Groups of fewer than 3 clips are left out."
        ],
    )


def _interval(group: Row) -> str:
    if group["low"] is None:
        return f"no interval: {quantity(int(group['speakers']), 'speaker')}"
    return f"{100 * group['low']:.1f} to {100 * group['high']:.1f} %"


def worst_group_text(groups: Sequence[Row]) -> str:
    """One sentence on the groups that are shown to be fooled more often than the others.

    >>> worst_group_text([])
    ''
    """
    worse = sorted((g for g in groups if g["is_worse"]), key=lambda g: g["p"])
    if not groups:
        return ""
    if not worse:
        return (
            "No class, speaker, sex or level has a significantly higher fooling rate than the "
            f"other clips ({quantity(len(groups), 'group')} tested, Holm)."
        )
    named = [
        f"{g['kind']} {g['name']} ({percent(g['value'])}, others {percent(g['others'])})"
        for g in worse[:3]
    ]
    more = f", and {len(worse) - 3} more" if len(worse) > 3 else ""
    return (
        "These groups have a significantly higher fooling rate than the other clips: "
        f"{', '.join(named)}{more} ({quantity(len(groups), 'group')} tested, Holm)."
    )
