"""Several victims as one source, for a gradient that must fool all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from staanet.core import Victim
from staanet.errors import InvalidInput


class Ensemble(Victim):
    """The mean of its ``members``' log-probabilities (Liu et al. 2017, arXiv 1611.02770), or numbers.

    The members must have the same labels in the same order and the same sample rate. The name joins
    theirs by commas. An attack on the ensemble is white box on each member. It is not saved on disk.
    """

    architecture = "ensemble"

    def __init__(self, members: Sequence[Victim]) -> None:
        first = members[0]
        for member in members:
            for what in ("labels", "sample_rate", "tolerance"):
                expected, value = getattr(first, what), getattr(member, what)
                if expected != value:
                    raise InvalidInput(
                        f"{first.name} has {what} {expected}, {member.name} has {value}",
                        remedy="Give sources that were trained on the same classes and rate",
                    )
        names = [member.name for member in members]
        if len(set(names)) < len(names):
            raise InvalidInput(
                f"two sources are called {max(names, key=names.count)}", remedy="Rename one"
            )
        super().__init__(
            name=",".join(names),
            labels=first.labels,
            sample_rate=first.sample_rate,
            tolerance=first.tolerance,
        )
        self.members = nn.ModuleList(members)
        self.origin = ",".join(member.origin for member in members)
        self.minimum_samples = max(member.minimum_samples for member in members)
        self.differentiable = all(member.differentiable for member in members)

    def compute_sha256(self) -> str | None:
        """One hash for those of its members; ``None`` if a member has none."""
        hashes = [member.sha256 for member in members_of(self)]
        return None if None in hashes else joint_sha256([str(digest) for digest in hashes])

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        outputs = [member(waveforms, lengths) for member in self.members]
        if self.task == "classification":
            outputs = [torch.log_softmax(logits, dim=1) for logits in outputs]
        return torch.stack(outputs).mean(dim=0)

    def save_pretrained(self, folder: object, **card: Any) -> None:
        """Raises ``InvalidInput``: an ensemble is named by its members and not saved."""
        raise InvalidInput(f"{self.name} is an ensemble", remedy="Keep each of its members")


def members_of(victim: Victim) -> list[Victim]:
    """The members of an ensemble; of any other victim, that victim alone."""
    if not isinstance(victim, Ensemble):
        return [victim]
    return [member for member in victim.members if isinstance(member, Victim)]


def joint_sha256(hashes: Sequence[str]) -> str:
    """One hash for several; the hash itself where there is only one."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(",".join(hashes).encode()).hexdigest()
