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
from staanet.generators.backward_net import BackwardNet
from staanet.generators.base import Generator, unit_rms
from staanet.generators.surrogate import SurrogateGradient

Member = BackwardNet | SurrogateGradient
MEMBERS: dict[str, type[Member]] = {
    kind.architecture: kind for kind in (BackwardNet, SurrogateGradient)
}


class EnsembleGenerator(Generator):
    """``members`` are the settings of its members, with the ``architecture`` of each (default:
    mirror); how loud each one is, is learned."""

    architecture = "ensemble"
    ranked_by_magnitude = True

    def __init__(
        self,
        *,
        members: Sequence[Mapping[str, Any]],
        gain: float | None = 2.0,
        density: float | None = None,
        sample_rate: int = 16_000,
        labels: Sequence[str] = (),
    ) -> None:
        super().__init__(gain=gain, density=density, sample_rate=sample_rate, labels=labels)
        self.members = nn.ModuleList(_member(**settings) for settings in members)
        self.member_weights = nn.Parameter(torch.ones(len(members)))
        self.settings |= {"members": [_settings(voice) for voice in self.member_list]}

    @classmethod
    def of(cls, members: Sequence[Member], **settings: Any) -> EnsembleGenerator:
        """A chorus of members as they are."""
        ensemble = cls(members=[_settings(voice) for voice in members], **settings)
        ensemble.members = nn.ModuleList(members)
        return ensemble.to(next(members[0].parameters()).device)

    @property
    def member_list(self) -> list[Member]:
        """Its members."""
        return [
            voice for voice in self.members if isinstance(voice, BackwardNet | SurrogateGradient)
        ]

    def freeze_encoder(self) -> None:
        """Train the ways back alone; see ``BackwardNet.freeze_encoder``."""
        for voice in self.member_list:
            voice.freeze_encoder()

    def with_iterations(self, iterations: int) -> Self:
        """The same members, each with another number of iterations."""
        other = copy.copy(self)
        other._modules = {
            **self._modules,
            "members": nn.ModuleList(one.with_iterations(iterations) for one in self.member_list),
        }
        return other

    def heads(
        self,
        waveforms: Tensor,
        lengths: Tensor | None,
        target_class: Tensor | None,
        budget: Budget | None = None,
    ) -> tuple[Tensor, Tensor]:
        magnitude = position = waveforms.new_zeros(())
        for voice, member_weights in zip(self.member_list, self.member_weights, strict=True):
            moves, places = voice.heads(waveforms, lengths, target_class, budget)
            magnitude, position = (
                magnitude + member_weights * unit_rms(moves, lengths),
                position + places,
            )
        return magnitude, position


def _member(architecture: str = BackwardNet.architecture, **settings: Any) -> Member:
    return MEMBERS[architecture](**settings)


def _settings(voice: Member) -> dict[str, Any]:
    return {"architecture": voice.architecture, **voice.settings}
