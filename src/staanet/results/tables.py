"""The cells of a transfer matrix as Markdown, as LaTeX and as tidy rows; text in, text out.

A cell is what ``evaluation`` counts: one attack, crafted on ``source``, against one ``target``, with
rates in [0, 1] and their 95 % intervals clustered by speaker. Here they become per cent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from staanet.errors import printable, unknown_name

Cell = Mapping[str, Any]
METRICS = {
    "fooling_rate": "share of clips whose answer changed",
    "attack_success_rate": "share of the correctly answered clips that became wrong",
    "uar_after": "unweighted average recall after the attack",
}
"""What a matrix can show, and what it counts (Chang et al. 2024, arXiv 2402.01227, section V)."""
ESTIMATES = (
    "fooling_rate",
    "attack_success_rate",
    "uar_before",
    "uar_after",
    "accuracy_before",
    "accuracy_after",
)
DISTANCES = ("l0", "density", "linf", "snr_db", "peak_ratio_db")
BUDGET = ("epsilon", "max_density", "max_l0", "min_snr_db")


def markdown(cells: Sequence[Cell], metric: str = "fooling_rate") -> str:
    """A row per attack and source, a column per target, then what it cost, averaged over all clips.

    Raises ``InvalidInput`` where ``metric`` is none of ``METRICS``.
    """
    targets = _targets(cells, metric)
    head = [
        "attack",
        "source",
        *map(_plain, targets),
        "density",
        "l0",
        "snr_db",
        "queries",
        "seconds",
    ]
    rows = []
    for own in _by_set(cells):
        some = next(iter(own.values()))
        mean = some["mean"]
        rows.append(
            [
                _plain(some["title"]),
                _plain(some["source"]),
                *(_marked(own[t], metric) if t in own else "" for t in targets),
                _number(mean["density"], 3),
                _number(mean["l0"], 0),
                _number(mean["snr_db"], 1),
                _number(some.get("queries_mean"), 0),
                _number(some["seconds_median"], 4),
            ]
        )
    return _lines(head, rows, names=2)


def markdown_of_fooled(cells: Sequence[Cell]) -> str:
    """Distances averaged over the fooled clips alone, a row per cell; "n/a" where none was fooled."""
    rows = []
    for cell in cells:
        rate, mean = cell["fooling_rate"], cell["mean_fooled"]
        fooled = round((rate["value"] or 0) * rate["count"])
        rows.append(
            [
                _plain(cell["title"]),
                _plain(cell["source"]),
                _plain(cell["target"]),
                f"{fooled} of {rate['count']}",
                _number(mean["density"], 3),
                _number(mean["l0"], 0),
                _number(mean["snr_db"], 1),
                _number(mean["peak_ratio_db"], 1),
            ]
        )
    head = ["attack", "source", "target", "fooled", "density", "l0", "snr_db", "peak_ratio_db"]
    return _lines(head, rows, names=3)


def document(cells: Sequence[Cell]) -> str:
    """Every table of a matrix as one Markdown text."""
    parts = [
        f"**{_spaced(metric)}**: {meaning}, with its 95 % interval clustered by speaker, over N clips; "
        f"distances are means over all clips, queries the victim's answers per clip\n\n"
        f"{markdown(cells, metric)}"
        for metric, meaning in METRICS.items()
    ]
    parts.append(f"**fooled clips alone**: means over them\n\n{markdown_of_fooled(cells)}")
    return "\n".join(parts)


def latex(cells: Sequence[Cell], metric: str = "fooling_rate") -> str:
    """The matrix as a ``table`` of the packages booktabs and graphicx; text escaped, white box marked.

    Raises ``InvalidInput`` where ``metric`` is none of ``METRICS``.
    """
    targets = _targets(cells, metric)
    head = ["Attack", "Crafted on", *map(tex, targets), r"Changed / \%", "SNR / dB", "Queries"]
    rows = []
    for own in _by_set(cells):
        some = next(iter(own.values()))
        mean, title = some["mean"], tex(some["title"])
        share = None if mean["density"] is None else 100 * mean["density"]
        rows.append(
            [
                rf"\textit{{{title}}}" if some["control"] else title,
                tex(some["source"]),
                *(_tex_rate(own[t], metric) if t in own else "--" for t in targets),
                _number(share, 1),
                _number(mean["snr_db"], 1),
                _number(some.get("queries_mean"), 0),
            ]
        )
    body = "\n".join(" & ".join(row) + r" \\" for row in rows)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_caption(cells, metric)}}}",
            rf"\label{{tab:{metric.replace('_', '-')}}}",
            r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{ll{'l' * len(targets)}rrr}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
            body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


def tidy(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """One flat row per cell: names, channel, budget, every rate with interval and N, means, time, queries.

    >>> tidy([])
    []
    """
    return [_flat(cell) for cell in cells]


def _flat(cell: Cell) -> dict[str, Any]:
    budget = cell.get("budget") or {}
    row = {key: cell[key] for key in ("attack", "title", "source", "target")}
    row |= {"channel": cell.get("channel")}
    row |= {
        "matched": cell.get("matched"),
        "white_box": cell["white_box"],
        "control": cell["control"],
    }
    row |= {"defence": cell.get("defence", "")}
    row |= {key: budget.get(key) for key in BUDGET}
    row |= {key: cell[key] for key in ("count", "speakers", "untouched") if key in cell}
    for name in ESTIMATES:
        found = cell[name]
        row |= {
            name: found["value"],
            f"{name}_low": found["low"],
            f"{name}_high": found["high"],
            f"{name}_count": found["count"],
        }
    for group in ("mean", "mean_fooled"):
        row |= {f"{name}_{group}": (cell[group] or {}).get(name) for name in DISTANCES}
    return row | {
        "seconds_median": cell["seconds_median"],
        "queries_mean": cell.get("queries_mean"),
    }


def class_by_class(rows: Sequence[Cell]) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of targeted success by set, target, answer when clean, and wanted class.

    ``rows`` are clips of attacks that aimed; those that were there already are left out.

    >>> clip = {"attack": "a", "source": "s", "target": "t", "channel": "pcm16", "wanted": "joy",
    ...         "clean_prediction": "fear", "adversarial_prediction": "joy"}
    >>> class_by_class([clip, {**clip, "adversarial_prediction": "fear"}])[1][0]["rate"]
    0.5
    """
    by = ("attack", "source", "target", "channel", "clean_prediction", "wanted")
    hits: dict[tuple[Any, ...], list[bool]] = {}
    for row in rows:
        if row["clean_prediction"] != row["wanted"]:
            hit = row["adversarial_prediction"] == row["wanted"]
            hits.setdefault(tuple(row[key] for key in by), []).append(hit)
    found = [
        {
            **dict(zip(by, key, strict=True)),
            "hits": sum(h),
            "count": len(h),
            "rate": sum(h) / len(h),
        }
        for key, h in sorted(hits.items())
    ]
    return [*by, "hits", "count", "rate"], found


# ---------------------------------------------------------------- order and words


def _targets(cells: Sequence[Cell], metric: str) -> list[str]:
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    return list(dict.fromkeys(str(cell["target"]) for cell in cells))


def _by_set(cells: Sequence[Cell]) -> list[dict[str, Cell]]:
    """The cells of each (attack, source), by target, in the order they came."""
    sets: dict[tuple[str, str], dict[str, Cell]] = {}
    for cell in cells:
        sets.setdefault((cell["attack"], cell["source"]), {})[cell["target"]] = cell
    return list(sets.values())


def _spaced(metric: str) -> str:
    return metric.replace("_", " ")


def _rate(cell: Cell, metric: str) -> tuple[str, str]:
    """A rate and its interval in per cent, without units."""
    estimate = cell[metric]
    if estimate["value"] is None:
        return f"n/a (0 of {cell['count']})", ""
    low, high = estimate["low"], estimate["high"]
    interval = "" if low is None else f"[{100 * low:.0f}, {100 * high:.0f}]"
    return f"{100 * estimate['value']:.1f}", interval


def _number(value: float | None, digits: int) -> str:
    return "n/a" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


# ---------------------------------------------------------------- Markdown


def _marked(cell: Cell, metric: str) -> str:
    value, interval = _rate(cell, metric)
    if cell[metric]["value"] is not None:
        value = f"{value} % {interval}".rstrip() + f" (N {cell[metric]['count']})"
    marks = {" (white box)": cell["white_box"], " (control)": cell["control"]}
    return value + "".join(mark for mark, true in marks.items() if true)


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]], names: int) -> str:
    rule = ["---"] * names + ["---:"] * (len(head) - names)
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, rule, *rows])


def _plain(text: str) -> str:
    r"""Nothing in a name is taken for markup or a column.

    >>> _plain("a|b_c")
    'a\\|b\\_c'
    """
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", printable(text))


# ---------------------------------------------------------------- LaTeX

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}


def tex(text: str) -> str:
    r"""Every character that TeX would obey, escaped.

    >>> tex("50 % of a_b")
    '50 \\% of a\\_b'
    """
    return "".join(_SPECIAL.get(character, character) for character in printable(text))


def _tex_rate(cell: Cell, metric: str) -> str:
    value, interval = _rate(cell, metric)
    if cell[metric]["value"] is None:
        return value
    mark = r"$^{\mathrm{w}}$" if cell["white_box"] else ""
    return rf"{value}{mark} {{\footnotesize {interval}}}" if interval else f"{value}{mark}"


def _caption(cells: Sequence[Cell], metric: str) -> str:
    counts = sorted({cell["count"] for cell in cells})
    clips = " to ".join(f"${n:,}$" for n in dict.fromkeys([*counts[:1], *counts[-1:]]))
    names = {str(cell["attack"]): _brief(cell["title"]) for cell in cells}
    budgets: dict[str, list[str]] = {}
    for cell in cells:
        titles = budgets.setdefault(_allowed(cell, names), [])
        if _brief(cell["title"]) not in titles:
            titles.append(_brief(cell["title"]))
    if len(budgets) == 1:
        right = f"Right to change: {next(iter(budgets))}."
    else:
        right = (
            "Right to change: "
            + "; ".join(f"{budget} ({', '.join(titles)})" for budget, titles in budgets.items())
            + "."
        )
    return (
        rf"{_spaced(metric).capitalize()} / \%: {METRICS[metric]}, with its 95\,\% interval clustered "
        rf"by speaker; $N =$ {clips or 0} clips. $^{{\mathrm{{w}}}}$~white box; italic: control. "
        f"{right}"
    )


def _brief(title: str) -> str:
    """What stands before the first comma of a title: the rest says what the budget says."""
    return tex(title.split(",", maxsplit=1)[0])


def _allowed(cell: Cell, names: Mapping[str, str]) -> str:
    budget = cell.get("budget") or {}
    parts = [rf"$\epsilon = {budget['epsilon']:g}$"] if budget.get("epsilon") is not None else []
    if cell.get("matched"):
        matched = str(cell["matched"]).split("__")[0]
        parts.append(f"as many samples as {names.get(matched, tex(matched))}")
    elif budget.get("max_l0") is not None:
        parts.append(f"at most {budget['max_l0']:,} samples")
    elif budget.get("max_density") is not None:
        parts.append(rf"at most {100 * budget['max_density']:g}\,\% of the samples")
    else:
        parts.append("any sample")
    if budget.get("min_snr_db") is not None:
        parts.append(f"at least {budget['min_snr_db']:g}\\,dB SNR")
    return ", ".join(parts)
