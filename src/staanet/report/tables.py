"""The tables of the report, shared by the page, the Markdown file and the LaTeX file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from staanet import storage
from staanet.core import NO_CHANNEL, metrics
from staanet.report.comparison_tables import comparison_table, worst_groups_table
from staanet.report.everyday_tables import everyday_table
from staanet.report.fold_tables import fold_members_table, fold_table
from staanet.results import formatting
from staanet.results.cells import Cell, ClipResult
from staanet.results.formatting import NONE, number, percent
from staanet.results.run_folder import PerceptualScore, RunFolder
from staanet.results.stored import StoredSet
from staanet.results.table import Table, TableCell, rate_cell
from staanet.results.transfer_tables import effects_table, target_cell, transfer_table


def result_tables(run: RunFolder, leads: Sequence[Cell]) -> list[Table]:
    """Returns all tables of results that have rows, in the order of the page."""
    tables = [
        victim_table(run),
        transfer_table(run.cells),
        effects_table(run.cells),
        comparison_table(run),
        fold_table(run),
        fold_members_table(run),
        defence_table(run),
        channel_table(run),
        perceptual_table(run),
        *everyday_tables(run),
        *(worst_groups_table(run, lead) for lead in leads),
        *(group_table(run, lead, group) for lead in leads for group in ("label", "speaker")),
    ]
    return [table for table in tables if table.rows]


def everyday_tables(run: RunFolder) -> list[Table]:
    """Returns what everyday change does to each victim that was tried with it."""
    files = sorted((run.folder / "everyday").glob("*/everyday.json"))
    return [everyday_table(storage.read_json(file)) for file in files]


def _title(cell: Cell) -> TableCell:
    return TableCell(cell.title, mark=cell.mark)


# ---------------------------------------------------------------- defences


def defence_table(run: RunFolder) -> Table:
    """Returns the worth of each defence: without it, against a static and an adaptive attacker."""
    rows = []
    for name, defended in run.defended.items():
        cells = [cell for cell in run.cells if cell.target == name]
        adaptive = any(c.defence == "adaptive" and not c.control for c in cells)
        for attack in dict.fromkeys(cell.attack for cell in cells):
            first = next(cell for cell in cells if cell.attack == attack)
            rows.append(
                [
                    TableCell(name, mark="" if adaptive else "non-adaptive"),
                    " + ".join(defended.chain),
                    _title(first),
                    _clean_recall(run, name, defended.inner),
                    _rate_or_none(run.cell(attack, defended.inner, defended.inner)),
                    _rate_or_none(_static_cell(cells, attack, defended.inner)),
                    _rate_or_none(run.cell(attack, name, name)),
                ]
            )
    return Table(
        key="defences",
        caption="Fooling rate of each classifier without the defence, by a static attack and by "
        "an adaptive attack. Only the adaptive rate measures robustness",
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


def _static_cell(cells: Sequence[Cell], attack: str, inner: str) -> Cell | None:
    """Crafted on the victim inside, or else on any other."""
    static = [cell for cell in cells if cell.attack == attack and cell.defence == "static"]
    return min(static, key=lambda cell: cell.source != inner, default=None)


def _rate_or_none(cell: Cell | None) -> TableCell:
    return TableCell(NONE) if cell is None else rate_cell(cell.fooling_rate, cell.count)


def _clean_recall(run: RunFolder, name: str, inner: str) -> TableCell:
    """Recall on clean clips before and with the defence, on the set of most clips."""
    largest = [
        max((c for c in run.cells if c.target == target), key=lambda c: c.count, default=None)
        for target in (inner, name)
    ]
    before, after = (NONE if cell is None else percent(cell.uar_before.value) for cell in largest)
    return TableCell(after, f"undefended: {before}")


# ---------------------------------------------------------------- channels and perceptual scores


def channel_table(run: RunFolder) -> Table:
    """Returns the fooling rates of the files and after each channel, a row per set and channel."""
    rows = []
    for key in run.keys if run.channel_cells else ():
        cells = [cell for cell in (*run.cells, *run.channel_cells) if cell.key == key]
        for channel in dict.fromkeys(cell.channel for cell in cells):
            by_target = {cell.target: cell for cell in cells if cell.channel == channel}
            present = [by_target.get(target) for target in run.targets]
            rows.append(
                [
                    key[1],
                    _title(next(iter(by_target.values()))),
                    "the file as it is" if channel == NO_CHANNEL else channel,
                    *("" if cell is None else target_cell(cell) for cell in present),
                    *("" if cell is None else percent(cell.uar_before.value) for cell in present),
                ]
            )
    return Table(
        key="channels",
        caption="Fooling rate after the channel. The clean and the adversarial clip pass through "
        "the same channel before their answers are compared. The table also shows the "
        "recall on the clean clips",
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


PERCEPTUAL = {
    "pesq_wb": "PESQ (1 to 4.64)",
    "stoi": "STOI (0 to 1)",
    "zimtohrli_mos": "Zimtohrli (1 to 5)",
    "dnsmos_ovrl": "DNSMOS (1 to 5)",
    "dnsmos_change": "DNSMOS, change",
    "masked_excess": "bins above masking",
    "masked_excess_db": "dB above masking",
}
"""Column titles of the perceptual metrics."""


def perceptual_table(run: RunFolder) -> Table:
    """Returns the mean of each perceptual metric, and why some clips have no value."""
    names = list(dict.fromkeys(name for scores in run.perceptual.values() for name in scores))
    cells = {cell.key: cell for cell in run.cells}
    return Table(
        key="sounds",
        caption="Perceptual metrics of the adversarial clips, as means over the clips that have a "
        "value. A higher value is nearer to the original. DNSMOS needs no original. For "
        "the share of bins (0 to 1) and the level above the masking threshold, a lower "
        "value is nearer",
        columns=["crafted on", "attack", *(PERCEPTUAL.get(name, name) for name in names)],
        rows=[
            [
                source,
                _title(cells[attack, source]) if (attack, source) in cells else attack,
                *(_score(scores[name]) if name in scores else "" for name in names),
            ]
            for (attack, source), scores in run.perceptual.items()
        ],
        names=2,
    )


def _score(score: PerceptualScore) -> TableCell:
    reason = max(score.missing, key=lambda reason: score.missing[reason], default="")
    count = f"N {score.count:,} of {score.of:,}"
    return TableCell(number(score.value, 2), f"{count}; {reason}" if reason else count)


# ---------------------------------------------------------------- classes and speakers


def group_table(run: RunFolder, lead: Cell, group: str) -> Table:
    """Returns the fooling rate per ``label`` or ``speaker`` of the headline's set, a column per target."""
    rows = run.rows_of(lead.key)
    targets = [target for target in run.targets if any(row.target == target for row in rows)]
    heading = {"label": "class", "speaker": "speaker"}[group]
    return Table(
        key=f"by-{group}-{lead.source}",
        caption=f"{lead.title} from {lead.source}, by {heading}",
        columns=[heading, "clips", *(f"fooled: {target}" for target in targets), "SNR"],
        rows=[
            _group(name, [row for row in rows if getattr(row, group) == name], targets)
            for name in sorted({getattr(row, group) for row in rows})
        ],
    )


def _group(name: str, rows: Sequence[ClipResult], targets: Sequence[str]) -> list[object]:
    clips = {row.id: row.distances.snr_db for row in rows}
    snr = [value for value in clips.values() if value is not None]
    return [
        name or "(none)",
        f"{len(clips):,}",
        *(_group_rate([row for row in rows if row.target == target]) for target in targets),
        number(sum(snr) / len(snr) if snr else None, 1, "dB"),
    ]


def _group_rate(rows: Sequence[ClipResult]) -> TableCell:
    estimate = metrics.rate([row.fooled for row in rows], [row.speaker for row in rows])
    return TableCell(
        formatting.rate(estimate, 0),
        formatting.interval(estimate) if estimate.clusters > 1 else f"N {estimate.count:,}",
        bar=None if estimate.value is None else 100 * estimate.value,
    )


# ---------------------------------------------------------------- how it was made


def attack_table(sets: Sequence[StoredSet]) -> Table:
    """Returns the settings of each adversarial set."""
    return Table(
        key="attacks",
        caption="Settings of the attacks",
        columns=["set", "attack", "goal", "budget", "same samples as", "settings", "seed"],
        rows=[_attack_row(stored) for stored in sets],
        names=7,
    )


def _attack_row(stored: StoredSet) -> list[str]:
    inputs = stored.card.get("inputs") or {}
    settings = stored.card.get("settings") or (inputs.get("recipe") or {}).get("settings")
    return [
        stored.name,
        str(stored.card.get("title") or stored.key[0]),
        str(stored.card.get("goal") or NONE),
        formatting.describe_budget(stored.budget),
        stored.matched or "none",
        _settings_text(settings),
        str(stored.card.get("seed", inputs.get("seed", NONE))),
    ]


def _settings_text(settings: object) -> str:
    if not isinstance(settings, Mapping) or not settings:
        return "defaults"
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in settings.items())


def victim_table(run: RunFolder) -> Table:
    """Returns the attacked models, and how good they are on clean clips."""
    rows = []
    has_numbers = any("test_ccc" in model.card for model in run.victims)
    numbers = ["dev CCC", "test CCC"] if has_numbers else []
    for model in run.victims:
        labels = [str(x) for x in model.card.get("labels") or run.labels.get(model.name, ())]
        network = str(model.card.get("architecture") or NONE)
        scores = [_share(model.card.get(key)) for key in ("dev_uar", "test_uar", "test_accuracy")]
        for column in numbers:
            value = model.card.get(column.replace(" ", "_").lower())
            scores.append(f"{value:.3f}" if isinstance(value, float) else NONE)
        rows.append([model.name, network, f"{len(labels)}: {', '.join(labels)}", *scores])
    return Table(
        key="victims",
        caption="Victims, before any attack",
        columns=["victim", "network", "classes", "dev UAR", "test UAR", "test accuracy", *numbers],
        rows=rows,
        names=3,
    )


def _share(value: object) -> str:
    return percent(float(value)) if isinstance(value, int | float) else NONE


def split_table(run: RunFolder) -> Table:
    """Returns clips and speakers of each part of the corpus.

    Where the speakers are the classes, it shows the contents of the parts instead.
    """
    corpus = run.card.get("corpus") or {}
    speakers, counts, protocol = (
        run.speakers_by_part,
        corpus.get("split") or {},
        corpus.get("protocol"),
    )
    unit = "contents" if any("contents" in part for part in counts.values()) else "speakers"
    order = [part for part in ("train", "dev", "test") if part in speakers]
    return Table(
        key="split",
        caption=f"Corpus and split{f', protocol {protocol}' if protocol else ''}",
        columns=["part", unit, "clips"],
        rows=[
            [
                part,
                formatting.first_items(counts[part].get(unit) or speakers[part], 60),
                str(counts[part].get("clips", NONE)),
            ]
            for part in [*order, *sorted(speakers.keys() - set(order))]
        ],
        names=2,
    )


def time_table(run: RunFolder) -> Table:
    """Returns the seconds of each stage and their sum."""
    seconds = {str(k): float(v) for k, v in (run.card.get("seconds") or {}).items()}
    rows = [[name, formatting.seconds(value)] for name, value in seconds.items()]
    rows.append(["together", formatting.seconds(sum(seconds.values()))])
    return Table(
        key="stages",
        caption="Time per stage",
        columns=["stage", "time"],
        rows=rows if seconds else [],
    )


def selfcheck_table(run: RunFolder) -> Table:
    """Returns the checks of ``staanet selfcheck``, failures first."""
    order = ("fail", "warn", "pass", "skipped")
    checks = run.selfcheck.checks if run.selfcheck else ()
    ranked = sorted(checks, key=lambda c: order.index(c.verdict) if c.verdict in order else 0)
    return Table(
        key="selfcheck",
        caption="Self-check of the evaluation",
        columns=["check", "about", "result"],
        rows=[
            [
                TableCell(
                    check.name.replace("_", " "),
                    mark="" if check.verdict == "pass" else check.verdict,
                ),
                check.subject or "the run",
                TableCell(check.explanation, check.remedy),
            ]
            for check in ranked
        ],
        names=3,
    )
