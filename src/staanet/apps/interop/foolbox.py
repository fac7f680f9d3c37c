"""Bridge to Foolbox: its attacks inside ``craft``, and victims as its models.

It needs the extra ``baselines``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from staanet.core import Budget, Goal, Shift, Targeted, Victim, require_classes
from staanet.core.top_k import top_k_mask
from staanet.errors import InvalidInput, needs_extra


def model(victim: Victim) -> Any:
    """Returns ``victim`` as a ``PyTorchModel`` of Foolbox with bounds [-1, 1].

    It takes clips ``[N, T]`` of one length. Raises ``InvalidInput`` where Foolbox is missing or the victim is a black box.
    """
    require_classes([victim], "Foolbox")
    if not victim.differentiable:
        raise InvalidInput(
            f"{victim.name} is a black box and gives no gradient",
            remedy="Use staanet's sparse_rs or one_pixel",
        )
    return library().PyTorchModel(victim.eval(), bounds=(-1, 1), device=str(victim.device))


@dataclass(frozen=True, slots=True, kw_only=True)
class FoolboxAttack:
    """An attack of Foolbox (Rauber et al., 2020, JOSS) as an ``Attack`` for ``craft``.

    An attack of fixed size runs at the budget's epsilon, or at ``size`` where its norm is not
    L-infinity. An attack that minimises the change runs without a limit. The change is then cut to
    epsilon. Where it takes more samples than the budget allows, the largest changes are kept.
    """

    attack: Any
    """Such as ``foolbox.attacks.LinfPGD()``."""
    budget: Budget = Budget(epsilon=0.03)
    size: float | None = None
    """Size of the change in the norm of the attack; by default the budget's epsilon."""

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        wrapped, x_adv = model(source), x.clone()
        assert not isinstance(goal, Shift), "model takes classifiers alone"
        classes = torch.as_tensor(goal.label, device=x.device).expand(len(x))
        sizes = [x.shape[1]] * len(x) if lengths is None else lengths.tolist()
        epsilons = self.budget.epsilon_of(x, lengths, source.sample_rate)[:, 0].tolist()
        kinds = list(zip(sizes, epsilons, strict=True))
        for kind in sorted(set(kinds)):  # Foolbox knows no padding and one epsilon
            length, epsilon = kind
            rows = [row for row, other in enumerate(kinds) if other == kind]
            clips, criterion = x[rows, :length], self._criterion(classes[rows], goal)
            perturbed = self._perturb(wrapped, clips, criterion, epsilon)
            x_adv[rows, :length] = self._project(clips, perturbed, epsilon)
        return x_adv

    def _criterion(self, classes: Tensor, goal: Goal) -> Any:
        criteria = library().criteria
        if isinstance(goal, Targeted):
            return criteria.TargetedMisclassification(classes)
        return criteria.Misclassification(classes)

    def _perturb(self, wrapped: Any, clips: Tensor, criterion: Any, epsilon: float) -> Tensor:
        size = epsilon if self.size is None else self.size
        minimises = isinstance(self.attack, library().attacks.base.MinimizationAttack)
        try:
            with torch.enable_grad():
                _, perturbed, _ = self.attack(
                    wrapped, clips, criterion, epsilons=None if minimises else size
                )
        except ValueError as problem:  # such as a criterion that the attack does not know
            raise InvalidInput(
                f"{type(self.attack).__name__} of Foolbox refuses: {problem}",
                remedy="Choose another attack of Foolbox, or leave out --label",
            ) from problem
        x_adv: Tensor = perturbed.detach()
        return x_adv

    def _project(self, clips: Tensor, perturbed: Tensor, epsilon: float) -> Tensor:
        """``perturbed`` cut to epsilon, full scale and the number of samples; NaN leaves a clip as it is."""
        delta = (perturbed - clips).nan_to_num(0.0).clamp(-epsilon, epsilon)
        support = top_k_mask(delta.abs().masked_fill(delta == 0, -torch.inf), self.budget)
        return torch.where(support, (clips + delta).clamp(-1, 1), clips)


def library() -> Any:
    """Returns the foolbox module; raises ``InvalidInput`` with the command that installs it."""
    with needs_extra("foolbox", "baselines"):
        import foolbox
    return foolbox
