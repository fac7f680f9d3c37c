"""The verdict of an audit: the outcome by the rates' intervals, and its sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from staanet.results.formatting import percent, quantity

Row = Mapping[str, Any]
Outcome = Literal["failed", "passed", "inconclusive", "not established"]
ATTACKERS = {
    "noise": "noise of the same budget (nobody's attack)",
    "transfer": "an attacker who has never met the model and trains its own",
    "queries": "an attacker who may ask the model and sees its scores",
    "white_box": "an attacker who has the model itself",
}
CRAFTED = ("transfer", "white_box")
"""The attackers who craft on a model; these are tried on the defences."""


def audit_outcome(facts: Row) -> Outcome | None:
    """Returns the outcome against the limit; None where no limit was set.

    A rate fails where the lower end of its 95 % interval is above the limit. The model passes where
    the upper end of every rate is not above it. Everything else is inconclusive. A doubtful model
    (flags of the check before its first use) establishes nothing.
    """
    limit = facts["fail_above"]
    if limit is None:
        return None
    if facts["victim"].get("flags"):
        return "not established"
    rows = _judged_rows(facts)
    if any(_bounds(row)[0] > limit for row in rows):
        return "failed"
    if all(_bounds(row)[1] <= limit for row in rows):
        return "passed"
    return "inconclusive"


def audit_verdict(facts: Row) -> list[str]:
    """Returns the verdict as sentences, the most important first; every figure is in ``facts``."""
    sentences = [*_outcome_sentences(facts)]
    corpus, worst = facts["corpus"], facts["worst"]
    sentences.append(
        f"Unattacked, {facts['victim']['name']} reaches a UAR of {percent(facts['uar']['value'])} on "
        f"{corpus['clips']} of {corpus['of']} test clips by {corpus['speakers']} speakers. Whether "
        "these speakers were in its training is not known here; if they were, the UAR is flattered."
    )
    snr = "" if worst["snr_db"] is None else f", at a mean SNR of {worst['snr_db']:.0f} dB"
    sentences.append(
        f"At worst {rate_text(worst)} of its answers change: {worst['title']}, crafted on "
        f"{worst['source']}{snr}."
    )
    for who, row in facts["attackers"].items():
        sentences.append(
            f"{ATTACKERS[who][0].upper()}{ATTACKERS[who][1:]} changes {rate_text(row)}."
        )
    noise = facts["attackers"].get("noise")
    if noise is not None and noise["fooling_rate"] >= 0.5 * max(worst["fooling_rate"], 1e-9):
        sentences.append(
            "Noise alone does more than half of what the worst attack does: much of this is a model "
            "that is easily disturbed, not an attack that is clever."
        )
    if len(facts["budgets"]) > 1:
        sentences.append(_smallest_budget(facts["budgets"]))
    for row in facts["channels"]:
        sentences.append(f"After {row['channel']} the worst attack still changes {rate_text(row)}.")
    sentences += _defence_sentences(facts)
    if corpus["speakers"] < 5:
        sentences.append(
            f"With {corpus['speakers']} test speakers the intervals are wide: so few speakers tell "
            "little about others."
        )
    return sentences


def _judged_rows(facts: Row) -> list[Row]:
    """Noise and the worst attack first, then every other rate against the model as it is."""
    noise = [row for row in [facts["attackers"].get("noise")] if row is not None]
    return [*noise, facts["worst"], *facts["attackers"].values(), *facts["cells"]]


def _bounds(row: Row) -> tuple[float, float]:
    """The interval of a rate; a rate without an interval may be anything."""
    return (0.0, 1.0) if row["low"] is None else (row["low"], row["high"])


def _outcome_sentences(facts: Row) -> Iterator[str]:
    outcome, limit, worst = audit_outcome(facts), facts["fail_above"], facts["worst"]
    above = [row for row in _judged_rows(facts) if _bounds(row)[0] > (limit or 0)]
    noise = facts["attackers"].get("noise")
    if outcome == "not established":
        yield f"Not established: {'; '.join(facts['victim']['flags'])}."
    elif outcome == "failed" and above[0] is noise:
        yield (
            f"FAILED: noise of the same budget already changes {rate_text(noise)}, above the limit of "
            f"{percent(limit)}. The model is easily disturbed; no attack is needed."
        )
    elif outcome == "failed":
        yield (
            f"FAILED: {above[0]['title']} changes {rate_text(above[0])}; even the lower end of the "
            f"interval is above the limit of {percent(limit)}."
        )
    elif outcome == "passed":
        yield (
            f"Passed: the worst fooling rate is {rate_text(worst)}; the upper end of no interval is "
            f"above the limit of {percent(limit)}."
        )
    elif outcome == "inconclusive":
        yield (
            f"Inconclusive: the worst fooling rate is {rate_text(worst)}, and the limit of "
            f"{percent(limit)} is not excluded by the interval. {_clips_needed(worst, limit)}"
        )


def _clips_needed(worst: Row, limit: float) -> str:
    """How many clips would decide, if the rate stayed and the interval shrank with their square root.

    >>> _clips_needed({"fooling_rate": 0.4, "low": 0.2, "high": 0.6, "count": 20}, 0.3)
    'About 80 clips of as varied speakers would decide.'
    """
    if worst["low"] is None:
        return "Clips of more than one speaker are needed for an interval."
    distance = abs(worst["fooling_rate"] - limit)
    side = (
        worst["fooling_rate"] - worst["low"]
        if worst["fooling_rate"] > limit
        else (worst["high"] - worst["fooling_rate"])
    )
    if distance < 0.01:
        return "The rate is so near to the limit that no practical number of clips would decide."
    needed = max(worst["count"] + 1, math.ceil(round(worst["count"] * (side / distance) ** 2, 6)))
    return f"About {quantity(needed, 'clip')} of as varied speakers would decide."


def rate_text(row: Row) -> str:
    """Returns the rate of a row, its number of clips and its interval."""
    interval = f" (95 % interval {interval_text(row)})" if row["low"] is not None else ""
    return f"{percent(row['fooling_rate'])} of {row['count']}{interval}"


def interval_text(row: Row) -> str:
    """Returns the interval of a row in whole per cent, or n/a."""
    return "n/a" if row["low"] is None else f"{100 * row['low']:.0f} to {100 * row['high']:.0f} %"


def _smallest_budget(budgets: Sequence[Row]) -> str:
    smallest = min(budgets, key=lambda b: (b["epsilon"] * b["max_density"], b["epsilon"]))
    return (
        f"At the smallest budget (epsilon {smallest['epsilon']:g}, "
        f"{100 * smallest['max_density']:g} % of samples) the worst attack changes "
        f"{rate_text(smallest['worst'])}."
    )


def _defence_sentences(facts: Row) -> Iterator[str]:
    for defence in facts["defences"]:
        yield (
            f"Behind {defence['defence']} the strongest attacks, unchanged, change "
            f"{rate_text(defence['static'])}; PGD that knows the defence (on {defence['crafted_on']}) "
            f"changes {rate_text(defence['adaptive'])}. UAR behind it: {percent(defence['uar'])}."
        )
    measured = [d for d in facts["defences"] if d["adaptive"]["fooling_rate"] is not None]
    if not measured:
        return

    def strongest(defence: Row) -> float:
        rates = (defence["adaptive"]["fooling_rate"], defence["static"]["fooling_rate"] or 0.0)
        return float(max(rates))

    best, attackers = min(measured, key=strongest), facts["attackers"]
    rates = [attackers[who]["fooling_rate"] or 0.0 for who in CRAFTED if who in attackers]
    before, after = max(rates, default=facts["worst"]["fooling_rate"]), strongest(best)
    if after >= before:
        yield f"No defence helped against the {percent(before)} of these attackers."
    else:
        verb = "halves" if after < 0.5 * before else "lowers but does not halve"
        yield (
            f"Of the defences, {best['defence']} helps most: it {verb} the {percent(before)} of these "
            f"attackers, to {percent(after)}."
        )
    if "queries" in attackers:
        yield "An attacker who asks the model was not tried behind any defence."
