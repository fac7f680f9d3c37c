"""Adversarial training: a victim learns on clips that fool its present weights.

Madry et al. 2018 (arXiv 1706.06083) train on PGD, here on every sample or on the few that a budget
allows. TRADES (Zhang et al. 2019, arXiv 1901.08573) pulls the answer to a changed clip towards the
answer to the clip itself. ``staa`` trains a STAA-Net generator beside the victim, a step each. Two
more methods prepare a victim for a certificate: ``gaussian`` (Cohen et al. 2019, arXiv 1902.02918) and
``ablation`` (Levine and Feizi 2020, arXiv 1911.09272). The result is the running mean of the weights
(Izmailov et al. 2018, arXiv 1803.05407; for robustness, Rebuffi et al. 2021, arXiv 2111.05328).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from staanet.attacks import PGD, Staa, collate
from staanet.config import GeneratorRecipe, HardenRecipe, scale_epsilon
from staanet.core import (
    Budget,
    Clip,
    Progress,
    Untargeted,
    Victim,
    metrics,
    silent,
    stratified_subset,
)
from staanet.errors import InvalidInput, unknown_name
from staanet.generators.base import Generator
from staanet.generators.losses import Objective
from staanet.training.crops import Crops, balanced_crops, labelled_batches
from staanet.training.fit import History, Schedule, Task, fit
from staanet.training.generators import GeneratorSettings, GeneratorTask
from staanet.transforms.noise import Ablation, Gaussian, SmoothingNoise

METHODS = ("pgd", "sparse_pgd", "sparse_trades", "staa", "trades", "gaussian", "ablation")
SPARSE = ("sparse_pgd", "sparse_trades", "staa")
"""Methods whose budget limits the number of samples."""
TRADES = ("trades", "sparse_trades")
"""Methods that pull the answer to a changed clip towards that to the clip, whatever the label."""
FROZEN = "feature_extractor"
"""The part of a self-supervised victim that fine-tuning leaves alone."""
DEV_CLIPS = 48
"""So many dev clips, even over labels and speakers, are attacked at each evaluation."""


@dataclass(frozen=True, slots=True)
class AdversarialTraining:
    """How a victim is trained against attacks, by its ``recipe``.

    ``sparse_trades`` crafts as ``sparse_pgd`` does, against the label: the divergence has no gradient at
    the clip itself, which could choose the first few samples. Raises ``InvalidInput`` where the method
    is unknown or does not fit the budget.
    """

    recipe: HardenRecipe

    def __post_init__(self) -> None:
        recipe, method = self.recipe, self.recipe.method
        if method not in METHODS:
            raise unknown_name("method of hardening", method, METHODS)
        if method == "trades" and recipe.max_density is not None:
            raise InvalidInput(
                "trades changes every sample: the divergence has no gradient at the clip itself, "
                "which could choose the first few samples",
                remedy="Leave out the largest density, or take the method sparse_trades",
            )
        if not (0 <= recipe.ramp <= 1 and 0 <= recipe.average < 1):
            raise InvalidInput(
                f"ramp is {recipe.ramp}, average {recipe.average}",
                remedy="Give a ramp in [0, 1] and an average in [0, 1)",
            )
        largest = 100.0 if method in TRADES else 1.0
        if not 0 < self.weight <= largest:
            raise InvalidInput(
                f"the weight of {method} is {recipe.weight}",
                remedy=f"Give a value in (0, {largest:g}]",
            )
        self.noise()  # raises where sigma or keep cannot be used

    @property
    def budget(self) -> Budget:
        """The budget of the attacks in training and on dev clips.

        >>> AdversarialTraining(HardenRecipe(method="staa")).budget.max_density
        0.2
        """
        density = self.recipe.max_density
        if density is None and self.recipe.method in SPARSE:
            density = GeneratorRecipe().max_density
        return Budget(epsilon=self.recipe.epsilon, max_density=density)

    @property
    def weight(self) -> float:
        """The weight of the adversarial term: a share of the loss, or beta of TRADES (the paper: 6).

        >>> AdversarialTraining(HardenRecipe(method="trades")).weight
        6.0
        """
        default = 6.0 if self.recipe.method in TRADES else 0.5
        return default if self.recipe.weight is None else self.recipe.weight

    def attack(self, done: float = 1.0) -> PGD:
        """Returns PGD within the budget once the share ``done`` of training is over.

        Its step is 2.5 epsilon / T, as in Madry et al. Epsilon grows over the share ``ramp`` of training.

        >>> method = AdversarialTraining(HardenRecipe(epsilon=0.03, ramp=0.5))
        >>> method.attack(0.25).budget.epsilon, method.attack(0.5).budget.epsilon
        (0.015, 0.03)
        """
        recipe = self.recipe
        growth = min(1.0, max(done / recipe.ramp, 0.1)) if recipe.ramp else 1.0
        budget = replace(self.budget, epsilon=scale_epsilon(recipe.epsilon, growth))
        steps = recipe.inner_steps
        return PGD(budget=budget, steps=steps, relative_step=min(1.0, 2.5 / steps))

    def noise(self) -> SmoothingNoise | None:
        """Returns what takes the place of an attack in ``gaussian`` and ``ablation``."""
        if self.recipe.method == "gaussian":
            return Gaussian(sigma=self.recipe.sigma)
        return Ablation(keep=self.recipe.keep) if self.recipe.method == "ablation" else None


@dataclass(frozen=True, slots=True)
class Divergence:
    """The inner goal of TRADES: an answer far from ``expected [B, K]`` probabilities."""

    expected: Tensor

    def margin(self, logits: Tensor) -> Tensor:
        """Returns ``-KL(expected || softmax(logits))``, ``[B, K] -> [B]``, to be minimised.

        >>> Divergence(torch.tensor([[0.5, 0.5]])).margin(torch.tensor([[1.0, 1.0]])).abs().round(decimals=6)
        tensor([0.])
        """
        return -_divergence(logits.log_softmax(dim=1), self.expected)


def _divergence(log_probabilities: Tensor, expected: Tensor) -> Tensor:
    """``KL(expected || probabilities)``, ``[B, K], [B, K] -> [B]``."""
    return F.kl_div(log_probabilities, expected, reduction="none").sum(dim=1)


class TrainedTogether(nn.Module):
    """A victim, the running mean of its weights and its generator: one checkpoint, one optimiser."""

    def __init__(self, victim: Victim, mean: Victim | None, generator: Generator | None) -> None:
        super().__init__()
        self.victim, self.mean, self.generator = victim, mean, generator


def update_mean(mean: Victim, victim: Victim, decay: float, step: int) -> None:
    """Moves ``mean`` towards ``victim``, by more in the first steps, when it is a mean of few."""
    share = 1 - min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for tensor, new in zip(
            mean.state_dict().values(), victim.state_dict().values(), strict=True
        ):
            if tensor.is_floating_point():
                tensor.lerp_(new, share)
            else:
                tensor.copy_(new)


def _copy_victim(victim: Victim) -> Victim:
    """A frozen copy; the weights of an LSTM lie together, as cuDNN needs them."""
    mean = copy.deepcopy(victim)
    for module in mean.modules():
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()
    freeze(mean)
    return mean


@dataclass
class AdversarialTask(Task):
    """Cross-entropy on clips and their attacked twins.

    Whatever the method, the score is the mean of UAR on dev as it is and under PGD of the same budget,
    so that methods compare.
    """

    victim: Victim
    crops: Crops
    dev: Sequence[Clip]
    method: AdversarialTraining
    rival: GeneratorTask | None = None
    """The task of the generator of ``staa``; both take a step on the same crops."""
    mean: Victim | None = field(init=False)
    module: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        self.mean = _copy_victim(self.victim) if self.method.recipe.average else None
        generator = self.rival.module if self.rival else None
        self.module = TrainedTogether(self.victim, self.mean, generator)
        self.batches = labelled_batches(self.victim, self.crops)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        if self.mean is not None and step:  # of the weights that the step before left
            update_mean(self.mean, self.victim, self.method.recipe.average, step)
        x, y = self.batches(step)
        freeze(self.victim)
        rival_loss, figures = self.rival.loss(step) if self.rival else (x.new_zeros(()), {})
        x_adv = self.attacked(x, y, step)
        unfreeze(self.victim)
        clean, adversarial = self.victim(torch.cat([x, x_adv])).chunk(2)  # one pass: one BatchNorm
        figures = {
            **{f"generator_{name}": value for name, value in figures.items()},
            "train_accuracy": float((clean.argmax(dim=1) == y).float().mean()),
            "adversarial_accuracy": float((adversarial.argmax(dim=1) == y).float().mean()),
        }
        return self.victim_loss(clean, adversarial, y) + rival_loss, figures

    @property
    def result(self) -> Victim:
        """The module that is evaluated and saved: the running mean of weights, or else the victim."""
        return self.victim if self.mean is None else self.mean

    def attacked(self, x: Tensor, y: Tensor, step: int) -> Tensor:
        """Returns the twins of crops ``x [B, T]`` with labels ``y [B]``."""
        schedule, noise = self.crops.schedule, self.method.noise()
        if noise is not None:
            return noise(x, torch.Generator().manual_seed(schedule.seed * 2**20 + step))
        if self.rival is not None:
            staa = Staa(generator=self.rival.module.eval(), budget=self.method.budget)
            return staa(self.victim, x, Untargeted(y)).clone()  # no longer a tensor of inference
        attack = self.method.attack((step + 1) / schedule.steps)
        if self.method.recipe.method == "trades":
            with torch.no_grad():
                goal = Divergence(self.victim(x).softmax(dim=1))
            return attack(self.victim, x, goal)  # type: ignore[arg-type]
        return attack(self.victim, x, Untargeted(y))

    def victim_loss(self, clean: Tensor, adversarial: Tensor, y: Tensor) -> Tensor:
        """Returns the loss of logits on clips and on their twins, ``[B, K], [B, K], [B] -> []``."""
        clean_loss, weight = F.cross_entropy(clean, y), self.method.weight
        if self.method.recipe.method in TRADES:
            distance = _divergence(adversarial.log_softmax(dim=1), clean.softmax(dim=1))
            return clean_loss + weight * distance.mean()
        return (1 - weight) * clean_loss + weight * F.cross_entropy(adversarial, y)

    def evaluate(self) -> tuple[float, dict[str, float]]:
        freeze(self.result)
        clean, attacked = attacked_uar(self.result, self.dev, self.method.attack())
        return (clean + attacked) / 2, {"dev_uar": clean, "dev_adversarial_uar": attacked}

    def state(self) -> dict[str, float]:
        return self.rival.state() if self.rival else {}

    def restore(self, state: Mapping[str, float]) -> None:
        if self.rival:
            self.rival.restore(state)

    def cost(self, steps: int = 3) -> dict[str, float]:
        """Returns seconds of a step of this task and of a plain one on the same crops, and their ratio.

        Each is the fastest of ``steps``, forward and backward. The module stays as it was.
        """
        weights = {name: tensor.clone() for name, tensor in self.module.state_dict().items()}
        state = self.state()
        adversarial = min(self._step_seconds(step, plain=False) for step in range(steps))
        plain = min(self._step_seconds(step, plain=True) for step in range(steps))
        self.module.load_state_dict(weights)
        self.restore(state)
        return {"step_s": adversarial, "plain_step_s": plain, "times": adversarial / plain}

    def _step_seconds(self, step: int, *, plain: bool) -> float:
        start = time.perf_counter()
        if plain:
            unfreeze(self.victim)
            x, y = self.batches(step)
            loss = F.cross_entropy(self.victim(x), y)
        else:
            loss, _ = self.loss(step)
        loss.backward()  # type: ignore[no-untyped-call]
        seconds = time.perf_counter() - start
        self.module.zero_grad(set_to_none=True)
        return seconds


def freeze(victim: Victim) -> None:
    """Puts a victim into the state in which it is attacked: no weight learns, and ``eval()``."""
    victim.requires_grad_(False).eval()


def unfreeze(victim: Victim) -> None:
    """Puts a victim into the state in which it learns; the feature extractor of speech models stays."""
    victim.train()
    for name, weight in victim.named_parameters():
        weight.requires_grad_(FROZEN not in name)


def attacked_uar(victim: Victim, clips: Sequence[Clip], attack: PGD) -> tuple[float, float]:
    """Returns UAR on whole labelled clips as they are, and after ``attack``, each clip alone."""
    clean, attacked = [], []
    for clip in clips:
        x, _ = collate([clip], victim)
        x_adv = attack(victim, x, Untargeted(victim.labels.index(clip.label or "")))
        with torch.inference_mode():
            clean.append(victim.labels[int(victim(x).argmax())])
            attacked.append(victim.labels[int(victim(x_adv).argmax())])
    truth = [clip.label or "" for clip in clips]
    return metrics.uar(truth, clean), metrics.uar(truth, attacked)


def train_adversarially(
    victim: Victim,
    train: Sequence[Clip],
    dev: Sequence[Clip],
    schedule: Schedule,
    folder: Path,
    *,
    method: AdversarialTraining,
    generator: Generator | None = None,
    progress: Progress = silent,
) -> tuple[History, dict[str, float]]:
    """Trains ``victim`` on in place; keeps the weights of the best dev score, frozen.

    Args:
        victim: A trained victim.
        train: Labelled clips.
        dev: Labelled clips of other speakers; some of them are attacked at each evaluation.
        schedule: How long and how fast.
        folder: Where the training curve and checkpoints go; a stopped training goes on bit for bit.
        method: How it learns, and what it is to withstand.
        generator: The one that is trained beside the victim; ``staa`` needs it.
        progress: Receives a call per step.

    Returns:
        The training curve, and what a step costs beside a plain one.

    Raises:
        InvalidInput: The victim is a black box, ``staa`` has no generator, or the loss is not finite.
    """
    if not victim.differentiable:
        raise InvalidInput(
            f"{victim.name} is a black box: it cannot be trained",
            remedy="Put a transformation or a detector in front of it instead",
        )
    crops, rival = balanced_crops(train, schedule), None
    if method.recipe.method == "staa":
        if generator is None:
            raise InvalidInput("staa trains a generator beside the victim", remedy="Give one")
        rival = rival_task(generator, victim, crops, method.budget)
    task = AdversarialTask(victim, crops, stratified_subset(dev, DEV_CLIPS), method, rival)
    unfreeze(victim)
    cost = task.cost()
    what = f"harden {victim.name} by {method.recipe.method}"
    history = fit(task, schedule, folder, what=what, progress=progress)
    if task.mean is not None:
        victim.load_state_dict(task.mean.state_dict())
    freeze(victim)
    return history, cost


def rival_task(generator: Generator, victim: Victim, crops: Crops, budget: Budget) -> GeneratorTask:
    """Returns the task of a generator that learns on the crops of the victim that it attacks."""
    settings = GeneratorSettings(budget=budget, objective=Objective())
    if generator.density is not None:
        generator.density = settings.density
    return GeneratorTask(generator.requires_grad_(True), [victim], crops, [], settings)
