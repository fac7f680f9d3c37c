"""The loop that trains: a schedule, a task, its history, and checkpoints to go on from bit for bit."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from staanet import storage
from staanet.core import MetricLogger, Progress, silent
from staanet.errors import InvalidInput
from staanet.nn import distributed
from staanet.results.row_files import csv_text


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
        storage.write_text(path, csv_text(columns, [_rounded(row) for row in self.rows]))


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
        value, figures = _learn(task, optimiser, schedule, step, folder)
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
            if distributed.is_first():
                _checkpoint(task, optimiser, folder / "checkpoint", history, best, step, since)
            if isinstance(scribe, MetricLogger):
                scribe.note(what, history.rows[-1])
        progress(what, step, schedule.steps, _figures(history, figures))
    task.module.load_state_dict(best)
    if distributed.is_first():
        history.save(folder / "training.csv")
    return history


def _learn(
    task: Task, optimiser: torch.optim.Adam, schedule: Schedule, step: int, folder: Path
) -> tuple[float, dict[str, float]]:
    """One step of the optimiser: its loss and what to log, the mean of all processes."""
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


def _figures(history: History, now: Mapping[str, float]) -> str:
    last = history.rows[-1] if history.rows else {}
    shown = {k: v for k, v in last.items() if k in SHOWN} or dict(now)
    return ", ".join(f"{key.replace('_', ' ')} {value:.3g}" for key, value in shown.items())


def _checkpoint(
    task: Task,
    optimiser: torch.optim.Adam,
    folder: Path,
    history: History,
    best: Mapping[str, Tensor],
    step: int,
    since: int,
) -> None:
    moments = {
        f"adam.{number}.{key}": value
        for number, state in optimiser.state_dict()["state"].items()
        for key, value in state.items()
    }
    weights = {f"module.{key}": value for key, value in task.module.state_dict().items()}
    tensors = {**moments, **weights, **{f"best.{key}": value for key, value in best.items()}}
    state = {
        "step": step,
        "since": since,
        "task": task.state(),
        "rows": history.rows,
        "best_score": history.best_score,
        "best_step": history.best_step,
    }
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


def seeded(seed: int) -> None:
    """Fix the weights of networks built next."""
    torch.manual_seed(seed)
