"""What is measured: the frozen networks, a task that trains one, and how much arithmetic a pass is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from staanet.core import Budget, Clip, Victim
from staanet.generators.base import Generator
from staanet.generators.losses import Objective
from staanet.generators.registry import build_generator
from staanet.generators.warm_start import backward_net_from
from staanet.training import Crops, GeneratorSettings, GeneratorTask, Schedule

BUDGET = Budget(epsilon=0.03, max_density=0.2)


def generators(source: Victim) -> dict[str, Generator]:
    """The networks that are compared, frozen."""
    made = {name: build_generator(name, 0.2) for name in ("paper", "compact", "narrow")}
    return {
        n: g.eval().requires_grad_(False)
        for n, g in {**made, "backward_net": backward_net_from(source, 0.2)}.items()
    }


def task(network: Generator, source: Victim, made: list[Clip], batch: int) -> GeneratorTask:
    """What ``train-generator`` optimises."""
    network.requires_grad_(True)
    schedule = Schedule(steps=1, batch_size=batch, seconds=2.0)
    return GeneratorTask(
        module=network,
        sources=[source],
        crops=Crops(made, schedule),
        dev=made,
        settings=GeneratorSettings(budget=BUDGET, objective=Objective()),
    )


def gflop(work: Callable[[Tensor], object], x: Tensor) -> float:
    """Products and sums of convolutions and matrix products, in 10^9, as torch counts them."""
    with FlopCounterMode(display=False) as count, torch.no_grad():
        work(x)
    return count.get_total_flops() / 1e9
