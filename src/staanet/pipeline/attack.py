"""The stage that attacks: every clip crafted, written, read back and measured."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from staanet import audio, storage
from staanet.attacks import craft_batch
from staanet.core import Attack, Clip, Samples
from staanet.corpora import recordings
from staanet.corpora.recordings import Recording
from staanet.defences import Defended, chain_of
from staanet.errors import InvalidInput, UnusableClip
from staanet.pipeline.attack_plan import EACH, AttackPlan, aim
from staanet.pipeline.clips import ClipSource
from staanet.pipeline.context import Context
from staanet.pipeline.folders import begin, end, is_done, normal
from staanet.pipeline.quarantine import Quarantine
from staanet.results import adversarial_set, row_files
from staanet.results.adversarial_set import AdversarialClip, AdversarialSet
from staanet.storage import describe_machine, lazy_rows
from staanet.victims import members_of

RECORDINGS = "recordings.csv"
_CRAFTED = (*adversarial_set.COLUMNS, "seconds", adversarial_set.TARGET_CLASS, "sha256")


def attack(plan: AttackPlan, clips: ClipSource, out: Path, *, context: Context) -> AdversarialSet:
    """Craft every clip, write it, read it back and measure it; a killed run goes on where it was."""
    if is_finished(plan, clips, out):
        return AdversarialSet.load(out)
    limits = _matched_counts(plan.matched)
    begin(out, plan.inputs)
    crafted, done = _Crafted.of(out), 0
    alone = limits is not None or plan.label == EACH
    for some in _in_groups(clips, 1 if alone else plan.batch_size):
        digests = {clip.id: _sha256(clip) for clip in some}
        missing = [clip for clip in some if not crafted.has(clip, digests[clip.id])]
        for made in _crafted(plan, limits, missing, context.quarantine):
            digest = digests[made.clean.id]
            crafted.add(made.clean, digest, adversarial_set.write_clip(out, made))
        for clip in missing:
            if clip.id not in crafted.rows:  # put aside
                crafted.read(digests[clip.id])
        done += len(some)
        context.progress(f"attack with {plan.key} from {plan.source.name}", done, len(clips), "")
    card = {
        "attack": plan.key,
        "title": plan.title,
        "source": plan.source.name,
        "sources": [one.name for one in members_of(plan.source)],
        "algorithm": type(plan.attack).__name__.lower(),
        "goal": f"targeted: {plan.label}" if plan.label else "untargeted",
        "budget": asdict(plan.attack.budget),
        "matched": plan.matched.name if plan.matched else None,
        "inputs": normal({**plan.inputs, "clips": crafted.fingerprint()}),
        "machine": describe_machine(),
        "quarantined": context.quarantine.in_order(),
    }
    if isinstance(plan.source, Defended):  # its name says which kinds, not with which settings
        card["source_defences"] = chain_of(plan.source)
    if plan.drawn:
        card["drawn_from"] = dict(plan.drawn)
    if plan.of is not None:
        card["chosen"] = f"{len(clips)} of {plan.of} clips, spread over labels and speakers"
    adversarial_set.write_set(out, crafted.in_order(), card)
    end(out)
    return AdversarialSet.load(out)


def _in_groups(clips: Iterable[Clip], size: int) -> Iterator[list[Clip]]:
    waiting = iter(clips)
    while some := list(itertools.islice(waiting, size)):
        yield some


def _crafted(
    plan: AttackPlan,
    limits: Mapping[str, int] | None,
    clips: Sequence[Clip],
    quarantine: Quarantine,
) -> list[AdversarialClip]:
    """Clips attacked at once; one by one where one of them cannot be, which is put aside."""
    if not clips:
        return []
    try:
        made = _within(plan.attack, limits, clips[0])
        wanted = aim(plan.label, clips[0], plan.source.labels)
        return craft_batch(made, plan.source, clips, label=wanted)
    except UnusableClip as problem:
        if len(clips) == 1:
            quarantine.add(clips[0].id, problem)
            return []
    return [made for clip in clips for made in _crafted(plan, limits, [clip], quarantine)]


def join_recordings(
    found: Iterable[Recording], made: AdversarialSet, out: Path, *, context: Context
) -> list[dict[str, Any]]:
    """Write each recording that was attacked in windows as a whole, and ``recordings.csv`` about them.

    Returns its rows. What is there already is not written again.
    """
    ordered = sorted(found, key=lambda one: one.utterance.id)
    path = out / RECORDINGS
    if not ordered:
        return []
    if path.exists():
        return [dict(row) for row in row_files.read_csv(path, recordings.COLUMNS)]
    places = {row["id"]: row for row in adversarial_set.read_rows(out)}

    def adversarial(window: str) -> Samples | None:
        row = places.get(window)
        return None if row is None else audio.read_int16(out / row["file_name"])[0]

    rows = []
    for number, one in enumerate(ordered, start=1):
        rows.append(one.join(adversarial, out))
        context.progress("join recordings", number, len(ordered), "")
    storage.write_text(path, row_files.csv_text(recordings.COLUMNS, rows))
    return rows


def is_finished(plan: AttackPlan, clips: ClipSource, out: Path) -> bool:
    """Whether ``out`` holds the set that ``plan`` makes of these very clips; see ``is_done``."""
    if not (out / storage.CARD).exists():
        return False
    told = storage.read_card(out, "adversarial").get("inputs", {}).get("clips", "")
    summed = str(told).startswith("sum:")  # sets of earlier versions hashed all clips in a row
    found = sum_of(map(_sha256, clips)) if summed else clips_sha256(clips)
    return is_done(out, "adversarial", {**plan.inputs, "clips": found})


@dataclass
class _Crafted:
    """What is done of a set: in its journal a row for each clip, with the sha256 of the clip."""

    out: Path
    journal: storage.Journal
    table: lazy_rows.Table = field(default_factory=lambda: lazy_rows.Table(_CRAFTED))
    kept: dict[str, int] = field(default_factory=dict)
    """The rows of what an earlier run left, by id."""
    rows: dict[str, int] = field(default_factory=dict)
    """Of the clips that were read: one that is gone since an earlier run is not in the set."""
    total: int = 0

    @classmethod
    def of(cls, out: Path) -> _Crafted:
        """What an earlier run left."""
        made = cls(out, storage.Journal(out / "journal.jsonl"))
        for record in made.journal:
            row = {key: str(value) for key, value in record.items()}
            if {"id", "sha256"} <= row.keys():
                made.kept[row["id"]] = made.table.append(row)
        return made

    def has(self, clip: Clip, digest: str) -> bool:
        """Whether this very clip is done, and its files are what was measured; it counts as read then."""
        number = self.kept.get(clip.id)
        row = {} if number is None else self.table.make(number)
        done = row.get("sha256") == digest and _still_holds(self.out, row)
        if done and number is not None:
            self.rows[clip.id] = number
            self.read(digest)
        return done

    def add(self, clip: Clip, digest: str, row: dict[str, str]) -> None:
        self.journal.append({**row, "sha256": digest})
        self.rows[clip.id] = self.table.append(row)
        self.read(digest)

    def read(self, digest: str) -> None:
        self.total = (self.total + int(digest, 16)) % 2**256

    def in_order(self) -> Sequence[Mapping[str, str]]:
        """The rows of the set in the order of their ids."""
        return self.table.rows([self.rows[name] for name in sorted(self.rows)])

    def fingerprint(self) -> str:
        return f"sum:{self.total:064x}"


def _still_holds(out: Path, row: Mapping[str, Any]) -> bool:
    """Whether the files of a clip that was done before still are what was measured then."""
    try:
        found = adversarial_set.read_clip(out, row).measurements()
    except InvalidInput:
        return False
    return all(row.get(key) == repr(value) for key, value in found.items())


def _sha256(clip: Clip) -> str:
    return hashlib.sha256(clip.id.encode() + b"\0" + clip.pcm16.tobytes()).hexdigest()


def sum_of(digests: Iterable[str]) -> str:
    """A fingerprint of clips that is the same in any order, and the sum of those of its parts.

    >>> sum_of(["01", "ff"])[-4:] == sum_of(["ff", "01"])[-4:] == "0100"
    True
    """
    return f"sum:{sum(int(digest, 16) for digest in digests) % 2**256:064x}"


def clips_sha256(clips: Iterable[Clip]) -> str:
    """What tells these clips, by name and sample, from any others."""
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(clip.id.encode() + b"\0" + clip.pcm16.tobytes())
    return digest.hexdigest()


def _matched_counts(folder: Path | None) -> dict[str, int] | None:
    if folder is None:
        return None
    return {row["id"]: int(row["l0"]) for row in adversarial_set.read_rows(folder)}


def _within(made: Attack, limits: Mapping[str, int] | None, clip: Clip) -> Attack:
    if limits is None:
        return made
    if clip.id not in limits:
        raise UnusableClip("is not in the matched set", where=clip.id, remedy="Attack it there too")
    own = made.budget.max_l0
    most = limits[clip.id] if own is None else min(own, limits[clip.id])
    changed: Attack = replace(made, budget=replace(made.budget, max_l0=most))  # type: ignore[type-var]
    return changed
