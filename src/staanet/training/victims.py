"""Trains a victim: cross-entropy on balanced crops, evaluated by UAR on whole dev clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from staanet.attacks import logits_of
from staanet.core import Clip, Progress, Victim, metrics, silent
from staanet.nn import distributed
from staanet.nn.precision import autocast
from staanet.training.crops import Crops, balanced_crops, labelled_batches
from staanet.training.fit import History, Schedule, Task, fit


@dataclass
class VictimTask(Task):
    """Cross-entropy on balanced random crops, judged by UAR on whole dev clips.

    The network learns in ``precision`` (``staanet.nn.precision``) and is judged in float32.
    """

    module: Victim
    crops: Crops
    dev: Sequence[Clip]
    precision: str = "float32"

    def __post_init__(self) -> None:
        self.batches = labelled_batches(self.module, self.crops)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        self.module.train()
        x, y = self.batches(step)
        with autocast(self.precision, x.device):
            logits = self.module(x).float()
        accuracy = (logits.argmax(dim=1) == y).float().mean()
        return F.cross_entropy(logits, y), {"train_accuracy": float(accuracy)}

    def evaluate(self) -> tuple[float, dict[str, float]]:
        self.module.eval()
        answers = [self.module.labels[i] for i in logits_of(self.module, self.dev).argmax(axis=1)]
        truth = [clip.label or "" for clip in self.dev]
        recall = metrics.uar(truth, answers)
        accuracy = float(np.mean(np.array(truth) == np.array(answers)))
        return recall, {"dev_uar": recall, "dev_accuracy": accuracy}


def train_victim(
    victim: Victim,
    train: Sequence[Clip],
    dev: Sequence[Clip],
    schedule: Schedule,
    folder: Path,
    *,
    precision: str = "float32",
    progress: Progress = silent,
) -> History:
    """Trains ``victim`` in place; keeps the weights of best dev UAR, frozen and in ``eval()``.

    Args:
        victim: The network, with its weights at the start.
        train: Labelled clips.
        dev: Labelled clips of other speakers, that choose the weights.
        schedule: How long and how fast.
        folder: Where the training curve and checkpoints go; a stopped training goes on from there.
        precision: In which the network learns.
        progress: Receives a call per step.

    Returns:
        The training curve.

    Raises:
        InvalidInput: The loss is not finite.
    """
    task = VictimTask(victim, balanced_crops(train, schedule), dev, precision)
    return fit_victim(victim, task, schedule, folder, progress)


def fit_victim(
    victim: Victim, task: Task, schedule: Schedule, folder: Path, progress: Progress
) -> History:
    """Fits ``task``, whose network is ``victim``, and leaves the victim frozen and in ``eval()``."""
    distributed.synchronise_batch_norms(victim)
    history = fit(task, schedule, folder, what=f"train {victim.name}", progress=progress)
    victim.requires_grad_(False).eval()
    return history
