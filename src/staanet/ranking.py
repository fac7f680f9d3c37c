"""Which samples a budget lets change: those that a score ranks best."""

from __future__ import annotations

import torch
from torch import Tensor

from staanet.core import Budget


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
        places = (
            score[row, :length].topk(count, sorted=False).indices
            if count < length
            else slice(length)
        )
        chosen[row, places] = True
    return chosen & (score > -torch.inf)
