"""Training a victim: cross-entropy on balanced crops, judged by UAR on whole dev clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from staanet.attacks import logits_of
from staanet.core import Clip, Progress, Victim, metrics, silent
from staanet.nn import distributed
from staanet.nn.precision import autocast
from staanet.training.ahead import Ahead
from staanet.training.crops import Crops, balanced
from staanet.training.fit import History, Schedule, fit


@dataclass
class VictimTask:
    """Cross-entropy on balanced random crops, judged by UAR on whole dev clips.

    The network learns in ``precision`` (``staanet.nn.precision``) and is judged in float32.
    """

    module: Victim
    crops: Crops
    dev: Sequence[Clip]
    precision: str = "float32"

    def __post_init__(self) -> None:
        order = {label: number for number, label in enumerate(self.module.labels)}
        self.targets = np.array([order[clip.label or ""] for clip in self.crops.clips])
        self.batches = Ahead(self._drawn, self.module.device)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        self.module.train()
        x, wanted = self.batches(step)
        with autocast(self.precision, x.device):
            logits = self.module(x).float()
        right = (logits.argmax(dim=1) == wanted).float().mean()
        return F.cross_entropy(logits, wanted), {"train_accuracy": float(right)}

    def _drawn(self, step: int) -> tuple[Tensor, Tensor]:
        x, chosen = self.crops.draw(step)
        return x, torch.from_numpy(self.targets[chosen])

    def evaluate(self) -> tuple[float, dict[str, float]]:
        self.module.eval()
        answers = [self.module.labels[i] for i in logits_of(self.module, self.dev).argmax(axis=1)]
        truth = [clip.label or "" for clip in self.dev]
        recall = metrics.uar(truth, answers)
        return recall, {
            "dev_uar": recall,
            "dev_accuracy": float(np.mean(np.array(truth) == np.array(answers))),
        }

    def state(self) -> dict[str, float]:
        return {}

    def restore(self, state: Mapping[str, float]) -> None:
        return None


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
    """Train ``victim`` in place; the weights of best dev UAR are kept, frozen and in ``eval()``."""
    crops = Crops(train, schedule, balanced([clip.label or "" for clip in train]))
    task = VictimTask(victim, crops, dev, precision)
    distributed.synchronise_batch_norms(victim)
    history = fit(task, schedule, folder, what=f"train {victim.name}", progress=progress)
    victim.requires_grad_(False).eval()
    return history
