"""Adversarial training: a victim learns on what fools it now; one more task for ``training.fit``.

Madry et al. 2018 (arXiv 1706.06083) train on PGD, here on every sample or on the few that a budget
allows; TRADES (Zhang et al. 2019, arXiv 1901.08573) pulls the answer to a changed clip towards the
answer to the clip itself; ``staa`` trains a STAA-Net generator beside the victim, a step each. Two
more methods make a victim fit for a certificate rather than hard to attack: ``gaussian`` (Cohen et
al. 2019, arXiv 1902.02918) and ``ablation`` (Levine and Feizi 2020, arXiv 1911.09272). What is kept is
the running mean of the weights (Izmailov et al. 2018, arXiv 1803.05407; for robustness, Rebuffi et al.
2021, arXiv 2111.05328).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from staanet import training
from staanet.attacks import PGD, Staa, collate
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
from staanet.generators.losses import Objective, SparsityController
from staanet.transforms.noise import Ablation, Gaussian, SmoothingNoise

METHODS = ("pgd", "sparse_pgd", "sparse_trades", "staa", "trades", "gaussian", "ablation")
SPARSE = ("sparse_pgd", "sparse_trades", "staa")
"""Methods whose budget limits the number of samples."""
PULLING = ("trades", "sparse_trades")
"""Methods that pull the answer to a twin towards that to the clip, whatever the label."""
FROZEN = "feature_extractor"
"""The part of a self-supervised victim that fine-tuning leaves alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardening:
    """How a victim is hardened.

    ``budget`` is what it is to withstand and what dev clips are judged under; ``steps`` is T of the
    inner attack. ``weight`` is the adversarial share of the loss (1 is Madry et al.'s own), for
    ``trades`` and ``sparse_trades`` its beta (the paper takes 6). ``sparse_trades`` crafts as
    ``sparse_pgd`` does, against the label: the divergence has no gradient at the clip itself, which
    could tell the few samples to begin with. Epsilon grows to its full size over the share ``ramp`` of
    the steps. ``average`` is the decay of the running mean of the weights, 0 keeps the weights
    themselves. ``sigma`` and ``keep`` belong to ``gaussian`` and ``ablation``. Raises ``InvalidInput``
    where the method is unknown or does not fit the budget.
    """

    method: str = "pgd"
    budget: Budget = Budget(epsilon=0.03)
    steps: int = 4
    weight: float | None = None
    ramp: float = 0.3
    average: float = 0.99
    sigma: float = 0.02
    keep: float = 0.3

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise unknown_name("method of hardening", self.method, METHODS)
        if self.method == "trades" and self.budget.max_density is not None:
            raise InvalidInput(
                "trades changes every sample: the divergence has no gradient at the clip itself, "
                "which could tell the few samples to begin with",
                remedy="Leave out the largest density, or take the method sparse_trades",
            )
        if self.method in SPARSE and self.budget.max_density is None:
            raise InvalidInput(f"{self.method} needs a largest density", remedy="Give one, say 0.2")
        if not (0 <= self.ramp <= 1 and 0 <= self.average < 1):
            raise InvalidInput(
                f"ramp is {self.ramp}, average {self.average}",
                remedy="Give a ramp in [0, 1] and an average in [0, 1)",
            )
        largest = 100.0 if self.method in PULLING else 1.0
        if not 0 < self.share <= largest:
            raise InvalidInput(
                f"the weight of {self.method} is {self.weight}",
                remedy=f"Give a value in (0, {largest:g}]",
            )
        self.noise()  # an unusable sigma or keep is told now

    @property
    def share(self) -> float:
        """The weight of the adversarial term.

        >>> Hardening(method="trades").share, Hardening(method="pgd").share
        (6.0, 0.5)
        """
        usual = 6.0 if self.method in PULLING else 0.5
        return usual if self.weight is None else self.weight

    def attack(self, done: float = 1.0) -> PGD:
        """PGD within the budget, its step 2.5 epsilon / T as Madry et al. take it, once the share
        ``done`` of training is over.

        >>> Hardening(ramp=0.5).attack(0.25).budget.epsilon, Hardening(ramp=0.5).attack(0.5).budget.epsilon
        (0.015, 0.03)
        """
        grown = min(1.0, max(done / self.ramp, 0.1)) if self.ramp else 1.0
        budget = replace(self.budget, epsilon=grown * self.budget.epsilon)
        return PGD(budget=budget, steps=self.steps, relative_step=min(1.0, 2.5 / self.steps))

    def noise(self) -> SmoothingNoise | None:
        """What takes the place of an attack in ``gaussian`` and ``ablation``."""
        if self.method == "gaussian":
            return Gaussian(sigma=self.sigma)
        return Ablation(keep=self.keep) if self.method == "ablation" else None


@dataclass(frozen=True, slots=True)
class Divergence:
    """TRADES's inner goal: an answer far from ``expected [B, K]`` probabilities; PGD follows it."""

    expected: Tensor

    def margin(self, logits: Tensor) -> Tensor:
        """``-KL(expected || softmax(logits))``, ``[B, K] -> [B]``, to be minimised.

        >>> Divergence(torch.tensor([[0.5, 0.5]])).margin(torch.tensor([[1.0, 1.0]])).abs().round(decimals=6)
        tensor([0.])
        """
        return -_divergence(logits.log_softmax(dim=1), self.expected)


def _divergence(log_answer: Tensor, expected: Tensor) -> Tensor:
    """``KL(expected || answer)``, ``[B]``."""
    return F.kl_div(log_answer, expected, reduction="none").sum(dim=1)


class Together(nn.Module):
    """A victim, the running mean of its weights and its generator, for one checkpoint and one optimiser."""

    def __init__(self, victim: Victim, mean: Victim | None, generator: Generator | None) -> None:
        super().__init__()
        self.victim, self.mean, self.generator = victim, mean, generator


def follow(mean: Victim, victim: Victim, decay: float, step: int) -> None:
    """Move ``mean`` towards ``victim``, by more in the first steps, when the mean is of few."""
    share = 1 - min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for own, other in zip(
            mean.state_dict().values(), victim.state_dict().values(), strict=True
        ):
            if own.is_floating_point():
                own.lerp_(other, share)
            else:
                own.copy_(other)


def _copied(victim: Victim) -> Victim:
    """Weights of its own; those of an LSTM lie together, as cuDNN wants them."""
    copied = copy.deepcopy(victim)
    for module in copied.modules():
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()
    return copied


@dataclass
class HardeningTask:
    """Cross-entropy on clips and their changed twins; judged by the mean of UAR on dev as it is and
    under PGD of the same budget, whatever the method, so that methods compare."""

    victim: Victim
    crops: training.Crops
    dev: Sequence[Clip]
    how: Hardening
    rival: training.GeneratorTask | None = None
    """The generator's own task, of ``staa``; both take a step on the same crops."""
    mean: Victim | None = field(init=False)
    module: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        self.mean = _copied(self.victim) if self.how.average else None
        if self.mean is not None:
            freeze(self.mean)
        self.module = Together(self.victim, self.mean, self.rival.module if self.rival else None)
        order = {label: number for number, label in enumerate(self.victim.labels)}
        self.targets = np.array([order[clip.label or ""] for clip in self.crops.clips])
        self.batches = training.Ahead(self._drawn, self.victim.device)

    def _drawn(self, step: int) -> tuple[Tensor, Tensor]:
        x, chosen = self.crops.draw(step)
        return x, torch.from_numpy(self.targets[chosen])

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        self._follow(step)
        x, wanted = self.batches(step)
        freeze(self.victim)
        rivalry, figures = self.rival.loss(step) if self.rival else (x.new_zeros(()), {})
        x_adv = self.changed(x, wanted, step)
        unfreeze(self.victim)
        clean, adversarial = self.victim(torch.cat([x, x_adv])).chunk(2)  # one pass: one BatchNorm
        figures = {
            **{f"generator_{name}": value for name, value in figures.items()},
            "train_accuracy": float((clean.argmax(dim=1) == wanted).float().mean()),
            "adversarial_accuracy": float((adversarial.argmax(dim=1) == wanted).float().mean()),
        }
        return self._against(clean, adversarial, wanted) + rivalry, figures

    def _follow(self, step: int) -> None:
        """The mean takes the weights that the step before ``step`` left."""
        if self.mean is not None and step:
            follow(self.mean, self.victim, self.how.average, step)

    @property
    def kept(self) -> Victim:
        """What is judged and kept: the running mean, or the victim itself where there is none."""
        return self.victim if self.mean is None else self.mean

    def changed(self, x: Tensor, wanted: Tensor, step: int) -> Tensor:
        """The twins of crops ``x [B, T]`` that are labelled ``wanted [B]``."""
        noise = self.how.noise()
        if noise is not None:
            return noise(x, torch.Generator().manual_seed(self.crops.schedule.seed * 2**20 + step))
        if self.rival is not None:
            staa = Staa(generator=self.rival.module.eval(), budget=self.how.budget)
            return staa(self.victim, x, Untargeted(wanted)).clone()  # no longer of inference
        attack = self.how.attack((step + 1) / self.crops.schedule.steps)
        if self.how.method == "trades":
            with torch.no_grad():
                goal = Divergence(self.victim(x).softmax(dim=1))
            return attack(self.victim, x, goal)  # type: ignore[arg-type]
        return attack(self.victim, x, Untargeted(wanted))

    def _against(self, clean: Tensor, adversarial: Tensor, wanted: Tensor) -> Tensor:
        own = F.cross_entropy(clean, wanted)
        if self.how.method in PULLING:
            apart = _divergence(adversarial.log_softmax(dim=1), clean.softmax(dim=1))
            return own + self.how.share * apart.mean()
        return (1 - self.how.share) * own + self.how.share * F.cross_entropy(adversarial, wanted)

    def evaluate(self) -> tuple[float, dict[str, float]]:
        freeze(self.kept)
        clean, attacked = judged(self.kept, self.dev, self.how.attack())
        return (clean + attacked) / 2, {"dev_uar": clean, "dev_adversarial_uar": attacked}

    def state(self) -> dict[str, float]:
        return self.rival.state() if self.rival else {}

    def restore(self, state: Mapping[str, float]) -> None:
        if self.rival:
            self.rival.restore(state)

    def cost(self, steps: int = 3) -> dict[str, float]:
        """Seconds of a step of this task and of a plain one on the same crops, and their ratio.

        Each is the fastest of ``steps``, forward and backward; the module is left as it was.
        """
        kept = {name: tensor.clone() for name, tensor in self.module.state_dict().items()}
        numbers = self.state()
        hardened = min(self._timed(number, plain=False) for number in range(steps))
        plain = min(self._timed(number, plain=True) for number in range(steps))
        self.module.load_state_dict(kept)
        self.restore(numbers)
        return {"step_s": hardened, "plain_step_s": plain, "times": hardened / plain}

    def _timed(self, step: int, *, plain: bool) -> float:
        begun = time.perf_counter()
        if plain:
            x, chosen = self.crops.draw(step)
            unfreeze(self.victim)
            wanted = torch.from_numpy(self.targets[chosen]).to(self.victim.device)
            loss = F.cross_entropy(self.victim(x.to(self.victim.device)), wanted)
        else:
            loss, _ = self.loss(step)
        loss.backward()  # type: ignore[no-untyped-call]
        seconds = time.perf_counter() - begun
        self.module.zero_grad(set_to_none=True)
        return seconds


def freeze(victim: Victim) -> None:
    """As an attacker meets it: frozen, and in ``eval()``."""
    victim.requires_grad_(False).eval()


def unfreeze(victim: Victim) -> None:
    """As training changes it."""
    victim.train()
    for name, weight in victim.named_parameters():
        weight.requires_grad_(FROZEN not in name)


def judged(victim: Victim, clips: Sequence[Clip], attack: PGD) -> tuple[float, float]:
    """UAR on whole labelled clips as they are, and after ``attack``, each clip alone."""
    clean, attacked = [], []
    for clip in clips:
        x, _ = collate([clip], victim)
        label = victim.labels.index(clip.label or "")
        x_adv = attack(victim, x, Untargeted(label))
        with torch.inference_mode():
            clean.append(victim.labels[int(victim(x).argmax())])
            attacked.append(victim.labels[int(victim(x_adv).argmax())])
    truth = [clip.label or "" for clip in clips]
    return metrics.uar(truth, clean), metrics.uar(truth, attacked)


def harden(
    victim: Victim,
    train: Sequence[Clip],
    dev: Sequence[Clip],
    schedule: training.Schedule,
    folder: Path,
    *,
    how: Hardening,
    generator: Generator | None = None,
    judge_on: int = 48,
    progress: Progress = silent,
) -> tuple[training.History, dict[str, float]]:
    """Train ``victim`` on in place; the weights of the best dev score are kept, frozen.

    ``staa`` needs the ``generator`` that trains beside it. ``judge_on`` dev clips, spread over labels
    and speakers, are attacked at each judgement. Returns the history and what a step costs beside a
    plain one. A stopped hardening goes on bit for bit where it was.
    """
    if not victim.differentiable:
        raise InvalidInput(
            f"{victim.name} is a black box: it cannot be trained",
            remedy="Put a transformation or a detector in front of it instead",
        )
    crops = training.Crops(train, schedule, training.balanced([clip.label or "" for clip in train]))
    chosen = stratified_subset(dev, judge_on)
    rival = None
    if how.method == "staa":
        if generator is None:
            raise InvalidInput("staa trains a generator beside the victim", remedy="Give one")
        rival = _rival(generator, victim, crops, how.budget)
    task = HardeningTask(victim, crops, chosen, how, rival)
    unfreeze(victim)
    cost = task.cost()
    history = training.fit(
        task, schedule, folder, what=f"harden {victim.name} by {how.method}", progress=progress
    )
    if task.mean is not None:
        victim.load_state_dict(task.mean.state_dict())
    freeze(victim)
    return history, cost


def _rival(
    generator: Generator, victim: Victim, crops: training.Crops, budget: Budget
) -> training.GeneratorTask:
    density = 1.0 if budget.max_density is None else budget.max_density
    if generator.density is not None:
        generator.density = density
    return training.GeneratorTask(
        generator.requires_grad_(True),
        [victim],
        replace(crops, weights=crops.weights),
        [],
        budget,
        Objective(),
        SparsityController(target=density, warmup=crops.schedule.steps // 10),
    )
