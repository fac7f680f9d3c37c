"""Reads the clips that a stage works on; unusable ones go to the quarantine."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from staanet import audio, storage
from staanet.core import Clip, Corpus, Utterance, Victim
from staanet.core.clips import clip_of
from staanet.corpora.files import UNKNOWN
from staanet.corpora.recordings import Recording
from staanet.errors import InvalidInput, UnusableClip, printable
from staanet.pipeline.context import Context
from staanet.results.clip_tables import corpus_rows, read_listing
from staanet.victims import victim_folder


class ClipSource(Protocol):
    """Clips that can be read repeatedly: a list, or a corpus read clip by clip."""

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
                    self.context.quarantine.recordings.add(clip)
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
                odd = audio.recording_notes(audio.to_float(samples), recording.sample_rate)
                clip = clip_of(part, samples, recording.sample_rate, (*recording.notes, *odd))
                self.context.quarantine.recordings.add(clip)
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
            context.quarantine.recordings.add(clip)
            clips.append(clip)
        except UnusableClip as problem:
            context.quarantine(utterance, problem)
        context.progress(f"read {corpus.name} {corpus.part}", number, len(corpus), "")
    return clips


def note_rows_aside(corpus: Corpus, context: Context) -> None:
    """Put the rows of a manifest that could not be used into the quarantine, and note its warnings."""
    for warning in corpus.warnings:
        context.quarantine.warn(warning)
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


def split_warnings(
    models: Iterable[Path | str], *clips: Corpus | Mapping[str, str], is_origin_needed: bool = False
) -> list[str]:
    """Warnings of models that may have been trained on the clips that they are tried on.

    Content decides, whatever a corpus or a folder is called: the hashes of the files that a model was
    trained on lie beside it. Where there is no such table, the names of corpus and split in its card are
    compared.

    Args:
        models: Folders, or other names, of victims, generators and vectors.
        clips: A part of a corpus, or what the card of an adversarial set has as ``drawn_from``.
        is_origin_needed: Whether a model of which nothing is known deserves a sentence as well.

    Returns:
        A sentence for each model that was trained on some of these clips or on their speakers, or on
        another split of the same corpus.
    """
    pairs = itertools.product(clips, models)
    sentences = (_warning(part, model, is_origin_needed) for part, model in pairs)
    return list(dict.fromkeys(filter(None, sentences)))


def _warning(part: Corpus | Mapping[str, str], model: Path | str, is_origin_needed: bool) -> str:
    folder, name = Path(victim_folder(model)), printable(str(model))
    overlap = training_overlap(folder, part) if isinstance(part, Corpus) else None
    if overlap is not None:
        return f"{name} {overlap}: figures on them flatter it" if overlap else ""
    origin = split_part(part) if isinstance(part, Corpus) else part
    trained_on = _inputs_of_card(folder)
    if origin and trained_on.get("corpus") == origin["corpus"]:
        if trained_on.get("split") == origin["split"]:
            return ""
        return (
            f"{name} was trained on another split of {origin['corpus']}: clips of this "
            f"{origin['part']} part may be among those it learnt, and figures on them flatter it"
        )
    if is_origin_needed and "split" not in trained_on:
        return (
            f"nothing says what {name} was trained on: it may have met the test speakers, which "
            "flatters the attacks crafted on it"
        )
    return ""


def has_met(model: Path | str, part: Corpus) -> bool | None:
    """Whether a model was trained on clips or speakers of a part; ``None`` where its folder does not say."""
    folder = Path(victim_folder(model))
    overlap = training_overlap(folder, part)
    if overlap is not None:
        return bool(overlap)
    trained_on, origin = _inputs_of_card(folder), split_part(part)
    is_same_split = origin and all(trained_on.get(k) == origin[k] for k in ("corpus", "split"))
    return False if is_same_split else None


def _inputs_of_card(folder: Path) -> Mapping[str, Any]:
    """What the model in a folder was made from, as its card says; empty where there is none."""
    card = storage.read_json(folder / storage.CARD) if (folder / storage.CARD).is_file() else {}
    inputs = card.get("inputs") if isinstance(card, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def training_overlap(folder: Path, part: Corpus) -> str | None:
    """The overlap of a model's training clips with a part, in words; empty if there is none.

    ``None`` if nothing is known: no table of the clips that it was made from, or none of these in it.
    Speakers are those that the table names for the same files.
    """
    listing = sorted(read_listing(folder).values(), key=lambda row: row["part"] == "train")
    rows = {(row["sha256"], row["start_s"]): row for row in listing}
    trained = [row for row in rows.values() if row["part"] == "train"]
    if not trained:
        return None
    keys = {row["id"]: (row["sha256"], row["start_s"]) for row in corpus_rows([part])}
    matched = {clip: rows[key] for clip, key in keys.items() if key[0] and key in rows}
    if not matched:
        return None
    learnt = [clip for clip, row in matched.items() if row["part"] == "train"]
    if learnt:
        return (
            f"was trained on {len(learnt)} of these clips, by their audio ({printable(learnt[0])} "
            "among them)"
        )
    if part.classes == "speaker":  # each is in every part, since they are the classes
        return ""
    speakers = {row["speaker"] for row in trained} - {UNKNOWN}
    shared = sorted({row["speaker"] for row in matched.values()} & speakers)
    return f"was trained on the speaker {printable(shared[0])} of these clips" if shared else ""
