"""Several mirrors or reflections, each of another classifier, whose proposals are added up.

What one classifier alone would answer to cancels, what several would answer to stays: an ensemble of
sources is what transfers best (Liu et al. 2017, arXiv 1611.02770; Dong et al. 2018, arXiv 1710.06081).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from staanet.core import Budget
from staanet.generator.mirror import Mirror
from staanet.generator.proposal import Generator, unit_rms
from staanet.generator.reflection import Reflection

Voice = Mirror | Reflection
VOICES: dict[str, type[Voice]] = {kind.architecture: kind for kind in (Mirror, Reflection)}


class Chorus(Generator):
    """``voices`` are the settings of its members, with the ``architecture`` of each (default:
    mirror); how loud each one is, is learned."""

    architecture = "chorus"
    ranked_by_magnitude = True

    def __init__(
        self,
        *,
        voices: Sequence[Mapping[str, Any]],
        gain: float | None = 2.0,
        density: float | None = None,
        sample_rate: int = 16_000,
        labels: Sequence[str] = (),
    ) -> None:
        super().__init__(gain=gain, density=density, sample_rate=sample_rate, labels=labels)
        self.voices = nn.ModuleList(_voice(**settings) for settings in voices)
        self.loudness = nn.Parameter(torch.ones(len(voices)))
        self.settings |= {"voices": [_settings(voice) for voice in self.members]}

    @classmethod
    def of(cls, voices: Sequence[Voice], **settings: Any) -> Chorus:
        """A chorus of voices as they are."""
        chorus = cls(voices=[_settings(voice) for voice in voices], **settings)
        chorus.voices = nn.ModuleList(voices)
        return chorus.to(next(voices[0].parameters()).device)

    @property
    def members(self) -> list[Voice]:
        """Its voices."""
        return [voice for voice in self.voices if isinstance(voice, Mirror | Reflection)]

    def keep_ears(self) -> None:
        """Train the ways back alone; see ``Mirror.keep_ears``."""
        for voice in self.members:
            voice.keep_ears()

    def with_looks(self, looks: int) -> Self:
        """The same voices, each with another number of looks."""
        other = copy.copy(self)
        other._modules = {
            **self._modules,
            "voices": nn.ModuleList(one.with_looks(looks) for one in self.members),
        }
        return other

    def heads(
        self,
        waveforms: Tensor,
        lengths: Tensor | None,
        wanted: Tensor | None,
        budget: Budget | None = None,
    ) -> tuple[Tensor, Tensor]:
        magnitude = position = waveforms.new_zeros(())
        for voice, loudness in zip(self.members, self.loudness, strict=True):
            moves, places = voice.heads(waveforms, lengths, wanted, budget)
            magnitude, position = magnitude + loudness * unit_rms(moves, lengths), position + places
        return magnitude, position


def _voice(architecture: str = Mirror.architecture, **settings: Any) -> Voice:
    return VOICES[architecture](**settings)


def _settings(voice: Voice) -> dict[str, Any]:
    return {"architecture": voice.architecture, **voice.settings}
