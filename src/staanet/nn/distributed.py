"""Several processes that train one model: ``torchrun`` starts them, each takes its rows of every batch.

    torchrun --nproc_per_node 2 -m staanet train-generator CORPUS --source VICTIM --out DIR

A batch is the same whatever the number of processes: all draw it, each keeps its own rows, and losses,
figures, gradients and the statistics of BatchNorm are averaged over the processes. So the same command
follows the same loss curve on one process or on many, up to the order of sums. The first process alone
writes. Between processes on CPUs gloo carries the gradients, between GPUs NCCL.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, distributed, nn

from staanet.errors import InvalidInput, printable
from staanet.nn.precision import in_float32

TORCHRUN = ("RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each of its processes beside ``WORLD_SIZE``."""


@contextlib.contextmanager
def joined(device: str = "cpu") -> Iterator[str]:
    """Join the processes that ``torchrun`` started, and give this one's device; nothing where it is alone."""
    many = os.environ.get("WORLD_SIZE", "1")
    if many == "1":
        yield device
        return
    lacking = [name for name in TORCHRUN if not os.environ.get(name)]
    if lacking or not re.fullmatch("[1-9][0-9]*", many):
        what = f"WORLD_SIZE is '{printable(many)}'"
        raise InvalidInput(
            f"{what} but {', '.join(lacking)} is not set"
            if lacking
            else f"{what}, no number of processes",
            remedy="Start the processes with torchrun, or unset WORLD_SIZE",
        )
    on_gpu = device.startswith("cuda")
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if on_gpu else device
    finally:
        distributed.destroy_process_group()


def world() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if _together() else 1


def is_first() -> bool:
    """Whether this is the process that writes and speaks."""
    return not _together() or distributed.get_rank() == 0


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def own_rows(batch: int) -> slice:
    """This process's rows of a batch; ``InvalidInput`` where they cannot be equally many for all.

    >>> own_rows(4)
    slice(0, 4, None)
    """
    many = world()
    if batch % many:
        raise InvalidInput(
            f"a batch of {batch} cannot be shared equally by {many} processes",
            remedy=f"Choose --batch-size {batch - batch % many or many}, or another number of processes",
        )
    share = batch // many
    rank = distributed.get_rank() if _together() else 0
    return slice(rank * share, (rank + 1) * share)


def mean(figures: Mapping[str, float]) -> dict[str, float]:
    """Each figure, averaged over the processes; as it is where there is one.

    >>> mean({"loss": 2.0})
    {'loss': 2.0}
    """
    if not _together():
        return dict(figures)
    values = torch.tensor(list(figures.values()), dtype=torch.float64, device=_device())
    distributed.all_reduce(values)
    return dict(zip(figures, (values / world()).tolist(), strict=True))


def average_gradients(module: nn.Module) -> None:
    """Every gradient of ``module`` becomes its mean over the processes; one exchange for all."""
    if not _together():
        return
    held = [weight.grad for weight in module.parameters() if weight.grad is not None]
    flat = torch.cat([grad.reshape(-1) for grad in held])
    distributed.all_reduce(flat)
    flat /= world()
    for grad, values in zip(held, torch.split(flat, [grad.numel() for grad in held]), strict=True):
        grad.copy_(values.view_as(grad))


def share_norms(module: nn.Module) -> None:
    """BatchNorm layers of ``module`` count the rows of all processes while they train.

    As ``torch.nn.SyncBatchNorm``, which knows GPUs only.
    """
    if _together():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                layer.forward = partial(_normed, layer, layer.forward)  # type: ignore[method-assign]


@in_float32
def _normed(
    layer: nn.BatchNorm1d | nn.BatchNorm2d, alone: Callable[[Tensor], Tensor], x: Tensor
) -> Tensor:
    if not layer.training:
        return alone(x)
    from torch.distributed.nn import functional

    own = [d for d in range(x.dim()) if d != 1]
    sums = torch.stack([x.mean(dim=own), x.square().mean(dim=own)])
    total: Tensor = functional.all_reduce(sums)  # type: ignore[no-untyped-call]  # as its gradient is
    average, square = total / world()
    variance = square - average.square()
    with torch.no_grad():
        count = world() * x.numel() // x.shape[1]
        rate = 0.1 if layer.momentum is None else layer.momentum
        for kept, value in (
            (layer.running_mean, average),
            (layer.running_var, variance * count / (count - 1)),
        ):
            if kept is not None:
                kept.lerp_(value, rate)
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked += 1
    shape = [1, -1] + [1] * (x.dim() - 2)
    scale = torch.rsqrt(variance + layer.eps) * layer.weight
    normed: Tensor = x * scale.view(shape) + (layer.bias - average * scale).view(shape)
    return normed


def _device() -> torch.device:
    return torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
