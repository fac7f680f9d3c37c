"""Trains a generator with STAA-Net's loss against frozen sources, evaluated by the attack itself."""

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

from staanet.attacks import Staa, collate, project_to_snr
from staanet.core import (
    Budget,
    Clip,
    Goal,
    Progress,
    Targeted,
    Victim,
    goal_of,
    metrics,
    silent,
    stratified_subset,
)
from staanet.defences import Defended
from staanet.generators.backward_net import BackwardNet
from staanet.generators.base import Generator, select_samples
from staanet.generators.ensemble import EnsembleGenerator
from staanet.generators.losses import Objective, SparsityController
from staanet.generators.surrogate import SurrogateGradient
from staanet.nn import distributed
from staanet.nn.precision import autocast
from staanet.training.budgets import JUDGED, draw_budget, score_budgets
from staanet.training.crops import Crops
from staanet.training.fit import History, Schedule, Task, fit
from staanet.training.prefetch import Prefetcher
from staanet.transforms import Transform
from staanet.victims import members_of

UNTOUCHED_DB = 999.0
"""Logged as SNR where no clip of a batch was touched: the ratio is infinite, JSON and CSV are not."""
EMPTY_MASK, FULL_MASK = 1e-4, 0.999
MIN_REACH = 0.05
"""The least change of a margin that a loss is divided by: a budget of less effect counts for less."""
DEV_CLIPS = 24
"""Dev clips that judge a generator at several budgets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorSettings:
    """The objective of a generator, and its limits."""

    budget: Budget
    objective: Objective
    any_budget: bool = False
    """Whether it learns every budget, a new one in each step, instead of ``budget`` alone."""
    targeted: bool = False
    """Whether it learns to reach any class, each as often, instead of any other answer."""
    augment: Sequence[Transform] = ()
    """Channels between a clip and the sources, each as probable as none."""
    precision: str = "float32"
    """Of the networks (``staanet.nn.precision``); clean answers and dev clips are exact."""

    @property
    def density(self) -> float:
        """The share of samples that may change."""
        return 1.0 if self.budget.max_density is None else self.budget.max_density


@dataclass
class GeneratorTask(Task):
    """STAA-Net's loss against frozen sources, judged by the success of the attack itself.

    With several sources the loss is the mean of theirs.
    """

    module: Generator
    sources: Sequence[Victim]
    crops: Crops
    dev: Sequence[Clip]
    settings: GeneratorSettings
    start: Sequence[float] = ()
    """Of the weights at the start: their success at each budget of ``judged_budgets``, where they learn all."""
    dense_steps: int = 1
    """A built-in density starts at every sample, and reaches the budget's at this step (1: at once)."""

    def __post_init__(self) -> None:
        warmup = self.crops.schedule.steps // 10
        self.sparsity = SparsityController(target=self.settings.density, warmup=warmup)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        settings, seed = self.settings, self.crops.schedule.seed
        x, uniform = self.batches(step)
        draws = np.random.default_rng([seed, step, 1]).random(self.crops.schedule.batch_size)
        goals, classes = self.goals(x, draws[self.crops.rank_rows()])
        clean = self._clean_margin(x, goals) if settings.any_budget else x.new_zeros(())
        budget, module = self._budget(step), self.module.train()
        if settings.any_budget and module.iterations and step % 2:
            module = module.with_iterations(1)  # a single iteration has to be strong by itself
        with autocast(settings.precision, x.device):
            change = module(x, None, classes, budget)
        mask = select_samples(change, budget)  # as the attack selects, under this step's budget
        epsilon = budget.epsilon_of(x, None, self.sources[0].sample_rate)
        delta = epsilon * project_to_snr(x, change.magnitude, epsilon * mask, budget)
        x_adv = (x + delta * settings.objective.mask(change.position, mask, uniform)).clamp(-1, 1)
        route = np.random.default_rng([seed, step, 2]).integers(len(self.routes))
        with autocast(settings.precision, x.device):
            logits = [source(x_adv).float() for source in self.routes[route]]
        margin = torch.stack([goal.margin(z) for goal, z in zip(goals, logits, strict=True)])
        terms = settings.objective.terms(margin.mean(dim=0), change, mask)
        loss = settings.objective.loss(terms, self.sparsity.weight)
        if (
            settings.any_budget
        ):  # a quiet change moves the margin by little: each budget counts alike
            reach = max(float((clean - margin.mean(dim=0)).mean().detach()), MIN_REACH)
            loss = loss / reach
        figures = {name: float(term.detach().mean()) for name, term in terms._asdict().items()}
        figures |= {
            "sparsity_weight": self.sparsity.weight,
            "fooling_rate": float((margin < 0).float().mean()),
            "density": float(change.mask().mean()),
            "snr_db": _mean_snr_db(x, delta * mask),
        }
        self._control_sparsity(step, figures)
        return loss, figures

    def _control_sparsity(self, step: int, figures: Mapping[str, float]) -> None:
        """Adapts the weight of the sparsity term, unless the density is built in or its weight fixed."""
        if self.module.density is None and self.settings.objective.sparsity is None:
            means = distributed.average_over_processes(
                {k: figures[k] for k in ("density", "fooling_rate")}
            )
            self.sparsity.update(step, means["density"], means["fooling_rate"])

    @cached_property
    def batches(self) -> Prefetcher:
        """The crops ``[B, T]`` of each step, and as many numbers in [0, 1)."""
        return Prefetcher(self.draw, self.sources[0].device)

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        """Returns the crops of ``step`` and as many numbers in [0, 1), on the CPU."""
        x, _ = self.crops.draw(step)
        shape = self.crops.schedule.batch_size, x.shape[1]
        uniform = torch.rand(shape, generator=torch.Generator().manual_seed(step))
        return x, uniform[self.crops.rank_rows()]

    @cached_property
    def routes(self) -> list[Sequence[Victim]]:
        """The sources as they are, and behind each transform of ``augment``."""
        behind = ([Defended(s, [way]) for s in self.sources] for way in self.settings.augment)
        return [self.sources, *behind]

    def goals(self, x: Tensor, draws: NDArray[np.float64]) -> tuple[Sequence[Goal], Tensor | None]:
        """Returns the goal on each source for ``x [B, T]``, and the classes to aim at, ``[B]``.

        Where the generator is targeted, ``draws [B]`` in [0, 1) choose among the classes that the
        first source does not answer; all sources share the choice.
        """
        with torch.inference_mode():
            outputs = [source(x) for source in self.sources]
        if not self.settings.targeted:
            pairs = zip(self.sources, outputs, strict=True)
            return [goal_of(source, answer) for source, answer in pairs], None
        count = len(self.sources[0].labels)
        first = outputs[0].argmax(dim=1).cpu().numpy()
        classes = torch.from_numpy((first + 1 + (draws * (count - 1)).astype(int)) % count)
        classes = classes.to(x.device)
        return [Targeted(classes)] * len(self.sources), classes

    def _clean_margin(self, x: Tensor, goals: Sequence[Goal]) -> Tensor:
        """The mean of the sources' margins on clean crops, ``[B]``."""
        with torch.no_grad():
            pairs = zip(goals, self.sources, strict=True)
            return torch.stack([goal.margin(source(x)) for goal, source in pairs]).mean(dim=0)

    def _budget(self, step: int) -> Budget:
        """Every sample at first, then geometrically fewer for ``dense_steps``, then the budget's.

        Where the generator learns every budget, a new one.
        """
        budget = self.settings.budget
        if self.settings.any_budget:
            rng = np.random.default_rng([self.crops.schedule.seed, step, 3])
            budget = draw_budget(rng)
            self.module.density = self.module.density and budget.max_density
            return budget
        if self.module.density is None or budget.max_density is None:
            return budget
        rest = max(0.0, 1 - (step + 1) / self.dense_steps)
        self.module.density = budget.max_density ** (1 - rest)
        return replace(budget, max_density=self.module.density)

    def evaluate(self) -> tuple[float, dict[str, float]]:
        """Returns success over all routes, mean density and SNR of the attack on whole dev clips.

        A generator that learns every budget is scored over ``JUDGED`` and its own; see ``score_budgets``.
        """
        success, figures = self.attack_dev(self.dev, self.settings.budget)
        rate = figures["dev_fooling_rate"]
        if not self.start:
            return rate, figures
        rates = [success, *self._judge()]
        return score_budgets(rates, self.start), {**figures, "dev_success": float(np.mean(rates))}

    def initial_score(self) -> float:
        if not self.settings.any_budget:
            return super().initial_score()
        success, _ = self.attack_dev(self.dev, self.settings.budget)
        self.start = [success, *self._judge()]
        return float(np.mean(self.start))

    def _judge(self) -> list[float]:
        """The success at each budget of ``JUDGED``."""
        return [self.attack_dev(self.dev, budget)[0] for budget in JUDGED]

    def attack_dev(self, clips: Sequence[Clip], budget: Budget) -> tuple[float, dict[str, float]]:
        """Attacks dev clips under a budget.

        Returns how surely answers change, the mean of ``sigmoid(-margin)``, which is smoother than a rate
        of few clips, and the figures to log.
        """
        settings, source = self.settings, self.sources[0]
        attack = Staa(generator=self.module.eval(), budget=budget, precision=settings.precision)
        fooled, success, density, snr = [], [], [], []
        others = max(1, len(source.labels) - 1)
        with torch.inference_mode():
            for number, clip in enumerate(clips):
                x, _ = collate([clip], source)
                goals, _ = self.goals(x, np.array([number % others / others + 1e-6]))
                x_adv = attack(source, x, goals[0])
                for victims in self.routes:
                    for goal, victim in zip(goals, victims, strict=True):
                        logits = victim(x_adv)
                        fooled.append(float(goal.achieved(logits)))
                        success.append(float(torch.sigmoid(-goal.margin(logits))))
                density.append(float(metrics.density(x, x_adv)))
                snr.append(float(metrics.snr_db(x, x_adv)))
        touched = [value for value in snr if math.isfinite(value)]
        return float(np.mean(success)), {
            "dev_fooling_rate": float(np.mean(fooled)),
            "dev_density": float(np.mean(density)),
            "dev_snr_db": float(np.mean(touched)) if touched else UNTOUCHED_DB,
        }

    def state(self) -> dict[str, float]:
        control = self.sparsity
        start = {f"start.{number}": value for number, value in enumerate(self.start)}
        return {"weight": control.weight, "fooling": control.fooling, "best": control.best, **start}

    def restore(self, state: Mapping[str, float]) -> None:
        self.start = [value for name, value in state.items() if name.startswith("start.")]
        for name in ("weight", "fooling", "best"):
            setattr(self.sparsity, name, state[name])


def _mean_snr_db(x: Tensor, delta: Tensor) -> float:
    ratio = metrics.snr_db(x.detach(), (x + delta).detach())
    finite = ratio[torch.isfinite(ratio)]
    return float(finite.mean()) if len(finite) else UNTOUCHED_DB


def train_generator(
    generator: Generator,
    source: Victim,
    train: Sequence[Clip],
    dev: Sequence[Clip],
    schedule: Schedule,
    folder: Path,
    *,
    settings: GeneratorSettings,
    progress: Progress = silent,
) -> History:
    """Trains ``generator`` in place against a frozen source; keeps the weights that are best on dev.

    An ensemble is fooled member by member: the loss is the mean of theirs. With ``any_budget`` the weights at
    the start stay unless others serve the budgets better, and none worse, on dev. A generator that begins as
    its source starts at the budget's density and leaves its encoder as it is. Others learn everything
    at once, and come down to the density from every sample.

    Args:
        generator: The network, with its weights at the start.
        source: What it learns to fool; it is frozen.
        train: Clips; labels are not used.
        dev: Clips of other speakers, that choose the weights.
        schedule: How long and how fast.
        folder: Where the training curve and checkpoints go; a stopped training goes on from there.
        settings: Budget, objective and the like.
        progress: Receives a call per step.

    Returns:
        The training curve.

    Raises:
        InvalidInput: The loss is not finite.
    """
    source.requires_grad_(False).eval()
    dense_steps = max(1, schedule.steps * 6 // 10)
    if isinstance(generator, BackwardNet | EnsembleGenerator):
        generator.freeze_encoder()
    if isinstance(generator, BackwardNet | SurrogateGradient | EnsembleGenerator):
        dense_steps = 1
    crops = Crops(train, schedule)
    judges = stratified_subset(dev, DEV_CLIPS) if settings.any_budget else dev
    task = GeneratorTask(
        generator, members_of(source), crops, judges, settings, dense_steps=dense_steps
    )
    what = f"train generator on {source.name}"
    history = fit(task, schedule, folder, what=what, progress=progress)
    generator.density = generator.settings["density"]  # wherever training stopped on its way there
    if settings.any_budget:  # the score of several budgets is no rate
        _, figures = task.attack_dev(judges, settings.budget)
        history.best_score = figures["dev_fooling_rate"]
    generator.requires_grad_(False).eval()
    return history


def collapse_flags(last: Mapping[str, float]) -> list[str]:
    """Returns warnings for a mask that ended empty or full, from the last row of a history.

    >>> collapse_flags({"density": 0.0})
    ['mask empty at the end of training: SNR undefined']
    """
    density = last["density"]
    if density < EMPTY_MASK:
        return ["mask empty at the end of training: SNR undefined"]
    return ["mask full at the end of training: not sparse"] if density > FULL_MASK else []
