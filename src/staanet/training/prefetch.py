"""Prepares batches ahead, while a GPU computes the current step."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

Batch = tuple[Tensor, ...]
THREADS = 4


class Prefetcher:
    """Batches ``draw(step)`` on ``device``; each depends on its step alone, drawn early or not.

    On a GPU ``threads`` draw the next steps into pinned memory, from where they are copied without
    waiting. On a CPU, which computes meanwhile, nothing is drawn early unless ``threads`` says so.
    """

    def __init__(
        self, draw: Callable[[int], Batch], device: torch.device, threads: int | None = None
    ) -> None:
        self.draw, self.device = draw, device
        self.on_gpu = device.type == "cuda"
        default = min(THREADS, os.cpu_count() or 1) if self.on_gpu else 0
        self.threads = default if threads is None else threads
        self.waiting: dict[int, Future[Batch]] = {}
        self.pool: ThreadPoolExecutor | None = None

    def __call__(self, step: int) -> Batch:
        """Returns the batch of ``step``, and begins those that follow it."""
        if not self.threads:
            return self._to_device(self._draw_pinned(step))
        if self.pool is None:
            self.pool = ThreadPoolExecutor(self.threads, "draws", _set_device, (self.device,))
        for number in range(step, step + self.threads + 1):
            if number not in self.waiting:
                self.waiting[number] = self.pool.submit(self._draw_pinned, number)
        batch = self.waiting.pop(step).result()
        for number in [n for n in self.waiting if n < step]:  # the task jumped ahead
            self.waiting.pop(number).cancel()
        return self._to_device(batch)

    def _draw_pinned(self, step: int) -> Batch:
        batch = self.draw(step)
        return tuple(tensor.pin_memory() for tensor in batch) if self.on_gpu else batch

    def _to_device(self, batch: Batch) -> Batch:
        return tuple(tensor.to(self.device, non_blocking=self.on_gpu) for tensor in batch)


def _set_device(device: torch.device) -> None:
    if device.index is not None:  # else pinning would wake the first GPU for every process
        torch.cuda.set_device(device)
