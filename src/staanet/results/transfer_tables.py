"""The tables of a transfer matrix: rates, distances of the fooled clips, and flat rows for analysis.

Rates lie in [0, 1] in a cell, with their 95 % intervals clustered by speaker; a table shows per cent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import stdev
from typing import Any

from staanet.config import epsilon_text
from staanet.core.metrics import Estimate
from staanet.errors import unknown_name
from staanet.results import formatting
from staanet.results.adversarial_set import TARGET_CLASS
from staanet.results.cells import DISTANCES, Cell
from staanet.results.formatting import NONE, number, percent
from staanet.results.table import Table, TableCell, rate_cell

METRICS = {
    "fooling_rate": "share of clips whose answer changed",
    "attack_success_rate": "share of the correctly answered clips that became wrong",
    "uar_after": "unweighted average recall after the attack",
}
"""The rates that a matrix can show, with their definitions (Chang et al. 2024, arXiv 2402.01227,
section V)."""
ESTIMATES = (
    "fooling_rate",
    "attack_success_rate",
    "uar_before",
    "uar_after",
    "accuracy_before",
    "accuracy_after",
)
BUDGET = ("epsilon", "max_density", "max_l0", "min_snr_db")


def transfer_table(cells: Sequence[Cell], metric: str = "fooling_rate") -> Table:
    """Returns a row per source and attack, a column per target, then the mean cost over all clips.

    Raises ``InvalidInput`` where ``metric`` is none of ``METRICS``.
    """
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    targets = list(dict.fromkeys(cell.target for cell in cells))
    rows = []
    for attack, source in dict.fromkeys(cell.key for cell in cells):
        by_target = {cell.target: cell for cell in cells if cell.key == (attack, source)}
        first = next(iter(by_target.values()))
        rates = [
            target_cell(by_target[target], metric) if target in by_target else ""
            for target in targets
        ]
        rows.append([source, TableCell(first.title, mark=first.mark), *rates, *_costs(first)])
    costs = ["samples changed", "l0", "SNR", "peak ratio", "largest change"]
    times = ["time per clip", "queries per clip"]
    return Table(
        key="matrix" if metric == "fooling_rate" else metric,
        caption=f"{metric.replace('_', ' ').capitalize()}: {METRICS[metric]}, with its 95 % "
        "interval clustered by speaker. N is the number of clips. The cost is the mean "
        "over all clips",
        columns=["crafted on", "attack", *(f"on {target}" for target in targets), *costs, *times],
        rows=rows,
        names=2,
        notes=[f"Budget: {budgets_text(cells)}."] if cells else [],
    )


def target_cell(cell: Cell, metric: str = "fooling_rate") -> TableCell:
    """Returns the rate of one cell, marked where the attack knew the target."""
    shown = rate_cell(getattr(cell, metric), cell.count, cell.access)
    return replace(shown, note=trainings_text(cell)) if metric == "fooling_rate" else shown


def trainings_text(cell: Cell) -> str:
    """How far several trainings of the generator are apart; empty if there was one."""
    rates = cell.trainings
    if len(rates) < 2:
        return ""
    return (
        f"{len(rates)} trainings: {percent(min(rates))} to {percent(max(rates))}, "
        f"SD {100 * stdev(rates):.1f}"
    )


def _costs(cell: Cell) -> list[TableCell]:
    mean = cell.mean
    untouched = formatting.quantity(cell.untouched, "clip") if cell.untouched else ""
    return [
        TableCell(percent(mean.density)),
        TableCell(number(mean.l0, 0)),
        TableCell(
            number(mean.snr_db, 1, "dB"), f"without {untouched} left as is" if untouched else ""
        ),
        TableCell(number(mean.peak_ratio_db, 1, "dB")),
        TableCell(number(mean.linf, 4)),
        TableCell(formatting.seconds(cell.seconds)),
        TableCell(number(cell.queries, 0)),
    ]


def effects_table(cells: Sequence[Cell]) -> Table:
    """Returns what attacks do to recall and accuracy, and the distances of the fooled clips alone."""
    columns = ["crafted on", "attack", "target", "attack success", "UAR", "accuracy"]
    fooled = ["fooled", "fooled: samples changed", "fooled: SNR", "fooled: peak ratio"]
    return Table(
        key="effects",
        caption="Attack success, recall and accuracy before and after, and mean distances of the "
        "fooled clips. Attack success is the share of the N correct clips that became "
        "wrong",
        columns=[*columns, *fooled],
        rows=[
            [
                cell.source,
                TableCell(cell.title, mark=cell.mark),
                TableCell(cell.target, mark=cell.access),
                _success(cell),
                _before_after(cell.uar_before, cell.uar_after),
                _before_after(cell.accuracy_before, cell.accuracy_after),
                *_fooled(cell),
            ]
            for cell in cells
        ],
        names=3,
    )


def dimensions_table(cells: Sequence[Cell]) -> Table | None:
    """Returns what attacks do to the numbers of regression targets; None without such a target."""
    rows = [
        [
            cell.source,
            TableCell(cell.title, mark=cell.mark),
            TableCell(cell.target, mark=cell.access),
            name,
            _quantity(figures["mean_absolute_shift"]),
            *(
                f"{_quantity(figures[f'{key}_before'])} \N{RIGHTWARDS ARROW} "
                f"{_quantity(figures[f'{key}_after'])}"
                for key in ("ccc", "mae")
            ),
        ]
        for cell in cells
        for name, figures in cell.dimensions.items()
    ]
    if not rows:
        return None
    return Table(
        key="dimensions",
        caption="Regression targets: mean absolute shift, concordance (CCC) and mean absolute "
        "error (MAE) before and after, with 95 % intervals clustered by speaker. The "
        "shift is in the units of the target. The fooling rate is the share of clips that "
        "moved by more than the tolerance",
        columns=["crafted on", "attack", "target", "dimension", "shift", "CCC", "MAE"],
        rows=rows,
        names=4,
    )


def _quantity(estimate: Estimate) -> str:
    return NONE if estimate.value is None else str(estimate)


def _success(cell: Cell) -> TableCell:
    rate = cell.attack_success_rate
    return (
        rate_cell(rate, cell.count)
        if rate.value is not None
        else TableCell(f"{NONE} (0 of {cell.count})")
    )


def _before_after(before: Estimate, after: Estimate) -> TableCell:
    return TableCell(
        f"{percent(before.value)} \N{RIGHTWARDS ARROW} {percent(after.value)}",
        f"after: {formatting.interval(after)}",
    )


def _fooled(cell: Cell) -> list[str]:
    rate, mean = cell.fooling_rate, cell.mean_fooled
    count = f"{round((rate.value or 0) * rate.count)} of {rate.count}"
    if mean.l0 is None:
        return [count, *[f"{NONE} ({count})"] * 3]
    return [
        count,
        percent(mean.density),
        number(mean.snr_db, 1, "dB"),
        number(mean.peak_ratio_db, 1, "dB"),
    ]


def matrix_document(cells: Sequence[Cell]) -> str:
    """Returns every table of a matrix as one Markdown text."""
    tables = [*(transfer_table(cells, metric) for metric in METRICS), effects_table(cells)]
    dimensions = dimensions_table(cells)
    tables += [dimensions] if dimensions else []
    return "\n".join(table.to_markdown() for table in tables)


def budgets_text(cells: Sequence[Cell]) -> str:
    """Returns the budgets of the attacks of these cells, in one sentence."""
    names = {f"{cell.attack}__{cell.source}": _short_title(cell) for cell in cells}
    titles: dict[str, list[str]] = {}
    for cell in cells:
        titles.setdefault(_budget_text(cell, names), []).append(_short_title(cell))
    if len(titles) == 1:
        return next(iter(titles))
    return "; ".join(
        f"{budget} ({', '.join(dict.fromkeys(who))})" for budget, who in titles.items()
    )


def _short_title(cell: Cell) -> str:
    """The part of a title before its first comma; the rest repeats the budget."""
    return cell.title.split(",", maxsplit=1)[0]


def _budget_text(cell: Cell, names: Mapping[str, str]) -> str:
    budget = cell.budget
    if budget is None:
        return "an unrecorded amount"
    parts = [f"\N{GREEK SMALL LETTER EPSILON} = {epsilon_text(budget.epsilon)}"]
    if cell.matched:
        parts.append(f"as many samples as {names.get(cell.matched, cell.matched.split('__')[0])}")
    elif budget.max_l0 is not None:
        parts.append(f"at most {budget.max_l0:,} samples")
    elif budget.max_density is not None:
        parts.append(f"at most {100 * budget.max_density:g} % of the samples")
    else:
        parts.append("any sample")
    if budget.min_snr_db is not None:
        parts.append(f"at least {budget.min_snr_db:g} dB SNR")
    return ", ".join(parts)


# ---------------------------------------------------------------- flat rows


def flat_rows(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns one flat row per cell: names, budget, rates with interval and N, means, time, queries.

    >>> flat_rows([])
    []
    """
    return [_flat_row(cell) for cell in cells]


def _flat_row(cell: Mapping[str, Any]) -> dict[str, Any]:
    budget = cell.get("budget") or {}
    row = {name: cell[name] for name in ("attack", "title", "source", "target")}
    row |= {name: cell.get(name) for name in ("channel", "matched", "white_box", "control")}
    row |= {"defence": cell.get("defence", "")}
    row |= {name: budget.get(name) for name in BUDGET}
    row |= {name: cell[name] for name in ("count", "speakers", "untouched") if name in cell}
    for name in ESTIMATES:
        row |= {name: cell[name]["value"]}
        row |= {f"{name}_{part}": cell[name][part] for part in ("low", "high", "count")}
    for group in ("mean", "mean_fooled"):
        row |= {f"{name}_{group}": (cell[group] or {}).get(name) for name in DISTANCES}
    return row | {name: cell.get(name) for name in ("seconds_median", "queries_mean")}


def class_by_class(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """Returns columns and rows of targeted success by set, target, clean answer and target class.

    ``rows`` are clips of targeted attacks. A clip whose clean answer is the target class is left out.

    >>> clip = {"attack": "a", "source": "s", "target": "t", "channel": "pcm16",
    ...         "target_class": "joy", "clean_prediction": "fear", "adversarial_prediction": "joy"}
    >>> class_by_class([clip, {**clip, "adversarial_prediction": "fear"}])[1][0]["rate"]
    0.5
    """
    by = ("attack", "source", "target", "channel", "clean_prediction", TARGET_CLASS)
    hits: dict[tuple[Any, ...], list[bool]] = {}
    for row in rows:
        if row["clean_prediction"] != row[TARGET_CLASS]:
            hit = row["adversarial_prediction"] == row[TARGET_CLASS]
            hits.setdefault(tuple(row[name] for name in by), []).append(hit)
    return [*by, "hits", "count", "rate"], [
        dict(zip(by, key, strict=True))
        | {"hits": sum(outcomes), "count": len(outcomes), "rate": sum(outcomes) / len(outcomes)}
        for key, outcomes in sorted(hits.items())
    ]
