"""The verdict of an audit: the outcome by the rates' intervals, and its sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from staanet.config import epsilon_order, epsilon_text
from staanet.report.comparison_tables import worst_group_text
from staanet.report.everyday_tables import everyday_sentences
from staanet.results.formatting import percent, quantity

Row = Mapping[str, Any]
Outcome = Literal["failed", "passed", "inconclusive", "not established"]
ATTACKERS = {
    "noise": "noise of the same budget (the control)",
    "transfer": "an attacker without access to the model, who trains other models,",
    "queries": "an attacker who may query the model and sees its scores",
    "white_box": "an attacker who has the model",
}
QUIET_DB = 30.0
"""A change whose mean SNR is at least this is called one that people do not hear."""
CRAFTED = ("transfer", "white_box")
"""The attackers who craft on a model; these are tried on the defences."""


def audit_outcome(facts: Row) -> Outcome | None:
    """Returns the outcome against the limit; None where no limit was set and nothing is doubtful.

    Everyday change fails where a smaller share of its conditions passes than the limit says.
    A rate fails where the lower end of its 95 % interval is above the limit. The model passes where
    the upper end of every rate is not above it. Everything else is inconclusive. A doubtful model
    (flags of the check before its first use) establishes nothing, with a limit and without.
    """
    limit, least = facts["fail_above"], facts.get("fail_below_everyday")
    if facts["victim"].get("flags"):
        return "not established"
    if limit is None and least is None:
        return None
    if fails_everyday(facts):
        return "failed"
    if limit is None:
        return "passed"
    rows = _judged_rows(facts)
    if any(_bounds(row)[0] > limit for row in rows):
        return "failed"
    if all(_bounds(row)[1] <= limit for row in rows):
        return "passed"
    return "inconclusive"


def fails_everyday(facts: Row) -> bool:
    """Tells whether fewer conditions of everyday change pass than the limit asks for."""
    least, everyday = facts.get("fail_below_everyday"), facts.get("everyday")
    return bool(least and everyday and everyday["passed"] < least * everyday["of"])


def audit_verdict(facts: Row) -> list[str]:
    """Returns the verdict as sentences; every figure is in ``facts``.

    The outcome comes first. Then follow how good the model is, what everyday change does to it, what an
    attacker can do at a level that people do not hear and at one that they hear, what helps, and how sure
    all this is.
    """
    sentences = [*_outcome_sentences(facts)]
    corpus, worst = facts["corpus"], facts["worst"]
    sentences.append(quality_sentence(facts))
    if facts.get("everyday"):
        sentences += everyday_sentences(facts["everyday"])
    sentences += _level_sentences(facts["cells"])
    sentences.append(_worst_sentence(worst))
    for who, row in facts["attackers"].items():
        sentences.append(
            f"{ATTACKERS[who][0].upper()}{ATTACKERS[who][1:]} changes {rate_text(row)}."
        )
    noise = facts["attackers"].get("noise")
    if noise is not None and noise["fooling_rate"] >= 0.5 * max(worst["fooling_rate"], 1e-9):
        sentences.append(
            "Noise alone reaches more than half of the rate of the worst attack. Noise easily "
            "disturbs this model, and the attack adds little."
        )
    if len(facts["budgets"]) > 1:
        sentences.append(_smallest_budget(facts["budgets"]))
    for row in facts["channels"]:
        changed = f"the worst attack still changes {rate_text(row)}"
        what = changed if row["fooling_rate"] else "no attack that was tried changes an answer"
        sentences.append(f"After the channel {row['channel']}, {what}.")
    sentences += _defence_sentences(facts)
    if group := worst_group_text(facts.get("groups") or ()):
        sentences.append(group)
    sentences += _certainty_sentences(corpus)
    return sentences


def _worst_sentence(worst: Row) -> str:
    """What the worst attack does, at which level."""
    if not worst["fooling_rate"]:
        return f"No attack that was tried changes an answer: {rate_text(worst)}."
    snr = "" if worst["snr_db"] is None else f", at a mean SNR of {worst['snr_db']:.0f} dB"
    return (
        f"The worst attack changes {rate_text(worst)} of the answers. It is {worst['title']}, "
        f"crafted on {worst['source']}{snr}."
    )


def quality_sentence(facts: Row) -> str:
    """How good the model is on the clips as they are."""
    corpus, name = facts["corpus"], facts["victim"]["name"]
    speakers = quantity(corpus["speakers"], "speaker")
    clips = f"{corpus['clips']} of {corpus['of']} test clips by {speakers}"
    ccc = facts.get("ccc")
    if ccc:
        values = ", ".join(f"{label} {row['value']:z.2f}" for label, row in ccc.items())
        reached = f"Without an attack, {name} reaches a CCC of {values} on {clips}."
        return f"{reached} {_training_sentence(facts, 'CCC')}"
    if facts["victim"].get("tolerance"):
        tolerances = ", ".join(
            f"{label} {value:.3g}"
            for label, value in zip(
                facts["victim"]["labels"], facts["victim"]["tolerance"], strict=True
            )
        )
        return (
            f"The quality of {name} was not measured, because the {clips} lack the numbers of the "
            "model. An answer counts as changed if a number moves by more than its tolerance: "
            f"{tolerances}."
        )
    uar = percent(facts["uar"]["value"])
    reached = f"Without an attack, {name} reaches a UAR of {uar} on {clips}."
    return f"{reached} {_training_sentence(facts, 'UAR')}"


def _training_sentence(facts: Row, figure: str) -> str:
    """Whether the model was trained on the test speakers (or clips), which flatters it."""
    has_met = facts["victim"].get("has_met_test_speakers")
    are_classes = facts["corpus"].get("classes") == "speaker"  # the model knows each speaker
    units = "clips" if are_classes else "speakers"
    if has_met is None:
        return (
            f"It is unknown whether the model was trained on these {units}. If it was, the "
            f"{figure} is too high."
        )
    if has_met:
        met = "clips" if are_classes else "clips or speakers"
        return f"It was trained on some of these {met}. The {figure} is therefore too high."
    return f"It was not trained on these {units}."


def _level_sentences(cells: Sequence[Row]) -> Iterator[str]:
    """What the worst attack does below and above the level at which people hear a change."""
    attacks = [cell for cell in cells if not cell["control"] and cell["snr_db"] is not None]
    if not attacks:
        return
    levels = {
        f"a level that people do not hear (mean SNR of at least {QUIET_DB:g} dB)": [
            cell for cell in attacks if cell["snr_db"] >= QUIET_DB
        ],
        f"a level that people hear (mean SNR below {QUIET_DB:g} dB)": [
            cell for cell in attacks if cell["snr_db"] < QUIET_DB
        ],
    }
    for level, group in levels.items():
        worst = max(group, key=lambda cell: cell["supported"], default=None)
        yield f"At {level}, " + (
            "no attack was tried."
            if worst is None
            else f"an attacker changes {rate_text(worst)} ({worst['title']}, {worst['snr_db']:.0f} dB)."
        )


def _certainty_sentences(corpus: Row) -> Iterator[str]:
    """How sure the figures are."""
    clips = quantity(corpus["clips"], "clip")
    doubt = "An attack that was not tried may be stronger"
    if corpus["speakers"] < 2:
        yield f"No interval can be given from {clips} by one speaker. {doubt}."
        return
    yield f"The 95 % intervals are clustered by speaker and come from {clips}. {doubt}."
    if corpus["speakers"] < 5:
        yield (f"The intervals are wide because there are only {corpus['speakers']} test speakers.")


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
        yield (
            f"Not established: {'; '.join(facts['victim']['flags'])}. Until this is corrected, the "
            "figures below do not show how robust the model is."
        )
    elif fails_everyday(facts):
        everyday, least = facts["everyday"], facts["fail_below_everyday"]
        yield (
            f"FAILED: {everyday['passed']} of {everyday['of']} everyday conditions pass. The limit "
            f"is {percent(least)}."
        )
    elif outcome == "passed" and limit is None:
        yield "Passed: enough everyday conditions pass. No limit for attacks was set."
    elif outcome == "failed" and above[0] is noise:
        yield (
            f"FAILED: noise of the same budget changes {rate_text(noise)}, above the limit of "
            f"{percent(limit)}. Noise alone disturbs this model, without an attack."
        )
    elif outcome == "failed":
        yield (
            f"FAILED: {above[0]['title']} changes {rate_text(above[0])}. The whole interval is "
            f"above the limit of {percent(limit)}."
        )
    elif outcome == "passed":
        yield (
            f"Passed: the worst fooling rate is {rate_text(worst)}. No interval reaches above the "
            f"limit of {percent(limit)}."
        )
    elif outcome == "inconclusive":
        yield (
            f"Inconclusive: the worst fooling rate is {rate_text(worst)}. Its interval contains "
            f"the limit of {percent(limit)}. {_clips_needed(worst, limit)}"
        )


def _clips_needed(worst: Row, limit: float) -> str:
    """How many clips would decide, if the rate stayed and the interval shrank with their square root.

    >>> _clips_needed({"fooling_rate": 0.4, "low": 0.2, "high": 0.6, "count": 20}, 0.3)
    'About 80 clips of similarly varied speakers would decide.'
    """
    if worst["low"] is None:
        return "An interval needs clips of more than one speaker."
    distance = abs(worst["fooling_rate"] - limit)
    side = (
        worst["fooling_rate"] - worst["low"]
        if worst["fooling_rate"] > limit
        else (worst["high"] - worst["fooling_rate"])
    )
    if distance < 0.01:
        return "The rate is very near to the limit. No practical number of clips would decide."
    needed = max(worst["count"] + 1, math.ceil(round(worst["count"] * (side / distance) ** 2, 6)))
    return f"About {quantity(needed, 'clip')} of similarly varied speakers would decide."


def rate_text(row: Row) -> str:
    """Returns the rate of a row, its number of clips and its interval."""
    interval = f" (95 % interval {interval_text(row)})" if row["low"] is not None else ""
    return f"{percent(row['fooling_rate'])} of {row['count']}{interval}"


def interval_text(row: Row) -> str:
    """Returns the interval of a row in whole per cent, or n/a."""
    return "n/a" if row["low"] is None else f"{100 * row['low']:.0f} to {100 * row['high']:.0f} %"


def _smallest_budget(budgets: Sequence[Row]) -> str:
    smallest = min(budgets, key=lambda b: (epsilon_order(b["epsilon"]), b["max_density"]))
    return (
        f"At the smallest budget (epsilon {epsilon_text(smallest['epsilon'])}, "
        f"{100 * smallest['max_density']:g} % of samples) the worst attack changes "
        f"{rate_text(smallest['worst'])}."
    )


def _quality_behind(defence: Row) -> str:
    if "ccc" in defence:
        return f"The CCC with this defence is {defence['ccc']:z.2f}."
    return (
        ""
        if defence["uar"] is None
        else (f"The UAR with this defence is {percent(defence['uar'])}.")
    )


def _defence_sentences(facts: Row) -> Iterator[str]:
    for defence in facts["defences"]:
        yield (
            f"With the defence {defence['defence']}, the strongest static attacks change "
            f"{rate_text(defence['static'])}. Adaptive PGD (crafted on {defence['crafted_on']}) "
            f"changes {rate_text(defence['adaptive'])}. {_quality_behind(defence)}"
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
    if not before and not after:
        yield "No defence was needed against these attackers, because no attack succeeded."
    elif after >= before:
        yield f"No defence helped against the {percent(before)} of these attackers."
    else:
        verb = "halves" if after < 0.5 * before else "lowers but does not halve"
        yield (
            f"{best['defence']} is the best of the defences. It {verb} the {percent(before)} of "
            f"these attackers, to {percent(after)}."
        )
    if "queries" in attackers:
        yield "No attack with queries was tried against a defence."
