"""Measures what everyday change does to a victim, into a folder with JSON and every answer as CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.core import Clip, Victim
from staanet.evaluation.everyday import CONDITIONS, Everyday, measure_everyday
from staanet.pipeline.context import Context
from staanet.pipeline.identity import clips_sha256
from staanet.pipeline.stage import Inputs, Stage
from staanet.pipeline.victim_check import check_victims, match_clip_labels
from staanet.results.row_files import csv_text
from staanet.storage import describe_machine

SUMMARY, ANSWERS = "everyday.json", "answers.csv"


@dataclass(frozen=True)
class EverydayChange:
    """What everyday change does to a victim, as a stage."""

    name: str
    victim: Callable[[], Victim]
    clips: Callable[[], Sequence[Clip]]
    folder: Path
    context: Context

    def stage(self) -> Stage:
        count = sum(map(len, CONDITIONS.values()))
        return Stage(
            name=f"everyday {self.name}",
            folder=self.folder,
            kind="everyday",
            inputs=self.inputs,
            work=self.work,
            size=lambda: f"{count} conditions",
        )

    def inputs(self) -> Inputs:
        return {
            "victim": self.victim().identity,
            "clips": clips_sha256(self.clips()),
            "conditions": CONDITIONS,
        }

    def work(self, inputs: Inputs) -> None:
        measured = measure_everyday(
            self.victim(), self.clips(), conditions=CONDITIONS, progress=self.context.progress
        )
        storage.write_text(self.folder / ANSWERS, _answers_csv(measured))
        summary = {**measured.summary(), "machine": describe_machine()}
        storage.write_json(self.folder / SUMMARY, summary)
        storage.write_card(self.folder, {"kind": "everyday", "inputs": inputs})


def everyday(victim: Victim, clips: Sequence[Clip], out: Path, context: Context) -> dict[str, Any]:
    """What everyday change does to a victim on clips, kept in ``out``.

    Raises ``InvalidInput`` if ``out`` holds that of another victim or of other clips, or the victim cannot
    be judged.
    """
    labels = [clip.label for clip in clips]
    match_clip_labels([victim], labels, context, where=str(out), is_required=False)
    check_victims([victim], clips, context)
    EverydayChange(victim.name, lambda: victim, lambda: clips, out, context).stage().perform()
    summary: dict[str, Any] = storage.read_json(out / SUMMARY)
    return summary


def _answers_csv(measured: Everyday) -> str:
    """A row per clip: its id, the answer to it as it is, and the answer under each condition."""
    names = [condition.name for condition in measured.conditions]
    rows = [
        {
            "id": id,
            "as it is": answer,
            **{c.name: c.answers.get(id, "") for c in measured.conditions},
        }
        for id, answer in measured.clean.items()
    ]
    return csv_text(["id", "as it is", *names], rows)
