"""Trains a surrogate of a black box on its answers, without labels.

Papernot et al. 2017, arXiv 1602.02697; the soft answers are those of Hinton et al. 2015, arXiv 1503.02531.
Each clip that the black box answers counts as a query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from staanet.attacks import logits_of
from staanet.core import Clip, Victim
from staanet.training.crops import Crops
from staanet.training.fit import Task
from staanet.training.prefetch import Prefetcher


@dataclass
class DistillationTask(Task):
    """Kullback-Leibler divergence from the target's answers on random crops.

    The score is how often both agree on whole dev clips. ``queries`` counts the crops and clips that
    the target answered.
    """

    module: Victim
    target: Victim
    crops: Crops
    dev: Sequence[Clip]
    queries: int = 0

    def __post_init__(self) -> None:
        self.answers = logits_of(self.target, self.dev).argmax(axis=1)
        self.queries += len(self.dev)
        self.batches = Prefetcher(lambda step: self.crops.draw(step)[:1], self.module.device)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        self.module.train()
        (x,) = self.batches(step)
        with torch.inference_mode():
            expected = torch.softmax(self.target(x.to(self.target.device)), dim=1)
        expected = expected.clone().to(self.module.device)
        self.queries += len(x)
        logits = self.module(x)
        agreement = (logits.argmax(dim=1) == expected.argmax(dim=1)).float().mean()
        loss = F.kl_div(torch.log_softmax(logits, dim=1), expected, reduction="batchmean")
        return loss, {"train_agreement": float(agreement)}

    def evaluate(self) -> tuple[float, dict[str, float]]:
        self.module.eval()
        is_same = logits_of(self.module, self.dev).argmax(axis=1) == self.answers
        agreement = float(np.mean(is_same))
        return agreement, {"dev_agreement": agreement}

    def state(self) -> dict[str, float]:
        return {"queries": float(self.queries)}

    def restore(self, state: Mapping[str, float]) -> None:
        self.queries = int(state["queries"])  # those of a killed run before its checkpoint count
