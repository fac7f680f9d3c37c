"""Detectors of adversarial clips: scores, threshold, and the training of a learned one.

The threshold is chosen on clean dev clips at a given false-positive rate, before any attacked clip is
scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from staanet import audio
from staanet.attacks import PGD, collate, craft_batch
from staanet.core import Budget, Clip, Progress, Untargeted, Victim, silent
from staanet.core.roc import auroc, threshold_at
from staanet.defences import DetectorGated
from staanet.defences.detectors import Detector, Learned
from staanet.errors import InvalidInput
from staanet.results.adversarial_set import AdversarialClip
from staanet.training.crops import Crops
from staanet.training.fit import History, Schedule, Task, fit

DEV_CLIPS = 40
"""So many dev clips are attacked, to choose the weights of a learned detector."""
MIN_SCALE = 1e-3


def detector_scores(
    detector: Detector,
    victim: Victim,
    clips: Sequence[Clip],
    *,
    what: str = "detector_scores",
    progress: Progress = silent,
) -> NDArray[np.float64]:
    """Returns each clip's score, alone, ``[N]``: the higher, the more like an attack.

    Args:
        detector: What scores.
        victim: The victim that it stands before.
        clips: Clean or attacked clips.
        what: The name of the work for ``progress``.
        progress: Receives a call per clip.
    """
    scores = []
    with torch.inference_mode():
        for number, clip in enumerate(clips, start=1):
            x, _ = collate([clip], victim)
            scores.append(float(detector(victim, x)[0]))
            progress(what, number, len(clips), "")
    return np.array(scores)


def gate_victim(
    victim: Victim, detector: Detector, dev: Sequence[Clip], *, false_positive_rate: float
) -> DetectorGated:
    """Returns ``victim`` behind ``detector``, its threshold chosen on clean dev clips.

    It abstains from at most a share ``false_positive_rate`` of these. Raises ``InvalidInput`` where
    there is no clip.
    """
    if not dev:
        raise InvalidInput("no dev clip to choose a threshold on", remedy="Give usable clips")
    scores = detector_scores(detector, victim, dev)
    return DetectorGated(
        victim,
        detector,
        threshold=threshold_at(scores, false_positive_rate),
        scale=float(max(scores.std(), MIN_SCALE)),
        false_positive_rate=false_positive_rate,
    )


@dataclass
class DetectorTask(Task):
    """Binary cross-entropy on crops and their attacked twins; judged by AUROC on dev clips."""

    module: Learned
    victim: Victim
    crops: Crops
    dev: Sequence[AdversarialClip]
    budget: Budget
    steps: int = 3

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        x, _ = self.crops.draw(step)
        x = _on_grid(x).to(self.victim.device)
        x_adv = _on_grid(self._attacked(x, step))
        logits = self.module.train()(self.victim, torch.cat([x, x_adv]))
        y = torch.cat([torch.zeros(len(x)), torch.ones(len(x))]).to(logits.device)
        accuracy = ((logits > 0) == (y > 0.5)).float().mean()
        return F.binary_cross_entropy_with_logits(logits, y), {"train_accuracy": float(accuracy)}

    def _attacked(self, x: Tensor, step: int) -> Tensor:
        """At a density drawn between a twentieth of the budget's and all of it: sparser is harder."""
        rng = np.random.default_rng([self.crops.schedule.seed, step, 1])
        most = 1.0 if self.budget.max_density is None else self.budget.max_density
        budget = replace(self.budget, max_density=float(most * 20 ** -rng.random()))
        with torch.inference_mode():
            answer = self.victim(x).argmax(dim=1)
        attack = PGD(budget=budget, steps=self.steps, relative_step=min(1.0, 2.5 / self.steps))
        return attack(self.victim, x, Untargeted(answer.clone()))

    def evaluate(self) -> tuple[float, dict[str, float]]:
        self.module.eval()
        clean = detector_scores(self.module, self.victim, [pair.clean for pair in self.dev])
        twins = [replace(pair.clean, pcm16=pair.adversarial) for pair in self.dev]
        area = auroc(clean, detector_scores(self.module, self.victim, twins))
        return area, {"dev_auroc": area}


def _on_grid(x: Tensor) -> Tensor:
    """Rounds to the 16-bit grid, as on disk: otherwise the grid would reveal attacked clips."""
    scale = audio.FULL_SCALE
    return (x * scale).round().clamp(-scale, scale - 1) / scale


def train_detector(
    detector: Learned,
    victim: Victim,
    train: Sequence[Clip],
    dev: Sequence[Clip],
    schedule: Schedule,
    folder: Path,
    *,
    budget: Budget,
    progress: Progress = silent,
) -> History:
    """Trains ``detector`` in place on PGD against ``victim``; keeps the weights that are best on dev.

    Args:
        detector: The network, with its weights at the start.
        victim: What is attacked.
        train: Clips; labels are not used.
        dev: Clips of other speakers; some are attacked, to choose the weights.
        schedule: How long and how fast.
        folder: Where the training curve and checkpoints go; a stopped training goes on bit for bit.
        budget: Of the attack.
        progress: Receives a call per step.

    Returns:
        The training curve.

    Raises:
        InvalidInput: The victim is a black box, or the loss is not finite.
    """
    if not victim.differentiable:
        raise InvalidInput(
            f"{victim.name} is a black box: nothing tells what attacks on it look like",
            remedy="Take the detector residual, which is not trained",
        )
    attack, attacked = PGD(budget=budget, steps=5), []
    for number, clip in enumerate(dev[:DEV_CLIPS], start=1):
        attacked += craft_batch(attack, victim, [clip])
        progress("attack dev clips for the detector", number, min(len(dev), DEV_CLIPS), "")
    task = DetectorTask(detector, victim, Crops(train, schedule), attacked, budget)
    what = f"train a detector for {victim.name}"
    history = fit(task, schedule, folder, what=what, progress=progress)
    detector.requires_grad_(False).eval()
    return history
