"""Data-parallel training: ``torchrun`` starts several processes, and each takes its rows of every batch.

    torchrun --nproc_per_node 2 -m staanet train-generator CORPUS --source VICTIM --out DIR

A batch is the same for any number of processes: every process draws it and keeps its own rows. Losses,
metrics, gradients and the statistics of BatchNorm are averaged over the processes, so the loss curve
does not depend on their number, apart from the order of sums. Only the first process writes. CPUs
exchange gradients through gloo, GPUs through NCCL.
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
"""Environment variables that torchrun sets for each process, beside ``WORLD_SIZE``."""


@contextlib.contextmanager
def process_group(device: str = "cpu") -> Iterator[str]:
    """Joins the processes that ``torchrun`` started and yields this process's device.

    A process that is alone gets ``device`` back. Raises ``InvalidInput`` where the environment names
    several processes but torchrun did not start them.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        yield device
        return
    missing = [name for name in TORCHRUN if not os.environ.get(name)]
    if missing or not re.fullmatch("[1-9][0-9]*", size):
        reason = f" but {', '.join(missing)} is not set" if missing else ", no number of processes"
        raise InvalidInput(
            f"WORLD_SIZE is '{printable(size)}'{reason}",
            remedy="Start the processes with torchrun, or unset WORLD_SIZE",
        )
    on_gpu = device.startswith("cuda")
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if on_gpu else device
    finally:
        distributed.destroy_process_group()


def world_size() -> int:
    """Returns how many processes train together."""
    return distributed.get_world_size() if _is_distributed() else 1


def is_first() -> bool:
    """Returns whether this is the process that writes files and prints."""
    return not _is_distributed() or distributed.get_rank() == 0


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def rank_rows(batch: int) -> slice:
    """Returns the rows of a batch that this process takes.

    Raises ``InvalidInput`` where the processes cannot take equally many.

    >>> rank_rows(4)
    slice(0, 4, None)
    """
    size = world_size()
    if batch % size:
        raise InvalidInput(
            f"a batch of {batch} cannot be shared equally by {size} processes",
            remedy=f"Choose --batch-size {batch - batch % size or size}, or another number of processes",
        )
    share = batch // size
    rank = distributed.get_rank() if _is_distributed() else 0
    return slice(rank * share, (rank + 1) * share)


def average_over_processes(metrics: Mapping[str, float]) -> dict[str, float]:
    """Returns each metric averaged over the processes, unchanged where there is only one.

    >>> average_over_processes({"loss": 2.0})
    {'loss': 2.0}
    """
    if not _is_distributed():
        return dict(metrics)
    values = torch.tensor(list(metrics.values()), dtype=torch.float64, device=_device())
    distributed.all_reduce(values)
    return dict(zip(metrics, (values / world_size()).tolist(), strict=True))


def average_gradients(module: nn.Module) -> None:
    """Replaces every gradient of ``module`` by its mean over the processes, in one exchange."""
    if not _is_distributed():
        return
    grads = [weight.grad for weight in module.parameters() if weight.grad is not None]
    flat = torch.cat([grad.reshape(-1) for grad in grads])
    distributed.all_reduce(flat)
    flat /= world_size()
    for grad, values in zip(
        grads, torch.split(flat, [grad.numel() for grad in grads]), strict=True
    ):
        grad.copy_(values.view_as(grad))


def synchronise_batch_norms(module: nn.Module) -> None:
    """Makes the BatchNorm layers of ``module`` use the rows of all processes while they train.

    This is ``torch.nn.SyncBatchNorm``, which supports GPUs only.
    """
    if _is_distributed():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                layer.forward = partial(_synchronised_norm, layer, layer.forward)  # type: ignore[method-assign]


@in_float32
def _synchronised_norm(
    layer: nn.BatchNorm1d | nn.BatchNorm2d, local: Callable[[Tensor], Tensor], x: Tensor
) -> Tensor:
    if not layer.training:
        return local(x)
    from torch.distributed.nn import functional

    axes = [axis for axis in range(x.dim()) if axis != 1]
    sums = torch.stack([x.mean(dim=axes), x.square().mean(dim=axes)])
    total: Tensor = functional.all_reduce(sums)  # type: ignore[no-untyped-call]  # its gradient is an all-reduce too
    average, square = total / world_size()
    variance = square - average.square()
    with torch.no_grad():
        count = world_size() * x.numel() // x.shape[1]
        rate = 0.1 if layer.momentum is None else layer.momentum
        for statistic, value in (
            (layer.running_mean, average),
            (layer.running_var, variance * count / (count - 1)),
        ):
            if statistic is not None:
                statistic.lerp_(value, rate)
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked += 1
    shape = [1, -1] + [1] * (x.dim() - 2)
    scale = torch.rsqrt(variance + layer.eps) * layer.weight
    output: Tensor = x * scale.view(shape) + (layer.bias - average * scale).view(shape)
    return output


def _device() -> torch.device:
    return torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
