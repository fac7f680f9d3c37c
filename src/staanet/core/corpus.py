"""``Corpus``: labelled utterances, and its split into train, dev and test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, overload

from staanet.audio.limits import AudioLimits
from staanet.audio.reading import load_recording
from staanet.config import SAMPLE_RATE
from staanet.core import protocols, splits
from staanet.core.clips import Clip, Samples, Utterance, clip_of
from staanet.core.dimensions import DIMENSIONS
from staanet.errors import UnusableClip
from staanet.storage import lazy_rows

OnUnusable = Callable[[Utterance, UnusableClip], None]


def _raise(utterance: Utterance, problem: UnusableClip) -> None:
    raise problem


class Store(Protocol):
    """Clips that were decoded before; see ``staanet.corpora.cache``."""

    @property
    def notes(self) -> Sequence[str]:
        """What was unusual about the store itself, such as a damaged file that was rebuilt."""

    def samples(self, utterance: Utterance, sample_rate: int) -> Samples | None:
        """``[T]``, or None where the clip has to be read from its source."""

    def recording_notes(self, utterance: Utterance, sample_rate: int) -> tuple[str, ...]:
        """What is unusual about the file of a clip that ``samples`` gives."""


@dataclass(frozen=True)
class Corpus:
    """Labelled audio, or a part of it. ``notes`` are warnings about usable data."""

    name: str
    utterances: Sequence[Utterance]
    """A tuple, or ``LazyRows``, which builds each utterance on access."""
    labels: tuple[str, ...]
    part: str = "all"
    split_hash: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """What makes figures on the corpus doubtful, such as unknown speakers; commands print it in red."""
    put_aside: tuple[tuple[str, str], ...] = ()
    """Where rows of its manifest stand that cannot be used, and why; the first thousand."""
    limits: AudioLimits = field(default_factory=AudioLimits)
    fixed: Mapping[str, Sequence[protocols.Fold]] = field(default_factory=dict, hash=False)
    """Splits that the corpus's literature uses, by name; the seed chooses where there are several."""
    classes: str = "label"
    """The kind of the labels: the corpus's ``label``, each clip's ``speaker`` or ``sex``, or ``DIMENSIONS``
    where a label holds a number for each of ``labels`` (``staanet.core.dimensions``)."""
    decoded: Store | None = field(default=None, compare=False, repr=False)
    """Clips that need not be decoded again; None: every clip is read from its source."""

    sample_rate: int = SAMPLE_RATE
    """Hz at which clips are read when the corpus is iterated or indexed."""

    def __len__(self) -> int:
        return len(self.utterances)

    def __iter__(self) -> Iterator[Clip]:
        """Clips in order of their ids, whose ``samples`` are floats in [-1, 1].

        Raises ``UnusableClip`` at a file that cannot be used; ``clips`` goes on after it.
        """
        return self.clips(self.sample_rate)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> Corpus: ...
    def __getitem__(self, index: int | slice) -> Clip | Corpus:
        """The clip of an index, read from its file; of a slice, the corpus of those utterances."""
        if isinstance(index, slice):
            return replace(self, utterances=self.utterances[index])
        return self.load(self.utterances[index], self.sample_rate)

    @property
    def task(self) -> Literal["classification", "regression"]:
        """``regression`` where its labels are numbers."""
        return "regression" if self.classes == DIMENSIONS else "classification"

    @property
    def class_labels(self) -> tuple[str, ...]:
        """The classes, each of which every part of a split needs; none where labels are numbers."""
        return () if self.task == "regression" else self.labels

    @property
    def speakers(self) -> tuple[str, ...]:
        return tuple(sorted(set(lazy_rows.attribute_values(self.utterances, "speaker"))))

    @property
    def contents(self) -> tuple[str, ...]:
        """The spoken content of an utterance; its file where the content is unknown."""
        return tuple(sorted({u.content_unit for u in self.utterances}))

    @property
    def disjoint_by(self) -> str:
        """What no two parts of a split share: ``speakers``, or ``contents`` where speakers are the
        classes, each of which every part needs."""
        return protocols.CONTENTS if self.classes == "speaker" else protocols.DRAWN

    def unit(self, utterance: Utterance) -> str:
        """The speaker or content with which ``utterance`` goes into a part."""
        return utterance.speaker if self.disjoint_by == protocols.DRAWN else utterance.content_unit

    def units(self) -> Iterator[str]:
        """``unit`` of each utterance."""
        if self.disjoint_by == protocols.DRAWN:
            return lazy_rows.attribute_values(self.utterances, "speaker")
        return (u.content_unit for u in self.utterances)

    def load(self, utterance: Utterance, sample_rate: int) -> Clip:
        """Read one utterance as mono 16-bit audio at ``sample_rate``.

        Raises ``UnusableClip`` where the file is broken, silent, beyond ``limits`` or ends before
        the utterance does.
        """
        if self.decoded is not None:
            cached = self.decoded.samples(utterance, sample_rate)
            if cached is not None:
                notes = self.decoded.recording_notes(utterance, sample_rate)
                return clip_of(utterance, cached, sample_rate, notes)
        try:
            samples, notes = load_recording(
                utterance.path,
                sample_rate,
                self.limits,
                start_s=utterance.start_s,
                end_s=utterance.end_s,
            )
        except UnusableClip as problem:
            raise UnusableClip(
                problem.what, where=utterance.where, remedy=problem.remedy
            ) from problem
        return clip_of(utterance, samples, sample_rate, notes)

    def clips(self, sample_rate: int, on_unusable: OnUnusable = _raise) -> Iterator[Clip]:
        """All usable clips in order of their ids; the others are handed to ``on_unusable``."""
        for utterance in self.utterances:
            try:
                yield self.load(utterance, sample_rate)
            except UnusableClip as problem:
                on_unusable(utterance, problem)

    @property
    def protocols(self) -> tuple[str, ...]:
        """The values that ``split`` accepts."""
        return protocols.protocols(
            self.fixed, lazy_rows.attribute_values(self.utterances, "part"), self.disjoint_by
        )

    def split(self, seed: int = 0, protocol: str | None = None) -> tuple[Corpus, Corpus, Corpus]:
        """Train, dev and test parts with disjoint speakers, every class in each.

        By default a fifth of the speakers each, of both sexes, goes to dev and test; ``protocol``
        names another way (``staanet.core.protocols``). Where speakers are the classes, contents are disjoint
        instead: no sentence is in two parts. Raises ``InvalidInput`` where the corpus has too few
        speakers, a class that is not in all parts, or no such protocol.
        """
        parts = splits.part_units(self, seed, protocol)
        digest = splits.split_hash(
            self, {unit: part for part, units in parts.items() for unit in units}
        )
        train, dev, test = (
            replace(
                self,
                utterances=lazy_rows.filter_rows(
                    self.utterances, (u in units for u in self.units())
                ),
                part=part,
                split_hash=digest,
            )
            for part, units in parts.items()
        )
        return train, dev, test
