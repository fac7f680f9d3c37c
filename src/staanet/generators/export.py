"""Exports a generator as ONNX for clips of any length; ``staanet.generators.runtime`` runs it.

The file holds everything that the attack ``staa`` does before rounding: the network, all its iterations,
and the choice of samples. The loops over time (the cells of an LSTM and its backward pass) are scripted,
so that the file keeps them as loops; the rest is traced.
"""

from __future__ import annotations

import functools
import io
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from staanet.config.epsilon import Epsilon
from staanet.core import Budget
from staanet.errors import InvalidInput, needs_extra
from staanet.generators.backward_net import BackwardNet
from staanet.generators.base import Generator, select_samples
from staanet.generators.runtime import FORMAT, INPUTS, KEY
from staanet.generators.wave_u_net import WaveUNet
from staanet.nn.conv_maxpool import banded_matrix, channels_to_rows
from staanet.nn.recurrent import LSTMWithBackward


def onnx_bytes(generator: Generator, epsilon: Epsilon, max_density: float | None) -> bytes:
    """Returns the content of the file.

    Args:
        generator: A ``BackwardNet`` or a ``WaveUNet``.
        epsilon: The largest change that ``Runner`` takes where none is given.
        max_density: The share of samples that it takes where none is given.

    Raises:
        InvalidInput: The network is of another kind, or the package onnx is missing.
    """
    card: dict[str, Any] = {
        "format": FORMAT,
        "architecture": generator.architecture,
        "density": generator.density,
        "sample_rate": generator.sample_rate,
        "epsilon": epsilon,
        "max_density": max_density,
        "minimum_samples": minimum_samples(generator),
    }
    time = card["minimum_samples"] + generator.sample_rate
    waveform = 0.1 * torch.randn(1, time, generator=torch.Generator().manual_seed(0))
    example = waveform, torch.full((1, 1), 0.03), torch.tensor(time // 2)
    return _trace(_Attack(generator), example, card)


def minimum_samples(generator: Generator) -> int:
    """Returns the shortest clip that has a frame in every layer; 1 for a Wave-U-Net, which pads."""
    if not isinstance(generator, BackwardNet):
        return 1
    frames = 1
    for conv, pool in zip(reversed(generator.down), reversed(generator.pools), strict=True):
        assert isinstance(conv, nn.Conv2d)
        frames = frames * pool + conv.kernel_size[1] - 1 - 2 * int(conv.padding[1])
    return frames


def _trace(module: nn.Module, example: tuple[Tensor, ...], card: dict[str, Any]) -> bytes:
    with needs_extra("onnx", "onnx"):
        import onnx
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # of values that a trace fixes: export_generator compares the file with torch
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            example,
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=17,
            input_names=list(INPUTS),
            output_names=["adversarial"],
            dynamic_axes={name: {1: "time"} for name in ("waveform", "adversarial")},
        )
    model = onnx.load_from_string(buffer.getvalue())
    onnx.helper.set_model_props(model, {KEY: json.dumps(card, allow_nan=False)})
    return cast(bytes, model.SerializeToString())


@dataclass(frozen=True)
class _TracedBudget:
    """A budget whose limits are inputs of the file. It stands for ``Budget`` in one clip's trace."""

    limit: Tensor
    count: Tensor
    max_density: float | None
    max_l0: None = None
    min_snr_db: None = None

    def step_limit(
        self, x: Tensor, lengths: Tensor | None = None, sample_rate: int | None = None
    ) -> Tensor:
        return self.limit

    def max_samples(self, length: int) -> Tensor:
        return self.count


class _Attack(nn.Module):
    """One clip ``[1, T]``, the limit ``[1, 1]`` of a change and the number of changes -> ``[1, T]``."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        kinds: dict[type[Generator], type[Generator]] = {
            BackwardNet: _TracedBackwardNet,
            WaveUNet: _TracedWaveUNet,
        }
        kind = next((kinds[base] for base in type(generator).__mro__ if base in kinds), None)
        if kind is None:
            raise InvalidInput(
                f"a generator of kind '{generator.architecture}' cannot be exported",
                remedy="Give one of kind backward_net or wave_u_net",
            )
        self.network = kind(**generator.settings)
        self.network.iterations = generator.iterations
        self.network.load_state_dict(generator.state_dict())

    def forward(self, waveform: Tensor, limit: Tensor, count: Tensor) -> Tensor:
        has_ranking = self.network.has_ranking
        traced = _TracedBudget(limit, count, max_density=1.0 if has_ranking else None)
        budget = cast(Budget, traced)
        change = self.network(waveform, None, None, budget, order_only=has_ranking)
        mask = select_samples(change, budget, has_ranking=has_ranking)
        x_adv: Tensor = waveform + limit * change.magnitude * mask
        return x_adv.clamp(-1, 1)


class _TracedShift(Generator):
    """A generator whose shift to a density follows the clip's length."""

    def shift(self, position: Tensor, density: float, lengths: Tensor | None) -> Tensor:
        time = torch.as_tensor(position.shape[1])
        count = (density * time.double()).floor().long().clamp_min(1)
        best = position.topk(cast(int, count), dim=1, sorted=False).values  # a trace takes a tensor
        return position - best.amin(dim=1, keepdim=True)


class _TracedWaveUNet(_TracedShift, WaveUNet):
    pass


class _TracedBackwardNet(_TracedShift, BackwardNet):
    """A BackwardNet without branches that depend on the length, and of operators that runtimes know."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for layer in self.recurrent:
            layer.__class__ = _ScriptedLSTM

    def conv_maxpool(self, x: Tensor, conv: nn.Conv2d, pool: int) -> tuple[Tensor, Tensor]:
        features = conv(x)
        whole = features[..., : features.shape[3] // pool * pool]
        frames = whole.reshape(1, conv.out_channels, 1, -1, pool)
        # runtimes are slow at max-pooling with indices
        return frames.amax(dim=4), frames.argmax(dim=4)

    def unpool_samples(self, x: Tensor, argmax: Tensor, weight: Tensor, pool: int) -> Tensor:
        _, channels, _, steps = x.shape
        out, kernel = weight.shape[1], weight.shape[3]
        width = pool + kernel - 1
        values, index = (channels_to_rows(part)[:, :, None] for part in (x, argmax))
        spread = values * (index == torch.arange(pool)[:, None]).to(values.dtype)
        matrix = banded_matrix(weight[:, :, 0], pool).view(pool * channels, out * width)
        rows = (spread.flatten(2) @ matrix).view(1, steps, out, width).transpose(1, 2)
        rows = F.pad(rows, (0, -width % pool))
        reach = rows.shape[3] // pool  # frames of the output that one frame reaches into
        output = torch.zeros(())
        for offset, part in enumerate(rows.split(pool, dim=3)):  # type: ignore[no-untyped-call]
            output = output + F.pad(part, (0, 0, offset, reach - 1 - offset))
        return output.flatten(2)[..., : steps * pool + kernel - 1][:, :, None]

    def fit_time(self, x: Tensor, time: int) -> Tensor:
        return F.pad(x, (0, max(self.pools)))[..., :time]  # fewer than a pool may be missing


class _ScriptedLSTM(LSTMWithBackward):
    """A recurrent layer whose loops stay loops in the file."""

    def _gate_gradients(
        self, grad_output: Tensor, forget: Tensor, cell_slope: Tensor, gate_slopes: Tensor
    ) -> Tensor:
        loop = _scripted(_gate_gradients)
        return loop(grad_output, forget, cell_slope, gate_slopes, self.to_state.weight)

    def _cells(self, additions: Tensor, forget: Tensor) -> Tensor:
        return _scripted(_cells)(additions, forget)


@functools.cache
def _scripted(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function whose loops a trace keeps as loops; compiled when an export first needs it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # what the ONNX exporter still reads
        scripted: Callable[..., Tensor] = torch.jit.script(function)
    return scripted


def _cells(additions: Tensor, forget: Tensor) -> Tensor:
    """``LSTMWithBackward._cells``."""
    cell = torch.zeros_like(additions[:, 0])
    cells: list[Tensor] = []
    for step in range(additions.size(1)):
        cell = additions.select(1, step) + forget.select(1, step) * cell  # [:, step] would copy all
        cells.append(cell)
    return torch.stack(cells, dim=1)


def _gate_gradients(
    grad_output: Tensor, forget: Tensor, cell_slope: Tensor, gate_slopes: Tensor, weight: Tensor
) -> Tensor:
    """``LSTMWithBackward._gate_gradients``."""
    grad, forget, cell_slope = grad_output.flip(1), forget.flip(1), cell_slope.flip(1)
    gate_slopes = gate_slopes.flip(1)
    carry = torch.zeros_like(grad[:, 0])
    state = torch.zeros_like(grad[:, 0])
    gates: list[Tensor] = []
    for step in range(grad.size(1)):
        state = grad.select(1, step) + state
        cell = carry + state * cell_slope.select(1, step)
        gate = torch.cat([cell, cell, cell, state], dim=1) * gate_slopes.select(1, step)
        gates.append(gate)
        carry = cell * forget.select(1, step)
        state = torch.matmul(gate, weight.t())
    return torch.stack(gates, dim=1).flip(1)
