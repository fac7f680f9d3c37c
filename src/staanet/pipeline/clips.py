"""Reads the clips that a stage works on, one by one or all at once; the unusable ones are put aside."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from staanet import audio, storage
from staanet.core import Clip, Corpus, Utterance, Victim
from staanet.corpora.recordings import Recording
from staanet.errors import InvalidInput, UnusableClip, printable
from staanet.pipeline.context import Context
from staanet.pipeline.corpus_content import corpus_rows, read_listing
from staanet.victims import victim_folder


class ClipSource(Protocol):
    """Clips that can be read as often as needed: a list, or a corpus that is read as it goes."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Clip]: ...


@dataclass
class ReadingClips:
    """The usable clips of a corpus, each read when its turn comes; ``len`` counts all of them.

    One clip is in memory at a time. A file that is longer than one and a half times ``window_s``
    seconds is read in windows, each a clip of its own (``staanet.corpora.recordings``). An unusable clip
    goes to the context's quarantine.
    """

    corpus: Corpus
    victim: Victim
    context: Context
    window_s: float | None = None
    recordings: dict[str, Recording] = field(default_factory=dict)
    """The files that were read in windows so far, by id."""

    def __len__(self) -> int:
        return len(self.corpus) + sum(len(recording) - 1 for recording in self.recordings.values())

    def __iter__(self) -> Iterator[Clip]:
        note_rows_aside(self.corpus, self.context)
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
            reason = audio.degeneracy(samples)
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
    """Reads the usable clips of a corpus at the victim's rate.

    The others go to the context's quarantine.
    """
    note_rows_aside(corpus, context)
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


def note_rows_aside(corpus: Corpus, context: Context) -> None:
    """Put the rows of a manifest that could not be used into the quarantine."""
    for source, reason in corpus.put_aside:
        if context.strict:
            raise InvalidInput(reason, where=source, remedy="Correct the row, or drop --strict")
        context.quarantine.add("", UnusableClip(reason, where=source))


def split_part(corpus: Corpus) -> dict[str, str]:
    """Which part of which split of a corpus clips are.

    Empty if the corpus is whole, as then nobody claims that the clips were held out.
    """
    if not corpus.split_hash:
        return {}
    return {"corpus": corpus.name, "part": corpus.part, "split": corpus.split_hash}


def split_warnings(models: Iterable[Path | str], *clips: Corpus | Mapping[str, str]) -> list[str]:
    """Warnings of models that may have been trained on the clips that they are tried on.

    Args:
        models: Folders, or other names, of victims, generators and vectors.
        clips: A part of a corpus, or what the card of an adversarial set has as ``drawn_from``.

    Returns:
        A sentence for each model that was trained on some of these clips, by their audio, or on another
        split of the same corpus.
    """
    pairs = itertools.product(clips, models)
    return list(dict.fromkeys(itertools.chain.from_iterable(_warning(*pair) for pair in pairs)))


def _warning(part: Corpus | Mapping[str, str], model: Path | str) -> Iterator[str]:
    folder = Path(victim_folder(model))
    clips = overlapping_clips(folder, part) if isinstance(part, Corpus) else []
    if clips:
        yield (
            f"{printable(str(folder))} was trained on {len(clips)} of these clips, by their audio "
            f"({printable(clips[0])} among them): figures on them flatter it"
        )
        return
    origin = split_part(part) if isinstance(part, Corpus) else part
    card = storage.read_json(folder / storage.CARD) if (folder / storage.CARD).is_file() else {}
    inputs = card.get("inputs") if isinstance(card, dict) else None
    trained_on = inputs if isinstance(inputs, dict) else {}
    if not origin or trained_on.get("corpus") != origin["corpus"]:
        return
    if trained_on.get("split") != origin["split"]:
        yield (
            f"{printable(str(folder))} was trained on another split of {origin['corpus']}: clips of "
            f"this {origin['part']} part may be among those it learnt, and figures on them flatter it"
        )


def overlapping_clips(folder: Path, part: Corpus) -> list[str]:
    """The ids of clips whose audio the model of a folder was trained on, whatever the corpus is called.

    Empty if the folder has no table of the clips that it was made from.
    """
    rows = read_listing(folder).values()
    trained = {(row["sha256"], row["start_s"]) for row in rows if row["part"] == "train"}
    if not trained:
        return []
    now = corpus_rows([part])
    return [
        row["id"] for row in now if row["sha256"] and (row["sha256"], row["start_s"]) in trained
    ]
