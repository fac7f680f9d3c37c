"""Universal perturbation: learned once on training clips, then added to any clip without a victim call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from staanet import audio, storage
from staanet.attacks.loss import goal_loss, unit_l1
from staanet.config import VectorRecipe
from staanet.config.epsilon import Epsilon
from staanet.core import Budget, Goal, Victim, goal_on, possible_answers, valid_mask
from staanet.core.top_k import top_k_mask
from staanet.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UAP:
    """Universal adversarial perturbation (Moosavi-Dezfooli et al., 2017, arXiv:1610.08401).

    ``vector [V]`` is repeated from a clip's first sample to its last. The source is not called:
    ``fit_uap`` learned the vector, and ``target`` is the class that it leads to (None: any other class).
    Where the budget allows fewer samples than a clip has, those of the highest ``importance [V]`` move;
    without it, those that the vector moves furthest. Where epsilon is relative, the vector counts in
    units of each clip's epsilon.
    """

    vector: Tensor
    importance: Tensor | None = None
    budget: Budget = Budget(epsilon=0.03)
    target: int | None = None

    def __post_init__(self) -> None:
        if self.vector.ndim != 1 or len(self.vector) == 0:
            raise InvalidInput(
                f"a universal vector of shape {tuple(self.vector.shape)} cannot be repeated",
                remedy="Give one row of samples, [V], such as fit_uap returns",
            )
        if self.importance is not None and self.importance.shape != self.vector.shape:
            raise InvalidInput(
                f"a vector of {len(self.vector)} samples with an importance of shape "
                f"{tuple(self.importance.shape)}",
                remedy="Give one importance per sample, [V], such as fit_uap returns",
            )

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        if goal.is_targeted != (self.target is not None):
            learned = (
                "change the prediction" if self.target is None else f"reach class {self.target}"
            )
            raise InvalidInput(
                f"this vector was learned to {learned}",
                remedy="Learn another one: fit_uap(..., target=CLASS), without it to change the prediction",
            )
        epsilon = self.budget.epsilon_of(x, lengths, source.sample_rate)
        scale = epsilon if self.budget.is_relative else 1
        delta = (tile_to_length(self.vector.to(x), x.shape[1]) * scale).clamp(-epsilon, epsilon)
        ranked = self.vector.abs() if self.importance is None else self.importance
        support = top_k_mask(
            tile_to_length(ranked.to(x), x.shape[1]).expand_as(x), self.budget, lengths
        )
        return (x + delta * support).clamp(-1, 1)


def tile_to_length(vector: Tensor, time: int) -> Tensor:
    """Returns the vector again and again, cut at the end, ``[V] -> [time]``.

    >>> tile_to_length(torch.tensor([1, 2, 3]), 5)
    tensor([1, 2, 3, 1, 2])
    """
    return vector.repeat(-(-time // len(vector)))[:time]


def fit_uap(
    source: Victim,
    batches: Iterable[tuple[Tensor, Tensor | None]],
    recipe: VectorRecipe,
    *,
    target: int | None = None,
    seed: int = 0,
) -> UAP:
    """Learns a universal vector on training clips (Shafahi et al., 2020, arXiv:1811.11304).

    It starts from random signs. Each batch is one step that raises the cross-entropy of the clips'
    classes, clipped at beta, along the sign of the decaying mean of the gradients. A limit on samples
    holds for the vector: the ones of the largest mean gradient count, chosen anew after each step.

    Args:
        source: The victim to fool.
        batches: ``(x [B, T], lengths [B] or None)``; chain them to go through the clips several times.
        recipe: Budget, length and step size; its numbers of steps and clips are the caller's.
        target: Class to reach; None: any but the clip's own prediction.
        seed: Of the random signs.
    """
    budget = Budget(epsilon=recipe.epsilon, max_density=recipe.max_density)
    epsilon = _unit(budget)
    step = recipe.relative_step * epsilon
    length = round(recipe.seconds * source.sample_rate)
    signs = 2 * torch.randint(2, (length,), generator=torch.Generator().manual_seed(seed)) - 1
    vector = epsilon * signs.to(source.device, torch.float32)
    mean, support = torch.zeros_like(vector), torch.ones_like(vector)
    for x, lengths in batches:
        goal = _goal(source, x, lengths, target)
        applied = (vector * support).requires_grad_()
        with torch.enable_grad():
            inside = 1 if lengths is None else valid_mask(lengths, x.shape[1])
            scale = budget.epsilon_of(x, lengths, source.sample_rate) if budget.is_relative else 1
            x_adv = (x + tile_to_length(applied, x.shape[1]) * inside * scale).clamp(-1, 1)
            loss = goal_loss(goal, source(x_adv, lengths), "cross_entropy")
            clipped = loss if target is not None else loss.clamp_min(-recipe.clip_at)
            (gradient,) = torch.autograd.grad(clipped.sum(), applied)
        gradient = unit_l1(gradient[None])[0]
        mean = recipe.decay * mean + (1 - recipe.decay) * gradient
        vector = (vector - step * mean.sign()).clamp(-epsilon, epsilon)
        support = top_k_mask(mean.abs()[None], budget)[0].to(vector)
    # a sample that walked back to 0 moves once more, so that none stands still
    vector = torch.where(vector.abs() < step / 2, -step * mean.sign(), vector)
    return UAP(vector=vector.detach(), importance=mean.abs(), budget=budget, target=target)


def save_uap(uap: UAP, folder: Path | str, **card: Any) -> None:
    """Writes the vector and its importance as ``model.safetensors``, then ``card.json``."""
    importance = uap.vector.abs() if uap.importance is None else uap.importance
    tensors = {"vector": uap.vector, "importance": importance}
    card = {"epsilon": uap.budget.epsilon, "target": uap.target, **card}
    storage.save_model(folder, kind="vector", tensors=tensors, card=card)


def load_uap(folder: Path | str, budget: Budget) -> UAP:
    """Reads a saved vector, and scales it from the epsilon that it was learned at to the budget's.

    Raises ``InvalidInput`` where the folder holds no vector, or a damaged one.
    """
    tensors, card = storage.load_model(folder, kind="vector")
    return storage.build_from_card(
        lambda: UAP(
            vector=tensors["vector"] * (_size(budget.epsilon) / _size(card["epsilon"])),
            importance=tensors["importance"],
            budget=budget,
            target=card["target"],
        ),
        folder,
    )


def _size(epsilon: Epsilon) -> float:
    """Largest value of a vector, as its card has it; 1 where it counts in units of a clip's epsilon."""
    return 1.0 if isinstance(epsilon, str) else float(epsilon)


def _unit(budget: Budget) -> float:
    """Largest value of a vector on the 16-bit grid."""
    return 1.0 if budget.is_relative else budget.epsilon_lsb / audio.FULL_SCALE


def _goal(source: Victim, x: Tensor, lengths: Tensor | None, target: int | None) -> Goal:
    return goal_on(source, x, lengths, None if target is None else possible_answers(source)[target])
