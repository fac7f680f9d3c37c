"""The loss of STAA-Net: four terms per clip, and the controller of the sparsity weight.

Chang et al., 2024, arXiv 2402.01227, section III. The published code sums norms over the whole batch.
Here each term is a mean over the samples of a clip and then over clips, so that a weight means the same
at any batch size and clip length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from staanet.generators.base import Perturbation


class Terms(NamedTuple):
    """The four terms, each ``[B]``."""

    adversarial: Tensor
    magnitude: Tensor
    sparsity: Tensor
    quantisation: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Weights of the terms (the paper's lambda_mag, lambda_qua, kappa); sparsity has a controller.

    ``quantisation`` and ``mixing`` are the paper's means against a mask between 0 and 1. Both are off by
    default: where the mask is shifted to its density, neither changed anything that was measured.
    """

    kappa: float = math.inf
    """A clip fooled by this margin adds nothing more; the paper's 0 stops at the boundary."""
    magnitude: float = 0.0
    quantisation: float = 0.0
    mixing: bool = False
    """Whether to train on ``mixed_mask`` rather than on the soft mask."""
    sparsity: float | None = None
    """A fixed weight, as in the paper; None: the controller's."""

    def terms(self, margin: Tensor, change: Perturbation, binary: Tensor) -> Terms:
        """Returns the terms of a batch.

        * adversarial: ``max(margin, -kappa)``
        * magnitude: root mean square of v, in units of epsilon
        * sparsity: mean of p, so that every position gets its gradient
        * quantisation: root mean square distance of p from the binary mask

        Args:
            margin: The goal's margin on the adversarial clips, ``[B]``.
            change: What the generator proposed.
            binary: The mask that the budget makes of it, ``[B, T]``.
        """
        return Terms(
            adversarial=margin.clamp_min(-self.kappa),
            magnitude=_rms(change.magnitude),
            sparsity=change.position.mean(dim=1),
            quantisation=_rms(binary.to(change.position.dtype) - change.position),
        )

    def mask(self, position: Tensor, binary: Tensor, uniform: Tensor) -> Tensor:
        """Returns what training multiplies the magnitudes by, ``[B, T]``; see ``mixed_mask``."""
        return mixed_mask(position, binary, uniform) if self.mixing else position

    def loss(self, terms: Terms, sparsity_weight: float) -> Tensor:
        """Returns the weighted sum of the terms, averaged over clips."""
        weight = sparsity_weight if self.sparsity is None else self.sparsity
        weighted = (
            terms.adversarial
            + self.magnitude * terms.magnitude
            + weight * terms.sparsity
            + self.quantisation * terms.quantisation
        )
        return weighted.mean()


def _rms(values: Tensor) -> Tensor:
    return values.square().mean(dim=1).add(1e-12).sqrt()  # a finite gradient at zero


def mixed_mask(position: Tensor, binary: Tensor, uniform: Tensor) -> Tensor:
    """Returns the paper's mask in training: p where ``uniform < 1/2``, else the binary mask, all ``[B, T]``.

    >>> mixed_mask(torch.tensor([[0.3, 0.9]]), torch.tensor([[0, 1]]), torch.tensor([[0.1, 0.7]]))
    tensor([[0.3000, 1.0000]])
    """
    return torch.where(uniform < 0.5, position, binary.to(position.dtype))


@dataclass(slots=True)
class SparsityController:
    """Chooses the weight of the sparsity term so that the density comes down to ``target``.

    A fixed weight either empties the mask within an epoch or leaves it full. The controller's weight is
    0 for the first ``warmup`` steps. Then it follows the excess density exponentially. It falls whenever
    the fooling rate is below ``patience`` times the best so far.
    """

    target: float
    warmup: int
    rate: float = 0.02
    initial_weight: float = 0.02
    patience: float = 0.8
    smoothing: float = 0.95
    weight: float = 0.0
    fooling: float = 0.0
    best: float = 0.0

    def update(self, step: int, density: float, fooling: float) -> None:
        """Takes the density (positions of at least 1/2) and the fooling rate of a step, both in [0, 1]."""
        self.fooling = self.smoothing * self.fooling + (1 - self.smoothing) * fooling
        self.best = max(self.best, self.fooling)
        if step + 1 < self.warmup:
            return
        excess = max(-1.0, min(1.0, (density - self.target) / self.target))
        if self.fooling < self.patience * self.best:
            excess = -1.0
        self.weight = max(self.weight, self.initial_weight) * math.exp(self.rate * excess)
