"""Helps networks to ignore padding, and pads clips that are shorter than a network's minimum."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from staanet.core import Victim
from staanet.errors import InvalidInput


def run_by_length(
    network: Callable[[Tensor], Tensor], waveforms: Tensor, lengths: Tensor | None
) -> Tensor:
    """Runs ``network`` on the clips of each length separately, cut to that length.

    ``[B, T] -> [B, K]``, rows in the order of the batch.

    >>> run_by_length(lambda x: x.mean(dim=1, keepdim=True), torch.eye(2), torch.tensor([1, 2]))
    tensor([[1.0000],
            [0.5000]])
    """
    if lengths is None:
        return network(waveforms)
    outputs, order = [], []
    for length in torch.unique(lengths).tolist():
        rows = (lengths == length).nonzero().squeeze(1)
        outputs.append(network(waveforms[rows, :length]))
        order.append(rows)
    return torch.cat(outputs)[torch.cat(order).argsort()]


def require_samples(victim: Victim, time: int) -> None:
    """Raises ``InvalidInput`` where clips of ``time`` samples are too short for a victim."""
    if time < victim.minimum_samples:
        raise InvalidInput(
            f"{time} samples are fewer than the {victim.minimum_samples} that {victim.name} needs",
            remedy="Give a longer clip",
        )


def receptive_field(kernels: list[int], strides: list[int]) -> int:
    """Returns how many samples the first output of a stack of convolutions sees.

    >>> receptive_field([10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2])
    400
    """
    field, hop = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        field, hop = field + (kernel - 1) * hop, hop * stride
    return field
