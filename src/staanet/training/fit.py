"""``fit``: the training loop, with schedule, task, history, and checkpoints for bit-exact resuming."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from staanet import storage
from staanet.config import GeneratorRecipe, VictimRecipe
from staanet.core import MetricLogger, Progress, silent
from staanet.errors import InvalidInput
from staanet.nn import distributed
from staanet.results.row_files import csv_text

_VICTIM = VictimRecipe()


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast: Adam with betas (0.9, 0.999), judged every ``evaluate_every`` steps."""

    steps: int
    batch_size: int = _VICTIM.batch_size
    seconds: float = _VICTIM.seconds
    """Length of a training crop; shorter clips are tiled, as in the paper."""
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-4
    """Reached along a half cosine at the last step."""
    evaluate_every: int = GeneratorRecipe().evaluate_every
    patience: int | None = None
    """Stop after so many judgements without a better score."""
    seed: int = 0
    speed: float = _VICTIM.speed
    """Crops are played at a speed drawn from 1 +- this (tempo and pitch change together)."""
    noise_db: float = _VICTIM.noise_db
    """Crops get white noise at an SNR drawn between this and 60 dB."""
    augment: tuple[str, ...] = ()
    """Augmentations of crops (``staanet.transforms.parse_augmentation``)."""


class Task(ABC):
    """What ``fit`` trains: a module, a loss for a step, and a score on dev clips."""

    module: nn.Module

    @abstractmethod
    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Returns the loss of ``step``, and figures to log, averaged over the steps of an epoch."""

    @abstractmethod
    def evaluate(self) -> tuple[float, dict[str, float]]:
        """Returns the score to maximise, and what to log beside it."""

    def initial_score(self) -> float:
        """Returns the score that trained weights have to reach to replace those of the start; by default any."""
        return -math.inf

    def state(self) -> dict[str, float]:
        """Returns numbers that change from step to step besides weights; by default none."""
        return {}

    def restore(self, state: Mapping[str, float]) -> None:
        """Takes such numbers back from a checkpoint."""
        assert not state, "a task that has a state takes it back"


@dataclass
class History:
    """A row per evaluation, and the score and step of the best."""

    rows: list[dict[str, float]] = field(default_factory=list)
    best_score: float = -math.inf
    best_step: int = 0
    flags: list[str] = field(default_factory=list)
    """What makes the weights differ from those of one go, such as another number of threads."""

    def save(self, path: Path) -> None:
        """Writes the rows as CSV."""
        names = set(self.rows[0]) if self.rows else set()
        middle = sorted(names - {"epoch", "step", "seconds"})  # the same after a resume
        columns = [c for c in ("epoch", "step", *middle, "seconds") if c in names] or ["epoch"]
        storage.write_text(path, csv_text(columns, [_rounded(row) for row in self.rows]))


def _rounded(row: Mapping[str, float]) -> dict[str, str]:
    return {key: f"{value:.6g}" for key, value in row.items()}


def fit(
    task: Task, schedule: Schedule, folder: Path, *, what: str, progress: Progress = silent
) -> History:
    """Trains ``task``, leaves its best weights in its module, and returns the history.

    Writes ``folder/training.csv`` and, while it runs, ``folder/checkpoint``. A run that was stopped goes
    on from the newest valid checkpoint, bit for bit.

    Args:
        task: What to train.
        schedule: How long and how fast.
        folder: Where table and checkpoints go.
        what: The name of the work for ``progress``.
        progress: Receives a call per step.

    Raises:
        InvalidInput: The loss is not finite.
    """
    optimiser = torch.optim.Adam(task.module.parameters(), lr=schedule.learning_rate)
    run = _resume(task, optimiser, folder / "checkpoint")
    if not run.step:
        run.history.best_score = task.initial_score()
    history, log = run.history, deque[dict[str, float]]()
    logger: object = progress
    start, spent = time.perf_counter(), history.rows[-1]["seconds"] if history.rows else 0.0
    while run.step < schedule.steps and run.stale < (schedule.patience or math.inf):
        value, figures = _train_step(task, optimiser, schedule, run.step, folder)
        run.step += 1
        log.append({"loss": value, **figures})
        if run.step % schedule.evaluate_every == 0 or run.step == schedule.steps:
            score, judged = task.evaluate()  # by each process alike
            means = {key: float(np.mean([row[key] for row in log])) for key in log[0]}
            log.clear()
            row = {"epoch": len(history.rows) + 1, "step": run.step, **means, **judged}
            history.rows.append({**row, "seconds": spent + time.perf_counter() - start})
            run.stale += 1
            if score >= history.best_score:
                history.best_score, history.best_step, run.stale = score, run.step, 0
                run.best = {k: v.detach().clone() for k, v in task.module.state_dict().items()}
            if distributed.is_first():
                _checkpoint(task, optimiser, folder / "checkpoint", run)
            if isinstance(logger, MetricLogger):
                logger.note(what, history.rows[-1])
        progress(what, run.step, schedule.steps, _shown_figures(history, figures))
    task.module.load_state_dict(run.best)
    if distributed.is_first():
        history.save(folder / "training.csv")
    return history


@dataclass
class _Run:
    """The position of a training: content of a checkpoint beside weights and optimiser."""

    history: History
    best: Mapping[str, Tensor]
    step: int = 0
    stale: int = 0
    """Evaluations since the best one."""


def _train_step(
    task: Task, optimiser: torch.optim.Adam, schedule: Schedule, step: int, folder: Path
) -> tuple[float, dict[str, float]]:
    """Makes a step of the optimiser; returns its loss and what to log, the mean of all processes."""
    for group in optimiser.param_groups:
        group["lr"] = _learning_rate(schedule, step)
    loss, figures = task.loss(step)
    figures = distributed.average_over_processes({"loss": float(loss.detach()), **figures})
    value = figures.pop("loss")
    if not math.isfinite(value):
        raise InvalidInput(
            f"the loss became {value} at step {step}",
            where=folder,
            remedy="Lower the learning rate; the last checkpoint is kept",
        )
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    distributed.average_gradients(task.module)
    nn.utils.clip_grad_norm_(task.module.parameters(), 5.0)
    optimiser.step()
    return value, figures


def _learning_rate(schedule: Schedule, step: int) -> float:
    warm = min(1.0, (step + 1) / 20)
    half = 0.5 * (1 + math.cos(math.pi * step / schedule.steps))
    span = schedule.learning_rate - schedule.final_learning_rate
    return warm * (schedule.final_learning_rate + span * half)


SHOWN = ("loss", "train_accuracy", "dev_uar", "fooling_rate", "density", "dev_fooling_rate")


def _shown_figures(history: History, figures: Mapping[str, float]) -> str:
    last = history.rows[-1] if history.rows else {}
    shown = {k: v for k, v in last.items() if k in SHOWN} or dict(figures)
    return ", ".join(f"{key.replace('_', ' ')} {value:.3g}" for key, value in shown.items())


def _checkpoint(task: Task, optimiser: torch.optim.Adam, folder: Path, run: _Run) -> None:
    moments = {
        f"adam.{number}.{key}": value
        for number, state in optimiser.state_dict()["state"].items()
        for key, value in state.items()
    }
    weights = {f"module.{key}": value for key, value in task.module.state_dict().items()}
    best = {f"best.{key}": value for key, value in run.best.items()}
    state = {
        "step": run.step,
        "since": run.stale,
        "task": task.state(),
        "rows": run.history.rows,
        "best_score": run.history.best_score,
        "best_step": run.history.best_step,
        "flags": run.history.flags,
        "threads": torch.get_num_threads(),
    }
    storage.save_checkpoint(folder, run.step, {**moments, **weights, **best}, state)


def _resume(task: Task, optimiser: torch.optim.Adam, folder: Path) -> _Run:
    checkpoint = storage.latest_checkpoint(folder)
    if checkpoint is None:
        return _Run(History(), dict(task.module.state_dict()))
    tensors, state = checkpoint
    task.module.load_state_dict(_without_prefix("module.", tensors))
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in _without_prefix("adam.", tensors).items():
        number, name = key.split(".", 1)
        moments.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
    task.restore(state["task"])
    flags = [*state["flags"], *_thread_flags(state["threads"], state["step"])]
    history = History(list(state["rows"]), state["best_score"], state["best_step"], flags)
    return _Run(history, _without_prefix("best.", tensors), state["step"], state["since"])


def _thread_flags(before: int, step: int) -> list[str]:
    now = torch.get_num_threads()
    if now == before:
        return []
    return [
        f"resumed after step {step} with {now} threads, begun with {before}: its weights differ in the "
        "last bits from those of one go"
    ]


def _without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def seed_weights(seed: int) -> None:
    """Fixes the weights of networks that are built next."""
    torch.manual_seed(seed)
