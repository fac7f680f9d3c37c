"""The losses that white-box attacks minimise: the margin of a goal, or the cross-entropy of the papers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from staanet.core import Goal, Shift, Targeted, Victim, valid_mask
from staanet.errors import unknown_name

Loss = Literal["cross_entropy", "margin"]
LOSSES: tuple[Loss, ...] = ("cross_entropy", "margin")


def check_loss(loss: str) -> None:
    """Raises ``InvalidInput`` for a loss that is not in ``LOSSES``."""
    if loss not in LOSSES:
        raise unknown_name("loss", loss, LOSSES)


def goal_loss(goal: Goal, logits: Tensor, loss: Loss) -> Tensor:
    """Returns the loss that an attack lowers, ``[B, K] -> [B]``.

    * ``margin``: the goal's margin, negative once the goal is reached.
    * ``cross_entropy``: the log-probability of the clip's class, or minus that of the target class.

    Numbers have no cross-entropy: of a ``Shift`` both are the margin.

    >>> logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    >>> goal_loss(Targeted(0), logits, "cross_entropy").exp()
    tensor([2.])
    """
    if loss == "margin" or isinstance(goal, Shift):
        return goal.margin(logits)
    label = torch.as_tensor(goal.label, device=logits.device).expand(len(logits))[:, None]
    others = logits.scatter(1, label, -torch.inf).logsumexp(dim=1)
    log_odds = logits.gather(1, label).squeeze(1) - others
    # log p = -softplus(-log_odds), and its slope p_others underflows for a very sure classifier
    slope = torch.sigmoid(-log_odds).clamp_min(1e-30).detach()
    log_probability = -F.softplus(-log_odds).detach() + slope * (log_odds - log_odds.detach())
    return -log_probability if isinstance(goal, Targeted) else log_probability


@dataclass(frozen=True, slots=True)
class AttackTask:
    """The arguments of an attack's call: the source, clips ``x [B, T]``, the goal and ``lengths [B]``."""

    source: Victim
    x: Tensor
    goal: Goal
    lengths: Tensor | None

    def rows(self, rows: Sequence[int]) -> AttackTask:
        """Returns the task of some of the clips, each as often as it is named."""
        lengths = None if self.lengths is None else self.lengths[rows]
        return AttackTask(self.source, self.x[rows], self.goal.select(rows), lengths)

    def gradient(self, x: Tensor, loss: Loss = "margin") -> Tensor:
        """Returns the gradient of each clip's loss with respect to its samples, at ``x [B, T]``."""
        return self.gradient_and_logits(x, loss)[0]

    def gradient_and_logits(self, x: Tensor, loss: Loss = "margin") -> tuple[Tensor, Tensor]:
        """Returns the gradient ``[B, T]`` and the logits ``[B, K]`` of one pass."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = self.source(x, self.lengths)
            (gradient,) = torch.autograd.grad(goal_loss(self.goal, logits, loss).sum(), x)
        return gradient, logits.detach()

    @property
    def inside(self) -> Tensor:
        """The samples that belong to their clip, ``[B, T]`` bool."""
        if self.lengths is None:
            return torch.ones_like(self.x, dtype=torch.bool)
        return valid_mask(self.lengths, self.x.shape[1])


def unit_l1(gradient: Tensor) -> Tensor:
    """Returns each clip's gradient ``[B, T]`` over its L1 norm; zero stays zero.

    >>> unit_l1(torch.tensor([[3.0, -1.0], [0.0, 0.0]]))
    tensor([[ 0.7500, -0.2500],
            [ 0.0000,  0.0000]])
    """
    norm = gradient.abs().sum(dim=1, keepdim=True)
    return gradient / norm.clamp_min(torch.finfo(gradient.dtype).tiny)
