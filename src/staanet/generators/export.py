"""A generator as an ONNX file of any length, for ``staanet.generators.runtime`` and for any other runtime.

The file holds the network up to its two heads; the rest is a few lines of numpy there. A mirror's loops
over time (the cells of its LSTM, and its way back through the gates) are scripted, so that the file
keeps them as loops; the rest is traced.
"""

from __future__ import annotations

import functools
import io
import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from staanet.core import Untargeted
from staanet.errors import InvalidInput
from staanet.generators.backward_net import BackwardNet, Level, Recurrent, unpooled
from staanet.generators.base import Generator, Perturbation, logit_gradient
from staanet.generators.runtime import FORMAT, KEY
from staanet.generators.wave_u_net import WaveUNet
from staanet.nn.conv_maxpool import banded


def onnx_bytes(generator: Generator, epsilon: float, max_density: float | None) -> bytes:
    """The file's content, with the budget that ``staanet.generators.runtime.Runner`` takes where none is given.

    Raises ``InvalidInput`` for another kind of network, or where the package onnx is missing.
    """
    card: dict[str, Any] = {
        "format": FORMAT,
        "architecture": generator.architecture,
        "gain": generator.gain,
        "density": generator.density,
        "sample_rate": generator.sample_rate,
        "epsilon": epsilon,
        "max_density": max_density,
        "minimum_samples": minimum_samples(generator),
    }
    example = 0.1 * torch.randn(
        1,
        card["minimum_samples"] + generator.sample_rate,
        generator=torch.Generator().manual_seed(0),
    )
    if isinstance(generator, BackwardNet):
        card["iterations"] = generator.iterations
        nothing = torch.zeros(1, dtype=torch.int64), torch.zeros(1)
        return _traced(
            _Look(generator),
            (example, *nothing),
            card,
            ["waveforms", "own", "known"],
            ["magnitude", "position", "answers"],
        )
    if isinstance(generator, WaveUNet):
        return _traced(
            _Heads(generator), (example,), card, ["waveforms"], ["magnitude", "position"]
        )
    raise InvalidInput(
        f"a generator of kind '{generator.architecture}' cannot be exported",
        remedy="Give a mirror or a Wave-U-Net",
    )


def minimum_samples(generator: Generator) -> int:
    """The shortest clip of which every layer of a mirror has a frame; 1 for a Wave-U-Net, which pads."""
    if not isinstance(generator, BackwardNet):
        return 1
    frames = 1
    for conv, pool in zip(reversed(generator.down), reversed(generator.pools), strict=True):
        assert isinstance(conv, nn.Conv2d)
        frames = frames * pool + conv.kernel_size[1] - 1 - 2 * int(conv.padding[1])
    return frames


def _traced(
    module: nn.Module,
    example: tuple[Tensor, ...],
    card: dict[str, Any],
    inputs: list[str],
    outputs: list[str],
) -> bytes:
    try:
        import onnx
    except ImportError as problem:
        raise InvalidInput(
            "the package onnx is not installed", remedy="Install it: pip install 'staanet[onnx]'"
        ) from problem
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter(
            "ignore"
        )  # of what a trace fixes: the comparison shows that it did not
        torch.onnx.export(
            module.eval(),
            example,
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=17,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={name: {1: "time"} for name in ("waveforms", "magnitude", "position")},
        )
    model = onnx.load_from_string(buffer.getvalue())
    onnx.helper.set_model_props(model, {KEY: json.dumps(card, allow_nan=False)})
    written: bytes = model.SerializeToString()
    return written


class _Heads(nn.Module):
    """A Wave-U-Net without what ``propose`` makes of its answers."""

    def __init__(self, generator: WaveUNet) -> None:
        super().__init__()
        self.network = WaveUNet(**generator.settings)
        self.network.load_state_dict(generator.state_dict())
        self.network.propose = _as_they_are  # type: ignore[method-assign]

    def forward(self, waveforms: Tensor) -> tuple[Tensor, Tensor]:
        magnitude, position = self.network(waveforms)
        return magnitude, position


def _as_they_are(
    magnitude: Tensor, position: Tensor, lengths: Tensor | None, *, order_only: bool = False
) -> Perturbation:
    return Perturbation(magnitude, position)


class _Look(nn.Module):
    """One look of a mirror, away from the class that it hears or, where ``known`` is above 0, ``own``."""

    def __init__(self, generator: BackwardNet) -> None:
        super().__init__()
        self.network = _Mirror(**generator.settings)
        self.network.load_state_dict(generator.state_dict())
        for layer in self.network.recurrent:
            layer.__class__ = _Recurrent

    def forward(self, waveforms: Tensor, own: Tensor, known: Tensor) -> tuple[Tensor, ...]:
        backward_net = self.network
        heard = backward_net.encode(waveforms)
        states = backward_net.states(heard)
        answers = backward_net.answers(states[-1], None)
        goal = Untargeted(torch.where(known > 0, own, answers.argmax(dim=1)))
        direction = backward_net.direction(logit_gradient(answers, goal), states, None)
        magnitude, position = backward_net.decode(direction, heard.levels, waveforms.shape[1])
        return magnitude, position, answers


class _Mirror(BackwardNet):
    """A mirror whose way back has no branch that depends on the length, and no operator that few know."""

    def maxima(self, x: Tensor, conv: nn.Conv2d, pool: int) -> tuple[Tensor, Tensor]:
        features = conv(x)
        whole = features[..., : features.shape[3] // pool * pool]
        frames = whole.reshape(1, conv.out_channels, 1, -1, pool)
        return frames.amax(dim=4), frames.argmax(
            dim=4
        )  # no runtime is quick at the places of maxima

    def decode(
        self, direction: Tensor, levels: Sequence[Level], time: int
    ) -> tuple[Tensor, Tensor]:
        x = direction.transpose(1, 2)[:, :, None]
        for number in reversed(range(len(levels))):
            below, pooled, winner, _ = levels[number]
            if number < len(self.skip):
                x = x + self.skip[number](self.activate(pooled))
            x = x * self.slope(pooled)
            conv, pool = self.up[number], self.pools[number]
            assert isinstance(conv, nn.Conv2d)
            if number == 0:
                x = _at_winners(x, winner, pool, conv.weight)
            else:
                x = F.conv_transpose2d(unpooled(x, winner, pool), conv.weight)
            x = x[..., int(conv.padding[1]) :]  # less than pool frames may be missing at the end
            x = F.pad(x, (0, pool))[..., : below if number else time]
        return x[:, 0, 0], x[:, 1, 0]


def _at_winners(values: Tensor, winner: Tensor, pool: int, weight: Tensor) -> Tensor:
    """``staanet.nn.conv_maxpool.through_winners`` in operators that every runtime has."""
    _, channels, _, steps = values.shape
    out, kernel = weight.shape[1], weight.shape[3]
    width = pool + kernel - 1
    features, place = (x[:, :, 0].transpose(1, 2)[:, :, None] for x in (values, winner))
    spread = features * (place == torch.arange(pool)[:, None]).to(features.dtype)
    rows = banded(weight[:, :, 0], pool).view(pool * channels, out * width)
    taps = (spread.flatten(2) @ rows).view(1, steps, out, width).transpose(1, 2)
    taps = F.pad(taps, (0, -width % pool))
    whole = taps.shape[3] // pool  # frames that the answer to one frame reaches into
    parts = taps.split(pool, dim=3)  # type: ignore[no-untyped-call]
    answer = torch.zeros(())
    for number, part in enumerate(parts):
        answer = answer + F.pad(part, (0, 0, number, whole - 1 - number))
    return answer.flatten(2)[..., : steps * pool + kernel - 1][:, :, None]


class _Recurrent(Recurrent):
    """A recurrent layer whose loops stay loops in the file."""

    def backward(self, grad_output: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
        forget, through_cell, through_gates = self._slopes(inputs, outputs)
        loop = _scripted(_gates)
        gates = loop(grad_output, forget, through_cell, through_gates, self.to_state.weight)
        answer: Tensor = self.to_input(gates)
        return answer

    def _cells(self, news: Tensor, forget: Tensor) -> Tensor:
        return _scripted(_cells)(news, forget)


@functools.cache
def _scripted(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function whose loops a trace keeps as loops; compiled when an export first asks for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # what the ONNX exporter still reads
        scripted: Callable[..., Tensor] = torch.jit.script(function)
    return scripted


def _cells(news: Tensor, forget: Tensor) -> Tensor:
    """``c_t = news_t + forget_t c_(t-1)``, all ``[B, S, H]``."""
    cell = torch.zeros_like(news[:, 0])
    cells: list[Tensor] = []
    for step in range(news.size(1)):
        cell = news.select(1, step) + forget.select(1, step) * cell  # [:, step] would copy all
        cells.append(cell)
    return torch.stack(cells, dim=1)


def _gates(
    wanted: Tensor, forget: Tensor, through_cell: Tensor, through_gates: Tensor, weight: Tensor
) -> Tensor:
    """The loop of ``Recurrent.back``, on a clip turned round, ``[B, S, 4 H]``."""
    back = wanted.flip(1), forget.flip(1), through_cell.flip(1), through_gates.flip(1)
    carry = torch.zeros_like(wanted[:, 0])
    state = torch.zeros_like(wanted[:, 0])
    gates: list[Tensor] = []
    for step in range(wanted.size(1)):
        state = back[0].select(1, step) + state
        cell = carry + state * back[2].select(1, step)
        gate = torch.cat([cell, cell, cell, state], dim=1) * back[3].select(1, step)
        gates.append(gate)
        carry = cell * back[1].select(1, step)
        state = torch.matmul(gate, weight.t())
    return torch.stack(gates, dim=1).flip(1)
