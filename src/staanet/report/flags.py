"""Warnings that the report shows before the headline of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from staanet.core.metrics import Estimate
from staanet.report.headlines import Headline
from staanet.results import formatting
from staanet.results.run_folder import RunFolder


def run_flags(run: RunFolder, leads: Sequence[Headline], unverified: int) -> list[str]:
    """Returns all warnings of a run, failed checks and the run's own warnings first.

    ``unverified`` counts the clips of the results that have no audio in the folder.
    """
    flags = [*_failed_checks(run), *run.flags, *_texts(run.card.get("flags"))]
    for kind, models in (("victim", run.victims), ("generator on", run.generators)):
        flags += [
            f"{kind} {model.name}: {flag.removeprefix(f'{model.name}: ')}"
            for model in models
            for flag in _texts(model.card.get("flags"))
        ]
    flags += _odd_recordings(run)
    for lead in leads:
        for key, text in _doubts(lead):
            if not any(key in flag and lead.cell.title in flag for flag in run.flags):
                flags.append(text)
    flags += [*_shared_speakers(run), *weak_victims(run)]
    if run.quarantined:
        clips = formatting.quantity(len(run.quarantined), "clip")
        flags.append(f"{clips} skipped as unusable and not counted")
    if unverified:
        flags.append(
            f"{formatting.quantity(unverified, 'adversarial clip')} of the results have no audio "
            "in this folder, so the figures of these clips were not checked"
        )
    return flags


def _texts(flags: object) -> list[str]:
    return [str(flag) for flag in flags] if isinstance(flags, list) else []


def _odd_recordings(run: RunFolder) -> Iterator[str]:
    """What is odd about the recordings behind the sets; of a note, the set with most such clips counts."""
    notes: dict[str, dict[str, Any]] = {}
    for stored in run.sets.values():
        for note, entry in dict(stored.card.get("recordings") or {}).items():
            if entry["count"] > notes.get(note, {"count": 0})["count"]:
                notes[note] = entry
    for note, entry in sorted(notes.items()):
        more = entry["count"] - len(entry["clips"])
        names = ", ".join(entry["clips"]) + (f" and {more} more" if more else "")
        yield f"recordings: {note} ({names})"


def _doubts(lead: Headline) -> Iterator[tuple[str, str]]:
    """A key word, which the run's own flag about the same has, and a warning."""
    cell, control = lead.cell, lead.control
    name = f"{cell.title} from {cell.source}"
    value = cell.fooling_rate.value
    if cell.count and cell.untouched == cell.count:
        yield "mask empty", f"{name} changed no sample of any clip, so the SNR is undefined"
    if (cell.mean.density or 0) > 0.999 and cell.budget and cell.budget.max_density:
        yield "mask full", f"{name} changed every sample, so it is not sparse"
    if control is None and not cell.control:
        yield (
            "no random control",
            (
                f"{name} has no random control, and its fooling rate cannot be judged without a "
                "control"
            ),
        )
    if control and value is not None and (control.fooling_rate.value or 0) >= value:
        yield (
            "random control",
            f"{name} fools {cell.target} no more often than the random control "
            f"({formatting.percent(value)} against "
            f"{formatting.percent(control.fooling_rate.value)})",
        )
    elif control and overlap(cell.fooling_rate, control.fooling_rate):
        speakers = formatting.quantity(cell.fooling_rate.clusters, "speaker")
        yield (
            "intervals overlap",
            f"the intervals of {name} and of its random control on {cell.target} overlap "
            f"({formatting.interval(cell.fooling_rate)} and "
            f"{formatting.interval(control.fooling_rate)}), so the difference is uncertain with "
            f"{speakers}",
        )
    if cell.fooling_rate.clusters == 1:
        yield (
            "one speaker",
            f"{name}: all clips are by one speaker, so the rate does not hold for other speakers",
        )


def overlap(first: Estimate, second: Estimate) -> bool:
    """Tells whether two 95 % intervals have a rate in common.

    >>> overlap(Estimate(0.7, 0.5, 0.9, 64, 4), Estimate(0.4, 0.3, 0.6, 64, 4))
    True
    """
    if None in (first.low, first.high, second.low, second.high):
        return False
    return (first.low or 0) <= (second.high or 0) and (second.low or 0) <= (first.high or 0)


def _failed_checks(run: RunFolder) -> Iterator[str]:
    if run.selfcheck is None:
        return
    if run.selfcheck.stale:
        yield "the self-check is older than these results; run staanet selfcheck again"
    for check in run.selfcheck.checks:
        if check.verdict == "fail":
            about = f" of {check.subject}" if check.subject else ""
            yield f"self-check failed: {check.name.replace('_', ' ')}{about}: {check.explanation}"


def _shared_speakers(run: RunFolder) -> Iterator[str]:
    if (run.card.get("corpus") or {}).get("classes") == "speaker":
        return  # the classes: each has to be in every part
    counts = Counter(s for names in run.speakers_by_part.values() for s in set(names))
    shared = sorted(speaker for speaker, parts in counts.items() if parts > 1)
    if shared:
        yield f"speakers {formatting.join_words(shared)} are in more than one part of the split"


def weak_victims(run: RunFolder) -> list[str]:
    """Returns a warning per target that was hardly better than chance before any attack."""
    flags = {}
    for cell in run.cells:
        chance = 1 / max(1, len(run.labels.get(cell.target, ())))
        before = cell.uar_before.value
        if before is not None and before <= 1.5 * chance:
            flags[cell.target] = (
                f"{cell.target} is hardly better than chance on clean clips (UAR "
                f"{formatting.percent(before)}, chance {formatting.percent(chance)}), so its "
                "fooling rate proves little"
            )
    return list(flags.values())
