"""Evaluates adversarial sets on targets, with perceptual scores where asked for."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from staanet import report, storage
from staanet.core import Corpus, Victim
from staanet.errors import InvalidInput
from staanet.evaluation import perceptual, transfer_matrix
from staanet.evaluation.perceptual import Score
from staanet.pipeline.context import Context
from staanet.pipeline.victim_check import FIRST_CLIPS, check_victims, match_clip_labels
from staanet.results import adversarial_set
from staanet.results.adversarial_set import AdversarialSet
from staanet.results.transfer_matrix import TransferMatrix
from staanet.storage import lazy_rows
from staanet.storage.shards import Shard
from staanet.victims.quick_check import VictimReport


def predictions(
    adversarial: AdversarialSet, victims: Sequence[Victim], context: Context
) -> list[dict[str, Any]]:
    """The answers of victims to each clip before and after the attack, with the clip's distances.

    Returns a row per clip. ``before`` and ``after`` are the answers of the first victim; ``answers`` has
    those of each victim by name.
    """
    clips: dict[str, dict[str, Any]] = {}
    for row in transfer_matrix([adversarial], victims, progress=context.progress).rows:
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
                "target_class": row.get(adversarial_set.TARGET_CLASS),
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
    sexes: Mapping[str, str] | None = None,
    context: Context,
) -> TransferMatrix:
    """Computes the transfer matrix of adversarial sets on disk, and writes it.

    Args:
        sets: Folders of whole adversarial sets.
        targets: Victims, each by a name of its own.
        out: Folder of the results. A report beside it that shows older results is marked.
        channels: Also after each of these, as ``NAME[:SETTING]``.
        perceptual: Also judge how each clip sounds; scores are kept in ``out/perception.jsonl``.
        shard: Only this part of the clips of each set. The summary then says so, with the hash of each
            target, for ``merge``.
        sexes: Of the speakers, where they are known.
        context: The shared settings of the command.

    Returns:
        The matrix.

    Raises:
        InvalidInput: If a set is a shard, or is not one of adversarial clips.
    """
    loaded = [_load_whole(folder) for folder in sets]
    if shard is not None:
        loaded = [replace(held, clips=shard.part(held.clips)) for held in loaded]
    reports = _check_targets(sets, loaded, targets, context)
    matrix = transfer_matrix(
        loaded,
        targets,
        channels=channels,
        scorer=_PerceptualPanel(storage.Journal(out / "perception.jsonl")) if perceptual else None,
        sexes=sexes,
        progress=context.progress,
    )
    matrix = replace(matrix, summary=_with_doubts(matrix.summary, reports))
    if shard is not None:
        tables = [storage.sha256(folder / "metadata.csv") for folder in sets]
        hashes = {target.name: target.identity for target in targets}
        part = {**shard.card(tables), "channels": list(channels), "sha256": hashes}
        matrix = replace(matrix, summary={**matrix.summary, "shard": part})
    matrix.save(out)
    report.mark_if_stale(out.parent)
    return matrix


def sexes_of(corpus: Corpus) -> dict[str, str]:
    """The sex of each speaker of a corpus, where it is known."""
    speakers, sexes = (
        lazy_rows.attribute_values(corpus.utterances, name) for name in ("speaker", "sex")
    )
    return {speaker: sex for speaker, sex in zip(speakers, sexes, strict=True) if sex}


def _check_targets(
    folders: Sequence[Path],
    loaded: Sequence[AdversarialSet],
    targets: Sequence[Victim],
    context: Context,
) -> list[VictimReport]:
    """Match the targets' labels with those of the sets, and look at each target on some clean clips."""
    if not loaded:
        return []
    labels = [
        row["label"] or None for folder in folders for row in adversarial_set.read_rows(folder)
    ]
    match_clip_labels(targets, labels, context, where=str(folders[0]))
    pairs = loaded[0].clips
    chosen = range(0, len(pairs), max(1, len(pairs) // FIRST_CLIPS))
    return check_victims(targets, [pairs[index].clean for index in chosen], context)


def _with_doubts(summary: Mapping[str, Any], reports: Sequence[VictimReport]) -> dict[str, Any]:
    """The summary with doubts about each target, also among the flags."""
    targets, flags = dict(summary["targets"]), list(summary["flags"])
    for checked in reports:
        if checked.is_doubtful:
            targets[checked.name] = {**targets[checked.name], "doubts": list(checked.flags)}
            flags += checked.flags
    return {**summary, "targets": targets, "flags": flags}


def _load_whole(folder: Path) -> AdversarialSet:
    adversarial = AdversarialSet.load(folder)
    part = adversarial.card.get("inputs", {}).get("shard")
    if part is not None:
        raise InvalidInput(
            f"is shard {part['number']}/{part['of']} of a set",
            where=folder,
            remedy="Merge the shards first: staanet merge SHARD... --out DIR",
        )
    return adversarial


class _PerceptualPanel:
    """Scores of how a clip sounds, from the journal if the same audio was scored before."""

    def __init__(self, journal: storage.Journal) -> None:
        judges = {**perceptual.versions(), "metrics": sorted(perceptual.METRICS)}
        self.journal, self.judges = journal, json.dumps(judges, sort_keys=True)
        self.scores = {str(row["audio"]): row["scores"] for row in journal.records()}

    def __call__(self, clip: adversarial_set.AdversarialClip) -> dict[str, Score]:
        clean, rate = clip.clean.pcm16, clip.clean.sample_rate
        digest = hashlib.sha256(f"{self.judges} {rate} {len(clean)} ".encode())
        digest.update(clean.tobytes() + clip.adversarial.tobytes())
        key = digest.hexdigest()
        if key not in self.scores:
            panel = perceptual.panel(clean, clip.adversarial, rate)
            self.scores[key] = {name: asdict(score) for name, score in panel.items()}
            self.journal.append({"audio": key, "id": clip.clean.id, "scores": self.scores[key]})
        return {name: Score(**score) for name, score in self.scores[key].items()}
