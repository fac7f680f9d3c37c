"""Renders an audit as Markdown and as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from staanet.config import epsilon_text
from staanet.errors import printable
from staanet.report.audit_verdict import Row, interval_text, rate_text
from staanet.report.comparison_tables import groups_table
from staanet.report.everyday_tables import everyday_table
from staanet.results.formatting import number, percent
from staanet.results.table import Table, markdown_text

if TYPE_CHECKING:
    from staanet.report.audit_view import AuditView


def audit_tables(facts: Row) -> list[Table]:
    """Returns the tables of an audit that have rows."""
    columns = ["attack", "source", "changes", "95 % interval", "SNR dB"]
    by_channel = sorted(facts["cells"], key=lambda r: (r["channel"], -(r["fooling_rate"] or 0)))
    budgets = [
        [
            f"epsilon {epsilon_text(b['epsilon'])}, {100 * b['max_density']:g} %",
            percent(b["noise"]["fooling_rate"]) if b["noise"] else None,
            *_attack_cells(b["worst"]),
        ]
        for b in facts["budgets"]
        if b["worst"]
    ]
    defences = [
        [
            d["defence"],
            f"{d['ccc']:.2f}" if "ccc" in d else percent(d["uar"]),
            rate_text(d["static"]),
            rate_text(d["adaptive"]),
            d["crafted_on"],
            "exact" if d["exact_gradient"] else "approximate (BPDA)",
        ]
        for d in facts["defences"]
    ]
    attackers = [
        [who.replace("_", " "), *_attack_cells(row)] for who, row in facts["attackers"].items()
    ]
    every = [[row["channel"], *_attack_cells(row)] for row in by_channel]
    channels = [[row["channel"], *_attack_cells(row)] for row in facts["channels"]]
    quality = "CCC" if any("ccc" in d for d in facts["defences"]) else "UAR"
    defence_columns = ["defence", quality, "static", "adaptive", "crafted on", "gradient"]
    tables = [
        _table("attackers", "Attackers", ["attacker", *columns], attackers),
        _table("budgets", "Budget", ["budget", "noise changes", *columns], budgets),
        _table("channels", "After a channel", ["channel", *columns], channels),
        _table("defences", "Defences", defence_columns, defences),
        groups_table(
            facts.get("groups") or [],
            "groups",
            "Rate of the worst attack in groups of clips. The group with the highest rate of each "
            "kind is first",
        ),
        _table("all", "Every attack", ["channel", *columns], every),
    ]
    if facts.get("everyday"):
        tables.insert(0, everyday_table(facts["everyday"]))
    return [table for table in tables if table.rows]


def _table(key: str, caption: str, columns: list[str], rows: list[list[Any]]) -> Table:
    return Table(key=key, caption=caption, columns=columns, rows=rows, names=len(columns))


def _attack_cells(row: Row) -> list[str]:
    rate = f"{percent(row['fooling_rate'])} of {row['count']}"
    snr = number(row["snr_db"], 1)
    return [str(row["title"]), str(row["source"]), rate, interval_text(row), snr]


def audit_markdown(facts: Mapping[str, Any]) -> str:
    """Returns the audit as Markdown."""
    first, *others = [markdown_text(sentence) for sentence in facts["verdict"]]
    title = f"# Audit of {markdown_text(facts['victim']['name'])} on {markdown_text(facts['corpus']['name'])}"
    parts = [title, f"**{first}**", *others, *(t.to_markdown() for t in audit_tables(facts))]
    if facts["flags"]:
        flags = "\n".join(f"- {markdown_text(flag)}" for flag in facts["flags"])
        parts += [f"## Warnings\n\n{flags}"]
    commands = "\n".join(f"$ {printable(command)}" for command in facts["commands"])
    parts += [
        f"## Repeat\n\n```console\n{commands}\n```",
        f"Machine: {markdown_text(facts['machine'])}.",
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def audit_page(facts: Mapping[str, Any], view: AuditView | None = None) -> str:
    """Returns the audit as one HTML page, with figures and sounds where there is a ``view``."""
    from staanet.report.page import script_context, template_environment

    template = template_environment().get_template("audit.html.j2")
    return template.render(facts=facts, tables=audit_tables(facts), view=view, **script_context())
