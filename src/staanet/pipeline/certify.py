"""Certifies how far each clip may change before the victim's answer can change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from staanet import report, storage
from staanet.core import Clip, Victim, require_classes, stratified_subset
from staanet.errors import InvalidInput
from staanet.evaluation import certificates
from staanet.pipeline.context import Context
from staanet.pipeline.identity import clips_sha256
from staanet.pipeline.stage import Inputs, Stage
from staanet.pipeline.victim_check import check_victims, match_clip_labels
from staanet.results import row_files
from staanet.storage import describe_machine
from staanet.transforms.noise import SmoothingNoise

CERTIFICATE = "certificate.json"


@dataclass(frozen=True)
class Certification:
    """Certificates of clips, as a stage that goes on with the next clip after a kill."""

    victim: Victim
    clips: Sequence[Clip]
    of: int
    """How many clips these were chosen from."""
    out: Path
    noise: SmoothingNoise
    votes: certificates.Votes
    attack_steps: int
    context: Context

    def stage(self) -> Stage:
        name = f"certify {self.victim.name}"
        return Stage(
            name=name, folder=self.out, kind="certificate", inputs=self.inputs, work=self.work
        )

    @property
    def method(self) -> str:
        return type(self.noise).__name__.lower()

    def inputs(self) -> Inputs:
        return {
            "victim": self.victim.identity,
            "clips": clips_sha256(self.clips),
            "method": self.method,
            "noise": asdict(self.noise),  # type: ignore[call-overload]
            "votes": asdict(replace(self.votes, batch_size=1)),
            "attack_steps": self.attack_steps,
        }

    def work(self, inputs: Inputs) -> None:
        require_classes([self.victim], "a certificate")
        labels = [clip.label for clip in self.clips]
        match_clip_labels([self.victim], labels, self.context, where=str(self.out))
        check_victims([self.victim], self.clips, self.context)
        storage.make_folder(self.out)
        rows = self._rows(storage.Journal(self.out / "journal.jsonl"))
        certificate = self._summarise(rows)
        curve = certificate["curve"]
        for name, table in (("certificates.csv", rows), ("curve.csv", curve)):
            storage.write_text(self.out / name, row_files.csv_text(list(table[0]), table))
        report.draw_certificate(self.out / "curve.png", certificate)
        storage.write_json(self.out / CERTIFICATE, certificate)
        storage.write_card(
            self.out,
            {
                "kind": "certificate",
                "inputs": inputs,
                "machine": describe_machine(),
                "quarantined": self.context.quarantine.rows,
            },
        )

    def _rows(self, journal: storage.Journal) -> list[dict[str, Any]]:
        rows = {str(row["id"]): row for row in journal.records()}
        for number, clip in enumerate(self.clips, start=1):
            if clip.id not in rows:
                rows[clip.id] = certificates.certify_clip(
                    self.victim, self.noise, clip, self.votes, attack_steps=self.attack_steps
                )
                journal.append(rows[clip.id])
            what = f"certify {self.victim.name} by {self.method}"
            self.context.progress(what, number, len(self.clips), "")
        return [rows[clip.id] for clip in self.clips]

    def _summarise(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        radii = sorted(float(row["radius"]) for row in rows)
        ablation = self.method == "ablation"
        return {
            "victim": self.victim.name,
            "method": self.method,
            "noise": asdict(self.noise),  # type: ignore[call-overload]
            "unit": "samples that may take any value" if ablation else "L2 norm, full scale 1",
            "votes": asdict(self.votes),
            "clips": len(rows),
            "chosen_from": self.of,
            "right": sum(bool(row["right"]) for row in rows),
            "abstained": sum(row["answer"] is None for row in rows),
            "median_radius": radii[len(radii) // 2],
            "largest_radius": radii[-1],
            "attacked": sum(bool(row["attacked"]) for row in rows),
            "broken": sum(bool(row["broken"]) for row in rows),
            "curve": certificates.certified_accuracy(rows),
        }


def certify(
    victim: Victim,
    clips: Sequence[Clip],
    out: Path,
    *,
    noise: SmoothingNoise,
    votes: certificates.Votes,
    attack_steps: int = 0,
    limit: int = 50,
    context: Context,
) -> dict[str, Any]:
    """Certifies up to ``limit`` clips, spread over labels and speakers.

    Args:
        victim: Whose answers are certified.
        clips: Labelled clips at its rate.
        out: Receives ``certificates.csv`` (a row per clip), ``curve.csv``, ``curve.png`` and
            ``certificate.json``.
        noise: What the votes are cast under.
        votes: How many votes, and how sure they have to be.
        attack_steps: Steps of an attack inside each radius; 0 for none.
        limit: Largest number of clips.
        context: The shared settings of the command.

    Returns:
        The content of ``certificate.json``.

    Raises:
        InvalidInput: If no clip is usable, or ``out`` holds certificates of something else.
    """
    subset = stratified_subset(clips, limit)
    if not subset:
        raise InvalidInput("no clip to certify", where=out, remedy="Give at least one usable clip")
    task = Certification(victim, subset, len(clips), out, noise, votes, attack_steps, context)
    task.stage().perform()
    certificate: dict[str, Any] = storage.read_json(out / CERTIFICATE)
    return certificate
