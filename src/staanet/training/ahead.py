"""Batches that are drawn before they are asked for, while a GPU computes the step before."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

Batch = tuple[Tensor, ...]
THREADS = 4


class Ahead:
    """``draw(step)`` on ``device``, the same whether drawn ahead or not: a batch depends on its step alone.

    On a GPU ``threads`` draw the next steps into pinned memory, from where they are copied without waiting.
    On a CPU, which computes meanwhile, nothing is drawn ahead unless ``threads`` says so.
    """

    def __init__(
        self, draw: Callable[[int], Batch], device: torch.device, threads: int | None = None
    ) -> None:
        self.draw, self.device = draw, device
        self.on_gpu = device.type == "cuda"
        usual = min(THREADS, os.cpu_count() or 1) if self.on_gpu else 0
        self.threads = usual if threads is None else threads
        self.waiting: dict[int, Future[Batch]] = {}
        self.pool: ThreadPoolExecutor | None = None

    def __call__(self, step: int) -> Batch:
        """The batch of ``step``; those that follow it are begun."""
        if not self.threads:
            return self._sent(self._drawn(step))
        if self.pool is None:
            self.pool = ThreadPoolExecutor(self.threads, "draws", _begin, (self.device,))
        for number in range(step, step + self.threads + 1):
            if number not in self.waiting:
                self.waiting[number] = self.pool.submit(self._drawn, number)
        batch = self.waiting.pop(step).result()
        for number in [n for n in self.waiting if n < step]:  # a task went elsewhere
            self.waiting.pop(number).cancel()
        return self._sent(batch)

    def _drawn(self, step: int) -> Batch:
        batch = self.draw(step)
        return tuple(one.pin_memory() for one in batch) if self.on_gpu else batch

    def _sent(self, batch: Batch) -> Batch:
        return tuple(one.to(self.device, non_blocking=self.on_gpu) for one in batch)


def _begin(device: torch.device) -> None:
    if device.index is not None:  # else pinning would wake the first GPU for every process
        torch.cuda.set_device(device)
