"""Weights that steer which samples an attack changes: runs of samples, and masked parts of a clip."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from staanet.audio import psychoacoustics
from staanet.errors import InvalidInput


def sum_runs(score: Tensor, run_length: int) -> Tensor:
    """Returns for each sample the sum of the scores in its run of ``run_length``, ``[B, T] -> [B, T]``.

    >>> sum_runs(torch.tensor([[1.0, 2.0, 3.0]]), 2)
    tensor([[3., 3., 3.]])
    """
    if run_length < 1:
        raise InvalidInput(f"run_length is {run_length}", remedy="Give 1 sample (no runs) or more")
    batch, time = score.shape
    whole = torch.nn.functional.pad(score, (0, -time % run_length))
    runs = whole.reshape(batch, -1, run_length).sum(dim=2)
    return runs.repeat_interleave(run_length, dim=1)[:, :time]


def masking_weight(
    x: Tensor, lengths: Tensor | None, sample_rate: int, masking_power: float
) -> Tensor:
    """Returns the share of epsilon that each sample may move by, ``[B, T]`` in (0, 1].

    It is the clip's masking threshold relative to its maximum, to the power ``masking_power``: 0 treats
    all samples alike, 1 follows the threshold. Raises ``InvalidInput`` for a negative or infinite power.

    >>> masking_weight(torch.zeros(1, 3), None, 16_000, 0)
    tensor([[1., 1., 1.]])
    """
    if not 0 <= masking_power < math.inf:
        raise InvalidInput(
            f"masking_power is {masking_power}",
            remedy="Give 0 (nowhere in particular) or more, such as 1",
        )
    if not masking_power:
        return torch.ones_like(x)
    return psychoacoustics.masking_weight(x, lengths, sample_rate) ** masking_power
