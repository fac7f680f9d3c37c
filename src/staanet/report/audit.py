"""What an audit found, in plain words, as Markdown and as one HTML page; data in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from staanet.errors import printable
from staanet.results.formatting import percent

Row = Mapping[str, Any]
ATTACKERS = {
    "noise": "noise of the same budget (nobody's attack)",
    "transfer": "an attacker who has never met the model and trains its own",
    "queries": "an attacker who may ask the model and sees its scores",
    "white_box": "an attacker who has the model itself",
}
CRAFTED = ("transfer", "white_box")
"""Attackers who craft on a model: those whom defences meet."""


def verdict(told: Row) -> list[str]:
    """Sentences, the most important first; every figure is in ``told``."""
    worst, limit = told["worst"], told["fail_above"]
    said = []
    if limit is not None:
        failed = worst["fooling_rate"] > limit
        said.append(
            f"{'FAILED' if failed else 'Passed'}: the worst fooling rate is {percent(worst['fooling_rate'])}, "
            f"{'above' if failed else 'not above'} the limit of {percent(limit)}."
        )
    recall = told["uar"]["value"]
    said.append(
        f"Unattacked, {told['victim']['name']} reaches a UAR of {percent(recall)} on "
        f"{told['corpus']['clips']} of {told['corpus']['of']} test clips by {told['corpus']['speakers']} "
        "speakers. Whether it heard them in training is not known here; if it did, it is flattered."
    )
    said.append(
        f"At worst {_rate(worst)} of its answers change: {worst['title']}, crafted on {worst['source']}"
        f"{'' if worst['snr_db'] is None else ', at a mean SNR of %.0f dB' % worst['snr_db']}."  # noqa: UP031
    )
    for who, row in told["attackers"].items():
        said.append(f"{ATTACKERS[who][0].upper()}{ATTACKERS[who][1:]} changes {_rate(row)}.")
    noise = told["attackers"].get("noise")
    if noise is not None and noise["fooling_rate"] >= 0.5 * max(worst["fooling_rate"], 1e-9):
        said.append(
            "Noise alone does more than half of what the worst attack does: much of this is a model that "
            "is easily disturbed, not an attack that is clever."
        )
    said += [_least(told["budgets"])] if len(told["budgets"]) > 1 else []
    for row in told["channels"]:
        said.append(f"After {row['channel']} the worst attack still changes {_rate(row)}.")
    said += _of_defences(told)
    if told["corpus"]["speakers"] < 5:
        said.append(
            f"With {told['corpus']['speakers']} test speakers the intervals are wide: they say how "
            "little so few speakers tell about others."
        )
    return said


def _rate(row: Row) -> str:
    between = (
        ""
        if row["low"] is None
        else f" (95 % interval {100 * row['low']:.0f} to {100 * row['high']:.0f} %)"
    )
    return f"{percent(row['fooling_rate'])} of {row['count']}{between}"


def _least(budgets: Sequence[Row]) -> str:
    smallest = min(budgets, key=lambda b: (b["epsilon"] * b["max_density"], b["epsilon"]))
    found = smallest["worst"]
    return (
        f"At the smallest budget tried (epsilon {smallest['epsilon']:g}, "
        f"{100 * smallest['max_density']:g} % of samples) the worst attack changes {_rate(found)}."
    )


def _of_defences(told: Row) -> list[str]:
    said = []
    for one in told["defences"]:
        said.append(
            f"Behind {one['defence']} the strongest attacks, unchanged, change {_rate(one['static'])}; PGD that "
            f"knows the defence (on {one['crafted_on']}) changes {_rate(one['adaptive'])}. UAR behind it: "
            f"{percent(one['uar'])}."
        )
    held = [d for d in told["defences"] if d["adaptive"]["fooling_rate"] is not None]
    if held:
        best = min(
            held,
            key=lambda d: max(d["adaptive"]["fooling_rate"], d["static"]["fooling_rate"] or 0.0),
        )
        left = max(best["adaptive"]["fooling_rate"], best["static"]["fooling_rate"] or 0.0)
        before = max(
            (
                told["attackers"][who]["fooling_rate"] or 0.0
                for who in CRAFTED
                if who in told["attackers"]
            ),
            default=told["worst"]["fooling_rate"],
        )
        said.append(
            f"Of the defences tried, {best['defence']} leaves the least, {percent(left)}: "
            f"{'it halves' if left < 0.5 * before else 'none halves'} the {percent(before)} of these attackers "
            "without a defence."
            + (
                " An attacker who asks the model was not tried behind any."
                if "queries" in told["attackers"]
                else ""
            )
        )
    return said


# ---------------------------------------------------------------- tables and pages


def tables(told: Row) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, head and rows of each table."""
    head = ["attack", "source", "changes", "95 % interval", "SNR dB"]
    attackers = [[who.replace("_", " "), *_cells(row)] for who, row in told["attackers"].items()]
    budgets = [
        [
            f"epsilon {b['epsilon']:g}, {100 * b['max_density']:g} %",
            percent(b["noise"]["fooling_rate"]) if b["noise"] else "n/a",
            *_cells(b["worst"]),
        ]
        for b in told["budgets"]
        if b["worst"]
    ]
    channels = [[row["channel"], *_cells(row)] for row in told["channels"]]
    defences = [
        [
            d["defence"],
            percent(d["uar"]),
            _rate(d["static"]),
            _rate(d["adaptive"]),
            d["crafted_on"],
            "exact" if d["exact_gradient"] else "of a stand-in (BPDA)",
        ]
        for d in told["defences"]
    ]
    cells = [
        [row["channel"], *_cells(row)]
        for row in sorted(told["cells"], key=lambda r: (r["channel"], -(r["fooling_rate"] or 0)))
    ]
    return [
        ("Who attacks", ["attacker", *head], attackers),
        ("Budget", ["budget", "noise changes", *head], budgets),
        ("After a channel", ["channel", *head], channels),
        ("Defences", ["defence", "UAR", "static", "adaptive", "crafted on", "gradient"], defences),
        ("Everything tried", ["channel", *head], cells),
    ]


def _cells(row: Row) -> list[str]:
    between = (
        "n/a" if row["low"] is None else f"{100 * row['low']:.0f} to {100 * row['high']:.0f} %"
    )
    snr = "n/a" if row["snr_db"] is None else f"{row['snr_db']:.1f}"
    rate = f"{percent(row['fooling_rate'])} of {row['count']}"
    return [str(row["title"]), str(row["source"]), rate, between, snr]


def markdown(told: Row) -> str:
    """The audit as Markdown."""
    parts = [f"# Audit of {_plain(told['victim']['name'])} on {_plain(told['corpus']['name'])}", ""]
    parts += [
        f"{'**' if n == 0 else ''}{_plain(s)}{'**' if n == 0 else ''}\n"
        for n, s in enumerate(told["verdict"])
    ]
    for title, head, rows in tables(told):
        if rows:
            parts += [f"## {title}", "", f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
            parts += [f"| {' | '.join(map(_plain, row))} |" for row in rows]
            parts.append("")
    parts += [
        "## Repeat",
        "",
        "```console",
        *(f"$ {printable(c)}" for c in told["commands"]),
        "```",
    ]
    parts += ["", f"Machine: {_plain(told['machine'])}."]
    return "\n".join(parts) + "\n"


def _plain(text: object) -> str:
    shown = printable(str(text)).replace("\\", "\\\\")
    for sign in "|<>`*_[]#":
        shown = shown.replace(sign, f"\\{sign}")
    return shown


def page(told: Row) -> str:
    """The audit as one HTML page that asks for nothing outside itself."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("staanet.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    return environment.get_template("audit.html.j2").render(told=told, tables=tables(told))
