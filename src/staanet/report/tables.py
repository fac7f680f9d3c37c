"""The tables of the report, as text in rows; the page and the Markdown file print the same ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from staanet.core import NO_CHANNEL, metrics
from staanet.results import formatting
from staanet.results.cells import Cell, ClipResult
from staanet.results.formatting import NONE, number, percent
from staanet.results.run_folder import PerceptualScore, RunFolder, StoredSet
from staanet.results.table import CONTROL, Table, TableCell, rate_cell
from staanet.results.transfer_tables import effects_table, target_cell, transfer_table


def every(run: RunFolder, leads: Sequence[Cell]) -> list[Table]:
    """All tables of results that have rows, in the order of the page."""
    groups = [by_group(run, lead, group) for lead in leads for group in ("label", "speaker")]
    found = [
        victims(run),
        transfer_table(run.cells),
        effects_table(run.cells),
        defences(run),
        channels(run),
        sounds(run),
    ]
    return [table for table in (*found, *groups) if table.rows]


# ---------------------------------------------------------------- defences


def defences(run: RunFolder) -> Table:
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
                    TableCell(name, mark="" if adaptive else "non-adaptive"),
                    TableCell(" + ".join(guarded.chain)),
                    TableCell(some.title, mark=CONTROL if some.control else ""),
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
        columns=[
            "classifier",
            "defence",
            "attack",
            "clean UAR",
            "undefended",
            "static",
            "adaptive",
        ],
        rows=rows,
        names=3,
    )


def _static(cells: Sequence[Cell], attack: str, inner: str) -> Cell | None:
    """StoredSet on the victim inside, or else on any other."""
    found = [c for c in cells if c.attack == attack and c.defence == "static"]
    return min(found, key=lambda cell: cell.source != inner, default=None)


def _against(cell: Cell | None) -> TableCell:
    if cell is None:
        return TableCell(NONE)
    return rate_cell(cell.fooling_rate, cell.count)


def _clean(run: RunFolder, name: str, inner: str) -> TableCell:
    """Recall on clean clips before and with the defence, on the set of most clips."""
    told = [
        max((c for c in run.cells if c.target == one), key=lambda c: c.count, default=None)
        for one in (inner, name)
    ]
    before, after = (NONE if cell is None else percent(cell.uar_before.value) for cell in told)
    return TableCell(after, f"undefended: {before}")


# ---------------------------------------------------------------- after a channel, and to the ear


def channels(run: RunFolder) -> Table:
    """Fooling rates of the files and after each channel, a row per set and channel."""
    rows = []
    for attack, source in run.keys if run.channel_cells else ():
        own = [c for c in (*run.cells, *run.channel_cells) if c.key == (attack, source)]
        for channel in dict.fromkeys(cell.channel for cell in own):
            cells = {cell.target: cell for cell in own if cell.channel == channel}
            some = next(iter(cells.values()))
            rows.append(
                [
                    TableCell(source),
                    TableCell(some.title, mark=CONTROL if some.control else ""),
                    TableCell("the file as it is" if channel == NO_CHANNEL else channel),
                    *(target_cell(cells[t]) if t in cells else TableCell("") for t in run.targets),
                    *(
                        TableCell(percent(cells[t].uar_before.value) if t in cells else "")
                        for t in run.targets
                    ),
                ]
            )
    return Table(
        key="channels",
        caption="Fooling rate after the channel: both clips pass through it, and an answer counts as "
        "changed against the clean clip's after the same channel; beside it, recall on those clean clips",
        columns=[
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


def sounds(run: RunFolder) -> Table:
    """The mean of each perceptual metric, with how many clips have a value and why others do not."""
    metrics = list(dict.fromkeys(name for scores in run.perceptual.values() for name in scores))
    titles = {cell.key: cell for cell in run.cells}
    rows = []
    for (attack, source), scores in run.perceptual.items():
        cell = titles.get((attack, source))
        name = TableCell(
            cell.title if cell else attack, mark=CONTROL if cell and cell.control else ""
        )
        heard = [_sound(scores[m]) if m in scores else TableCell("") for m in metrics]
        rows.append([TableCell(source), name, *heard])
    return Table(
        key="sounds",
        caption="How the adversarial clips sound beside their originals, by models of hearing: mean over "
        "the clips that have a value; higher is nearer to the original (DNSMOS judges the clip by itself), "
        "but of what is above the masking threshold, a share of the time-frequency bins (0 to 1) and how "
        "far it is there, less is",
        columns=["crafted on", "attack", *(HEARD.get(name, name) for name in metrics)],
        rows=rows,
        names=2,
    )


def _sound(sound: PerceptualScore) -> TableCell:
    why = max(sound.missing, key=lambda reason: sound.missing[reason], default="")
    sub = f"N {sound.count:,} of {sound.of:,}"
    return TableCell(number(sound.value, 2), f"{sub}; {why}" if why else sub)


# ---------------------------------------------------------------- who is hit harder


def by_group(run: RunFolder, lead: Cell, group: str) -> Table:
    """Fooling rate per ``label`` or ``speaker`` of the headline's set, one column per target."""
    rows = [row for row in run.rows if (row.attack, row.source) == lead.key]
    targets = [target for target in run.targets if any(row.target == target for row in rows)]
    names = sorted({getattr(row, group) for row in rows})
    heading = {"label": "class", "speaker": "speaker"}[group]
    return Table(
        key=f"by-{group}-{lead.source}",
        caption=f"{lead.title} from {lead.source}, by {heading}",
        columns=[heading, "clips", *(f"fooled: {target}" for target in targets), "SNR"],
        rows=[
            _group(name, [r for r in rows if getattr(r, group) == name], targets) for name in names
        ],
    )


def _group(name: str, rows: Sequence[ClipResult], targets: Sequence[str]) -> list[TableCell]:
    rates = []
    for target in targets:
        own = [row for row in rows if row.target == target]
        estimate = metrics.rate([row.fooled for row in own], [row.speaker for row in own])
        sub = formatting.interval(estimate) if estimate.clusters > 1 else f"N {estimate.count:,}"
        bar = None if estimate.value is None else 100 * estimate.value
        rates.append(TableCell(formatting.rate(estimate, 0), sub, bar=bar))
    clips = {row.id: row.distances.snr_db for row in rows}
    snr = [value for value in clips.values() if value is not None]
    return [
        TableCell(name or "(none)"),
        TableCell(f"{len(clips):,}"),
        *rates,
        TableCell(number(sum(snr) / len(snr) if snr else None, 1, "dB")),
    ]


# ---------------------------------------------------------------- how it was made


def attacks(crafted: Sequence[StoredSet]) -> Table:
    """Settings of each adversarial set."""
    return Table(
        key="attacks",
        caption="Attacks as they were run",
        columns=["set", "attack", "goal", "right to change", "same samples as", "settings", "seed"],
        rows=[_as_run(one) for one in crafted],
        names=7,
    )


def _as_run(one: StoredSet) -> list[TableCell]:
    inputs = one.card.get("inputs") or {}
    settings = one.card.get("settings") or (inputs.get("recipe") or {}).get("settings")
    return [
        TableCell(one.name),
        TableCell(str(one.card.get("title") or one.key[0])),
        TableCell(str(one.card.get("goal") or NONE)),
        TableCell(formatting.right_to_change(one.budget)),
        TableCell(one.matched or "none"),
        TableCell(_flat(settings)),
        TableCell(str(one.card.get("seed", inputs.get("seed", NONE)))),
    ]


def victims(run: RunFolder) -> Table:
    """What was attacked, and how well it does its work."""
    rows = []
    for model in run.victims:
        card = model.card
        labels = [str(label) for label in card.get("labels") or run.labels.get(model.name, ())]
        rows.append(
            [
                TableCell(model.name),
                TableCell(str(card.get("architecture") or NONE)),
                TableCell(f"{len(labels)}: {', '.join(labels)}"),
                TableCell(_share(card.get("dev_uar"))),
                TableCell(_share(card.get("test_uar"))),
                TableCell(_share(card.get("test_accuracy"))),
            ]
        )
    return Table(
        key="victims",
        caption="Victims, before any attack",
        columns=["victim", "network", "classes", "dev UAR", "test UAR", "test accuracy"],
        rows=rows,
        names=3,
    )


def split(run: RunFolder) -> Table:
    """Clips and speakers of each part of the corpus; where these are the classes, what they say."""
    card, parts = run.card, run.speakers_by_part
    counts = (card.get("corpus") or {}).get("split") or {}
    protocol = (card.get("corpus") or {}).get("protocol")
    told = "contents" if any("contents" in one for one in counts.values()) else "speakers"
    usual = [part for part in ("train", "dev", "test") if part in parts]
    return Table(
        key="split",
        caption=f"Corpus and split{f', protocol {protocol}' if protocol else ''}",
        columns=["part", told, "clips"],
        rows=[
            [
                TableCell(part),
                TableCell(formatting.first_items(counts[part].get(told) or parts[part], 60)),
                TableCell(str(counts[part].get("clips", NONE))),
            ]
            for part in [*usual, *sorted(parts.keys() - set(usual))]
        ],
        names=2,
    )


def stages(card: Mapping[str, Any]) -> Table:
    """Seconds per stage and their sum."""
    taken = {str(k): float(v) for k, v in (card.get("seconds") or {}).items()}
    rows = [
        [TableCell(name), TableCell(formatting.seconds(value))] for name, value in taken.items()
    ]
    rows.append([TableCell("together"), TableCell(formatting.seconds(sum(taken.values())))])
    return Table(
        key="stages",
        caption="Time per stage",
        columns=["stage", "time"],
        rows=rows if taken else [],
    )


def selfcheck(run: RunFolder) -> Table:
    """What ``staanet selfcheck`` asked of the run, failures first."""
    order = ("fail", "warn", "pass", "skipped")
    checks = run.selfcheck.checks if run.selfcheck else ()
    rows = [
        [
            TableCell(
                check.name.replace("_", " "), mark="" if check.verdict == "pass" else check.verdict
            ),
            TableCell(check.subject or "the run"),
            TableCell(check.explanation, note=check.remedy),
        ]
        for check in sorted(
            checks, key=lambda c: order.index(c.verdict) if c.verdict in order else 0
        )
    ]
    return Table(
        key="selfcheck",
        caption="Self-check: is this evaluation honest?",
        columns=["check", "about", "what was found"],
        rows=rows,
        names=3,
    )


def _share(value: object) -> str:
    return percent(float(value)) if isinstance(value, int | float) else NONE


def _flat(settings: object) -> str:
    if not isinstance(settings, Mapping) or not settings:
        return "defaults"
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in settings.items())
