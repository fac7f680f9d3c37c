"""What a headline says where the budget of its attack tells nothing of the attack."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from staanet import storage
from staanet.errors import StaaNetError
from staanet.report.headlines import Headline
from staanet.results import formatting
from staanet.results.run_folder import RunFolder

BUDGETS = "budgets.json"
"""File of a run: for each doubted target the budgets that ``staanet budget`` would name."""
MIN_SNR_DB = 10.0
"""A change whose median SNR is below this is loud beside the speech."""
MAX_SHARE_OF_ATTACK = 0.5
"""Noise that fools more often than this share of the attack's rate explains too much of it."""


def budget_doubts(run: RunFolder, lead: Headline) -> list[str]:
    """Returns why the budget of a headline tells nothing of its attack; empty where it does."""
    cell, control, doubts = lead.cell, lead.control, []
    rows = run.rows_of(cell.key, cell.target)
    levels = [row.distances.snr_db for row in rows if row.distances.snr_db is not None]
    if levels and (snr_db := statistics.median(levels)) < MIN_SNR_DB:
        doubts.append(f"the change has a median SNR of {snr_db:.1f} dB")
    attack = cell.fooling_rate.value
    noise = control.fooling_rate.value if control else None
    if attack is not None and noise is not None and noise > MAX_SHARE_OF_ATTACK * attack:
        doubts.append(
            f"random changes reach a fooling rate of {formatting.percent(noise)}, more than half "
            "of the rate of the attack"
        )
    return doubts


def doubt_text(run: RunFolder, lead: Headline) -> str:
    """Returns the sentences that follow a headline, or nothing where its budget is fit."""
    doubts = budget_doubts(run, lead)
    if not doubts:
        return ""
    named = "; ".join(_quiet_budgets(run, lead.cell.target))
    remedy = (
        f"On dev clips, random changes fool less than 10 % up to {named}."
        if named
        else f"Find a smaller budget: staanet budget CORPUS --victim {lead.cell.target}."
    )
    return (
        f"This budget does not show the strength of {lead.cell.title}: "
        f"{formatting.join_words(doubts)}. {remedy}"
    )


def _quiet_budgets(run: RunFolder, target: str) -> Iterator[str]:
    """The budgets that a search on dev clips found for a target, in words."""
    try:
        rows = storage.read_json(run.folder / BUDGETS).get(target, [])
        for row in rows:
            if row["epsilon"] is not None:
                share, level = formatting.percent(row["max_density"]), float(row["snr_db"])
                yield f"epsilon {row['epsilon']} on {share} of the samples (SNR {level:.0f} dB)"
    except (StaaNetError, OSError, AttributeError, KeyError, TypeError, ValueError):
        return  # not searched, or no file of staanet
