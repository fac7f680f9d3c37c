"""A generator that adds the proposals of several, each with the classifier of another source.

A change that only one classifier would react to cancels, a change that several would react to stays. An
ensemble of sources transfers best (Liu et al., 2017, arXiv 1611.02770; Dong et al., 2018,
arXiv 1710.06081). All members look at the same clip in each iteration, and those that are not fooled yet
lead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from staanet.config import PAPER_EPSILON
from staanet.generators.backward_net import BackwardNet
from staanet.generators.iterative import IterativeGenerator, LogitsAndBackward
from staanet.generators.surrogate import SurrogateGradient

MEMBERS: dict[str, type[IterativeGenerator]] = {
    kind.architecture: kind for kind in (BackwardNet, SurrogateGradient)
}


class _Members(nn.ModuleList):
    """A list of modules of which the type checker knows the kind."""

    def __iter__(self) -> Iterator[IterativeGenerator]:
        return cast(Iterator[IterativeGenerator], super().__iter__())


class EnsembleGenerator(IterativeGenerator):
    """The weighted sum of its members' proposals; the weights are learned.

    Args:
        members: The settings of each member, with its ``architecture`` (a key of ``MEMBERS``).
        settings: ``iterations`` and ``epsilon`` of ``IterativeGenerator``; ``gain``, ``density``,
            ``sample_rate`` and ``labels`` of ``Generator``.
    """

    architecture = "ensemble"

    def __init__(self, *, members: Sequence[Mapping[str, Any]], **settings: Any) -> None:
        defaults = {"iterations": 1, "epsilon": PAPER_EPSILON, "gain": 2.0, "density": None}
        super().__init__(**{**defaults, **settings})
        self.members = _Members(_build_member(**member) for member in members)
        self.weights = nn.Parameter(torch.ones(len(members)))
        self.settings |= {"members": [_member_settings(member) for member in self.members]}

    @classmethod
    def of(cls, members: Sequence[IterativeGenerator], **settings: Any) -> EnsembleGenerator:
        """Returns an ensemble of existing generators, which it shares."""
        about = [_member_settings(member) for member in members]
        shared = {key: getattr(members[0], key) for key in ("iterations", "epsilon")}
        ensemble = cls(members=about, **{**shared, **settings})
        ensemble.members = _Members(members)
        return ensemble.to(next(members[0].parameters()).device)

    def freeze_encoder(self) -> None:
        """Freezes the classifiers of all members."""
        for member in self.members:
            member.freeze_encoder()

    def run_classifiers(
        self, x: Tensor, lengths: Tensor | None, features: Tensor
    ) -> list[LogitsAndBackward]:
        return [run for m in self.members for run in m.run_classifiers(x, lengths, features)]

    def member_weights(self) -> Tensor:
        return self.weights


def _build_member(architecture: str, **settings: Any) -> IterativeGenerator:
    return MEMBERS[architecture](**settings)


def _member_settings(member: IterativeGenerator) -> dict[str, Any]:
    return {"architecture": member.architecture, **member.settings}
