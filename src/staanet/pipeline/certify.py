"""Certificates of a victim: how far a clip may change before its answer can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from staanet import report, storage
from staanet.core import Clip, Victim, stratified_subset
from staanet.errors import InvalidInput
from staanet.evaluation import certificates
from staanet.pipeline.attack import clips_sha256
from staanet.pipeline.context import Context
from staanet.pipeline.folders import is_done, normal
from staanet.results import row_files
from staanet.storage import describe_machine
from staanet.transforms.noise import SmoothingNoise


def certified(
    victim: Victim,
    clips: Sequence[Clip],
    out: Path,
    *,
    noise: SmoothingNoise,
    how: certificates.Votes,
    attack_steps: int = 0,
    limit: int = 50,
    context: Context,
) -> dict[str, Any]:
    """Certificates of ``limit`` clips, spread over labels and speakers, into ``out``.

    Writes ``certificates.csv`` (a row per clip), ``curve.csv``, ``curve.png`` and ``certificate.json``,
    which it returns. A killed run goes on with the next clip.
    """
    chosen = stratified_subset(clips, limit)
    if not chosen:
        raise InvalidInput("no clip to certify", where=out, remedy="Give at least one usable clip")
    method = type(noise).__name__.lower()
    inputs = normal(
        {
            "victim": victim.sha256,
            "clips": clips_sha256(chosen),
            "method": method,
            "noise": asdict(noise),  # type: ignore[call-overload]
            "votes": asdict(replace(how, batch_size=1)),
            "attack_steps": attack_steps,
        }
    )
    if is_done(out, "certificate", inputs):
        done: dict[str, Any] = storage.read_json(out / "certificate.json")
        return done
    out.mkdir(parents=True, exist_ok=True)
    journal = storage.Journal(out / "journal.jsonl")
    known = journal.records()
    if known and known[0].get("inputs") != inputs:
        raise InvalidInput(
            "holds unfinished certificates of something else",
            where=out,
            remedy="Choose another --out, or delete that folder",
        )
    if not known:
        journal.append({"inputs": inputs})
    rows = {str(row["id"]): row for row in known[1:]}
    for number, clip in enumerate(chosen, start=1):
        if clip.id not in rows:
            rows[clip.id] = certificates.certify_clip(
                victim, noise, clip, how, attack_steps=attack_steps
            )
            journal.append(rows[clip.id])
        context.progress(f"certify {victim.name} by {method}", number, len(chosen), "")
    told = _certificate(victim, noise, how, [rows[clip.id] for clip in chosen], len(clips))
    columns = list(rows[chosen[0].id])
    storage.write_text(
        out / "certificates.csv", row_files.csv_text(columns, [rows[clip.id] for clip in chosen])
    )
    storage.write_text(out / "curve.csv", row_files.csv_text(list(told["curve"][0]), told["curve"]))
    report.draw_certificate(out / "curve.png", told)
    storage.write_json(out / "certificate.json", told)
    storage.write_card(
        out,
        {
            "kind": "certificate",
            "inputs": inputs,
            "machine": describe_machine(),
            "quarantined": context.quarantine.rows,
        },
    )
    (out / "journal.jsonl").unlink(missing_ok=True)
    return told


def _certificate(
    victim: Victim,
    noise: SmoothingNoise,
    how: certificates.Votes,
    rows: Sequence[dict[str, Any]],
    of: int,
) -> dict[str, Any]:
    method = type(noise).__name__.lower()
    radii = sorted(float(row["radius"]) for row in rows)
    return {
        "victim": victim.name,
        "method": method,
        "noise": asdict(noise),  # type: ignore[call-overload]
        "unit": "samples that may take any value"
        if method == "ablation"
        else "L2 norm, full scale 1",
        "votes": asdict(how),
        "clips": len(rows),
        "chosen_from": of,
        "right": sum(bool(row["right"]) for row in rows),
        "abstained": sum(row["answer"] is None for row in rows),
        "median_radius": radii[len(radii) // 2],
        "largest_radius": radii[-1],
        "attacked": sum(bool(row["attacked"]) for row in rows),
        "broken": sum(bool(row["broken"]) for row in rows),
        "curve": certificates.certified_accuracy(rows),
    }
