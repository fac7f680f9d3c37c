"""The stage that evaluates: what victims answer, and how a change sounds."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.core import Progress, Victim, silent
from staanet.errors import InvalidInput
from staanet.evaluation import perceptual, transfer_matrix
from staanet.evaluation.perceptual import Score
from staanet.pipeline.context import Context
from staanet.results import adversarial_set
from staanet.results.adversarial_set import AdversarialSet
from staanet.results.transfer_matrix import TransferMatrix
from staanet.storage.shards import Shard


def answers(
    made: AdversarialSet, victims: Sequence[Victim], progress: Progress = silent
) -> list[dict[str, Any]]:
    """What victims say of each clip before and after, beside what was changed; ``before`` and
    ``after`` are the first one's words."""
    clips: dict[str, dict[str, Any]] = {}
    for row in transfer_matrix([made], victims, progress=progress).rows:
        before, after = row["clean_prediction"], row["adversarial_prediction"]
        clip = clips.setdefault(
            row["id"],
            {
                "id": row["id"],
                "before": before,
                "after": after,
                "l0": row["l0"],
                "density": row["density"],
                "snr_db": row["snr_db"] if math.isfinite(row["snr_db"]) else None,
                "answers": {},
            },
        )
        clip["answers"][row["target"]] = [before, after]
    return list(clips.values())


def evaluate(
    sets: Sequence[Path],
    targets: Sequence[Victim],
    out: Path,
    *,
    channels: Sequence[str] = (),
    perceptual: bool = False,
    shard: Shard | None = None,
    context: Context,
) -> TransferMatrix:
    """The transfer matrix from adversarial sets on disk, written to ``out``; see ``transfer_matrix``.

    ``perceptual`` also listens to each clip, and remembers it in ``out/perception.jsonl``. With a
    ``shard`` it is of that part of each set's clips, and says so, with the hash of each target's
    weights, for ``merge``.
    """
    loaded = [_whole(folder) for folder in sets]
    if shard is not None:
        loaded = [replace(one, clips=shard.part(one.clips)) for one in loaded]
    matrix = transfer_matrix(
        loaded,
        targets,
        channels=channels,
        scorer=_Listener(storage.Journal(out / "perception.jsonl")) if perceptual else None,
        progress=context.progress,
    )
    if shard is not None:
        tables = [storage.sha256(folder / "metadata.csv") for folder in sets]
        hashes = {target.name: target.sha256 for target in targets}
        part = {**shard.card(tables), "channels": list(channels), "sha256": hashes}
        matrix = replace(matrix, summary={**matrix.summary, "shard": part})
    matrix.save(out)
    return matrix


def _whole(folder: Path) -> AdversarialSet:
    one = AdversarialSet.load(folder)
    part = one.card.get("inputs", {}).get("shard")
    if part is not None:
        raise InvalidInput(
            f"is shard {part['number']}/{part['of']} of a set",
            where=folder,
            remedy="Merge the shards first: staanet merge SHARD... --out DIR",
        )
    return one


class _Listener:
    """The perceptual panel of a clip, from the journal where the same audio was heard before."""

    def __init__(self, journal: storage.Journal) -> None:
        judges = {**perceptual.versions(), "metrics": sorted(perceptual.METRICS)}
        self.journal, self.judges = journal, json.dumps(judges, sort_keys=True)
        self.known = {str(row["audio"]): row["scores"] for row in journal.records()}

    def __call__(self, clip: adversarial_set.AdversarialClip) -> dict[str, Score]:
        clean, rate = clip.clean.pcm16, clip.clean.sample_rate
        digest = hashlib.sha256(f"{self.judges} {rate} {len(clean)} ".encode())
        digest.update(clean.tobytes() + clip.adversarial.tobytes())
        key = digest.hexdigest()
        if key not in self.known:
            scores = perceptual.panel(clean, clip.adversarial, rate)
            self.known[key] = {name: asdict(score) for name, score in scores.items()}
            self.journal.append({"audio": key, "id": clip.clean.id, "scores": self.known[key]})
        return {name: Score(**score) for name, score in self.known[key].items()}
