"""Merges shards of an adversarial set or of a transfer matrix into one folder.

The result equals a run without shards, file by file. Only the times (``seconds.csv`` of a set) differ.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.corpora import recordings
from staanet.errors import InvalidInput
from staanet.evaluation import ATTACK_FIELDS, recount_matrix
from staanet.pipeline.context import Context
from staanet.pipeline.join_recordings import RECORDINGS
from staanet.pipeline.recording_notes import RecordingNotes
from staanet.pipeline.stage import Inputs, Stage
from staanet.results import adversarial_set, row_files
from staanet.results.adversarial_set import AdversarialSet
from staanet.results.clip_tables import sum_of
from staanet.results.transfer_matrix import TransferMatrix

SHARED_KEYS = {"of": "number of shards", "listing": "list of clips", "window_s": "window"}
"""What must be equal in the cards of all shards: the key, and its name in errors."""
REMEDY = "Make that shard again with the settings of the others"


def merge(
    shards: Sequence[Path], out: Path, *, context: Context
) -> AdversarialSet | TransferMatrix:
    """Merges folders of shards, of one kind, into the folder ``out``, and returns what it holds.

    Raises ``InvalidInput`` if a shard is missing, unfinished or given twice, or if its settings or its
    list of clips differ from those of the first.
    """
    if os.path.realpath(out) in map(os.path.realpath, shards):
        raise InvalidInput("is one of the shards", where=out, remedy="Choose another --out")
    if (shards[0] / "summary.json").exists():
        return _merge_results(shards, out)
    cards = {shard: storage.read_card(shard, "adversarial") for shard in shards}
    parts = {shard: card.get("inputs", {}).get("shard") for shard, card in cards.items()}
    return _merge_set(_order_shards(parts, "staanet attack"), cards, out, context)


def _order_shards(parts: Mapping[Path, Any], command: str) -> list[Path]:
    """Returns the folders by number; raises ``InvalidInput`` unless they are all shards of one list."""
    for shard, part in parts.items():
        if not isinstance(part, dict):
            raise InvalidInput(
                "is no shard", where=shard, remedy=f"Give folders of {command} --shard I/N"
            )
    first, expected = next(iter(parts.items()))
    for shard, part in parts.items():
        for key, what in SHARED_KEYS.items():
            if part.get(key) != expected.get(key):
                raise InvalidInput(
                    f"its {what} is {part.get(key)}, that of {first} is {expected.get(key)}",
                    where=shard,
                    remedy=REMEDY,
                )
    by_number: dict[int, Path] = {}
    for shard, part in parts.items():
        if part["number"] in by_number:
            raise InvalidInput(
                f"is shard {part['number']}/{part['of']}, and so is {by_number[part['number']]}",
                where=shard,
                remedy="Give each shard once",
            )
        by_number[part["number"]] = shard
    missing = [str(number) for number in range(1, expected["of"] + 1) if number not in by_number]
    if missing:
        some = ", ".join(missing[:20]) + (" ..." if len(missing) > 20 else "")
        raise InvalidInput(
            f"{len(missing)} of {expected['of']} shards {'is' if len(missing) == 1 else 'are'} missing (number {some})",
            remedy=f"Make each missing shard, such as: {command} ... --shard {missing[0]}/{expected['of']}",
        )
    return [by_number[number] for number in sorted(by_number)]


def require_equal(
    first: Path, shard: Path, expected: Mapping[str, Any], actual: Mapping[str, Any]
) -> None:
    """Raises ``InvalidInput``, which names the first key in which ``shard`` differs from ``first``."""
    for key in sorted({*expected, *actual}):
        if expected.get(key) != actual.get(key):
            raise InvalidInput(
                f"its {key} is {actual.get(key)!r}, that of {first} is {expected.get(key)!r}",
                where=shard,
                remedy=REMEDY,
            )


# ---------------------------------------------------------------- adversarial sets


def _merge_set(
    shards: Sequence[Path], cards: Mapping[Path, Mapping[str, Any]], out: Path, context: Context
) -> AdversarialSet:
    settings = {shard: _set_settings(cards[shard]) for shard in shards}
    for shard in shards[1:]:
        require_equal(shards[0], shard, settings[shards[0]], settings[shard])
    inputs = {k: v for k, v in cards[shards[0]]["inputs"].items() if k != "shard"}
    sums = [str(cards[shard]["inputs"]["clips"]).removeprefix("sum:") for shard in shards]
    inputs["clips"] = sum_of(sums)
    for shard in shards:
        for row in cards[shard]["quarantined"]:
            context.quarantine.put(row)
    notes = RecordingNotes()
    for shard in shards:
        notes.merge(cards[shard].get("recordings", {}))
    total = sum(int(cards[shard]["clips"]) for shard in shards)

    def work(inputs: Inputs) -> None:
        rows = _copy_clips(shards, out, total, context)
        _merge_recordings(shards, out)
        machines = dict.fromkeys(str(cards[shard].get("machine")) for shard in shards)
        card = {
            **settings[shards[0]],
            "inputs": inputs,
            "machine": "; ".join(machines),
            "quarantined": context.quarantine.in_order(),
            **notes.entry(),
        }
        adversarial_set.write_set(out, rows, card)

    stage = Stage(
        name=f"merge {out.name}", folder=out, kind="adversarial", inputs=lambda: inputs, work=work
    )
    stage.perform()
    context.quarantine.save(out)
    return AdversarialSet.load(out)


def _copy_clips(
    shards: Sequence[Path], out: Path, total: int, context: Context
) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for shard in shards:
        for row in adversarial_set.read_rows(shard):
            _check_files(shard, row)
            for name in (row["file_name"], row["original_file_name"]):
                storage.copy(shard / name, out / name)
            rows.append(row)
            context.progress(f"merge into {out.name}", len(rows), total, "")
    return rows


def _merge_recordings(shards: Sequence[Path], out: Path) -> None:
    rows = []
    for shard in shards:
        if (shard / RECORDINGS).exists():
            for row in row_files.read_csv(shard / RECORDINGS, recordings.COLUMNS):
                for part in ("adversarial", "clean"):
                    name = f"{recordings.FOLDER}/{part}/{row['id']}.wav"
                    storage.copy(shard / name, out / name)
                rows.append(row)
    if rows:
        ordered = sorted(rows, key=lambda row: row["id"])
        storage.write_text(out / RECORDINGS, row_files.csv_text(recordings.COLUMNS, ordered))


def _check_files(shard: Path, row: Mapping[str, str]) -> None:
    """Raises ``InvalidInput`` if the files of a clip are not those that its shard measured."""
    measured = adversarial_set.read_clip(shard, row).measurements()
    for key in ("l0", "linf", "snr_db"):
        if repr(measured[key]) != row[key]:
            raise InvalidInput(
                f"{key} of its files is {measured[key]!r}, metadata.csv says {row[key]}",
                where=shard / row["file_name"],
                remedy="Make the shard again",
            )


def _set_settings(card: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the entries of a card that all shards of a set share: settings and versions."""
    inputs = {k: v for k, v in card["inputs"].items() if k not in ("clips", "shard")}
    left_out = ("inputs", "machine", "quarantined", "clips", "recordings")
    return {k: v for k, v in card.items() if k not in left_out} | {"inputs": inputs}


# ---------------------------------------------------------------- results


def _merge_results(shards: Sequence[Path], out: Path) -> TransferMatrix:
    summaries = {shard: read_summary(shard) for shard in shards}
    ordered = _order_shards({p: s.get("shard") for p, s in summaries.items()}, "staanet evaluate")
    first = ordered[0]
    for shard in ordered[1:]:
        require_equal(
            first, shard, _shard_settings(summaries[first]), _shard_settings(summaries[shard])
        )
    summary = summaries[first]
    parts = [row_files.read_parquet(shard / "results.parquet") for shard in ordered]
    rows = _interleave(parts, summary)
    whole = {key: value for key, value in summary.items() if key != "shard"}
    for number in range(len(whole.get("sets", ()))):  # an empty shard names no metrics
        sets = [summaries[shard]["sets"][number] for shard in ordered]
        whole["sets"][number] = next((s for s in sets if s["perceptual"]), sets[0])
    machines = dict.fromkeys(str(summaries[shard]["machine"]) for shard in ordered)
    matrix = recount_matrix(rows, {**whole, "machine": "; ".join(machines)})
    journals = [storage.Journal(shard / "perception.jsonl").records() for shard in ordered]
    scores = [row for rows in zip_longest(*journals) for row in rows if row is not None]
    if scores:
        lines = (json.dumps(row, allow_nan=False, sort_keys=True) + "\n" for row in scores)
        storage.write_text(out / "perception.jsonl", "".join(lines))
    matrix.save(out)
    return matrix


def read_summary(shard: Path) -> dict[str, Any]:
    """Returns the summary of a folder of results; raises ``InvalidInput`` where it is none."""
    summary = storage.read_json(shard / "summary.json")
    if not isinstance(summary, dict) or not {"cells", "targets", "machine"} <= summary.keys():
        raise InvalidInput("is no summary of results", where=shard / "summary.json", remedy=REMEDY)
    return summary


def _shard_settings(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the entries of a summary that all shards of an evaluation share."""
    part = summary["shard"]
    return {
        **evaluation_settings(summary),
        "targets": summary["targets"],
        "channels": part["channels"],
        "weights of targets": part["sha256"],
    }


def evaluation_settings(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the entries of a summary that depend on the recipe alone, not on clips or weights."""
    cells = [{key: cell[key] for key in (*ATTACK_FIELDS, "channel")} for cell in summary["cells"]]
    targets = {
        name: {key: value for key, value in target.items() if key != "doubts"}
        for name, target in summary["targets"].items()
    }
    return {
        "targets": targets,
        "cells": cells,
        "schema": summary["schema"],
        "perceptual": "sets" in summary,
    }


def _interleave(
    parts: Sequence[Sequence[Mapping[str, Any]]], summary: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """Returns rows in the order of one evaluation: by set, with the clips of the shards in turn."""
    sets = list(dict.fromkeys((c["attack"], c["source"]) for c in summary["cells"]))
    rows: list[Mapping[str, Any]] = []
    for key in sets:
        clips = [_by_clip([r for r in part if (r["attack"], r["source"]) == key]) for part in parts]
        rows += [row for turn in zip_longest(*clips, fillvalue=()) for clip in turn for row in clip]
    return rows


def _by_clip(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    return [list(group) for _, group in groupby(rows, key=lambda row: row["id"])]
