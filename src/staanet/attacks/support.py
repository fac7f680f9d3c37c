"""Which samples an attack may touch, and randomness that belongs to a clip."""

from __future__ import annotations

import torch
from torch import Tensor

from staanet.core import Budget, clip_generators


def best_ranked(score: Tensor, budget: Budget, lengths: Tensor | None = None) -> Tensor:
    """The samples of highest ``score [B, T]`` that the budget allows, ``[B, T]`` bool.

    Samples beyond ``lengths`` and samples of score ``-inf`` are never chosen.

    >>> best_ranked(torch.tensor([[0.1, 0.9, 0.5]]), Budget(epsilon=0.1, max_l0=2))
    tensor([[False,  True,  True]])
    """
    batch, time = score.shape
    chosen = torch.zeros(batch, time, dtype=torch.bool, device=score.device)
    for row in range(batch):
        length = time if lengths is None else int(lengths[row])
        count = budget.max_samples(length)
        places = score[row, :length].topk(count).indices if count < length else slice(length)
        chosen[row, places] = True
    return chosen & (score > -torch.inf)


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
