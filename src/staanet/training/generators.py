"""Training a generator: STAA-Net's loss against frozen sources, judged by the attack itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from staanet import audio
from staanet.attacks import Staa, collate, project_to_snr
from staanet.core import Budget, Clip, Goal, Progress, Targeted, Untargeted, Victim, metrics, silent
from staanet.defences import Defended
from staanet.generators.backward_net import BackwardNet
from staanet.generators.base import Generator, select_samples
from staanet.generators.ensemble import EnsembleGenerator
from staanet.generators.losses import Objective, SparsityController
from staanet.generators.surrogate import SurrogateGradient
from staanet.nn import distributed
from staanet.nn.precision import autocast
from staanet.training.ahead import Ahead
from staanet.training.crops import Crops
from staanet.training.fit import History, Schedule, fit
from staanet.transforms import Transform
from staanet.victims import members_of

UNTOUCHED_DB = 999.0
"""Logged as SNR where no clip of a batch was touched: the ratio is infinite, JSON and CSV are not."""


@dataclass
class GeneratorTask:
    """STAA-Net's loss against frozen sources, judged by the success of the attack itself.

    With several sources it is the mean of theirs. A ``targeted`` generator is shown, in training, each
    other class as often. ``through`` is what a clip may meet on its way to the sources, each as often as
    nothing: the generator learns what outlives it. The networks run in ``precision``
    (``staanet.nn.precision``); the sources' answers to clean clips and the judgement of dev clips are exact.
    """

    module: Generator
    sources: Sequence[Victim]
    crops: Crops
    dev: Sequence[Clip]
    budget: Budget
    objective: Objective
    sparsity: SparsityController
    settled: int = 1
    """The step from which a built-in density stands at the budget's; it starts with every sample
    (1: it stands there from the first step)."""
    targeted: bool = False
    augment: Sequence[Transform] = ()
    precision: str = "float32"

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        x, uniform = self.batches(step)
        rng = np.random.default_rng([self.crops.schedule.seed, step, 1])
        batch, own = self.crops.schedule.batch_size, self.crops.rank_rows()
        goals, wanted = self.goals(x, rng.random(batch)[own])
        epsilon = self.budget.epsilon_lsb / audio.FULL_SCALE
        budget = self._budget(step)
        with autocast(self.precision, x.device):
            change = self.module.train()(x, None, wanted, budget)
        binary = select_samples(
            change, budget
        )  # as the attack will choose, under the budget of this step
        moves = project_to_snr(x, change.magnitude, epsilon * binary, budget)
        delta = epsilon * moves
        x_adv = (x + delta * self.objective.mask(change.position, binary, uniform)).clamp(-1, 1)
        way = np.random.default_rng([self.crops.schedule.seed, step, 2])
        hearing = self.hearings[way.integers(len(self.hearings))]
        with autocast(self.precision, x.device):
            said = [source(x_adv).float() for source in hearing]
        margin = torch.stack([goal.margin(z) for goal, z in zip(goals, said, strict=True)])
        terms = self.objective.terms(margin.mean(dim=0), change, binary)
        loss = self.objective.loss(terms, self.sparsity.weight)
        share = float(change.mask().mean())
        figures = {name: float(term.detach().mean()) for name, term in terms._asdict().items()}
        figures |= {
            "sparsity_weight": self.sparsity.weight,
            "fooling_rate": float((margin < 0).float().mean()),
            "density": share,
            "snr_db": self._snr_db(x, delta * binary),
        }
        if (
            self.module.density is None and self.objective.sparsity is None
        ):  # else the density is what it is meant to be at this step
            both = distributed.average_over_processes(
                {"share": share, "fooling": figures["fooling_rate"]}
            )
            self.sparsity.update(step, both["share"], both["fooling"])
        return loss, figures

    @cached_property
    def batches(self) -> Ahead:
        """Of each step the crops ``[B, T]``, and as many numbers in [0, 1)."""
        return Ahead(self._drawn, self.sources[0].device)

    def _drawn(self, step: int) -> tuple[Tensor, Tensor]:
        x, _ = self.crops.draw(step)
        shape = self.crops.schedule.batch_size, x.shape[1]
        uniform = torch.rand(shape, generator=torch.Generator().manual_seed(step))
        return x, uniform[self.crops.rank_rows()]

    @cached_property
    def hearings(self) -> list[Sequence[Victim]]:
        """The sources as they are, and behind each of ``through``."""
        return [self.sources, *([Defended(s, [way]) for s in self.sources] for way in self.augment)]

    def goals(self, x: Tensor, draws: NDArray[np.float64]) -> tuple[Sequence[Goal], Tensor | None]:
        """The goal on each source for ``x [B, T]``, and what the generator is told of it: numbers
        ``draws [B]`` in [0, 1) choose, of the classes that no source answers first, one for all."""
        with torch.inference_mode():
            answers = [source(x).argmax(dim=1) for source in self.sources]
        if not self.targeted:
            return [Untargeted(answer.clone()) for answer in answers], None
        classes = len(self.sources[0].labels)
        own = answers[0].cpu().numpy()
        wanted = torch.from_numpy((own + 1 + (draws * (classes - 1)).astype(int)) % classes)
        return [Targeted(wanted.to(x.device))] * len(self.sources), wanted.to(x.device)

    def _budget(self, step: int) -> Budget:
        """Every sample at first, then geometrically fewer until ``settled``, then the budget's own."""
        limit = self.budget.max_density
        if self.module.density is None or limit is None:
            return self.budget
        left = max(0.0, 1 - (step + 1) / self.settled)
        self.module.density = limit ** (1 - left)
        return replace(self.budget, max_density=self.module.density)

    def evaluate(self) -> tuple[float, dict[str, float]]:
        """Success (over all ways to the sources), mean density and SNR of the attack on whole dev clips."""
        attack = Staa(generator=self.module.eval(), budget=self.budget, precision=self.precision)
        fooled, density, snr = [], [], []
        with torch.inference_mode():
            for number, clip in enumerate(self.dev):
                x, _ = collate([clip], self.sources[0])
                classes = len(self.sources[0].labels)
                each = np.array([number % (classes - 1) / (classes - 1) + 1e-6])
                goals, _ = self.goals(x, each)
                x_adv = attack(self.sources[0], x, goals[0])
                hits = [
                    float(goal.achieved(source(x_adv)))
                    for heard in self.hearings
                    for goal, source in zip(goals, heard, strict=True)
                ]
                fooled.append(float(np.mean(hits)))
                density.append(float(metrics.density(x, x_adv)))
                snr.append(float(metrics.snr_db(x, x_adv)))
        touched = [value for value in snr if math.isfinite(value)]
        return float(np.mean(fooled)), {
            "dev_fooling_rate": float(np.mean(fooled)),
            "dev_density": float(np.mean(density)),
            "dev_snr_db": float(np.mean(touched)) if touched else UNTOUCHED_DB,
        }

    @staticmethod
    def _snr_db(x: Tensor, delta: Tensor) -> float:
        ratio = metrics.snr_db(x.detach(), (x + delta).detach())
        finite = ratio[torch.isfinite(ratio)]
        return float(finite.mean()) if len(finite) else UNTOUCHED_DB

    def state(self) -> dict[str, float]:
        now = self.sparsity
        return {"weight": now.weight, "fooling": now.fooling, "best": now.best}

    def restore(self, state: Mapping[str, float]) -> None:
        for name, value in state.items():
            setattr(self.sparsity, name, value)


def train_generator(
    generator: Generator,
    source: Victim,
    train: Sequence[Clip],
    dev: Sequence[Clip],
    schedule: Schedule,
    folder: Path,
    *,
    budget: Budget,
    objective: Objective,
    targeted: bool = False,
    augment: Sequence[Transform] = (),
    precision: str = "float32",
    progress: Progress = silent,
) -> History:
    """Train ``generator`` in place against the frozen ``source``; the best on dev is kept.

    An ensemble is fooled member by member: the loss is the mean of theirs. Each step and judgement takes
    the clips to the sources as they are, or ``through`` one of those: what a codec, another level or noise
    leaves of the change.

    A mirror of its source starts at the budget's density and leaves its encoder as it is; others learn
    everything at once and come down to the density from every sample.
    """
    source.requires_grad_(False).eval()
    target = 1.0 if budget.max_density is None else budget.max_density
    settled = max(1, schedule.steps * 6 // 10)
    if isinstance(generator, BackwardNet | EnsembleGenerator):
        generator.freeze_encoder()
    if isinstance(generator, BackwardNet | SurrogateGradient | EnsembleGenerator):
        settled = 1
    task = GeneratorTask(
        generator,
        members_of(source),
        Crops(train, schedule),
        dev,
        budget,
        objective,
        SparsityController(target=target, warmup=schedule.steps // 10),
        settled=settled,
        targeted=targeted,
        augment=augment,
        precision=precision,
    )
    what = f"train generator on {source.name}"
    history = fit(task, schedule, folder, what=what, progress=progress)
    generator.density = generator.settings["density"]  # wherever training stopped on its way there
    generator.requires_grad_(False).eval()
    return history


def collapse_flags(last: Mapping[str, float]) -> list[str]:
    """Warnings for a mask that ended empty or full, from the last row of a generator's history.

    >>> collapse_flags({"density": 0.0})
    ['mask empty at the end of training: SNR undefined']
    """
    share = last["density"]
    if share < 1e-4:
        return ["mask empty at the end of training: SNR undefined"]
    return ["mask full at the end of training: not sparse"] if share > 0.999 else []
