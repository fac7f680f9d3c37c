"""What stages share: clips put aside, and folders that are done or not.

A stage writes one folder and closes it with ``card.json``, which names everything that went in. A
folder whose card names the same inputs is done and is skipped; one made from other inputs stops the
run. So a killed run goes on where it stopped, and no stage quietly reuses another experiment's work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from staanet import (
    storage,
)
from staanet.core import Clip, Corpus, Progress, Utterance, Victim, silent
from staanet.errors import InvalidInput, UnusableClip, printable


@dataclass
class Quarantine:
    """Clips put aside, each with its reason; the run goes on without them."""

    strict: bool = False
    rows: list[dict[str, str]] = field(default_factory=list)

    def __call__(self, utterance: Utterance, problem: UnusableClip) -> None:
        if self.strict:
            raise InvalidInput(problem.what, where=problem.where, remedy=problem.remedy)
        self.add(utterance.id, problem)

    def add(self, clip_id: str, problem: UnusableClip) -> None:
        row = {"id": clip_id, "file": problem.where or clip_id, "reason": problem.what}
        if row not in self.rows:
            self.rows.append(row)

    def save(self, folder: Path) -> None:
        """Write ``quarantine.jsonl`` where anything was put aside."""
        if self.rows:
            journal = storage.Journal(folder / "quarantine.jsonl")
            known = journal.records()
            for row in self.rows:
                if row not in known:
                    journal.append(row)


def load_clips(
    corpus: Corpus, victim: Victim, quarantine: Quarantine, progress: Progress = silent
) -> list[Clip]:
    """The usable clips of a corpus at the victim's rate; the rest goes to ``quarantine``."""
    clips = []
    for number, utterance in enumerate(corpus.utterances, start=1):
        try:
            clip = corpus.load(utterance, victim.sample_rate)
            if len(clip.samples) < victim.minimum_samples:
                raise UnusableClip(
                    f"{1000 * len(clip.samples) / victim.sample_rate:.1f} ms is shorter than the "
                    f"{1000 * victim.minimum_samples / victim.sample_rate:.1f} ms that "
                    f"{victim.name} needs",
                    where=utterance.path,
                    remedy="Drop it or give a longer clip",
                )
            clips.append(clip)
        except UnusableClip as problem:
            quarantine(utterance, problem)
        progress(f"read {corpus.name} {corpus.part}", number, len(corpus), "")
    return clips


def is_done(folder: Path, kind: str, inputs: Mapping[str, Any]) -> bool:
    """Whether a stage's folder is finished and was made from these very inputs.

    Raises ``InvalidInput`` where it is finished but was made from others.
    """
    if not (folder / "card.json").exists():
        return False
    _same(storage.read_card(folder, kind).get("inputs"), inputs, folder, "was made")
    end(folder)
    return True


UNFINISHED = "unfinished.json"
"""What an unfinished stage is made from, so that it never goes on with another's work."""


def begin(folder: Path, inputs: Mapping[str, Any]) -> None:
    """Note what a stage is made from until its card says so.

    Raises ``InvalidInput`` where the folder holds unfinished work that was made from other inputs.
    """
    if (folder / UNFINISHED).exists():
        _same(storage.read_json(folder / UNFINISHED), inputs, folder, "was begun")
    else:
        storage.write_json(folder / UNFINISHED, normal(inputs))


def end(folder: Path) -> None:
    """Remove what only an unfinished stage needs, once its card is written."""
    storage.discard_checkpoints(folder / "checkpoint")
    for name in ("journal.jsonl", UNFINISHED):
        storage.remove(folder / name)


def _same(before: object, inputs: Mapping[str, Any], folder: Path, how: str) -> None:
    made_from = before if isinstance(before, dict) else {}
    wanted = normal(inputs)
    differing = [key for key in wanted if made_from.get(key) != wanted[key]]
    if differing:
        key = differing[0]
        raise InvalidInput(
            f"{how} with {key} = {_brief(made_from.get(key))}, now it is {_brief(wanted[key])}",
            where=folder,
            remedy="Choose another --out, or delete that folder",
        )


def _brief(value: object) -> str:
    text = printable(repr(value))
    return text if len(text) < 300 else f"{text[:300]}..."


def normal(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs as JSON reads them back, for comparison."""
    normal: dict[str, Any] = json.loads(json.dumps(inputs))
    return normal
