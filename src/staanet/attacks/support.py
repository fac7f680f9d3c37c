"""Where an attack prefers to change samples, and randomness that belongs to a clip."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from staanet.audio import psychoacoustics
from staanet.core import clip_generators
from staanet.errors import InvalidInput


def sum_runs(score: Tensor, run_length: int) -> Tensor:
    """Each sample's score becomes the sum over its run of ``burst`` samples, ``[B, T] -> [B, T]``.

    >>> sum_runs(torch.tensor([[1.0, 2.0, 3.0]]), 2)
    tensor([[3., 3., 3.]])
    """
    if run_length < 1:
        raise InvalidInput(f"burst is {run_length}", remedy="Give 1 sample (no bursts) or more")
    batch, time = score.shape
    whole = torch.nn.functional.pad(score, (0, -time % run_length))
    runs = whole.reshape(batch, -1, run_length).sum(dim=2)
    return runs.repeat_interleave(run_length, dim=1)[:, :time]


def masking_weight(
    x: Tensor, lengths: Tensor | None, sample_rate: int, masking_power: float
) -> Tensor:
    """What share of epsilon each sample of ``x [B, T]`` may move by, and how it is preferred, in (0, 1].

    ``psychoacoustics.masking_weight`` to the power of ``hide``: 0 is the same everywhere, 1 moves a
    sample by no more, against others, than what sounds then hides. Raises ``InvalidInput`` for a
    ``hide`` below 0 or not finite.

    >>> masking_weight(torch.zeros(1, 3), None, 16_000, 0)
    tensor([[1., 1., 1.]])
    """
    if not 0 <= masking_power < math.inf:
        raise InvalidInput(
            f"hide is {masking_power}", remedy="Give 0 (nowhere in particular) or more, such as 1"
        )
    if not masking_power:
        return torch.ones_like(x)
    return psychoacoustics.masking_weight(x, lengths, sample_rate) ** masking_power


def clip_noise(x: Tensor, lengths: Tensor | None, seed: int, draws: int = 1) -> Tensor:
    """Uniform numbers in [0, 1), ``[draws, B, T]``, that depend on each clip and the seed alone.

    So a clip is attacked alike whatever batch, order or machine it comes in.
    """
    batch, time = x.shape
    noise = torch.zeros(draws, batch, time)
    for row, own in enumerate(clip_generators(x, lengths, seed)):
        length = time if lengths is None else int(lengths[row])
        noise[:, row, :length] = torch.rand(draws, length, generator=own)
    return noise.to(x.device)
