"""What a run says: which cells make the headline, what to warn about, which clips to show."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from staanet.core.metrics import Estimate
from staanet.results import formatting
from staanet.results.cells import Cell, ClipResult
from staanet.results.run_folder import RunFolder

METHOD = "staa"
"""Registry name of the attack that this package is about."""
UNIVERSAL = "uap"
"""Registry name of the control that is one vector for all clips."""


@dataclass(frozen=True, slots=True)
class Headline:
    """An attack on its own source, beside what it has to be compared with."""

    cell: Cell
    control: Cell | None
    """Random changes, if possible of the same size and number."""
    rival: Cell | None
    """The attack that changed the same number of samples (PGD)."""


def headlines(run: RunFolder) -> list[Headline]:
    """One per source: of STAA-Net where it was evaluated, else of the first attack."""
    attack = _leading_attack(run)
    sources = dict.fromkeys(cell.source for cell in run.cells if cell.attack == attack)
    found = []
    for source in sources:
        cells = [cell for cell in run.cells if cell.key == (attack, source)]
        cell = next((cell for cell in cells if cell.white_box), cells[0])
        beside = [
            c for c in run.cells if (c.source, c.target) == (source, cell.target) and c != cell
        ]
        found.append(
            Headline(
                cell,
                _control(run, cell, [c for c in beside if c.control]),
                _best([c for c in beside if _same_samples(run, c, cell)], run, cell),
            )
        )
    return found


def _leading_attack(run: RunFolder) -> str:
    def rank(cell: Cell) -> tuple[bool, bool]:
        crafted = run.sets.get(cell.key)
        return cell.control, (crafted.algorithm if crafted else cell.attack) != METHOD

    return min(run.cells, key=rank).attack if run.cells else ""


def _control(run: RunFolder, headline: Cell, controls: Sequence[Cell]) -> Cell | None:
    """Noise rather than a universal vector, which knows what its training clips have in common."""

    def universal(cell: Cell) -> bool:
        crafted = run.sets.get(cell.key)
        return (crafted.algorithm if crafted else cell.attack) == UNIVERSAL

    return _best([c for c in controls if not universal(c)], run, headline)


def _best(cells: Sequence[Cell], run: RunFolder, headline: Cell) -> Cell | None:
    """The one matched with the headline's set, or else the first."""
    return min(cells, key=lambda cell: not matched(run, cell, headline), default=None)


def matched(run: RunFolder, cell: Cell, headline: Cell) -> bool:
    """Whether a cell's attack changed, clip by clip, as many samples as the headline's."""
    crafted = run.sets.get(cell.key)
    return crafted is not None and crafted.matched == f"{headline.attack}__{headline.source}"


def _same_samples(run: RunFolder, cell: Cell, headline: Cell) -> bool:
    if cell.control:
        return False
    return matched(run, cell, headline) or (
        cell.key not in run.sets and cell.attack == "pgd_sparse"
    )


def compared(run: RunFolder, headline: Headline) -> list[Cell]:
    """The cells of a headline's source for one figure: the attack, its likes, the controls last."""
    source = headline.cell.source
    sets = [key for key in run.keys if key[1] == source]
    cells = [cell for key in sets for cell in run.cells if cell.key == key]
    return sorted(
        cells,
        key=lambda c: (c.target != headline.cell.target, c.control, c.key != headline.cell.key),
    )


# ---------------------------------------------------------------- warnings


def flags(run: RunFolder, leads: Sequence[Headline], unverified: int) -> list[str]:
    """What the reader must know before the headline, the run's own warnings first."""
    found = [*_failed_checks(run), *run.flags]
    for model in run.generators:
        found += [f"generator on {model.name}: {flag}" for flag in model.card.get("flags") or ()]
    for lead in leads:
        for key, text in _doubts(lead):
            told = any(key in flag and lead.cell.title in flag for flag in run.flags)
            if not told:
                found.append(text)
    found += [text for text in [_shared_speakers(run)] if text]
    if run.quarantined:
        found.append(
            f"{formatting.quantity(len(run.quarantined), 'clip')} put aside as unusable, and not counted"
        )
    if unverified:
        found.append(
            f"{formatting.quantity(unverified, 'adversarial clip')} of the results have no audio in this "
            "folder: their figures could not be checked against files"
        )
    return found


def _doubts(lead: Headline) -> Iterator[tuple[str, str]]:
    cell, control = lead.cell, lead.control
    name = f"{cell.title} from {cell.source}"
    value = cell.fooling_rate.value
    if cell.count and cell.untouched == cell.count:
        yield "mask empty", f"{name}: mask empty in every clip: SNR undefined, no attack took place"
    if (cell.mean.density or 0) > 0.999 and cell.budget and cell.budget.max_density:
        yield "mask full", f"{name}: mask full: every sample changed"
    if control is None and not cell.control:
        yield (
            "no random control",
            f"{name} has no random control beside it: without one, a fooling rate cannot be judged",
        )
    if control and value is not None and (control.fooling_rate.value or 0) >= value:
        yield (
            "random control",
            f"{name} fools {cell.target} no more often than the random control "
            f"({formatting.percent(value)} against {formatting.percent(control.fooling_rate.value)})",
        )
    elif control and _overlap(cell.fooling_rate, control.fooling_rate):
        yield (
            "intervals overlap",
            f"the intervals of {name} and of its random control on {cell.target} overlap "
            f"({formatting.interval(cell.fooling_rate)} and {formatting.interval(control.fooling_rate)}): "
            f"with {formatting.quantity(cell.fooling_rate.clusters, 'speaker')}, how far apart they are is uncertain",
        )
    if cell.fooling_rate.clusters == 1:
        yield (
            "one speaker",
            f"{name}: all clips are by one speaker, which says nothing about others",
        )


def _overlap(one: Estimate, other: Estimate) -> bool:
    """Whether two 95 % intervals have a rate in common.

    >>> _overlap(Estimate(0.7, 0.5, 0.9, 64, 4), Estimate(0.4, 0.3, 0.6, 64, 4))
    True
    """
    if None in (one.low, one.high, other.low, other.high):
        return False
    return (one.low or 0) <= (other.high or 0) and (other.low or 0) <= (one.high or 0)


def _failed_checks(run: RunFolder) -> Iterator[str]:
    if run.selfcheck is None:
        return
    if run.selfcheck.stale:
        yield "the self-check is older than these results: run staanet selfcheck again"
    for check in run.selfcheck.checks:
        if check.verdict == "fail":
            about = f" of {check.subject}" if check.subject else ""
            yield f"self-check failed: {check.name.replace('_', ' ')}{about}: {check.explanation}"


def _shared_speakers(run: RunFolder) -> str:
    if (run.card.get("corpus") or {}).get("classes") == "speaker":
        return ""  # the classes: each has to be in every part
    counts = Counter(s for names in run.speakers_by_part.values() for s in set(names))
    shared = sorted(speaker for speaker, parts in counts.items() if parts > 1)
    return (
        f"speakers {formatting.join_words(shared)} are in more than one part of the split"
        if shared
        else ""
    )


def weak_victims(run: RunFolder) -> list[str]:
    """Warnings about targets that were hardly better than chance before any attack."""
    found = {}
    for cell in run.cells:
        chance = 1 / max(1, len(run.labels.get(cell.target, ())))
        before = cell.uar_before.value
        if before is not None and before <= 1.5 * chance:
            found[cell.target] = (
                f"{cell.target} was hardly better than chance on clean clips (UAR {formatting.percent(before)}, "
                f"chance {formatting.percent(chance)}): fooling it proves little"
            )
    return list(found.values())


def harder(run: RunFolder, lead: Headline) -> str:
    """Which class and which speaker the headline's attack hit most and least, in one sentence."""
    cell = lead.cell
    rows = [r for r in run.rows if (r.attack, r.source) == cell.key and r.target == cell.target]
    parts = []
    for group, what in (("label", "class"), ("speaker", "speaker")):
        clips: dict[str, list[bool]] = defaultdict(list)
        for row in rows:
            clips[getattr(row, group)].append(row.fooled)
        rates = {name: sum(fooled) / len(fooled) for name, fooled in clips.items()}
        most, least = (f(rates, key=lambda n: (rates[n], n), default="") for f in (max, min))
        if len(rates) > 1 and rates[most] > rates[least]:
            parts.append(
                f"the {what} {most or '(none)'} ({formatting.percent(rates[most])} of "
                f"{len(clips[most])}) and least the {what} {least or '(none)'} "
                f"({formatting.percent(rates[least])} of {len(clips[least])})"
            )
    if not parts:
        return ""
    return (
        f"{cell.title} changed the answers of {cell.target} most often for {'; for '.join(parts)}."
    )


# ---------------------------------------------------------------- clips to look at


@dataclass(frozen=True, slots=True)
class Shown:
    """A clip worth showing: its rows, one per target."""

    id: str
    label: str
    speaker: str
    rows: Sequence[ClipResult]

    @property
    def fooled(self) -> int:
        return sum(row.fooled for row in self.rows)


def choose_clips(run: RunFolder, lead: Headline, number: int) -> list[Shown]:
    """``number`` clips that fooled most targets, and one that did not fool the source.

    In this order: more targets fooled, another label, another speaker, right when clean, better SNR.
    """
    one = run.sets.get(lead.cell.key)
    stored = {clip_id for clip_id in (one.rows if one else ()) if one and one.has_audio(clip_id)}
    by_id: dict[str, list[ClipResult]] = defaultdict(list)
    for row in run.rows:
        if (row.attack, row.source) == lead.cell.key and row.id in stored:
            by_id[row.id].append(row)
    clips = [
        Shown(key, rows[0].label, rows[0].speaker, rows) for key, rows in sorted(by_id.items())
    ]
    left = [clip for clip in clips if clip.fooled]
    chosen: list[Shown] = []
    while left and len(chosen) < number:
        labels, speakers = (
            Counter(getattr(c, name) for c in chosen) for name in ("label", "speaker")
        )
        best = min(
            left,
            key=lambda c: (
                -c.fooled,
                labels[c.label],
                speakers[c.speaker],
                _wrong(c),
                -_snr(c),
                c.id,
            ),
        )
        chosen.append(best)
        left.remove(best)
    held = [c for c in clips if c not in chosen and not _fooled_on(c, lead.cell.target)]
    return chosen + sorted(held, key=lambda c: (c.fooled, _wrong(c), -_snr(c), c.id))[:1]


def _wrong(clip: Shown) -> int:
    return sum(row.clean_prediction != row.label for row in clip.rows)


def _snr(clip: Shown) -> float:
    return clip.rows[0].distances.snr_db or 0.0


def _fooled_on(clip: Shown, target: str) -> bool:
    return any(row.fooled for row in clip.rows if row.target == target)
