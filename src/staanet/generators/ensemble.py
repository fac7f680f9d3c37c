"""A generator that adds the proposals of several, each with the classifier of another source.

A change that only one classifier would react to cancels, a change that several would react to stays. An
ensemble of sources transfers best (Liu et al., 2017, arXiv 1611.02770; Dong et al., 2018,
arXiv 1710.06081).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from staanet.core import Budget
from staanet.generators.backward_net import BackwardNet
from staanet.generators.base import Generator, unit_rms
from staanet.generators.iterative import IterativeGenerator
from staanet.generators.surrogate import SurrogateGradient

MEMBERS: dict[str, type[IterativeGenerator]] = {
    kind.architecture: kind for kind in (BackwardNet, SurrogateGradient)
}


class _Members(nn.ModuleList):
    """A list of modules of which the type checker knows the kind."""

    def __iter__(self) -> Iterator[IterativeGenerator]:
        return cast(Iterator[IterativeGenerator], super().__iter__())


class EnsembleGenerator(Generator):
    """The weighted sum of its members' proposals; the weights are learned.

    Args:
        members: The settings of each member, with its ``architecture`` (a key of ``MEMBERS``).
        settings: ``gain``, ``density``, ``sample_rate`` and ``labels`` of ``Generator``.
    """

    architecture = "ensemble"
    is_ranked_by_magnitude = True

    def __init__(self, *, members: Sequence[Mapping[str, Any]], **settings: Any) -> None:
        super().__init__(**{"gain": 2.0, "density": None, **settings})
        self.members = _Members(_build_member(**member) for member in members)
        self.weights = nn.Parameter(torch.ones(len(members)))
        self.settings |= {"members": [_member_settings(member) for member in self.members]}

    @classmethod
    def of(cls, members: Sequence[IterativeGenerator], **settings: Any) -> EnsembleGenerator:
        """Returns an ensemble of existing generators, which it shares."""
        ensemble = cls(members=[_member_settings(member) for member in members], **settings)
        ensemble.members = _Members(members)
        return ensemble.to(next(members[0].parameters()).device)

    def freeze_encoder(self) -> None:
        """Freezes the classifiers of all members."""
        for member in self.members:
            member.freeze_encoder()

    def with_iterations(self, iterations: int) -> Self:
        """Returns the same members, each with another number of iterations."""
        other = copy.copy(self)
        members = _Members(member.with_iterations(iterations) for member in self.members)
        other._modules = {**self._modules, "members": members}
        return other

    def heads(
        self,
        waveforms: Tensor,
        lengths: Tensor | None,
        target_class: Tensor | None,
        budget: Budget | None = None,
    ) -> tuple[Tensor, Tensor]:
        magnitude = position = waveforms.new_zeros(())
        for member, weight in zip(self.members, self.weights, strict=True):
            member_magnitude, member_position = member.heads(
                waveforms, lengths, target_class, budget
            )
            magnitude = magnitude + weight * unit_rms(member_magnitude, lengths)
            position = position + member_position
        return magnitude, position


def _build_member(architecture: str, **settings: Any) -> IterativeGenerator:
    return MEMBERS[architecture](**settings)


def _member_settings(member: IterativeGenerator) -> dict[str, Any]:
    return {"architecture": member.architecture, **member.settings}
