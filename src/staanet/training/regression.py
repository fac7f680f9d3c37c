"""Trains a regression victim: the concordance of its numbers with those of the clips, on random crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from staanet.attacks import logits_of
from staanet.core import Clip, Progress, Victim, metrics, silent
from staanet.core.dimensions import dimension_values
from staanet.errors import InvalidInput
from staanet.nn.precision import autocast
from staanet.training.crops import Crops
from staanet.training.fit import History, Schedule, Task
from staanet.training.prefetch import Prefetcher
from staanet.training.victims import fit_victim

TINY = 1e-8


@dataclass(frozen=True, slots=True)
class Scale:
    """Mean and deviation of each number over the train clips, ``[K]``, in the unit of the labels."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.float64], names: Sequence[str]) -> Scale:
        """That of labels ``[N, K]``. Raises ``InvalidInput`` for a number that never changes."""
        mean, std = values.mean(axis=0), values.std(axis=0)
        for name, deviation in zip(names, std, strict=True):
            if not deviation > TINY:
                raise InvalidInput(
                    f"the {name} of all train clips is the same",
                    remedy="Leave it out: nothing can be learnt from it",
                )
        return cls(mean, std)

    def standardise(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """``(values - mean) / std``, ``[N, K]``."""
        standardised: NDArray[np.float64] = (values - self.mean) / self.std
        return standardised

    def fold_into(self, victim: Victim) -> None:
        """Makes a victim of standardised numbers answer in the unit of the labels, by its last layer."""
        layer = victim.output_layer
        with torch.no_grad():
            std, mean = (torch.from_numpy(x).to(layer.weight) for x in (self.std, self.mean))
            layer.weight.mul_(std[:, None])
            layer.bias.mul_(std).add_(mean)


def numbers_of(clips: Sequence[Clip], names: Sequence[str]) -> NDArray[np.float64]:
    """The numbers of clips, ``[N, K]`` in the order of ``names``."""
    return dimension_values([clip.label for clip in clips], names)


def ccc_loss(answers: Tensor, truth: Tensor) -> Tensor:
    """``1 - CCC`` of a batch, the mean over its numbers, ``[B, K], [B, K] -> []``.

    >>> x = torch.tensor([[1.0], [2.0], [3.0]])
    >>> round(float(ccc_loss(x, x)), 4), round(float(ccc_loss(x + 1, x)), 3)
    (0.0, 0.429)
    """
    mean_a, mean_t = answers.mean(dim=0), truth.mean(dim=0)
    covariance = ((answers - mean_a) * (truth - mean_t)).mean(dim=0)
    spread = answers.var(dim=0, correction=0) + truth.var(dim=0, correction=0)
    return (1 - 2 * covariance / (spread + (mean_a - mean_t).square() + TINY)).mean()


@dataclass
class RegressionTask(Task):
    """``1 - CCC`` of standardised numbers on random crops, judged by the mean CCC on whole dev clips."""

    module: Victim
    crops: Crops
    dev: Sequence[Clip]
    scale: Scale
    precision: str = "float32"

    def __post_init__(self) -> None:
        names = self.module.labels
        numbers = self.scale.standardise(numbers_of(self.crops.clips, names)).astype(np.float32)
        self.truth = self.scale.standardise(numbers_of(self.dev, names))

        def draw(step: int) -> tuple[Tensor, Tensor]:
            x, chosen = self.crops.draw(step)
            return x, torch.from_numpy(numbers[chosen])

        self.batches = Prefetcher(draw, self.module.device)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        self.module.train()
        x, y = self.batches(step)
        with autocast(self.precision, x.device):
            answers = self.module(x).float()
        return ccc_loss(answers, y), {"train_error": float((answers - y).detach().abs().mean())}

    def evaluate(self) -> tuple[float, dict[str, float]]:
        self.module.eval()
        answers = logits_of(self.module, self.dev)
        by_name = {
            f"dev_ccc_{name}": metrics.ccc(self.truth[:, k], answers[:, k])
            for k, name in enumerate(self.module.labels)
        }
        mean = float(np.mean(list(by_name.values())))
        return mean, {"dev_ccc": mean, **by_name}


def train_regression(
    victim: Victim,
    train: Sequence[Clip],
    dev: Sequence[Clip],
    schedule: Schedule,
    folder: Path,
    *,
    precision: str = "float32",
    progress: Progress = silent,
) -> History:
    """Trains a regression ``victim`` in place; keeps the weights of best dev CCC, frozen and in ``eval()``.

    It learns standardised numbers, and answers in the unit of the labels afterwards.

    Args:
        victim: The network, with its weights at the start; its labels name its numbers.
        train: Clips whose labels hold those numbers.
        dev: Such clips of other speakers, that choose the weights.
        schedule: How long and how fast.
        folder: Where the training curve and checkpoints go; a stopped training goes on from there.
        precision: In which the network learns.
        progress: Receives a call per step.

    Returns:
        The training curve.

    Raises:
        InvalidInput: A number is the same in all train clips, or the loss is not finite.
    """
    scale = Scale.of(numbers_of(train, victim.labels), victim.labels)
    task = RegressionTask(victim, Crops(train, schedule), dev, scale, precision)
    history = fit_victim(victim, task, schedule, folder, progress)
    scale.fold_into(victim)
    return history
