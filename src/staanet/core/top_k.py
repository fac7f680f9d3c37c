"""Selects the samples of highest score that a budget allows to change."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from staanet.core.budget import Budget
from staanet.core.victim import valid_mask


def top_k_mask(score: Tensor, budget: Budget, lengths: Tensor | None = None) -> Tensor:
    """Returns which samples of highest ``score [B, T]`` the budget allows to change, ``[B, T]`` bool.

    Samples beyond ``lengths`` and samples of score ``-inf`` are never chosen.

    >>> top_k_mask(torch.tensor([[0.1, 0.9, 0.5]]), Budget(epsilon=0.1, max_l0=2))
    tensor([[False,  True,  True]])
    """
    time = score.shape[1]
    sizes = [time] * len(score) if lengths is None else lengths.tolist()
    counts = [budget.max_samples(size) for size in sizes]
    able = score > -torch.inf
    if lengths is not None:
        able = able & valid_mask(lengths, time)
        score = score.masked_fill(~able, -torch.inf)
    if counts == sizes:
        return able
    places, nowhere = top_k_values(score, counts).indices, torch.zeros_like(able)
    if are_equal(counts):
        return able & nowhere.scatter(1, places, 1)
    is_within = torch.arange(max(counts), device=score.device) < column(counts, score.device)
    return able & nowhere.scatter(1, places, is_within)


def top_k_values(score: Tensor, counts: Sequence[int]) -> torch.return_types.topk:
    """Returns the highest values of ``score [B, T]`` and their indices, ``[B, max(counts)]``.

    Of row ``b`` the first ``counts[b]`` count. They are in descending order; where all ``counts`` are
    equal, in no order.

    >>> top_k_values(torch.tensor([[0.1, 0.9, 0.5], [7.0, 6.0, 8.0]]), [2, 1]).indices
    tensor([[1, 2],
            [2, 0]])
    """
    return score.topk(max(counts), dim=1, sorted=not are_equal(counts))


def are_equal(counts: Sequence[int]) -> bool:
    """Whether all counts are the same.

    >>> are_equal([2, 2]), are_equal([2, 1])
    (True, False)
    """
    return min(counts) == max(counts)


def column(counts: Sequence[int], device: torch.device) -> Tensor:
    """Returns the counts as a column ``[B, 1]``."""
    return torch.tensor(counts, device=device)[:, None]
