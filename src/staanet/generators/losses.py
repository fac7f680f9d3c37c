"""What STAA-Net minimises: the terms of its loss, per clip, and how sparsity is weighed.

Chang et al. 2024, arXiv 2402.01227, section III. The published code sums norms over the whole
batch; here each term is a mean over a clip's own samples and then over clips, so that a weight means
the same at any batch size and clip length.
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

    ``quantisation`` and ``mixing`` are the paper's means against a mask between 0 and 1. Where the mask is
    shifted to its share of samples neither changed anything that was measured, so neither is on by default.
    """

    kappa: float = math.inf
    """A clip fooled by this margin pushes no further; the paper's 0 stops at the boundary."""
    magnitude: float = 0.0
    quantisation: float = 0.0
    mixing: bool = False
    """Train on ``mixed_mask`` rather than on the soft mask."""
    sparsity: float | None = None
    """A fixed weight, as in the paper; None: a controller's."""

    def terms(self, margin: Tensor, change: Perturbation, binary: Tensor) -> Terms:
        """The goal's ``margin [B]`` on the adversarial clips, what the generator proposed, and the
        ``binary [B, T]`` mask that the budget leaves of it -> terms.

        adversarial: ``max(margin, -kappa)``; magnitude: root mean square of v in units of epsilon;
        sparsity: mean of p, so that every position gets its gradient; quantisation: root mean square
        distance of p from the binary mask.
        """
        return Terms(
            adversarial=margin.clamp_min(-self.kappa),
            magnitude=_rms(change.magnitude),
            sparsity=change.position.mean(dim=1),
            quantisation=_rms(binary.to(change.position.dtype) - change.position),
        )

    def mask(self, position: Tensor, binary: Tensor, uniform: Tensor) -> Tensor:
        """What training multiplies the magnitudes by, ``[B, T]``; ``uniform [B, T]`` draws the mixture."""
        return mixed_mask(position, binary, uniform) if self.mixing else position

    def loss(self, terms: Terms, sparsity_weight: float) -> Tensor:
        """The weighted sum, averaged over clips."""
        fixed = self.sparsity
        weighted = (
            terms.adversarial
            + self.magnitude * terms.magnitude
            + (sparsity_weight if fixed is None else fixed) * terms.sparsity
            + self.quantisation * terms.quantisation
        )
        return weighted.mean()


def _rms(values: Tensor) -> Tensor:
    return values.square().mean(dim=1).add(1e-12).sqrt()  # a finite gradient at zero


def mixed_mask(position: Tensor, binary: Tensor, uniform: Tensor) -> Tensor:
    """The paper's mask in training: the soft p where ``uniform < 1/2``, else the binary choice without gradient.

    >>> mixed_mask(torch.tensor([[0.3, 0.9]]), torch.tensor([[0, 1]]), torch.tensor([[0.1, 0.7]]))
    tensor([[0.3000, 1.0000]])
    """
    return torch.where(uniform < 0.5, position, binary.to(position.dtype))


@dataclass(slots=True)
class SparsityController:
    """Weighs the sparsity term so that the share of wanted samples comes down to ``target``.

    The weight is 0 for the first ``warmup`` steps. Then it follows the excess density exponentially,
    and lets go whenever fooling falls below ``patience`` of the best it has been: a fixed weight
    either empties the mask within an epoch or leaves it full.
    """

    target: float
    warmup: int
    rate: float = 0.02
    first: float = 0.02
    patience: float = 0.8
    memory: float = 0.95
    weight: float = 0.0
    fooling: float = 0.0
    best: float = 0.0

    def update(self, step: int, density: float, fooling: float) -> None:
        """Take a step's density of positions >= 1/2 and its fooling rate, both in [0, 1], in."""
        self.fooling = self.memory * self.fooling + (1 - self.memory) * fooling
        self.best = max(self.best, self.fooling)
        if step + 1 < self.warmup:
            return
        excess = max(-1.0, min(1.0, (density - self.target) / self.target))
        if self.fooling < self.patience * self.best:
            excess = -1.0
        self.weight = max(self.weight, self.first) * math.exp(self.rate * excess)
