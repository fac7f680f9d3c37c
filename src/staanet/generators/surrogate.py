"""A generator that holds any classifier whole, and answers with what its gradient says.

What a mirror writes out by hand for convolutions and an LSTM, automatic differentiation does here for
any network that torch can differentiate, transformers among them. Its weights begin as its source's
(``staanet.generators.warm_start``) and are its own: training may move them so that one step along the gradient
fools best, as meta-surrogates are trained (Qin et al. 2023, arXiv 2109.01983). The source is not called.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from staanet.core import Budget
from staanet.generators.base import Best, Generator, apply_perturbation, logit_gradient, unit_rms
from staanet.victims.blueprint import Blueprint, built


class SurrogateGradient(Generator):
    """``inside`` is the classifier that it holds, by its blueprint.

    There are ``iterations`` steps: each iterations at the clip as the steps before leave it, moved by
    ``epsilon``, and asks again; what they propose is added up, see ``Best``. Each takes one forward
    and one backward pass.
    """

    architecture = "surrogate"
    ranked_by_magnitude = True

    def __init__(
        self, *, inside: Blueprint, iterations: int = 1, epsilon: float = 0.03, **settings: Any
    ) -> None:
        super().__init__(**{"gain": 2.0, "density": None, **settings})
        self.settings |= {"inside": dict(inside), "iterations": iterations, "epsilon": epsilon}
        self.iterations: int = iterations
        self.epsilon = epsilon
        self.inside = built(inside)

    def train(self, mode: bool = True) -> Self:
        """The classifier inside answers as in use, without dropout, also while it is trained."""
        super().train(mode)
        self.inside.eval()
        return self

    def freeze_encoder(self) -> None:
        """Train none of it, as one voice among others: what listens is what answers."""
        self.inside.requires_grad_(False)

    def heads(
        self,
        waveforms: Tensor,
        lengths: Tensor | None,
        target_class: Tensor | None,
        budget: Budget | None = None,
    ) -> tuple[Tensor, Tensor]:
        learning = self.training and torch.is_grad_enabled()
        magnitude, best = torch.zeros_like(waveforms), None
        with torch.inference_mode(False), torch.enable_grad():
            seen, lengths = waveforms.clone(), None if lengths is None else lengths.clone()
            target_class = None if target_class is None else target_class.clone()
            for look in range(self.iterations):
                if look:
                    change = self.propose(magnitude, torch.zeros_like(magnitude), lengths)
                    seen = apply_perturbation(
                        waveforms, change, lengths, self.epsilon, budget, ranks=self.ranks
                    ).detach()
                answers, x = self._answers(seen, lengths)
                if best is None:
                    best = Best.none(waveforms, answers, target_class)
                else:
                    best = best.or_this(magnitude, torch.zeros_like(magnitude), answers)
                question = logit_gradient(answers.detach(), best.goal)
                (slope,) = torch.autograd.grad((answers * question).sum(), x, create_graph=learning)
                magnitude = magnitude + unit_rms(slope, lengths)
        silent = torch.zeros_like(magnitude)
        return (magnitude, silent) if best is None else best.or_last(magnitude, silent)

    def _answers(self, waveforms: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """``[B, K]``, and the input ``[B, T]`` that they can be differentiated by, more than once."""
        x = waveforms.clone().requires_grad_()
        with sdpa_kernel(SDPBackend.MATH):  # attention's other kernels have one derivative only
            return self.inside(x, lengths), x
