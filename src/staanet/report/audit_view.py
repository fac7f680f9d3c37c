"""The figures and example clips of an audit, drawn as those of a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from staanet.core import Progress
from staanet.report.audit_verdict import QUIET_DB, Row
from staanet.report.chart_style import Picture
from staanet.report.charts import forest_chart, time_chart
from staanet.report.clip_view import clip_context, clip_views
from staanet.report.headlines import Headline, cells_of_equal_size
from staanet.report.level_chart import Curve, level_chart
from staanet.results.cells import Cell
from staanet.results.run_folder import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditView:
    """What the page of an audit shows besides its tables."""

    lead: Cell
    """The worst attack, whose clips are shown."""
    charts: Sequence[tuple[Picture, str]]
    """Each chart with its caption."""
    clips: Sequence[dict[str, Any]]


def audit_view(run: RunFolder, facts: Row, progress: Progress, number: int = 4) -> AuditView:
    """Draws the attackers, level and time, and ``number`` clips of the worst attack.

    Args:
        run: The folder of the audit.
        facts: The content of its ``audit.json``.
        progress: Told of each clip that is drawn.
        number: How many clips that were fooled; one that was not is added.
    """
    lead = Headline(_cell(run, facts, facts["worst"]), _control_of(run, facts), None)
    views = clip_views(run, lead, number, progress)
    return AuditView(
        lead=lead.cell,
        charts=[*_charts(run, lead, facts)],
        clips=[clip_context(run, view, number) for number, view in enumerate(views, start=1)],
    )


def _cell(run: RunFolder, facts: Row, row: Row) -> Cell:
    cell = run.cell(row["attack"], row["source"], facts["victim"]["name"])
    assert cell is not None, "an audit names cells of its own results"
    return cell


def _control_of(run: RunFolder, facts: Row) -> Cell | None:
    """Noise of the worst attack's budget."""
    worst = facts["worst"]
    budget = (worst["epsilon"], worst["max_density"])
    rows = [b["noise"] for b in facts["budgets"] if (b["epsilon"], b["max_density"]) == budget]
    return _cell(run, facts, rows[0]) if rows and rows[0] else None


def _charts(run: RunFolder, lead: Headline, facts: Row) -> Iterator[tuple[Picture, str]]:
    strongest_first = sorted(
        facts["attackers"].items(), key=lambda item: (item[0] == "noise", -item[1]["fooling_rate"])
    )
    attackers = [
        replace(_cell(run, facts, row), title=f"{who.replace('_', ' ')}: {row['title']}")
        for who, row in strongest_first
    ]
    yield (
        forest_chart(attackers),
        (
            "Each bar shows the worst attack of an attacker, with its 95 % interval clustered by "
            "speaker. Grey bars show the control."
        ),
    )
    if level := level_chart(_curves(facts["cells"]), quiet_db=QUIET_DB):
        yield (
            level,
            "Each point shows the worst attack of an attacker at one budget, by the mean SNR of "
            f"the changes. People do not hear changes left of the dotted line at {QUIET_DB:g} dB. "
            "Grey points show the control.",
        )
    if timed := time_chart(cells_of_equal_size(run, lead)):
        yield (
            timed,
            f"The chart compares the changed answers of {lead.cell.source} with the time per clip. "
            "All attacks shown have the same budget. Grey points show the control.",
        )


def _curves(cells: Sequence[Row]) -> list[Curve]:
    """Of each attacker, the worst attack at each budget, before any channel."""
    worst: dict[str, dict[object, Row]] = {}
    for row in cells:
        if row["channel"] != cells[0]["channel"] or row["snr_db"] is None:
            continue
        of_attacker = worst.setdefault(row["attacker"], {})
        budget = (row["epsilon"], row["max_density"])
        if budget not in of_attacker or row["fooling_rate"] > of_attacker[budget]["fooling_rate"]:
            of_attacker[budget] = row
    return [
        Curve(
            name=who.replace("_", " "),
            control=who == "noise",
            points=[(r["snr_db"], r["fooling_rate"], r["low"], r["high"]) for r in rows.values()],
        )
        for who, rows in worst.items()
    ]
