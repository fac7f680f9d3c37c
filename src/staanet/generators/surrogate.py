"""A generator that contains any differentiable classifier and follows its gradient.

``BackwardNet`` has a backward pass of its own for convolutions and LSTMs. Here automatic differentiation
computes it, which also works for transformers. The classifier is a copy of the source
(``staanet.generators.warm_start``); the source itself is not called. Training may change the copy so that
one step along its gradient fools best, as for meta-surrogates (Qin et al., 2023, arXiv 2109.01983).
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from staanet.generators.iterative import IterativeGenerator, LogitsAndBackward
from staanet.victims.blueprint import Blueprint, build_from_blueprint


class SurrogateGradient(IterativeGenerator):
    """A generator that follows the gradient of a classifier inside it.

    Each iteration takes one forward and one backward pass of the classifier.

    Args:
        classifier: The classifier's blueprint, see ``staanet.victims.blueprint``.
        settings: ``iterations`` and ``epsilon`` of ``IterativeGenerator``; ``gain``, ``density``,
            ``sample_rate`` and ``labels`` of ``Generator``.
    """

    architecture = "surrogate"

    def __init__(self, *, classifier: Blueprint, **settings: Any) -> None:
        defaults = {"iterations": 1, "epsilon": 0.03, "gain": 2.0, "density": None}
        super().__init__(**{**defaults, **settings})
        self.settings |= {"classifier": dict(classifier)}
        self.classifier = build_from_blueprint(classifier)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of the generator; the classifier stays in ``eval()``, without dropout."""
        super().train(mode)
        self.classifier.eval()
        return self

    def freeze_encoder(self) -> None:
        """Freezes everything, for a member of an ensemble: the classifier is also the backward pass."""
        self.requires_grad_(False)

    def run_classifiers(
        self, x: Tensor, lengths: Tensor | None, features: Tensor
    ) -> list[LogitsAndBackward]:
        create_graph = self.training and torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            sizes = None if lengths is None else lengths.clone()
            with sdpa_kernel(
                SDPBackend.MATH
            ):  # the other kernels of attention have no second derivative
                logits = self.classifier(x, sizes)

        def backward(grad_logits: Tensor) -> tuple[Tensor, Tensor]:
            with torch.inference_mode(False), torch.enable_grad():
                score = (logits * grad_logits.detach().clone()).sum()
                (gradient,) = torch.autograd.grad(score, x, create_graph=create_graph)
            return gradient, torch.zeros_like(gradient)

        return [(logits, backward)]
