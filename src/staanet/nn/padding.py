"""For networks that must never see padding: clips of one length at a time, each cut to it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from staanet.core import Victim
from staanet.errors import InvalidInput


def by_length(
    network: Callable[[Tensor], Tensor], waveforms: Tensor, lengths: Tensor | None
) -> Tensor:
    """``network`` on the clips of each length apart, ``[B, T] -> [B, K]`` in the batch's order.

    >>> by_length(lambda x: x.mean(dim=1, keepdim=True), torch.eye(2), torch.tensor([1, 2]))
    tensor([[1.0000],
            [0.5000]])
    """
    if lengths is None:
        return network(waveforms)
    answers, places = [], []
    for length in torch.unique(lengths).tolist():
        rows = (lengths == length).nonzero().squeeze(1)
        answers.append(network(waveforms[rows, :length]))
        places.append(rows)
    return torch.cat(answers)[torch.cat(places).argsort()]


def require_samples(victim: Victim, time: int) -> None:
    """Raise ``InvalidInput`` where clips of ``time`` samples are too short for a victim."""
    if time < victim.minimum_samples:
        raise InvalidInput(
            f"{time} samples are fewer than the {victim.minimum_samples} that {victim.name} needs",
            remedy="Give a longer clip",
        )


def receptive_field(kernels: list[int], strides: list[int]) -> int:
    """Samples that the first output of a stack of convolutions sees.

    >>> receptive_field([10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2])
    400
    """
    field, hop = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        field, hop = field + (kernel - 1) * hop, hop * stride
    return field
