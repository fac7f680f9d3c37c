"""Summarises an audit: the worst attack, success per attacker and budget, and useful defences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from staanet.config import AuditRecipe
from staanet.config.epsilon import Epsilon
from staanet.core import NO_CHANNEL
from staanet.report.audit_verdict import ATTACKERS

STRONGEST_SETS = 3
"""How many of the strongest sets are tried unchanged on each defence."""
QUERIES = "sparsers"
"""Class name of the attack that only asks the model."""
Cell = Mapping[str, Any]


def fooling_rate(cell: Cell) -> float:
    """The fooling rate of a cell; -1 if it has no clip."""
    value = cell["fooling_rate"]["value"]
    return -1.0 if value is None else float(value)


def supported_rate(cell: Cell) -> float:
    """The fooling rate that the number of clips supports: the lower end of its 95 % Wilson interval.

    All of 1 clip supports 21 %, all of 20 clips 84 %. -1 if the cell has no clip.
    """
    from scipy.stats import binomtest

    rate, count = fooling_rate(cell), int(cell["fooling_rate"]["count"] or 0)
    if rate < 0 or not count:
        return -1.0
    return float(binomtest(round(rate * count), count).proportion_ci(method="wilson").low)


def attacker_of(cell: Cell) -> str:
    """Who can make the attack of a cell: a key of ``ATTACKERS``."""
    if cell["algorithm"] == QUERIES:
        return "queries"
    if cell["control"]:
        return "noise"
    return "white_box" if cell["white_box"] else "transfer"


def describe_cell(cell: Cell) -> dict[str, Any]:
    """The entry of a cell of the matrix in ``audit.json``."""
    rate = cell["fooling_rate"]
    return {
        "attack": cell["attack"],
        "title": cell["title"],
        "source": cell["source"],
        "channel": cell["channel"],
        "control": cell["control"],
        "white_box": cell["white_box"],
        "epsilon": cell["budget"].get("epsilon"),
        "max_density": cell["budget"].get("max_density"),
        "fooling_rate": rate["value"],
        "low": rate["low"],
        "high": rate["high"],
        "count": rate["count"],
        "supported": supported_rate(cell),
        "snr_db": cell["mean"]["snr_db"],
        "queries": cell["queries_mean"],
    }


def ccc_by_name(cell: Cell) -> dict[str, Any]:
    """The CCC before the attack of each number of a regression target; empty for classes, and without truth."""
    figures = {name: row["ccc_before"] for name, row in cell.get("dimensions", {}).items()}
    return {name: ccc for name, ccc in figures.items() if ccc["count"] and ccc["value"] is not None}


def quality_entry(cell: Cell) -> dict[str, Any]:
    """How good a target is on the clips before they are attacked: UAR, or the mean CCC."""
    values = [ccc["value"] for ccc in ccc_by_name(cell).values()]
    mean = {"ccc": sum(values) / len(values)} if values else {}
    return {"uar": cell["uar_before"]["value"], **mean}


def strongest_sets(cells: Sequence[Cell], sets: Sequence[Path]) -> list[tuple[Path, str]]:
    """The sets that fool most often, controls apart, each with the name of its source."""
    attacks = [c for c in cells if c["channel"] == NO_CHANNEL and not c["control"]]
    folders = {folder.name: folder for folder in sets}
    strongest = [
        (folders[f"{cell['attack']}__{cell['source']}"], cell["source"])
        for cell in sorted(attacks, key=fooling_rate, reverse=True)
        if f"{cell['attack']}__{cell['source']}" in folders
    ]
    return strongest[:STRONGEST_SETS]


def describe_findings(
    cells: Sequence[Cell], defences: Sequence[Mapping[str, Any]], recipe: AuditRecipe
) -> dict[str, Any]:
    """The part of ``audit.json`` that the cells of the matrix decide.

    Args:
        cells: Of the audited model, without a defence.
        defences: What each defence achieved.
        recipe: Of the audit.

    Returns:
        Recall, the worst cell, the worst of each attacker, budget and channel, and all cells.
    """
    plain = [cell for cell in cells if cell["channel"] == NO_CHANNEL]
    attackers: dict[str, list[Cell]] = {who: [] for who in ATTACKERS}
    for cell in plain:
        attackers[attacker_of(cell)].append(cell)
    noise, worst = attackers["noise"], worst_cell(plain)
    groups = {who: worst_cell(group) for who, group in attackers.items() if group}
    control = _worst_at(noise, worst["epsilon"], worst["max_density"])
    if control is not None:  # of the same budget as the worst attack
        groups["noise"] = control
    attacks = [*attackers["transfer"], *attackers["white_box"]]
    budgets = [
        {
            "epsilon": epsilon,
            "max_density": density,
            "noise": _worst_at(noise, epsilon, density),
            "worst": _worst_at(attacks, epsilon, density),
        }
        for epsilon in recipe.epsilons
        for density in recipe.densities
    ]
    channels = []
    for name in recipe.channels:
        after = [cell for cell in cells if cell["channel"] == name and not cell["control"]]
        channels.append({"channel": name, **worst_cell(after)})
    return {
        "uar": plain[0]["uar_before"],
        **({"ccc": ccc} if (ccc := ccc_by_name(plain[0])) else {}),
        "accuracy": plain[0]["accuracy_before"],
        "worst": worst,
        "attackers": groups,
        "budgets": budgets,
        "channels": channels,
        "defences": list(defences),
        "cells": [{**describe_cell(cell), "attacker": attacker_of(cell)} for cell in cells],
    }


def worst_cell(cells: Sequence[Cell]) -> dict[str, Any]:
    """The cell with the highest fooling rate that its clips support.

    An attack on few clips is therefore not the worst because it fooled all of them. Of equal rates, an
    attack comes before a control, then the one with more clips, then the one whose change is the
    softest. Where nothing was fooled, the loudest comes first.
    """

    def rank(cell: Cell) -> tuple[float, bool, int, float]:
        rate, snr_db = fooling_rate(cell), cell["mean"]["snr_db"] or 0.0
        count = int(cell["fooling_rate"]["count"])
        return (supported_rate(cell), not cell["control"], count, snr_db if rate > 0 else -snr_db)

    return describe_cell(max(cells, key=rank))


def _worst_at(cells: Sequence[Cell], epsilon: Epsilon, density: float) -> dict[str, Any] | None:
    budget = (epsilon, density)
    within = [
        cell
        for cell in cells
        if (cell["budget"]["epsilon"], cell["budget"]["max_density"]) == budget
    ]
    return worst_cell(within) if within else None
