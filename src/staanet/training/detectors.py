"""How well a detector tells attacked clips from clean ones, its threshold, and training a learned one.

The threshold is chosen on clean dev clips at a named rate of false alarms, before any attacked clip is
seen; ROC and AUROC tell what every threshold would do on test clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import trapezoid
from torch import Tensor

from staanet import training
from staanet.attacks import PGD, collate, craft_batch
from staanet.core import Attack, Budget, Clip, Goal, Progress, Untargeted, Victim, metrics, silent
from staanet.defences import DetectorGated, Undetected
from staanet.defences.detectors import FRAME_S, Detector, Learned
from staanet.errors import InvalidInput
from staanet.generators.base import Generator
from staanet.generators.losses import Objective, SparsityController
from staanet.results.adversarial_set import AdversarialClip


def roc(clean: ArrayLike, attacked: ArrayLike) -> list[tuple[float, float]]:
    """(false-alarm rate, detection rate) at every threshold, from (0, 0) to (1, 1).

    Equal scores fall together, so that ties count half in the area under it.

    >>> roc([1.0, 2.0], [2.0, 3.0])
    [(0.0, 0.0), (0.0, 0.5), (0.5, 1.0), (1.0, 1.0)]
    """
    below, above = np.sort(np.asarray(clean, float)), np.sort(np.asarray(attacked, float))
    if not (len(below) and len(above)):
        raise InvalidInput(
            f"{len(below)} clean and {len(above)} attacked clips",
            remedy="Give at least one of each",
        )
    points = [(0.0, 0.0)]
    for threshold in np.unique(np.concatenate([below, above]))[::-1]:
        points.append((float(np.mean(below >= threshold)), float(np.mean(above >= threshold))))
    return points


def auroc(clean: ArrayLike, attacked: ArrayLike) -> float:
    """The area under ``roc``: how probably an attacked clip is the more suspicious of a pair.

    >>> auroc([1.0, 2.0], [2.0, 3.0])  # of four pairs three, and a tie for half
    0.875
    """
    points = np.array(roc(clean, attacked))
    return float(trapezoid(points[:, 1], points[:, 0]))


def threshold_at(clean: ArrayLike, false_positive_rate: float) -> float:
    """The least threshold above which at most a share ``false_positive_rate`` of clean scores lies.

    >>> threshold_at([1.0, 2.0, 3.0, 4.0], 0.25)
    3.0
    """
    check_rate(false_positive_rate)
    scores = np.sort(np.asarray(clean, float))
    allowed = int(np.floor(false_positive_rate * len(scores) + 1e-9))
    return float(scores[len(scores) - 1 - allowed])


def check_rate(false_positive_rate: float) -> None:
    """``InvalidInput`` where no threshold has such a rate of false alarms."""
    if not 0 <= false_positive_rate < 1:
        raise InvalidInput(
            f"false-alarm rate {false_positive_rate}", remedy="Give a share in [0, 1)"
        )


def detector_scores(
    detector: Detector,
    victim: Victim,
    clips: Sequence[Clip],
    *,
    what: str = "detector_scores",
    progress: Progress = silent,
) -> NDArray[np.float64]:
    """Each clip's detector_score, alone, ``[N]``."""
    found = []
    with torch.inference_mode():
        for number, clip in enumerate(clips, start=1):
            x, _ = collate([clip], victim)
            found.append(float(detector(victim, x)[0]))
            progress(what, number, len(clips), "")
    return np.array(found)


def guarded(
    victim: Victim, detector: Detector, dev: Sequence[Clip], *, false_positive_rate: float
) -> DetectorGated:
    """``victim`` behind ``detector``, which abstains from at most a share ``false_positive_rate`` of dev clips."""
    if not dev:
        raise InvalidInput("no dev clip to choose a threshold on", remedy="Give usable clips")
    scores = detector_scores(detector, victim, dev)
    return DetectorGated(
        victim,
        detector,
        threshold=threshold_at(scores, false_positive_rate),
        scale=float(max(scores.std(), 1e-3)),
        false_positive_rate=false_positive_rate,
    )


def told(
    attack: str,
    target: DetectorGated,
    clips: Sequence[AdversarialClip],
    progress: Progress = silent,
) -> dict[str, Any]:
    """ROC, AUROC and what the chosen threshold does to pairs of one attack, with intervals.

    ``fooled`` counts changed answers as if there were no detector, ``fooled_undetected`` those that
    the victim gave rather than abstained.
    """
    detector, inner = target.detector, target.inner
    what = f"look for {attack}"
    clean = detector_scores(
        detector, inner, [c.clean for c in clips], what=f"{what}: clean", progress=progress
    )
    twins = [replace(clip.clean, pcm16=clip.adversarial) for clip in clips]
    attacked = detector_scores(detector, inner, twins, what=what, progress=progress)
    speakers = [clip.clean.speaker for clip in clips]
    changed = np.array(
        [
            bool(_answer(inner, a.clean) != _answer(inner, b))
            for a, b in zip(clips, twins, strict=True)
        ]
    )
    seen = attacked > target.threshold
    points = roc(clean, attacked)
    return {
        "attack": attack,
        "count": len(clips),
        "auroc": auroc(clean, attacked),
        "false_positive_rates": _told(metrics.rate(clean > target.threshold, speakers)),
        "detected": _told(metrics.rate(seen, speakers)),
        "fooled": _told(metrics.rate(changed, speakers)),
        "fooled_undetected": _told(metrics.rate(changed & ~seen, speakers)),
        "roc": [{"false_positive_rate": x, "detected": y} for x, y in points],
    }


def _answer(victim: Victim, clip: Clip) -> int:
    with torch.inference_mode():
        return int(victim(collate([clip], victim)[0]).argmax())


def _told(estimate: metrics.Estimate) -> dict[str, Any]:
    return {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "count": estimate.count,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class AwarePGD:
    """PGD against victim and detector at once: another answer, given rather than abstained from.

    ``source`` is the guarded victim; the labels of the goal are its own answers. Where following the
    detector's gradient fails, PGD is tried that leaves the softest ``quiet`` of a clip untouched, which
    is what ``residual`` iterations at.
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
        own = PGD(budget=self.budget, steps=self.steps, seed=self.seed, relative_step=0.1)
        aware, wanted = source.reject_class_view(), Undetected(goal.label)
        through = own(aware, x, wanted, lengths)
        loud = own(Loud(source, x, lengths, quiet=self.quiet), x, goal, lengths)
        with torch.inference_mode():
            failed = ~wanted.achieved(aware(through, lengths))
            instead = failed & wanted.achieved(aware(loud, lengths))
        return torch.where(instead[:, None], loud, through)


class Loud(Victim):
    """A victim whose clips ``x [B, T]`` may change in loud stretches alone: ``quiet`` of each clip's 20 ms
    stretches, the softest, are as they were, and a detector that iterations at those sees nothing."""

    architecture = "loud"

    def __init__(self, inner: Victim, x: Tensor, lengths: Tensor | None, *, quiet: float) -> None:
        super().__init__(name=inner.name, labels=inner.labels, sample_rate=inner.sample_rate)
        self.inner, self.x = inner, x
        self.mask = torch.zeros_like(x, dtype=torch.bool)
        size = max(1, round(FRAME_S * inner.sample_rate))
        for row in range(len(x)):
            length = x.shape[1] if lengths is None else int(lengths[row])
            energy = F.pad(x[row, :length], (0, -length % size)).view(-1, size).square().sum(dim=1)
            loud = energy > energy.quantile(quiet)
            self.mask[row, :length] = loud.repeat_interleave(size)[:length]
        self.eval()

    @property
    def device(self) -> torch.device:
        return self.inner.device

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        answer: Tensor = self.inner(torch.where(self.mask, waveforms, self.x), lengths)
        return answer


def aware_clips(
    target: DetectorGated, clips: Sequence[Clip], attack: Attack, *, progress: Progress = silent
) -> list[AdversarialClip]:
    """What an attacker makes of clips who knows the detector, on the 16-bit grid."""
    made: list[AdversarialClip] = []
    for number, clip in enumerate(clips, start=1):
        made += craft_batch(attack, target, [clip])
        progress(f"attack {target.name} knowing the detector", number, len(clips), "")
    return made


# ---------------------------------------------------------------- a generator that knows


@dataclass
class AwareTask(training.GeneratorTask):
    """A generator against victim and detector at once, judged by answers that it changed unseen.

    Its one source is the aware view of a guarded victim.
    """

    def goals(self, x: Tensor, draws: NDArray[np.float64]) -> tuple[Sequence[Goal], Tensor | None]:
        with torch.inference_mode():
            answer = self.sources[0](x)[:, :-1].argmax(dim=1)
        return [Undetected(answer.clone())], None

    def evaluate(self) -> tuple[float, dict[str, float]]:
        score, figures = super().evaluate()
        return score, {**figures, "dev_fooled_undetected": score}


def aware_generator(
    generator: Generator,
    target: DetectorGated,
    train: Sequence[Clip],
    dev: Sequence[Clip],
    schedule: training.Schedule,
    folder: Path,
    *,
    budget: Budget,
    progress: Progress = silent,
) -> training.History:
    """Train ``generator`` in place against a guarded victim, knowing its detector; resumable."""
    if not target.differentiable:
        raise InvalidInput(f"{target.name} is a black box", remedy="Leave the generator out")
    density = 1.0 if budget.max_density is None else budget.max_density
    task = AwareTask(
        generator,
        [target.reject_class_view()],
        training.Crops(train, schedule),
        dev,
        budget,
        Objective(),
        SparsityController(target=density, warmup=schedule.steps // 10),
    )
    history = training.fit(
        task,
        schedule,
        folder,
        what=f"train a generator that knows {target.name}",
        progress=progress,
    )
    generator.requires_grad_(False).eval()
    return history


# ---------------------------------------------------------------- the learned one


@dataclass
class DetectorTask:
    """Binary cross-entropy on crops and their attacked twins; judged by AUROC on dev clips."""

    module: Learned
    victim: Victim
    crops: training.Crops
    dev: Sequence[AdversarialClip]
    budget: Budget
    steps: int = 3

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        x, _ = self.crops.draw(step)
        x = _on_the_grid(x).to(self.victim.device)
        x_adv = _on_the_grid(self._attacked(x, step))
        logits = self.module.train()(self.victim, torch.cat([x, x_adv]))
        wanted = torch.cat([torch.zeros(len(x)), torch.ones(len(x))]).to(logits.device)
        right = ((logits > 0) == (wanted > 0.5)).float().mean()
        return F.binary_cross_entropy_with_logits(logits, wanted), {"train_accuracy": float(right)}

    def _attacked(self, x: Tensor, step: int) -> Tensor:
        """At a density drawn between a twentieth of the budget's and all of it: sparser is harder."""
        draw = np.random.default_rng([self.crops.schedule.seed, step, 1])
        most = 1.0 if self.budget.max_density is None else self.budget.max_density
        budget = replace(self.budget, max_density=float(most * 20 ** -draw.random()))
        with torch.inference_mode():
            answer = self.victim(x).argmax(dim=1)
        attack = PGD(budget=budget, steps=self.steps, relative_step=min(1.0, 2.5 / self.steps))
        return attack(self.victim, x, Untargeted(answer.clone()))

    def evaluate(self) -> tuple[float, dict[str, float]]:
        self.module.eval()
        clean = detector_scores(self.module, self.victim, [one.clean for one in self.dev])
        twins = [replace(one.clean, pcm16=one.adversarial) for one in self.dev]
        area = auroc(clean, detector_scores(self.module, self.victim, twins))
        return area, {"dev_auroc": area}

    def state(self) -> dict[str, float]:
        return {}

    def restore(self, state: Mapping[str, float]) -> None:
        return None


def _on_the_grid(x: Tensor) -> Tensor:
    """As audio is kept: else the grid itself would tell what was attacked."""
    return (x * 32768).round().clamp(-32768, 32767) / 32768


def train_detector(
    detector: Learned,
    victim: Victim,
    train: Sequence[Clip],
    dev: Sequence[Clip],
    schedule: training.Schedule,
    folder: Path,
    *,
    budget: Budget,
    judge_on: int = 40,
    progress: Progress = silent,
) -> training.History:
    """Train ``detector`` in place on PGD within ``budget`` against ``victim``; the best on dev is kept.

    A stopped training goes on bit for bit where it was.
    """
    if not victim.differentiable:
        raise InvalidInput(
            f"{victim.name} is a black box: nothing tells what attacks on it look like",
            remedy="Take the detector residual, which is not trained",
        )
    attack = PGD(budget=budget, steps=5)
    judged = []
    for number, clip in enumerate(dev[:judge_on], start=1):
        judged += craft_batch(attack, victim, [clip])
        progress("attack dev clips for the detector", number, min(len(dev), judge_on), "")
    task = DetectorTask(detector, victim, training.Crops(train, schedule), judged, budget)
    history = training.fit(
        task, schedule, folder, what=f"train a detector for {victim.name}", progress=progress
    )
    detector.requires_grad_(False).eval()
    return history
