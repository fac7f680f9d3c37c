"""Adaptive attacks against a detector: PGD and a generator that fool victim and detector together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from staanet.attacks import PGD
from staanet.core import Budget, Clip, Goal, Progress, Untargeted, Victim, silent
from staanet.defences import DetectorGated, Undetected
from staanet.defences.detectors import FRAME_S
from staanet.errors import InvalidInput
from staanet.generators.base import Generator
from staanet.generators.losses import Objective
from staanet.training.crops import Crops
from staanet.training.fit import History, Schedule, fit
from staanet.training.generators import GeneratorSettings, GeneratorTask


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptivePGD:
    """PGD for another answer that the detector lets through.

    ``source`` is the victim with its detector; the labels of the goal are its answers. Where following
    the detector's gradient fails, PGD leaves the quietest share ``quiet`` of a clip untouched, since
    that is what the detector ``residual`` measures.
    """

    budget: Budget = Budget(epsilon=0.03, max_density=0.2)
    steps: int = 40
    quiet: float = 0.3
    seed: int = 0

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        if not isinstance(source, DetectorGated):
            raise InvalidInput(f"{source.name} has no detector", remedy="Give a guarded victim")
        assert isinstance(goal, Untargeted), "a detector stands before a classifier"
        pgd = PGD(budget=self.budget, steps=self.steps, seed=self.seed, relative_step=0.1)
        view, undetected = source.reject_class_view(), Undetected(goal.label)
        followed = pgd(view, x, undetected, lengths)
        loud = pgd(LoudPartsOnly(source, x, lengths, quiet=self.quiet), x, goal, lengths)
        with torch.inference_mode():
            is_failed = ~undetected.achieved(view(followed, lengths))
            is_better = is_failed & undetected.achieved(view(loud, lengths))
        return torch.where(is_better[:, None], loud, followed)


class LoudPartsOnly(Victim):
    """A victim for which only the loud 20 ms frames of clips ``x [B, T]`` can be changed.

    The quietest share ``quiet`` of each clip's frames stays as it is, so that a detector that measures
    those notices nothing.
    """

    architecture = "loud_parts_only"

    def __init__(self, inner: Victim, x: Tensor, lengths: Tensor | None, *, quiet: float) -> None:
        super().__init__(name=inner.name, labels=inner.labels, sample_rate=inner.sample_rate)
        self.inner, self.x = inner, x
        self.mask = torch.zeros_like(x, dtype=torch.bool)
        size = max(1, round(FRAME_S * inner.sample_rate))
        for row in range(len(x)):
            length = x.shape[1] if lengths is None else int(lengths[row])
            energy = F.pad(x[row, :length], (0, -length % size)).view(-1, size).square().sum(dim=1)
            is_loud = energy > energy.quantile(quiet)
            self.mask[row, :length] = is_loud.repeat_interleave(size)[:length]
        self.eval()

    @property
    def device(self) -> torch.device:
        return self.inner.device

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        logits: Tensor = self.inner(torch.where(self.mask, waveforms, self.x), lengths)
        return logits


@dataclass
class AdaptiveGeneratorTask(GeneratorTask):
    """A generator against victim and detector at once, judged by undetected changes of the answer.

    Its only source is the reject-class view of a victim with a detector.
    """

    def goals(self, x: Tensor, draws: NDArray[np.float64]) -> tuple[Sequence[Goal], Tensor | None]:
        with torch.inference_mode():
            answer = self.sources[0](x)[:, :-1].argmax(dim=1)
        return [Undetected(answer.clone())], None

    def evaluate(self) -> tuple[float, dict[str, float]]:
        score, figures = super().evaluate()
        return score, {**figures, "dev_fooled_undetected": score}


def train_adaptive_generator(
    generator: Generator,
    target: DetectorGated,
    train: Sequence[Clip],
    dev: Sequence[Clip],
    schedule: Schedule,
    folder: Path,
    *,
    budget: Budget,
    progress: Progress = silent,
) -> History:
    """Trains ``generator`` in place against a victim and its detector.

    Args:
        generator: The network, with its weights at the start.
        target: The victim with its detector.
        train: Clips; labels are not used.
        dev: Clips of other speakers, that choose the weights.
        schedule: How long and how fast.
        folder: Where the training curve and checkpoints go; a stopped training goes on from there.
        budget: Of the attack.
        progress: Receives a call per step.

    Returns:
        The training curve.

    Raises:
        InvalidInput: The victim is a black box, or the loss is not finite.
    """
    if not target.differentiable:
        raise InvalidInput(f"{target.name} is a black box", remedy="Leave the generator out")
    settings = GeneratorSettings(budget=budget, objective=Objective())
    view = target.reject_class_view()
    task = AdaptiveGeneratorTask(generator, [view], Crops(train, schedule), dev, settings)
    what = f"train a generator that knows {target.name}"
    history = fit(task, schedule, folder, what=what, progress=progress)
    generator.requires_grad_(False).eval()
    return history
