"""Attacks clips: each is crafted, written, read back and measured."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from staanet.attacks import craft_batch, density_flags
from staanet.audio import content_hash
from staanet.core import Attack, Clip, possible_answers
from staanet.defences import Defended, chain_of
from staanet.errors import UnusableClip
from staanet.pipeline.attack_plan import EACH, AttackPlan, target_class
from staanet.pipeline.clips import ClipSource
from staanet.pipeline.context import Context
from staanet.pipeline.crafted_clips import CraftedClips
from staanet.pipeline.identity import clip_sha256
from staanet.pipeline.quarantine import Quarantine
from staanet.pipeline.recording_notes import RecordingNotes
from staanet.pipeline.stage import Digest, Inputs, Stage
from staanet.pipeline.victim_check import FIRST_CLIPS, check_victims, match_clip_labels
from staanet.results import adversarial_set
from staanet.results.adversarial_set import AdversarialClip, AdversarialSet
from staanet.results.clip_tables import describe_row_changes, sum_of
from staanet.storage import describe_machine
from staanet.victims import members_of


class ClipsContent(Digest):
    """The hash of the clips of a set; it names those that differ from the rows of the set."""

    clips: ClipSource

    @classmethod
    def of(cls, clips: ClipSource) -> ClipsContent:
        content = cls(sum_of(map(clip_sha256, clips)))
        content.clips = clips
        return content

    def explain(self, folder: Path) -> str:
        before = {}
        for row in adversarial_set.read_rows(folder):
            clean = adversarial_set.read_clip(folder, row).clean
            before[row["id"]] = _describe_clip(clean)
        return describe_row_changes(before, {clip.id: _describe_clip(clip) for clip in self.clips})


def _describe_clip(clip: Clip) -> dict[str, str]:
    digest = content_hash(clip.pcm16)
    return {"label": clip.label or "", "speaker": clip.speaker, "sha256": digest}


@dataclass(frozen=True)
class Attacking:
    """An adversarial set that is crafted clip by clip, as a stage."""

    name: str
    make_plan: Callable[[], AttackPlan]
    read_clips: Callable[[], ClipSource]
    out: Path
    context: Context
    size: Callable[[], str] = str

    def stage(self) -> Stage:
        return Stage(
            name=self.name,
            folder=self.out,
            kind="adversarial",
            inputs=self.inputs,
            work=self.work,
            size=self.size,
        )

    @cached_property
    def plan(self) -> AttackPlan:
        return self.make_plan()

    @cached_property
    def clips(self) -> ClipSource:
        return self.read_clips()

    def inputs(self) -> Inputs:
        return {**self.plan.inputs, "clips": lambda: ClipsContent.of(self.clips)}

    def work(self, inputs: Inputs) -> None:
        plan, context = self.plan, self.context
        self._check_source()
        limits = matched_counts(plan.matched)
        size = 1 if limits is not None or plan.label == EACH else plan.batch_size
        crafted, done, recordings = CraftedClips.of(self.out), 0, RecordingNotes()
        for batch in split_batches(self.clips, size):
            digests = {clip.id: clip_sha256(clip) for clip in batch}
            for clip in batch:
                recordings.add(clip)
            missing = [clip for clip in batch if not crafted.has(clip, digests[clip.id])]
            for result in craft_clips(plan, limits, missing, context.quarantine):
                row = adversarial_set.write_clip(self.out, result)
                crafted.add(result.clean, digests[result.clean.id], row)
            for clip in missing:
                if clip.id not in crafted.rows:  # put aside
                    crafted.count(digests[clip.id])
            done += len(batch)
            what = f"attack with {plan.key} from {plan.source.name}"
            context.progress(what, done, len(self.clips), "")
        rows = crafted.in_order()
        card = {**self._card({**inputs, "clips": crafted.sha256()}), **recordings.entry()}
        if flags := density_flags(plan.attack, [float(row["density"]) for row in rows]):
            card["flags"] = flags
        adversarial_set.write_set(self.out, rows, card)

    def _check_source(self) -> None:
        first = list(itertools.islice(self.clips, FIRST_CLIPS))
        labels = (clip.label for clip in first)
        source, where = self.plan.source, str(self.out)
        match_clip_labels(members_of(source), labels, self.context, where=where, is_required=False)
        check_victims([source], first, self.context)

    def _card(self, inputs: Inputs) -> dict[str, Any]:
        plan = self.plan
        card = {
            "attack": plan.key,
            "title": plan.title,
            "source": plan.source.name,
            "sources": [member.name for member in members_of(plan.source)],
            "algorithm": type(plan.attack).__name__.lower(),
            "goal": f"targeted: {plan.label}" if plan.label else "untargeted",
            "budget": asdict(plan.attack.budget),
            "matched": plan.matched.name if plan.matched else None,
            "inputs": inputs,
            "machine": describe_machine(),
            "quarantined": self.context.quarantine.in_order(),
        }
        if isinstance(
            plan.source, Defended
        ):  # its name has the kinds of defence, not their settings
            card["source_defences"] = chain_of(plan.source)
        if hasattr(plan.attack, "loss"):
            card["loss"] = plan.attack.loss
        if plan.drawn_from:
            card["drawn_from"] = dict(plan.drawn_from)
        if plan.of is not None:
            card["chosen"] = (
                f"{len(self.clips)} of {plan.of} clips, spread over labels and speakers"
            )
        return card


def attack(plan: AttackPlan, clips: ClipSource, out: Path, *, context: Context) -> AdversarialSet:
    """Crafts every clip, writes it, reads it back and measures it.

    A killed attack goes on where it was. Raises ``InvalidInput`` if ``out`` holds another set.
    """
    name = f"attack {plan.key} from {plan.source.name}"
    Attacking(name, lambda: plan, lambda: clips, out, context).stage().perform()
    return AdversarialSet.load(out)


def split_batches(clips: Iterable[Clip], size: int) -> Iterator[list[Clip]]:
    """Clips in lists of ``size``, the last of which may be shorter."""
    waiting = iter(clips)
    while batch := list(itertools.islice(waiting, size)):
        yield batch


def craft_clips(
    plan: AttackPlan,
    limits: Mapping[str, int] | None,
    clips: Sequence[Clip],
    quarantine: Quarantine,
) -> list[AdversarialClip]:
    """Crafts clips as one batch. If one of them cannot be attacked, each is crafted alone.

    Args:
        plan: The attack.
        limits: Largest number of changed samples, by the id of the clip.
        clips: None of which is done.
        quarantine: Receives the clips that cannot be attacked.

    Returns:
        The pairs of clean and adversarial clips.
    """
    if not clips:
        return []
    try:
        limited = limit_samples(plan.attack, limits, clips[0])
        label = target_class(plan.label, clips[0], possible_answers(plan.source))
        return craft_batch(limited, plan.source, clips, label=label)
    except UnusableClip as problem:
        if len(clips) == 1:
            quarantine.add(clips[0].id, problem)
            return []
    return [pair for clip in clips for pair in craft_clips(plan, limits, [clip], quarantine)]


def matched_counts(folder: Path | None) -> dict[str, int] | None:
    """How many samples of each clip a set changed; ``None`` without a set."""
    if folder is None:
        return None
    return {row["id"]: int(row["l0"]) for row in adversarial_set.read_rows(folder)}


def limit_samples(method: Attack, limits: Mapping[str, int] | None, clip: Clip) -> Attack:
    """The attack with the limit of this clip. Raises ``UnusableClip`` if the clip has none."""
    if limits is None:
        return method
    if clip.id not in limits:
        raise UnusableClip("is not in the matched set", where=clip.id, remedy="Attack it there too")
    largest = method.budget.max_l0
    limit = limits[clip.id] if largest is None else min(largest, limits[clip.id])
    budget = replace(method.budget, max_l0=limit)
    limited: Attack = replace(method, budget=budget)  # type: ignore[type-var]
    return limited
