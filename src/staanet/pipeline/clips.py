"""The clips that a stage works on: read one by one or all at once, the unusable ones put aside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from staanet import audio, storage
from staanet.core import Clip, Corpus, Utterance, Victim
from staanet.corpora.recordings import Recording
from staanet.errors import UnusableClip, printable
from staanet.pipeline.context import Context
from staanet.victims import victim_folder


class ClipSource(Protocol):
    """Clips one after another, as often as asked: a list, or a corpus that is read as it goes."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Clip]: ...


@dataclass
class ReadingClips:
    """The usable clips of a corpus, each read when its turn comes; ``len`` counts all of them.

    One clip is in memory at a time, however many there are. A file of more than one and a half times
    ``window_s`` seconds is read in windows, each a clip of its own (``staanet.corpora.recordings``). What is
    unusable goes to the context's quarantine.
    """

    corpus: Corpus
    victim: Victim
    context: Context
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
                self.context.quarantine(utterance, problem)

    def _recording(self, utterance: Utterance) -> Recording | None:
        if self.window_s is None:
            return None
        rate, limits = self.victim.sample_rate, self.corpus.limits
        return Recording.measure(utterance, rate, self.window_s, limits)

    def _windows(self, recording: Recording) -> Iterator[Clip]:
        for part, samples in recording.windows():
            reason = audio.degenerate(samples)
            if reason is None:
                clip = Clip(part.id, samples, recording.sample_rate, part.label, part.speaker)
                _check_length(clip, self.victim, part)
                yield clip
            else:
                problem = UnusableClip(reason, where=part.where, remedy="It stays as it is")
                self.context.quarantine(part, problem)


def _check_length(clip: Clip, victim: Victim, utterance: Utterance) -> None:
    if len(clip.pcm16) < victim.minimum_samples:
        raise UnusableClip(
            f"{1000 * len(clip.pcm16) / victim.sample_rate:.1f} ms is shorter than the "
            f"{1000 * victim.minimum_samples / victim.sample_rate:.1f} ms that "
            f"{victim.name} needs",
            where=utterance.path,
            remedy="Drop it or give a longer clip",
        )


def load_clips(corpus: Corpus, victim: Victim, context: Context) -> list[Clip]:
    """The usable clips of a corpus at the victim's rate; the rest goes to the context's quarantine."""
    clips = []
    for number, utterance in enumerate(corpus.utterances, start=1):
        try:
            clip = corpus.load(utterance, victim.sample_rate)
            _check_length(clip, victim, utterance)
            clips.append(clip)
        except UnusableClip as problem:
            context.quarantine(utterance, problem)
        context.progress(f"read {corpus.name} {corpus.part}", number, len(corpus), "")
    return clips


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
    for spec in map(victim_folder, specs):
        place = Path(spec) / storage.CARD
        card = storage.read_json(place) if place.is_file() else {}
        inputs = card.get("inputs") if isinstance(card, dict) else None
        told = inputs if isinstance(inputs, dict) else {}
        if told.get("corpus") == part["corpus"] and told.get("split") != part["split"]:
            yield (
                f"{printable(str(spec))} was trained on another split of {part['corpus']}: clips of "
                f"this {part['part']} part may be among those it learnt, and figures on them flatter it"
            )
