"""What stages share: clips put aside, and folders that are done or not.

A stage writes one folder and closes it with ``card.json``, which names everything that went in. A
folder whose card names the same inputs is done and is skipped; one made from other inputs stops the
run. So a killed run goes on where it stopped, and no stage quietly reuses another experiment's work.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from staanet import audio, storage
from staanet.core import Clip, Corpus, Progress, Utterance, Victim, silent
from staanet.corpora.recordings import Recording
from staanet.errors import InvalidInput, UnusableClip, printable
from staanet.victims import place_of


@dataclass
class Quarantine:
    """Clips put aside, each with its reason; the run goes on without them."""

    strict: bool = False
    rows: list[dict[str, str]] = field(default_factory=list)
    _known: set[tuple[str, ...]] = field(default_factory=set, init=False, repr=False, compare=False)

    def __call__(self, utterance: Utterance, problem: UnusableClip) -> None:
        if self.strict:
            raise InvalidInput(problem.what, where=problem.where, remedy=problem.remedy)
        self.add(utterance.id, problem)

    def add(self, clip_id: str, problem: UnusableClip) -> None:
        row = {"id": clip_id, "file": problem.where or clip_id, "reason": problem.what}
        self.put(row)

    def put(self, row: dict[str, str]) -> None:
        """A row that says all of it; nothing is done where it is there."""
        if _told(row) not in self._known:
            self._known.add(_told(row))
            self.rows.append(row)

    def save(self, folder: Path) -> None:
        """Write ``quarantine.jsonl`` where anything was put aside."""
        if self.rows:
            journal = storage.Journal(folder / "quarantine.jsonl")
            known = {_told(row) for row in journal}
            for row in self.in_order():
                if _told(row) not in known:
                    journal.append(row)

    def in_order(self) -> list[dict[str, str]]:
        """The rows sorted by id, which is the same whoever read the clips, in whatever order."""
        return sorted(self.rows, key=lambda row: (row["id"], row["file"], row["reason"]))


def _told(row: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(str(row.get(name)) for name in ("id", "file", "reason"))


class ClipSource(Protocol):
    """Clips one after another, as often as asked: a list, or a corpus that is read as it goes."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Clip]: ...


@dataclass
class ReadingClips:
    """The usable clips of a corpus, each read when its turn comes; ``len`` counts all of them.

    One clip is in memory at a time, however many there are. A file of more than one and a half times
    ``window_s`` seconds is read in windows, each a clip of its own (``staanet.corpora.recordings``). What is
    unusable goes to ``quarantine``.
    """

    corpus: Corpus
    victim: Victim
    quarantine: Quarantine
    window_s: float | None = None
    recordings: dict[str, Recording] = field(default_factory=dict)
    """The files that were read in windows so far, by id."""

    def __len__(self) -> int:
        return len(self.corpus) + sum(len(one) - 1 for one in self.recordings.values())

    def __iter__(self) -> Iterator[Clip]:
        for utterance in self.corpus.utterances:
            try:
                recording = self._recording(utterance)
                if recording is None:
                    clip = self.corpus.load(utterance, self.victim.sample_rate)
                    _check_length(clip, self.victim, utterance)
                    yield clip
                else:
                    self.recordings[utterance.id] = recording
                    yield from self._windows(recording)
            except UnusableClip as problem:
                self.quarantine(utterance, problem)

    def _recording(self, utterance: Utterance) -> Recording | None:
        if self.window_s is None:
            return None
        rate, limits = self.victim.sample_rate, self.corpus.limits
        return Recording.of(utterance, rate, self.window_s, limits)

    def _windows(self, recording: Recording) -> Iterator[Clip]:
        for part, samples in recording.windows():
            reason = audio.degenerate(samples)
            if reason is None:
                clip = Clip(part.id, samples, recording.sample_rate, part.label, part.speaker)
                _check_length(clip, self.victim, part)
                yield clip
            else:
                problem = UnusableClip(reason, where=part.where, remedy="It stays as it is")
                self.quarantine(part, problem)


def _check_length(clip: Clip, victim: Victim, utterance: Utterance) -> None:
    if len(clip.samples) < victim.minimum_samples:
        raise UnusableClip(
            f"{1000 * len(clip.samples) / victim.sample_rate:.1f} ms is shorter than the "
            f"{1000 * victim.minimum_samples / victim.sample_rate:.1f} ms that "
            f"{victim.name} needs",
            where=utterance.path,
            remedy="Drop it or give a longer clip",
        )


def load_clips(
    corpus: Corpus, victim: Victim, quarantine: Quarantine, progress: Progress = silent
) -> list[Clip]:
    """The usable clips of a corpus at the victim's rate; the rest goes to ``quarantine``."""
    clips = []
    for number, utterance in enumerate(corpus.utterances, start=1):
        try:
            clip = corpus.load(utterance, victim.sample_rate)
            _check_length(clip, victim, utterance)
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


def begin(folder: Path, inputs: Mapping[str, Any]) -> None:
    """Note what a stage is made from until its card says so.

    Raises ``InvalidInput`` where the folder holds unfinished work that was made from other inputs.
    """
    if (folder / storage.UNFINISHED).exists():
        _same(storage.read_json(folder / storage.UNFINISHED), inputs, folder, "was begun")
    else:
        storage.write_json(folder / storage.UNFINISHED, normal(inputs))


def end(folder: Path) -> None:
    """Remove what only an unfinished stage needs, once its card is written."""
    storage.discard_checkpoints(folder / "checkpoint")
    for name in ("journal.jsonl", storage.UNFINISHED):
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


def drawn_from(corpus: Corpus) -> dict[str, str]:
    """Which part of which split of a corpus clips are; empty where it is whole, as then nobody claims
    that they were held out."""
    if not corpus.split_hash:
        return {}
    return {"corpus": corpus.name, "part": corpus.part, "split": corpus.split_hash}


def split_warnings(specs: Sequence[Path | str], *drawn: Corpus | Mapping[str, str]) -> list[str]:
    """Of each model's folder that was trained on another split of the corpus that clips are from (or of the
    ``drawn_from`` of a set's card): that it may have met them."""
    parts = [drawn_from(one) if isinstance(one, Corpus) else one for one in drawn]
    return list(dict.fromkeys(said for part in parts if part for said in _unsure(specs, part)))


def _unsure(specs: Sequence[Path | str], part: Mapping[str, str]) -> Iterator[str]:
    for spec in map(place_of, specs):
        place = Path(spec) / storage.CARD
        card = storage.read_json(place) if place.is_file() else {}
        inputs = card.get("inputs") if isinstance(card, dict) else None
        told = inputs if isinstance(inputs, dict) else {}
        if told.get("corpus") == part["corpus"] and told.get("split") != part["split"]:
            yield (
                f"{printable(str(spec))} was trained on another split of {part['corpus']}: clips of "
                f"this {part['part']} part may be among those it learnt, and figures on them flatter it"
            )
