"""STAA-Net: one pass of a trained generator (Chang et al. 2024, arXiv 2402.01227)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from staanet import audio
from staanet.attacks.gradient import descend, normalised
from staanet.attacks.support import best_ranked, hiding
from staanet.core import Budget, Goal, Untargeted, Victim
from staanet.errors import InvalidInput
from staanet.generator import Generator, Perturbation


@dataclass(frozen=True, slots=True, kw_only=True)
class Staa:
    """Add ``epsilon * magnitude`` where the generator's position is highest.

    How many samples that is, the budget says: one generator serves every sparsity. A budget that names
    neither share nor number takes the positions of at least 1/2, as the paper does, and one of a
    published network never more. The source is not called: what it answers was learned in training.

    Only with ``refine`` it is: that many steps of PGD go on from what the generator proposed. With
    ``hide`` a sample moves by less, and is wanted less, where the clip would not mask it; see ``PGD``.
    """

    generator: Generator
    budget: Budget = Budget(epsilon=0.03, max_density=0.2)  # the paper's epsilon
    refine: int = 0
    hide: float = 0.0

    @property
    def needs_answer(self) -> bool:
        """Whether the goal has to say what the source answers to the clean clip; see ``craft_batch``."""
        return bool(self.refine)

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        with torch.inference_mode():
            change = self.generator(x, lengths, self._wanted(source, goal, x))
            weight = hiding(x, lengths, source.sample_rate, self.hide)
            ranks = self.generator.density is not None
            if ranks:
                change = change._replace(position=change.position * weight)
            mask = chosen(change, self.budget, lengths, ranks=ranks)
            delta = (self.budget.steps / audio.FULL_SCALE) * weight * change.magnitude
            mask = quiet_enough(x, delta, change.position, mask, self.budget)
            # mask 0 leaves x bit-identical: l0 is exact
            x_adv: Tensor = (x + mask * delta).clamp(-1, 1)
        if self.refine:
            position = change.position.clone()
            so_far = normalised(-change.magnitude.sign() * position)
            x_adv = descend(
                source, x, goal, lengths, self.budget, delta.clone(), so_far, weight=weight.clone(),
                steps=self.refine, relative_step=0.5, decay=0.8,
            )  # fmt: skip
            mask = quiet_enough(x, x_adv - x, position, x_adv != x, self.budget)
            x_adv = torch.where(mask, x_adv, x)
        return x_adv

    def _wanted(self, source: Victim, goal: Goal, x: Tensor) -> Tensor | None:
        if isinstance(goal, Untargeted):
            return None
        if not self.generator.aims:
            raise InvalidInput(
                "this generator was trained to change the answer, not to reach a wanted class",
                remedy="Train one with --goal targeted, or use --attack pgd",
            )
        if self.generator.labels != source.labels:
            raise InvalidInput(
                f"the generator knows the classes {', '.join(self.generator.labels)}, "
                f"{source.name} knows {', '.join(source.labels)}",
                remedy="Aim with a generator of this source",
            )
        return torch.as_tensor(goal.label, device=x.device).expand(len(x))


def chosen(
    change: Perturbation, budget: Budget, lengths: Tensor | None = None, *, ranks: bool = False
) -> Tensor:
    """The samples of highest position that the budget allows, ``[B, T]`` bool.

    Without ``ranks``, or where the budget limits nothing, those below 1/2 are left out.
    """
    position = change.position.detach()
    limited = budget.max_density is not None or budget.max_l0 is not None
    if not (ranks and limited):
        position = position.masked_fill(position < 0.5, -torch.inf)
    return best_ranked(position, budget, lengths)


def quiet_enough(
    x: Tensor, delta: Tensor, position: Tensor, mask: Tensor, budget: Budget
) -> Tensor:
    """As many of the ``mask [B, T]``, by rank of ``position``, as ``budget.min_snr_db`` allows.

    ``x`` is zero beyond each clip, ``delta`` what a chosen sample would move by.

    >>> quiet_enough(
    ...     torch.tensor([[1.0, 1.0]]), torch.tensor([[0.1, 0.1]]), torch.tensor([[0.6, 0.7]]),
    ...     torch.tensor([[True, True]]), Budget(epsilon=0.1, min_snr_db=23),
    ... )
    tensor([[False,  True]])
    """
    if budget.min_snr_db is None:
        return mask
    allowed = x.double().square().sum(dim=1, keepdim=True) / 10 ** (budget.min_snr_db / 10)
    order = position.masked_fill(~mask, -torch.inf).argsort(dim=1, descending=True, stable=True)
    step = 0.5 / audio.FULL_SCALE  # rounding to 16 bit may move a sample so much further
    energy = (mask * (delta.abs().double() + step).square()).gather(1, order).cumsum(dim=1)
    return mask & torch.zeros_like(mask).scatter(1, order, energy <= allowed)
