"""Training victims and generators: two tasks, one ``fit`` loop that resumes bit for bit.

A task draws the batch of step ``n`` from ``(seed, n)`` alone, so no random state has to be saved:
weights, optimiser and a few numbers are enough to go on exactly where a killed run stopped.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from staanet import audio, metrics, parallel, storage
from staanet.attacks import Staa, chosen, collate, quiet_enough
from staanet.core import (
    Budget,
    Clip,
    Goal,
    Progress,
    Samples,
    Scribe,
    Targeted,
    Untargeted,
    Victim,
    silent,
)  # fmt: skip
from staanet.errors import InvalidInput
from staanet.generator import Chorus, Generator, Mirror, Reflection
from staanet.objectives import Objective, SparsityController, mixed_mask
from staanet.results import table
from staanet.victims import members_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast: Adam with betas (0.9, 0.999), judged every ``evaluate_every`` steps."""

    steps: int
    batch_size: int = 16
    seconds: float = 2.0
    """Length of a training crop; shorter clips are tiled, as in the paper."""
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-4
    """Reached along a half cosine at the last step."""
    evaluate_every: int = 100
    patience: int | None = None
    """Stop after so many judgements without a better score."""
    seed: int = 0
    speed: float = 0.1
    """Crops are played at a speed drawn from 1 +- this (tempo and pitch change together)."""
    noise_db: float = 25.0
    """Crops get white noise at an SNR drawn between this and 60 dB."""


class Task(Protocol):
    """What ``fit`` trains: a module, a loss for a step, and a score on dev clips."""

    @property
    def module(self) -> nn.Module: ...

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of step ``step`` and the figures to log, averaged over the steps of an epoch."""

    def evaluate(self) -> tuple[float, dict[str, float]]:
        """The score to maximise, and what to log beside it."""

    def state(self) -> dict[str, float]:
        """Numbers that change from step to step besides weights."""

    def restore(self, state: Mapping[str, float]) -> None:
        """Take such numbers back."""


@dataclass
class History:
    """One row per judgement, and the score and step of the best."""

    rows: list[dict[str, float]] = field(default_factory=list)
    best_score: float = -math.inf
    best_step: int = 0

    def save(self, path: Path) -> None:
        """Write the rows as CSV."""
        found = set(self.rows[0]) if self.rows else set()
        middle = sorted(found - {"epoch", "step", "seconds"})  # the same after a resume
        columns = [c for c in ("epoch", "step", *middle, "seconds") if c in found] or ["epoch"]
        storage.write_text(path, table(columns, [_rounded(row) for row in self.rows]))


def _rounded(row: Mapping[str, float]) -> dict[str, str]:
    return {key: f"{value:.6g}" for key, value in row.items()}


def fit(
    task: Task, schedule: Schedule, folder: Path, *, what: str, progress: Progress = silent
) -> History:
    """Train ``task`` and leave its best weights in its module.

    Writes ``folder/training.csv`` and, while it runs, ``folder/checkpoint``; a run that was stopped
    goes on from the newest valid one. Raises ``InvalidInput`` where the loss is not finite.
    """
    optimiser = torch.optim.Adam(task.module.parameters(), lr=schedule.learning_rate)
    history, best, step, since = _resume(task, optimiser, folder / "checkpoint")
    sums: deque[dict[str, float]] = deque()
    scribe: object = progress
    begun, spent = time.perf_counter(), history.rows[-1]["seconds"] if history.rows else 0.0
    while step < schedule.steps and (schedule.patience is None or since < schedule.patience):
        for group in optimiser.param_groups:
            group["lr"] = _learning_rate(schedule, step)
        loss, figures = task.loss(step)
        figures = parallel.mean({"loss": float(loss.detach()), **figures})
        value = figures.pop("loss")
        if not math.isfinite(value):
            raise InvalidInput(
                f"the loss became {value} at step {step}", where=folder,
                remedy="Lower the learning rate; the last checkpoint is kept",
            )  # fmt: skip
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parallel.average_gradients(task.module)
        nn.utils.clip_grad_norm_(task.module.parameters(), 5.0)
        optimiser.step()
        step += 1
        sums.append({"loss": value, **figures})
        if step % schedule.evaluate_every == 0 or step == schedule.steps:
            score, judged = task.evaluate()  # by each process alike
            epoch = {key: float(np.mean([row[key] for row in sums])) for key in sums[0]}
            sums.clear()
            seconds = spent + time.perf_counter() - begun
            history.rows.append(
                {
                    "epoch": len(history.rows) + 1,
                    "step": step,
                    **epoch,
                    **judged,
                    "seconds": seconds,
                }
            )
            since = since + 1
            if score >= history.best_score:
                history.best_score, history.best_step, since = score, step, 0
                best = {k: v.detach().clone() for k, v in task.module.state_dict().items()}
            if parallel.is_first():
                _checkpoint(task, optimiser, folder / "checkpoint", history, best, step, since)
            if isinstance(scribe, Scribe):
                scribe.note(what, history.rows[-1])
        progress(what, step, schedule.steps, _figures(history, figures))
    task.module.load_state_dict(best)
    if parallel.is_first():
        history.save(folder / "training.csv")
    return history


def _learning_rate(schedule: Schedule, step: int) -> float:
    warm = min(1.0, (step + 1) / 20)
    half = 0.5 * (1 + math.cos(math.pi * step / schedule.steps))
    span = schedule.learning_rate - schedule.final_learning_rate
    return warm * (schedule.final_learning_rate + span * half)


SHOWN = ("loss", "train_accuracy", "dev_uar", "fooling_rate", "density", "dev_fooling_rate")


def _figures(history: History, now: Mapping[str, float]) -> str:
    last = history.rows[-1] if history.rows else {}
    shown = {k: v for k, v in last.items() if k in SHOWN} or dict(now)
    return ", ".join(f"{key.replace('_', ' ')} {value:.3g}" for key, value in shown.items())


def _checkpoint(
    task: Task, optimiser: torch.optim.Adam, folder: Path, history: History,
    best: Mapping[str, Tensor], step: int, since: int,
) -> None:  # fmt: skip
    moments = {
        f"adam.{number}.{key}": value
        for number, state in optimiser.state_dict()["state"].items()
        for key, value in state.items()
    }
    weights = {f"module.{key}": value for key, value in task.module.state_dict().items()}
    tensors = {**moments, **weights, **{f"best.{key}": value for key, value in best.items()}}
    state = {
        "step": step, "since": since, "task": task.state(), "rows": history.rows,
        "best_score": history.best_score, "best_step": history.best_step,
    }  # fmt: skip
    storage.save_checkpoint(folder, step, tensors, state)


def _resume(
    task: Task, optimiser: torch.optim.Adam, folder: Path
) -> tuple[History, dict[str, Tensor], int, int]:
    kept = storage.latest_checkpoint(folder)
    if kept is None:
        return History(), dict(task.module.state_dict()), 0, 0
    tensors, state = kept
    task.module.load_state_dict(_under("module.", tensors))
    best = _under("best.", tensors)
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in _under("adam.", tensors).items():
        number, name = key.split(".", 1)
        moments.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
    task.restore(state["task"])
    history = History(list(state["rows"]), state["best_score"], state["best_step"])
    return history, best, state["step"], state["since"]


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


# ---------------------------------------------------------------- clips into batches


@dataclass(frozen=True)
class Crops:
    """Random crops of clips, the batch of a step determined by ``(seed, step)``.

    With ``weights`` (one per clip) clips are drawn in that proportion, for balanced classes.
    """

    clips: Sequence[Clip]
    schedule: Schedule
    weights: NDArray[np.float64] | None = None
    colour_db: float = 6.0
    """Colour each crop by a random smooth filter of up to this gain: another voice, room, microphone."""

    def draw(self, step: int) -> tuple[Tensor, NDArray[np.intp]]:
        """Waveforms ``[B, T]`` in [-1, 1] and the indices of their clips ``[B]``, of this process's rows."""
        rng = np.random.default_rng([self.schedule.seed, step])
        chosen = rng.choice(len(self.clips), self.schedule.batch_size, p=self.weights)
        rate = self.clips[0].sample_rate
        length = round(self.schedule.seconds * rate)
        rows = np.stack([self._crop(self.clips[i].samples, length, rng) for i in chosen])
        own = self.own_rows()
        return torch.from_numpy(rows[own]), chosen[own]

    def own_rows(self) -> slice:
        """Which rows of a batch are this process's: all where it trains alone."""
        return parallel.own_rows(self.schedule.batch_size)

    def _crop(self, samples: Samples, length: int, rng: np.random.Generator) -> NDArray[np.float32]:
        speed = 1 + rng.uniform(-1, 1) * self.schedule.speed
        needed = math.ceil(length * speed) + 1
        start = int(rng.integers(0, max(1, len(samples) - needed + 1)))
        piece = audio.to_float(audio.fit_length(samples, needed, start))
        crop = np.interp(np.arange(length) * speed, np.arange(needed), piece)
        crop = coloured(crop, rng.uniform(-self.colour_db, self.colour_db, 8))
        crop *= rng.choice([-1, 1]) * 10 ** (rng.uniform(-6, 6) / 20)  # polarity is arbitrary
        quiet = 10 ** (-rng.uniform(self.schedule.noise_db, 60.0) / 20)
        crop += float(np.sqrt(np.mean(np.square(crop)))) * quiet * rng.standard_normal(length)
        clipped: NDArray[np.float32] = np.clip(crop, -1, 1).astype(np.float32)
        return clipped


def coloured(samples: NDArray[np.float64], gains_db: NDArray[np.float64]) -> NDArray[np.float64]:
    """``samples [T]`` filtered by gains given at octaves downwards from half the sampling rate.

    >>> coloured(np.array([1.0, 0.0, 0.0, 0.0]), np.zeros(3)).round(6)
    array([1., 0., 0., 0.])
    """
    spectrum = np.fft.rfft(samples)
    octave = np.log2(np.linspace(2.0 ** -len(gains_db), 1, len(spectrum)))
    gain = np.interp(octave, np.arange(-len(gains_db) + 1, 1), gains_db)
    shaped: NDArray[np.float64] = np.fft.irfft(spectrum * 10 ** (gain / 20), len(samples))
    return shaped


def balanced(labels: Sequence[str]) -> NDArray[np.float64]:
    """Drawing weights that make each class as frequent as every other.

    >>> balanced(["joy", "joy", "fear"])
    array([0.25, 0.25, 0.5 ])
    """
    names, index, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    return np.asarray(1 / (counts[index] * len(names)))


# ---------------------------------------------------------------- victims


def predict(victim: Victim, clips: Sequence[Clip]) -> NDArray[np.float64]:
    """Logits of each clip alone, ``[N, K]``."""
    rows = []
    with torch.inference_mode():
        for clip in clips:
            x, lengths = collate([clip], victim)
            rows.append(victim(x, lengths)[0].double().cpu().numpy())
    return np.stack(rows)


@dataclass
class VictimTask:
    """Cross-entropy on balanced random crops, judged by UAR on whole dev clips."""

    module: Victim
    crops: Crops
    dev: Sequence[Clip]

    def __post_init__(self) -> None:
        order = {label: number for number, label in enumerate(self.module.labels)}
        self.targets = np.array([order[clip.label or ""] for clip in self.crops.clips])

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        self.module.train()
        device = self.module.device
        x, chosen = self.crops.draw(step)
        wanted = torch.from_numpy(self.targets[chosen]).to(device)
        logits = self.module(x.to(device))
        right = (logits.argmax(dim=1) == wanted).float().mean()
        return F.cross_entropy(logits, wanted), {"train_accuracy": float(right)}

    def evaluate(self) -> tuple[float, dict[str, float]]:
        self.module.eval()
        answers = [self.module.labels[i] for i in predict(self.module, self.dev).argmax(axis=1)]
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
    victim: Victim, train: Sequence[Clip], dev: Sequence[Clip], schedule: Schedule, folder: Path,
    *, progress: Progress = silent,
) -> History:  # fmt: skip
    """Train ``victim`` in place; the weights of best dev UAR are kept, frozen and in ``eval()``."""
    crops = Crops(train, schedule, balanced([clip.label or "" for clip in train]))
    task = VictimTask(victim, crops, dev)
    parallel.share_norms(victim)
    history = fit(task, schedule, folder, what=f"train {victim.name}", progress=progress)
    victim.requires_grad_(False).eval()
    return history


# ---------------------------------------------------------------- generators


UNTOUCHED_DB = 999.0
"""Logged as SNR where no clip of a batch was touched: the ratio is infinite, JSON and CSV are not."""


@dataclass
class GeneratorTask:
    """STAA-Net's loss against frozen sources, judged by the success of the attack itself.

    With several sources it is the mean of theirs. A ``targeted`` generator is shown, in training, each
    other class as often.
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

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        x = self.crops.draw(step)[0].to(self.sources[0].device)
        rng = np.random.default_rng([self.crops.schedule.seed, step, 1])
        batch, own = self.crops.schedule.batch_size, self.crops.own_rows()
        goals, wanted = self.goals(x, rng.random(batch)[own])
        drawn = torch.Generator().manual_seed(step)
        uniform = torch.rand((batch, x.shape[1]), generator=drawn)[own]
        epsilon = self.budget.steps / audio.FULL_SCALE
        budget = self._budget(step)
        change = self.module.train()(x, None, wanted)
        binary = chosen(change, budget)  # as the attack will choose, under the budget of this step
        moves = quiet_enough(x, change.magnitude, epsilon * binary, budget)
        delta = epsilon * moves
        x_adv = (x + delta * mixed_mask(change.position, binary, uniform.to(x.device))).clamp(-1, 1)
        said = [source(x_adv) for source in self.sources]
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
            both = parallel.mean({"share": share, "fooling": figures["fooling_rate"]})
            self.sparsity.update(step, both["share"], both["fooling"])
        return loss, figures

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
        """Success, mean density and SNR of the attack within its budget on whole dev clips."""
        attack = Staa(generator=self.module.eval(), budget=self.budget)
        fooled, density, snr = [], [], []
        with torch.inference_mode():
            for number, clip in enumerate(self.dev):
                x, _ = collate([clip], self.sources[0])
                classes = len(self.sources[0].labels)
                each = np.array([number % (classes - 1) / (classes - 1) + 1e-6])
                goals, _ = self.goals(x, each)
                x_adv = attack(self.sources[0], x, goals[0])
                hits = [
                    float(g.achieved(s(x_adv))) for g, s in zip(goals, self.sources, strict=True)
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
    generator: Generator, source: Victim, train: Sequence[Clip], dev: Sequence[Clip],
    schedule: Schedule, folder: Path, *, budget: Budget, objective: Objective, targeted: bool = False,
    progress: Progress = silent,
) -> History:  # fmt: skip
    """Train ``generator`` in place against the frozen ``source``; the best on dev is kept.

    An ensemble is fooled member by member: the loss is the mean of theirs.

    A mirror of its source starts at the budget's density and leaves its encoder as it is; others learn
    everything at once and come down to the density from every sample.
    """
    source.requires_grad_(False).eval()
    target = 1.0 if budget.max_density is None else budget.max_density
    settled = max(1, schedule.steps * 6 // 10)
    if isinstance(generator, Mirror | Chorus):
        generator.keep_ears()
    if isinstance(generator, Mirror | Reflection | Chorus):
        settled = 1
    task = GeneratorTask(
        generator, members_of(source), Crops(train, schedule), dev, budget, objective,
        SparsityController(target=target, warmup=schedule.steps // 10), settled=settled,
        targeted=targeted,
    )  # fmt: skip
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


def seeded(seed: int) -> None:
    """Fix the weights of networks built next."""
    torch.manual_seed(seed)
