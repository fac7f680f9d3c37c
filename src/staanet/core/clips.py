"""``Clip``, audio in memory, and ``Utterance``, one labelled file of a corpus."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from staanet.audio.grid import to_float

if TYPE_CHECKING:
    from torch import Tensor

Samples = NDArray[np.int16]

NO_CHANNEL = "pcm16"
"""Name of the channel that leaves a file as it is."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One mono clip in memory.

    >>> clip = Clip("a", np.int16([16384, -32768]), 16_000)
    >>> clip.samples, clip.pcm16
    (array([ 0.5, -1. ], dtype=float32), array([ 16384, -32768], dtype=int16))
    """

    id: str
    pcm16: Samples
    """The 16-bit integers ``[T]``: what attacks count in and files hold."""
    sample_rate: int
    label: str | None = None
    speaker: str = "unknown"
    notes: tuple[str, ...] = ()
    """Warnings about its file, such as clipped samples."""
    source_file: str = ""
    """The file that it was read from, as an absolute path; empty if it was not read from one."""

    @property
    def samples(self) -> NDArray[np.float32]:
        """``[T]`` float in [-1, 1), exactly ``pcm16 / 32768``: the input of models."""
        return to_float(self.pcm16)

    @property
    def waveform(self) -> Tensor:
        """``samples`` as a tensor ``[T]``."""
        import torch

        return torch.from_numpy(self.samples)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One labelled file of a corpus, or a part of one; ``id`` is unique and safe as a file name."""

    id: str
    path: Path
    label: str | None
    speaker: str
    sex: str | None = None
    start_s: float = 0.0
    end_s: float | None = None
    """Where the utterance ends in the file; None: where the file does."""
    part: str | None = None
    """The part in the corpus's published split (``train``, ``dev`` or ``test``), if it has one."""

    row: str = field(default="", compare=False)
    """The row that names it, such as ``list.csv:4``, where there is one."""
    content: str | None = None
    """The spoken content, such as a sentence's code, which several speakers may share; None: unknown."""

    @property
    def content_unit(self) -> str:
        """The spoken content, or else the file, so that parts of one recording stay in one part of
        a split."""
        return self.content or str(self.path)

    @property
    def is_segment(self) -> bool:
        """Whether it is a part of its file, not all of it."""
        return self.start_s > 0 or self.end_s is not None

    @property
    def where(self) -> str:
        """The file, for an error; of a part, also its times and its row.

        >>> Utterance("a", Path("a.wav"), "joy", "s", start_s=0.5, row="list.csv:4").where
        'a.wav [0.5 s to end, list.csv:4]'
        """
        if not self.is_segment:
            return str(self.path)
        end = "end" if self.end_s is None else f"{self.end_s:.9g} s"
        return f"{self.path} [{self.start_s:.9g} s to {end}{self.row and f', {self.row}'}]"


def clip_of(
    utterance: Utterance, samples: Samples, sample_rate: int, notes: tuple[str, ...] = ()
) -> Clip:
    """The clip of an utterance, whose samples ``[T]`` and notes were read from its file."""
    label, speaker = utterance.label, utterance.speaker
    source = str(utterance.path.absolute())
    return Clip(utterance.id, samples, sample_rate, label, speaker, notes, source)
