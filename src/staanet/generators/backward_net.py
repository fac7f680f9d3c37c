"""A generator that listens like a classifier and answers along the same path, backwards.

The encoder is a convolutional classifier (convolution, max-pooling, LSTM). The decoder mirrors it
layer by layer: transposed convolutions that go through the positions of the encoder's own maxima, as
in SegNet (Badrinarayanan et al., 2017, arXiv 1511.00561), and an LSTM that runs from the clip's end
through the encoder's own gates. Which sample won its maximum, and which gate was open, decide the
sign and the place of a sample's influence on any such classifier: an ordinary decoder cannot know it.

``staanet.generators.warm_start`` lets it begin as its source, when the decoder is the source's backward pass; its
weights are its own, and training makes more of them. Untrained it is a network like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from staanet.core import Budget, standardise, valid
from staanet.generators.base import Best, Generator, apply_perturbation, logit_gradient, unit_rms
from staanet.nn.conv_maxpool import convolved_maxima, is_long, through_winners
from staanet.nn.precision import in_float32

Block = tuple[int, int, int, int]
"""Channels in, channels out, kernel, pool of one convolution block."""

ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "leaky_relu": (F.leaky_relu, lambda z: torch.where(z > 0, 1.0, 0.01)),
    "elu": (F.elu, lambda z: z.clamp_max(0).exp()),
}
"""Each activation and its derivative."""


SHARPNESS = 4.0  # of the topmost direction: nearly signs


class Level(NamedTuple):
    """What the way down leaves for the way up."""

    time: int
    """Frames that came in."""
    pooled: Tensor
    """``[B, C, 1, T']``, before the activation."""
    winner: Tensor
    """``[B, C, 1, T']``, bytes: which of its ``pool`` frames each maximum came from."""
    inside: Tensor | None
    """``[B, 1, 1, T']`` bool: the frames that belong to the clips; None: all."""


class Recurrent(nn.Module):
    """An LSTM layer, and its way back through the gates that it opened: ``[B, S, I] -> [B, S, H]``."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, batch_first=True)
        self.to_input = nn.Linear(4 * hidden, inputs, bias=False)
        self.to_state = nn.Linear(4 * hidden, hidden, bias=False)

    @in_float32
    def forward(self, x: Tensor) -> Tensor:
        steps: Tensor = self.lstm(x)[0]
        return steps

    @in_float32
    def backward(self, grad_output: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Changes ``wanted [B, S, H]`` of what it ``said`` -> changes of what it ``read``, ``[B, S, I]``.

        The backward pass of an LSTM through time (Hochreiter and Schmidhuber, 1997), written out.
        """
        steps = [x.unbind(dim=1)[::-1] for x in (grad_output, *self._slopes(inputs, outputs))]
        to_state = self.to_state.weight.t().contiguous()  # one row times this: half the time
        gates = []
        state = carry = grad_output.new_zeros(grad_output.shape[0], grad_output.shape[2])
        for own, forget, through_cell, through_gates in zip(*steps, strict=True):
            state = own + state
            cell = torch.addcmul(carry, state, through_cell)
            gates.append(torch.cat([cell, cell, cell, state], dim=1) * through_gates)
            carry = cell * forget
            state = gates[-1] @ to_state
        answer: Tensor = self.to_input(torch.stack(gates[::-1], dim=1))
        return answer

    def _slopes(self, read: Tensor, said: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each step: the forget gate and the slope of its output by its cell, ``[B, S, H]``, and
        the slopes by its four gates ``[B, S, 4 H]``."""
        own = self.lstm
        before = F.pad(said, (0, 0, 1, 0))[:, :-1]
        weights = own.weight_ih_l0, own.bias_ih_l0, own.weight_hh_l0, own.bias_hh_l0
        to_gates, gate_bias, from_state, state_bias = cast(tuple[Tensor, ...], weights)
        gates = F.linear(read, to_gates, gate_bias) + F.linear(before, from_state, state_bias)
        i, f, g, o = gates.chunk(4, dim=2)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        now = self._cells(i * g, f)
        last = F.pad(now, (0, 0, 1, 0))[:, :-1]
        loud = now.tanh()
        through_gates = torch.cat(
            [g * i * (1 - i), last * f * (1 - f), i * (1 - g * g), loud * o * (1 - o)], dim=2
        )
        return f, o * (1 - loud * loud), through_gates

    def _cells(self, news: Tensor, forget: Tensor) -> Tensor:
        """The cell of each step, ``[B, S, H]``."""
        cells, cell = [], torch.zeros_like(news[:, 0])
        for new, kept in zip(news.unbind(dim=1), forget.unbind(dim=1), strict=True):
            cell = torch.addcmul(new, kept, cell)
            cells.append(cell)
        return torch.stack(cells, dim=1)


class Encoding(NamedTuple):
    """The way down: what the topmost convolution answers, and what the way up needs."""

    features: Tensor
    """``[B, S, C]``."""
    frames: Tensor | None
    """``[B]``: how many of the S steps are each clip's own; None: all."""
    levels: list[Level]


class BackwardNet(Generator):
    """See the module; ``blocks`` and ``activation`` describe the convolutions, from the sample up.

    ``classes`` is the number of answers of the classifier inside and ``hidden`` the width of its LSTM
    layers. There are ``iterations`` stages with the same weights: the second iterations at what the first
    proposes, moved by ``epsilon`` or as the attack's budget has it, and asks again; what both propose is added up, see ``Best``. It
    takes as long again.
    """

    architecture = "backward_net"
    ranked_by_magnitude = True

    def __init__(
        self,
        *,
        blocks: Sequence[Block] = ((1, 64, 8, 10), (64, 128, 6, 8), (128, 256, 6, 8)),
        activation: str = "leaky_relu",
        classes: int = 8,
        hidden: int = 256,
        layers: int = 2,
        iterations: int = 1,
        epsilon: float = 0.03,
        gain: float | None = 2.0,
        density: float | None = None,
        sample_rate: int = 16_000,
        labels: Sequence[str] = (),
    ) -> None:
        super().__init__(gain=gain, density=density, sample_rate=sample_rate, labels=labels)
        self.settings |= {
            "blocks": [list(block) for block in blocks],
            "activation": activation,
            "classes": classes,
            "hidden": hidden,
            "layers": layers,
            "iterations": iterations,
            "epsilon": epsilon,
        }
        self.iterations: int = iterations
        self.epsilon = epsilon
        self.pools = [pool for _, _, _, pool in blocks]
        self.activate, self.slope = ACTIVATIONS[activation]
        self.down = nn.ModuleList(_conv(i, o, kernel) for i, o, kernel, _ in blocks)
        # the way up, used transposed; the lowest has two heads: magnitude and position
        self.up = nn.ModuleList(
            _conv(2 if i == 1 else i, o, k, bias=False) for i, o, k, _ in blocks
        )
        self.skip = nn.ModuleList(nn.Conv2d(o, o, 1) for _, o, _, _ in blocks[:-1])
        top = blocks[-1][1]
        self.recurrent = nn.ModuleList(
            Recurrent(top if number == 0 else hidden, hidden) for number in range(layers)
        )
        self.head = nn.Linear(hidden, classes)
        self.ask = nn.Linear(classes, hidden, bias=False)
        for layer in self.skip:  # at first the way up listens to what comes from above alone
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def heads(
        self,
        waveforms: Tensor,
        lengths: Tensor | None,
        target_class: Tensor | None,
        budget: Budget | None = None,
    ) -> tuple[Tensor, Tensor]:
        time = waveforms.shape[1]
        magnitude = position = waveforms.new_zeros(())
        best, heard = None, self.encode(waveforms, lengths)
        for look in range(self.iterations):
            if look:
                with torch.no_grad():
                    change = self.propose(magnitude, position, lengths)
                    near = apply_perturbation(
                        waveforms, change, lengths, self.epsilon, budget, ranks=self.ranks
                    )
                    heard = self.encode(near, lengths)
            states = self.states(heard)
            answers = self.answers(states[-1], heard.frames)
            if best is None:
                best = Best.none(waveforms, answers, target_class)
            else:
                best = best.or_this(magnitude, position, answers)
            question = logit_gradient(answers, best.goal)
            more = self.decode(self.direction(question, states, heard.frames), heard.levels, time)
            magnitude, position = magnitude + unit_rms(more[0], lengths), position + more[1]
        return (magnitude, position) if best is None else best.or_last(magnitude, position)

    def freeze_encoder(self) -> None:
        """Train the way back alone: what it reads would move with the encoder."""
        self.down.requires_grad_(False)
        self.head.requires_grad_(False)
        for layer in self._layers():
            layer.lstm.requires_grad_(False)

    def _layers(self) -> list[Recurrent]:
        return [layer for layer in self.recurrent if isinstance(layer, Recurrent)]

    def encode(self, waveforms: Tensor, lengths: Tensor | None = None) -> Encoding:
        """The way down, ``[B, T]``."""
        x = standardise(waveforms, lengths)[:, None, None].contiguous(
            memory_format=torch.channels_last
        )
        frames, levels = lengths, []
        for conv, pool in zip(self.down, self.pools, strict=True):
            assert isinstance(conv, nn.Conv2d)
            time = x.shape[3]
            pooled, winner = self.maxima(_at_least(x, conv, pool), conv, pool)
            x, inside = self.activate(pooled), None
            if frames is not None:  # biases write into the padding: clear it again
                frames = (frames + 2 * int(conv.padding[1]) - conv.kernel_size[1] + 1) // pool
                frames = frames.clamp_min(1)  # a short clip ends in zeros, see _at_least
                inside = valid(frames, x.shape[3])[:, None, None]
                x = x * inside
            levels.append(Level(time, pooled, winner, inside))
        return Encoding(x[:, :, 0].transpose(1, 2).float(), frames, levels)

    def maxima(self, x: Tensor, conv: nn.Conv2d, pool: int) -> tuple[Tensor, Tensor]:
        """What ``Level`` keeps of the features of ``x [B, C, 1, T]``: maxima and which frames won."""
        if conv.in_channels == 1 and is_long(x, pool):
            found = convolved_maxima(
                x[:, 0, 0], conv.weight[:, 0, 0], conv.bias, int(conv.padding[1]), pool
            )
            pooled, winner = (one.transpose(1, 2)[:, :, None] for one in found)
            return pooled, winner
        convolve = in_float32(conv.forward) if conv.in_channels == 1 else conv
        pooled, index = F.max_pool2d(convolve(x), (1, pool), return_indices=True)
        starts = pool * torch.arange(pooled.shape[3], device=x.device)
        return pooled, (index - starts).to(torch.uint8)

    def states(self, heard: Encoding) -> list[Tensor]:
        """What the recurrent layers read and say: ``[B, S, C]``, then ``[B, S, H]`` of each layer."""
        states = [heard.features]
        for layer in self._layers():
            states.append(layer(states[-1]))
        return states

    @in_float32
    def answers(self, steps: Tensor, frames: Tensor | None) -> Tensor:
        """States ``[B, S, H]`` -> what the classifier inside answers, ``[B, K]``."""
        if frames is None:
            mean = steps.mean(dim=1)
        else:
            inside = valid(frames, steps.shape[1])[..., None]
            mean = (steps * inside).sum(dim=1) / frames[:, None]
        logits: Tensor = self.head(mean)
        return logits

    @in_float32
    def direction(
        self, question: Tensor, states: Sequence[Tensor], frames: Tensor | None
    ) -> Tensor:
        """The direction each topmost feature should take, ``[B, S, C]`` in (-1, 1)."""
        steps = states[-1].shape[1]
        target_class = self.ask(question)[:, None].expand(-1, steps, -1)
        if frames is not None:
            target_class = target_class * valid(frames, steps)[..., None]
        pairs = zip(reversed(self._layers()), states[-2::-1], states[:0:-1], strict=True)
        for layer, read, said in pairs:
            target_class = layer.backward(target_class, read, said)
        # quiet frames and weak features are asked for as much as strong ones: what can move, moves
        own = None if frames is None else frames * target_class.shape[2]
        return torch.tanh(SHARPNESS * unit_rms(target_class.flatten(1), own).view_as(target_class))

    def decode(
        self, direction: Tensor, levels: Sequence[Level], time: int
    ) -> tuple[Tensor, Tensor]:
        """Directions ``[B, S, C]`` -> magnitude and position ``[B, time]``, before gain and tanh."""
        x = direction.transpose(1, 2)[:, :, None]
        for number in reversed(range(len(levels))):
            below, pooled, winner, inside = levels[number]
            if number < len(self.skip):
                x = x + _pointwise(self.skip[number], self.activate(pooled))
            if inside is not None:
                x = x * inside
            x = x * self.slope(pooled)
            conv, pool = self.up[number], self.pools[number]
            assert isinstance(conv, nn.Conv2d)
            if number == 0:
                values, won = (_channels_last(one) for one in (x, winner))
                x = through_winners(values, won, conv.weight[:, :, 0], pool)[:, :, None]
            else:
                x = F.conv_transpose2d(unpooled(x, winner, pool), conv.weight)
            x = _cut(x[..., int(conv.padding[1]) :], below if number else time)
        return x[:, 0, 0], x[:, 1, 0]


def _conv(channels_in: int, channels_out: int, kernel: int, bias: bool = True) -> nn.Conv2d:
    padding = (0, (kernel - 1) // 2)
    return nn.Conv2d(channels_in, channels_out, (1, kernel), padding=padding, bias=bias)


def _at_least(x: Tensor, conv: nn.Module, pool: int) -> Tensor:
    """``x [B, C, 1, T]`` with zeros behind it where it is too short for one maximum."""
    assert isinstance(conv, nn.Conv2d)
    missing = pool + conv.kernel_size[1] - 1 - 2 * int(conv.padding[1]) - x.shape[3]
    return F.pad(x, (0, missing)) if missing > 0 else x


def _cut(x: Tensor, time: int) -> Tensor:
    return F.pad(x, (0, time - x.shape[3])) if x.shape[3] < time else x[..., :time]


def _pointwise(conv: nn.Module, x: Tensor) -> Tensor:
    """A convolution of kernel 1, as one product: a CPU has no quick way for it."""
    assert isinstance(conv, nn.Conv2d)
    answer = F.linear(_channels_last(x), conv.weight[:, :, 0, 0], conv.bias)
    return answer.transpose(1, 2)[:, :, None]


def _channels_last(x: Tensor) -> Tensor:
    """``[B, C, 1, S] -> [B, S, C]``, as channels-last memory lies."""
    return x[:, :, 0].transpose(1, 2)


def unpooled(values: Tensor, winner: Tensor, pool: int) -> Tensor:
    """``[B, C, 1, S] -> [B, C, 1, S * pool]``: each value where its maximum was, zeros elsewhere.

    >>> unpooled(torch.tensor([[[[5.0, 7.0]]]]), torch.tensor([[[[1, 0]]]]), 2)
    tensor([[[[0., 5., 7., 0.]]]])
    """
    batch, channels, _, steps = values.shape
    if (
        values.is_cuda
    ):  # a scatter that has to be repeatable waits for the CPU, and no graph can hold it
        here = (
            _channels_last(winner)[:, :, None] == torch.arange(pool, device=values.device)[:, None]
        )
        answer = torch.where(here, _channels_last(values)[:, :, None], 0)
        return answer.reshape(batch, 1, steps * pool, channels).permute(0, 3, 1, 2)
    frames = _channels_last(winner) + pool * torch.arange(steps, device=values.device)[:, None]
    places = frames * channels + torch.arange(channels, device=values.device)
    spread = values.new_zeros(batch, steps * pool * channels).scatter(
        1, places.reshape(batch, -1), _channels_last(values).reshape(batch, -1)
    )
    return spread.view(batch, 1, steps * pool, channels).permute(0, 3, 1, 2)
