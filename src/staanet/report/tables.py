"""The tables of the report, as text in rows; the page and the Markdown file print the same ones."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from staanet.core import NO_CHANNEL, metrics
from staanet.errors import printable
from staanet.report import words
from staanet.report.facts import Cell, Crafted, Distances, Row, Run, Sound, speakers_of_parts
from staanet.report.words import NONE, number, percent
from staanet.results.tables import tex


@dataclass(frozen=True, slots=True)
class Entry:
    """A cell: its text, a smaller second line, a mark such as "white box", a bar in per cent."""

    text: str
    sub: str = ""
    mark: str = ""
    bar: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """``names`` leading columns hold names, the others figures."""

    key: str
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    names: int = 1


def to_markdown(table: Table) -> str:
    """A table as Markdown, nothing in it taken for markup.

    >>> print(to_markdown(Table(key="t", caption="C", head=["a"], rows=[[Entry("x|y", "z")]])))
    **C**
    <BLANKLINE>
    | a |
    |---|
    | x\\|y (z) |
    <BLANKLINE>
    """
    lines = [[_plain(head) for head in table.head], ["---"] * len(table.head)]
    for row in table.rows:
        lines.append([_plain(_in_one_line(entry)) for entry in row])
    body = "\n".join(
        f"| {' | '.join(line)} |".replace("| --- ", "|---").replace("--- |", "---|")
        for line in lines
    )
    return f"**{_plain(table.caption)}**\n\n{body}\n"


def to_latex(table: Table) -> str:
    r"""A table for the packages booktabs and graphicx, nothing in it taken for a command.

    >>> print(to_latex(Table(key="t", caption="50 %", head=["a"], rows=[[Entry("x_y", "z")]])))
    \begin{table}
    \caption{50 \%}
    \label{tab:t}
    \resizebox{\linewidth}{!}{%
    \begin{tabular}{l}
    \toprule
    a \\
    \midrule
    x\_y (z) \\
    \bottomrule
    \end{tabular}}
    \end{table}
    <BLANKLINE>
    """
    columns = "l" * table.names + "r" * (len(table.head) - table.names)
    rows = [" & ".join(tex(_in_one_line(entry)) for entry in row) for row in table.rows]
    lines = [
        r"\begin{table}",
        rf"\caption{{{tex(table.caption)}}}",
        rf"\label{{tab:{re.sub('[^A-Za-z0-9-]', '-', table.key)}}}",
        r"\resizebox{\linewidth}{!}{%",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(tex(head) for head in table.head) + r" \\",
        r"\midrule",
        *(rf"{row} \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def every(run: Run, leads: Sequence[Cell]) -> list[Table]:
    """All tables of results that have rows, in the order of the page."""
    groups = [by_group(run, lead, group) for lead in leads for group in ("label", "speaker")]
    found = [victims(run), matrix(run), effects(run), defences(run), channels(run), sounds(run)]
    return [table for table in (*found, *groups) if table.rows]


def _in_one_line(entry: Entry) -> str:
    more = "; ".join(filter(None, [entry.sub, entry.mark]))
    return f"{entry.text} ({more})" if more else entry.text


def _plain(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", printable(text))


# ---------------------------------------------------------------- the transfer matrix


def matrix(run: Run) -> Table:
    """Fooling rates: a row per source and attack, a column per target, then what it cost."""
    head = ["crafted on", "attack", *(f"on {target}" for target in run.targets)]
    head += ["samples changed", "l0", "SNR", "peak ratio", "largest change", "time per clip"]
    head += ["queries per clip"]
    rows = []
    for attack, source in run.sets:
        own = {cell.target: cell for cell in run.cells if cell.key == (attack, source)}
        some = next(iter(own.values()))
        rates = [_rate(own[target]) if target in own else Entry("") for target in run.targets]
        name = Entry(some.title, mark="control" if some.control else "")
        rows.append([Entry(source), name, *rates, *_costs(some)])
    return Table(
        key="matrix",
        caption="Fooling rate: share of clips whose answer changed, with its 95 % interval clustered by "
        "speaker, and the mean cost over all clips",
        head=head,
        rows=rows,
        names=2,
    )


def _rate(cell: Cell) -> Entry:
    return Entry(
        words.rate(cell.fooling_rate, cell.count),
        f"{words.interval(cell.fooling_rate)}, N {cell.fooling_rate.count:,}",
        "white box" if cell.white_box and not cell.control else "",
    )


def _costs(cell: Cell) -> list[Entry]:
    mean, untouched = cell.mean, words.count(cell.untouched, "clip") if cell.untouched else ""
    sub = f"without {untouched} left as is" if untouched else ""
    return [
        Entry(percent(mean.density)),
        Entry(number(mean.l0, 0)),
        Entry(number(mean.snr_db, 1, "dB"), sub),
        Entry(number(mean.peak_ratio_db, 1, "dB")),
        Entry(number(mean.linf, 4)),
        Entry(words.seconds(cell.seconds)),
        Entry(number(cell.queries, 0)),
    ]


def effects(run: Run) -> Table:
    """What it does to accuracy, a row per cell, and the distances of the fooled clips alone."""
    rows = [
        [
            Entry(cell.source),
            Entry(cell.title, mark="control" if cell.control else ""),
            Entry(cell.target, mark="white box" if cell.white_box and not cell.control else ""),
            Entry(
                words.rate(cell.attack_success_rate, cell.count),
                _with_count(cell.attack_success_rate),
            ),
            _before_after(cell.uar_before, cell.uar_after),
            _before_after(cell.accuracy_before, cell.accuracy_after),
            *_of_fooled(cell.mean_fooled, cell),
        ]
        for cell in run.cells
    ]
    head = ["crafted on", "attack", "target", "attack success", "UAR", "accuracy"]
    return Table(
        key="effects",
        caption="Attack success (correct clips that became wrong, N of them), recall and accuracy before "
        "and after, and the distances over the fooled clips alone",
        head=[*head, "fooled: samples changed", "fooled: SNR", "fooled: peak ratio"],
        rows=rows,
        names=3,
    )


def _with_count(estimate: metrics.Estimate) -> str:
    return "" if estimate.value is None else f"{words.interval(estimate)}, N {estimate.count:,}"


def _before_after(before: metrics.Estimate, after: metrics.Estimate) -> Entry:
    return Entry(
        f"{percent(before.value)} → {percent(after.value)}", f"after: {words.interval(after)}"
    )


def _of_fooled(mean: Distances, cell: Cell) -> list[Entry]:
    if mean.l0 is None:
        return [Entry(f"{NONE} (0 of {cell.count})")] * 3
    return [
        Entry(percent(mean.density)),
        Entry(number(mean.snr_db, 1, "dB")),
        Entry(number(mean.peak_ratio_db, 1, "dB")),
    ]


# ---------------------------------------------------------------- defences


def defences(run: Run) -> Table:
    """What each defence is worth: undefended, against who does not know it, and who does."""
    rows = []
    for name, guarded in run.defended.items():
        own = [cell for cell in run.cells if cell.target == name]
        adaptive = any(c.defence == "adaptive" and not c.control for c in own)
        clean = _clean(run, name, guarded.inner)
        for attack in dict.fromkeys(cell.attack for cell in own):
            some = next(cell for cell in own if cell.attack == attack)
            rows.append(
                [
                    Entry(name, mark="" if adaptive else "non-adaptive"),
                    Entry(" + ".join(guarded.chain)),
                    Entry(some.title, mark="control" if some.control else ""),
                    clean,
                    _against(run.cell(attack, guarded.inner, guarded.inner)),
                    _against(_static(own, attack, guarded.inner)),
                    _against(run.cell(attack, name, name)),
                ]
            )
    return Table(
        key="defences",
        caption="Fooling rate of each defended classifier: without the defence, by an attack that does not "
        "know it (static), and by one that goes through it (adaptive). Only the last column is robustness",
        head=["classifier", "defence", "attack", "clean UAR", "undefended", "static", "adaptive"],
        rows=rows,
        names=3,
    )


def _static(cells: Sequence[Cell], attack: str, inner: str) -> Cell | None:
    """Crafted on the victim inside, or else on any other."""
    found = [c for c in cells if c.attack == attack and c.defence == "static"]
    return min(found, key=lambda cell: cell.source != inner, default=None)


def _against(cell: Cell | None) -> Entry:
    if cell is None:
        return Entry(NONE)
    about = f"{words.interval(cell.fooling_rate)}, N {cell.fooling_rate.count:,}"
    return Entry(words.rate(cell.fooling_rate, cell.count), about)


def _clean(run: Run, name: str, inner: str) -> Entry:
    """Recall on clean clips before and with the defence, on the set of most clips."""
    told = [
        max((c for c in run.cells if c.target == one), key=lambda c: c.count, default=None)
        for one in (inner, name)
    ]
    before, after = (NONE if cell is None else percent(cell.uar_before.value) for cell in told)
    return Entry(after, f"undefended: {before}")


# ---------------------------------------------------------------- after a channel, and to the ear


def channels(run: Run) -> Table:
    """Fooling rates of the files and after each channel, a row per set and channel."""
    rows = []
    for attack, source in run.sets if run.channel_cells else ():
        own = [c for c in (*run.cells, *run.channel_cells) if c.key == (attack, source)]
        for channel in dict.fromkeys(cell.channel for cell in own):
            cells = {cell.target: cell for cell in own if cell.channel == channel}
            some = next(iter(cells.values()))
            rows.append(
                [
                    Entry(source),
                    Entry(some.title, mark="control" if some.control else ""),
                    Entry("the file as it is" if channel == NO_CHANNEL else channel),
                    *(_rate(cells[t]) if t in cells else Entry("") for t in run.targets),
                    *(
                        Entry(percent(cells[t].uar_before.value) if t in cells else "")
                        for t in run.targets
                    ),
                ]
            )
    return Table(
        key="channels",
        caption="Fooling rate after the channel: both clips pass through it, and an answer counts as "
        "changed against the clean clip's after the same channel; beside it, recall on those clean clips",
        head=[
            "crafted on",
            "attack",
            "after",
            *(f"on {target}" for target in run.targets),
            *(f"clean UAR of {target}" for target in run.targets),
        ],
        rows=rows,
        names=3,
    )


HEARD = {
    "pesq_wb": "PESQ (1 to 4.64)",
    "stoi": "STOI (0 to 1)",
    "zimtohrli_mos": "Zimtohrli (1 to 5)",
    "dnsmos_ovrl": "DNSMOS (1 to 5)",
    "dnsmos_change": "DNSMOS, change",
    "masked_excess": "bins above masking",
    "masked_excess_db": "dB above masking",
}


def sounds(run: Run) -> Table:
    """The mean of each perceptual metric, with how many clips have a value and why others do not."""
    metrics = list(dict.fromkeys(name for scores in run.sounds.values() for name in scores))
    titles = {cell.key: cell for cell in run.cells}
    rows = []
    for (attack, source), scores in run.sounds.items():
        cell = titles.get((attack, source))
        name = Entry(
            cell.title if cell else attack, mark="control" if cell and cell.control else ""
        )
        heard = [_sound(scores[m]) if m in scores else Entry("") for m in metrics]
        rows.append([Entry(source), name, *heard])
    return Table(
        key="sounds",
        caption="How the adversarial clips sound beside their originals, by models of hearing: mean over "
        "the clips that have a value; higher is nearer to the original (DNSMOS judges the clip by itself), "
        "but of what is above the masking threshold, a share of the time-frequency bins (0 to 1) and how "
        "far it is there, less is",
        head=["crafted on", "attack", *(HEARD.get(name, name) for name in metrics)],
        rows=rows,
        names=2,
    )


def _sound(sound: Sound) -> Entry:
    why = max(sound.missing, key=lambda reason: sound.missing[reason], default="")
    sub = f"N {sound.count:,} of {sound.of:,}"
    return Entry(number(sound.value, 2), f"{sub}; {why}" if why else sub)


# ---------------------------------------------------------------- who is hit harder


def by_group(run: Run, lead: Cell, group: str) -> Table:
    """Fooling rate per ``label`` or ``speaker`` of the headline's set, one column per target."""
    rows = [row for row in run.rows if (row.attack, row.source) == lead.key]
    targets = [target for target in run.targets if any(row.target == target for row in rows)]
    names = sorted({getattr(row, group) for row in rows})
    heading = {"label": "class", "speaker": "speaker"}[group]
    return Table(
        key=f"by-{group}-{lead.source}",
        caption=f"{lead.title} from {lead.source}, by {heading}",
        head=[heading, "clips", *(f"fooled: {target}" for target in targets), "SNR"],
        rows=[
            _group(name, [r for r in rows if getattr(r, group) == name], targets) for name in names
        ],
    )


def _group(name: str, rows: Sequence[Row], targets: Sequence[str]) -> list[Entry]:
    rates = []
    for target in targets:
        own = [row for row in rows if row.target == target]
        estimate = metrics.rate([row.fooled for row in own], [row.speaker for row in own])
        sub = words.interval(estimate) if estimate.clusters > 1 else f"N {estimate.count:,}"
        bar = None if estimate.value is None else 100 * estimate.value
        rates.append(Entry(words.rate(estimate, 0), sub, bar=bar))
    clips = {row.id: row.distances.snr_db for row in rows}
    snr = [value for value in clips.values() if value is not None]
    return [
        Entry(name or "(none)"),
        Entry(f"{len(clips):,}"),
        *rates,
        Entry(number(sum(snr) / len(snr) if snr else None, 1, "dB")),
    ]


# ---------------------------------------------------------------- how it was made


def attacks(crafted: Sequence[Crafted]) -> Table:
    """Settings of each adversarial set."""
    return Table(
        key="attacks",
        caption="Attacks as they were run",
        head=["set", "attack", "goal", "right to change", "same samples as", "settings", "seed"],
        rows=[_as_run(one) for one in crafted],
        names=7,
    )


def _as_run(one: Crafted) -> list[Entry]:
    inputs = one.card.get("inputs") or {}
    settings = one.card.get("settings") or (inputs.get("recipe") or {}).get("settings")
    return [
        Entry(one.name),
        Entry(str(one.card.get("title") or one.attack)),
        Entry(str(one.card.get("goal") or NONE)),
        Entry(words.right_to_change(one.budget)),
        Entry(one.matched or "none"),
        Entry(_flat(settings)),
        Entry(str(one.card.get("seed", inputs.get("seed", NONE)))),
    ]


def victims(run: Run) -> Table:
    """What was attacked, and how well it does its work."""
    rows = []
    for model in run.victims:
        card = model.card
        labels = [str(label) for label in card.get("labels") or run.labels.get(model.name, ())]
        rows.append(
            [
                Entry(model.name),
                Entry(str(card.get("architecture") or NONE)),
                Entry(f"{len(labels)}: {', '.join(labels)}"),
                Entry(_share(card.get("dev_uar"))),
                Entry(_share(card.get("test_uar"))),
                Entry(_share(card.get("test_accuracy"))),
            ]
        )
    return Table(
        key="victims",
        caption="Victims, before any attack",
        head=["victim", "network", "classes", "dev UAR", "test UAR", "test accuracy"],
        rows=rows,
        names=3,
    )


def split(card: Mapping[str, Any]) -> Table:
    """Clips and speakers of each part of the corpus; where these are the classes, what they say."""
    parts = speakers_of_parts(card)
    counts = (card.get("corpus") or {}).get("split") or {}
    protocol = (card.get("corpus") or {}).get("protocol")
    told = "contents" if any("contents" in one for one in counts.values()) else "speakers"
    usual = [part for part in ("train", "dev", "test") if part in parts]
    return Table(
        key="split",
        caption=f"Corpus and split{f', protocol {protocol}' if protocol else ''}",
        head=["part", told, "clips"],
        rows=[
            [
                Entry(part),
                Entry(words.some(counts[part].get(told) or parts[part], 60)),
                Entry(str(counts[part].get("clips", NONE))),
            ]
            for part in [*usual, *sorted(parts.keys() - set(usual))]
        ],
        names=2,
    )


def stages(card: Mapping[str, Any]) -> Table:
    """Seconds per stage and their sum."""
    taken = {str(k): float(v) for k, v in (card.get("seconds") or {}).items()}
    rows = [[Entry(name), Entry(words.seconds(value))] for name, value in taken.items()]
    rows.append([Entry("together"), Entry(words.seconds(sum(taken.values())))])
    return Table(
        key="stages", caption="Time per stage", head=["stage", "time"], rows=rows if taken else []
    )


def selfcheck(run: Run) -> Table:
    """What ``staanet selfcheck`` asked of the run, failures first."""
    order = ("fail", "warn", "pass", "skipped")
    checks = run.selfcheck.checks if run.selfcheck else ()
    rows = [
        [
            Entry(
                check.name.replace("_", " "), mark="" if check.verdict == "pass" else check.verdict
            ),
            Entry(check.subject or "the run"),
            Entry(check.explanation, sub=check.remedy),
        ]
        for check in sorted(
            checks, key=lambda c: order.index(c.verdict) if c.verdict in order else 0
        )
    ]
    return Table(
        key="selfcheck",
        caption="Self-check: is this evaluation honest?",
        head=["check", "about", "what was found"],
        rows=rows,
        names=3,
    )


def _share(value: object) -> str:
    return percent(float(value)) if isinstance(value, int | float) else NONE


def _flat(settings: object) -> str:
    if not isinstance(settings, Mapping) or not settings:
        return "defaults"
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in settings.items())
