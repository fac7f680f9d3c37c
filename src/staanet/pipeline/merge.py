"""Shards made one whole: equal, file by file, to what one run makes of all clips.

Only the times differ (``seconds.csv`` of a set), since they are those of the machines that worked.
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
from staanet.pipeline.attack import RECORDINGS, sum_of
from staanet.pipeline.context import Context
from staanet.pipeline.folders import is_done
from staanet.results import adversarial_set, row_files
from staanet.results.adversarial_set import AdversarialSet
from staanet.results.transfer_matrix import TransferMatrix

SHARED = {"of": "number of shards", "listing": "list of clips", "window_s": "window"}
AGAIN = "Make that shard again with the settings of the others"


def merge(
    shards: Sequence[Path], out: Path, *, context: Context
) -> AdversarialSet | TransferMatrix:
    """One adversarial set, or one transfer matrix, of all its shards; written to ``out``.

    Raises ``InvalidInput`` where a shard is missing, unfinished, given twice, or of other settings
    or another list of clips than the first.
    """
    if os.path.realpath(out) in map(os.path.realpath, shards):
        raise InvalidInput("is one of the shards", where=out, remedy="Choose another --out")
    if (shards[0] / "summary.json").exists():
        return _merged_results(shards, out)
    cards = {place: storage.read_card(place, "adversarial") for place in shards}
    parts = {place: card.get("inputs", {}).get("shard") for place, card in cards.items()}
    return _merged_set(_in_order(parts, "staanet attack"), cards, out, context=context)


def _in_order(parts: Mapping[Path, Any], command: str) -> list[Path]:
    """The folders by their number; ``InvalidInput`` unless they are all parts of one list."""
    for place, part in parts.items():
        if not isinstance(part, dict):
            raise InvalidInput(
                "is no shard", where=place, remedy=f"Give folders of {command} --shard I/N"
            )
    first, one = next(iter(parts.items()))
    for place, part in parts.items():
        for key, what in SHARED.items():
            if part.get(key) != one.get(key):
                raise InvalidInput(
                    f"its {what} is {part.get(key)}, that of {first} is {one.get(key)}",
                    where=place,
                    remedy=AGAIN,
                )
    found: dict[int, Path] = {}
    for place, part in parts.items():
        if part["number"] in found:
            raise InvalidInput(
                f"is shard {part['number']}/{part['of']}, and so is {found[part['number']]}",
                where=place,
                remedy="Give each shard once",
            )
        found[part["number"]] = place
    missing = [str(number) for number in range(1, one["of"] + 1) if number not in found]
    if missing:
        some = ", ".join(missing[:20]) + (" ..." if len(missing) > 20 else "")
        raise InvalidInput(
            f"of {one['of']} shards {len(missing)} {'is' if len(missing) == 1 else 'are'} missing: {some}",
            remedy=f"Make them: {command} ... --shard {missing[0]}/{one['of']}",
        )
    return [found[number] for number in sorted(found)]


def _same(first: Path, place: Path, one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    for key in sorted({*one, *other}):
        if one.get(key) != other.get(key):
            raise InvalidInput(
                f"its {key} is {other.get(key)!r}, that of {first} is {one.get(key)!r}",
                where=place,
                remedy=AGAIN,
            )


# ---------------------------------------------------------------- adversarial sets


def _merged_set(
    shards: Sequence[Path], cards: Mapping[Path, Mapping[str, Any]], out: Path, *, context: Context
) -> AdversarialSet:
    own = {place: _settings(cards[place]) for place in shards}
    for place in shards[1:]:
        _same(shards[0], place, own[shards[0]], own[place])
    inputs = {k: v for k, v in cards[shards[0]]["inputs"].items() if k != "shard"}
    sums = [str(cards[place]["inputs"]["clips"]) for place in shards]
    inputs["clips"] = sum_of(one.removeprefix("sum:") for one in sums)
    for place in shards:
        for row in cards[place]["quarantined"]:
            context.quarantine.put(row)
    if is_done(out, "adversarial", inputs):
        return AdversarialSet.load(out)
    rows: list[dict[str, str]] = []
    total, done = sum(int(cards[place]["clips"]) for place in shards), 0
    for place in shards:
        for row in adversarial_set.read_rows(place):
            _check_files(place, row)
            for name in (row["file_name"], row["original_file_name"]):
                storage.copy(place / name, out / name)
            rows.append(row)
            done += 1
            context.progress(f"merge into {out.name}", done, total, "")
    _merge_recordings(shards, out)
    machines = dict.fromkeys(str(cards[place].get("machine")) for place in shards)
    adversarial_set.write_set(
        out,
        rows,
        {
            **own[shards[0]],
            "inputs": inputs,
            "machine": "; ".join(machines),
            "quarantined": context.quarantine.in_order(),
        },
    )
    context.quarantine.save(out)
    return AdversarialSet.load(out)


def _merge_recordings(shards: Sequence[Path], out: Path) -> None:
    rows = [
        (place, row)
        for place in shards
        if (place / RECORDINGS).exists()
        for row in row_files.read_csv(place / RECORDINGS, recordings.COLUMNS)
    ]
    for place, row in rows:
        for name in (
            f"{recordings.FOLDER}/{part}/{row['id']}.wav" for part in ("adversarial", "clean")
        ):
            storage.copy(place / name, out / name)
    if rows:
        ordered = sorted((row for _, row in rows), key=lambda row: row["id"])
        storage.write_text(out / RECORDINGS, row_files.csv_text(recordings.COLUMNS, ordered))


def _check_files(place: Path, row: Mapping[str, str]) -> None:
    """``InvalidInput`` where the files of a clip are not those that its shard measured."""
    measured = adversarial_set.read_clip(place, row).measurements()
    for key in ("l0", "linf", "snr_db"):
        if repr(measured[key]) != row[key]:
            raise InvalidInput(
                f"{key} of its files is {measured[key]!r}, metadata.csv says {row[key]}",
                where=place / row["file_name"],
                remedy="Make the shard again",
            )


def _settings(card: Mapping[str, Any]) -> dict[str, Any]:
    """What shards of one set have in common; the versions that made them too."""
    own = {k: v for k, v in card["inputs"].items() if k not in ("clips", "shard")}
    left_out = ("inputs", "machine", "quarantined", "clips")
    return {k: v for k, v in card.items() if k not in left_out} | {"inputs": own}


# ---------------------------------------------------------------- results


def _merged_results(shards: Sequence[Path], out: Path) -> TransferMatrix:
    summaries = {place: _summary(place) for place in shards}
    ordered = _in_order({p: s.get("shard") for p, s in summaries.items()}, "staanet evaluate")
    first = ordered[0]
    for place in ordered[1:]:
        _same(first, place, _judged(summaries[first]), _judged(summaries[place]))
    told = summaries[first]
    rows = _interleaved(
        [row_files.read_parquet(place / "results.parquet") for place in ordered], told
    )
    whole = {key: value for key, value in told.items() if key != "shard"}
    for number in range(len(whole.get("sets", ()))):  # an empty shard names no metrics
        own = [summaries[place]["sets"][number] for place in ordered]
        whole["sets"][number] = next((one for one in own if one["perceptual"]), own[0])
    machines = dict.fromkeys(str(summaries[place]["machine"]) for place in ordered)
    matrix = recount_matrix(rows, {**whole, "machine": "; ".join(machines)})
    journals = [storage.Journal(place / "perception.jsonl").records() for place in ordered]
    heard = [one for turn in zip_longest(*journals) for one in turn if one is not None]
    if heard:
        lines = (json.dumps(one, allow_nan=False, sort_keys=True) + "\n" for one in heard)
        storage.write_text(out / "perception.jsonl", "".join(lines))
    matrix.save(out)
    return matrix


def _summary(place: Path) -> dict[str, Any]:
    told = storage.read_json(place / "summary.json")
    if not isinstance(told, dict) or not {"cells", "targets", "machine"} <= told.keys():
        raise InvalidInput("is no summary of results", where=place / "summary.json", remedy=AGAIN)
    return told


def _judged(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What shards of one evaluation have in common."""
    part = summary["shard"]
    cells = [{key: cell[key] for key in (*ATTACK_FIELDS, "channel")} for cell in summary["cells"]]
    return {
        "targets": summary["targets"],
        "cells": cells,
        "channels": part["channels"],
        "weights of targets": part["sha256"],
        "schema": summary["schema"],
        "perceptual": "sets" in summary,
    }


def _interleaved(
    parts: Sequence[Sequence[Mapping[str, Any]]], summary: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """Rows in the order of one evaluation: set by set, the clips of the shards by turns."""
    sets = list(dict.fromkeys((c["attack"], c["source"]) for c in summary["cells"]))
    rows: list[Mapping[str, Any]] = []
    for key in sets:
        clips = [_by_clip([r for r in part if (r["attack"], r["source"]) == key]) for part in parts]
        for turn in zip_longest(*clips, fillvalue=()):
            for one in turn:
                rows += one
    return rows


def _by_clip(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    return [list(own) for _, own in groupby(rows, key=lambda row: row["id"])]
