"""Goals of an attack: untargeted and targeted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Untargeted:
    """Any answer but ``label`` (the source's own clean answer, ``int`` or ``[B]``)."""

    label: Tensor | int

    def margin(self, logits: Tensor) -> Tensor:
        """``z_c - max_{i != c} z_i``, ``[B, K] -> [B]``: negative once the attack has succeeded.

        >>> Untargeted(0).margin(torch.tensor([[3.0, 1.0, 2.0]]))
        tensor([1.])
        """
        score, other = _scores_of_label_and_best_other(logits, self.label)
        return score - other

    def achieved(self, logits: Tensor) -> Tensor:
        """``[B, K] -> [B]`` bool: the answer is another."""
        return logits.argmax(dim=1) != _as_rows(self.label, logits)


@dataclass(frozen=True, slots=True)
class Targeted:
    """The answer ``label`` and no other."""

    label: Tensor | int

    def margin(self, logits: Tensor) -> Tensor:
        """``max_{i != t} z_i - z_t``, ``[B, K] -> [B]``: negative once the attack has succeeded.

        >>> Targeted(1).margin(torch.tensor([[3.0, 1.0, 2.0]]))
        tensor([2.])
        """
        score, other = _scores_of_label_and_best_other(logits, self.label)
        return other - score

    def achieved(self, logits: Tensor) -> Tensor:
        """``[B, K] -> [B]`` bool: the answer is the wanted one."""
        return logits.argmax(dim=1) == _as_rows(self.label, logits)


Goal = Untargeted | Targeted


def _as_rows(label: Tensor | int, logits: Tensor) -> Tensor:
    return torch.as_tensor(label, device=logits.device).expand(len(logits))


def _scores_of_label_and_best_other(logits: Tensor, label: Tensor | int) -> tuple[Tensor, Tensor]:
    rows = _as_rows(label, logits)[:, None]
    score = logits.gather(1, rows).squeeze(1)
    return score, logits.scatter(1, rows, -math.inf).amax(dim=1)
