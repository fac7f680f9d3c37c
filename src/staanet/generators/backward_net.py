"""A generator whose encoder is a classifier and whose decoder is that classifier's learned backward pass.

The encoder is a convolutional classifier (convolution, max-pooling, LSTM). The decoder goes through its
layers in reverse order: an LSTM that runs from the clip's end through the encoder's own gates, and
transposed convolutions that unpool to the encoder's own argmax, as in SegNet (Badrinarayanan et al.,
2017, arXiv 1511.00561). Which sample was the maximum and which gate was open decide the sign and the
place of a sample's influence on such a classifier; an ordinary decoder cannot know them.

``staanet.generators.warm_start`` copies the weights of a source. The decoder then is the source's
backward pass, and training goes on from there. With random weights it is a network like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from staanet.core import standardise, valid_mask
from staanet.generators.base import unit_rms
from staanet.generators.iterative import IterativeGenerator, LogitsAndBackward, budget_layer
from staanet.nn.conv_maxpool import (
    channels_to_rows,
    conv_maxpool,
    is_long,
    max_unpool,
    unpool_conv_transpose,
)
from staanet.nn.precision import in_float32
from staanet.nn.recurrent import LSTMWithBackward

Block = tuple[int, int, int, int]
"""Channels in, channels out, kernel and pool of one convolution block."""

ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "leaky_relu": (F.leaky_relu, lambda z: torch.where(z > 0, 1.0, 0.01)),
    "elu": (F.elu, lambda z: z.clamp_max(0).exp()),
}
"""Each activation and its derivative."""

EMO18_BLOCKS: tuple[Block, ...] = ((1, 64, 8, 10), (64, 128, 6, 8), (128, 256, 6, 8))
SHARPNESS = -1.8, (1.5, 3.0, 0.0)
"""Of the gradient at the topmost features before its tanh: the logarithm of its scale as a layer of the budget.
Where the change has much energy nearly signs do most, where it has little the gradient itself does."""


class Level(NamedTuple):
    """What one block of the encoder leaves for the decoder."""

    time: int
    """Frames that came in."""
    pooled: Tensor
    """``[B, C, 1, T']``, before the activation."""
    argmax: Tensor
    """``[B, C, 1, T']``, bytes: which of its ``pool`` frames each maximum came from."""
    inside: Tensor | None
    """``[B, 1, 1, T']`` bool: the frames that belong to the clips; None: all."""


class Encoding(NamedTuple):
    """The output of the convolutions, with the tensors that the decoder uses."""

    features: Tensor
    """``[B, S, C]``."""
    frames: Tensor | None
    """``[B]``: how many of the S steps belong to each clip; None: all."""
    levels: list[Level]


class BackwardNet(IterativeGenerator):
    """See the module; ``IterativeGenerator`` says what iterations do.

    Args:
        blocks: The convolution blocks of the encoder, from the waveform up.
        activation: Their activation, a key of ``ACTIVATIONS``.
        classes: Classes of the classifier.
        hidden: Width of its LSTM layers.
        layers: Number of its LSTM layers.
        settings: ``iterations`` and ``epsilon`` of ``IterativeGenerator``; ``gain``, ``density``,
            ``sample_rate`` and ``labels`` of ``Generator``.
    """

    architecture = "backward_net"

    def __init__(
        self,
        *,
        blocks: Sequence[Block] = EMO18_BLOCKS,
        activation: str = "leaky_relu",
        classes: int = 8,
        hidden: int = 256,
        layers: int = 2,
        **settings: Any,
    ) -> None:
        defaults = {"iterations": 1, "epsilon": 0.03, "gain": 2.0, "density": None}
        super().__init__(**{**defaults, **settings})
        self.settings |= {
            "blocks": [list(block) for block in blocks],
            "activation": activation,
            "classes": classes,
            "hidden": hidden,
            "layers": layers,
        }
        self.pools = [pool for _, _, _, pool in blocks]
        self.activate, self.slope = ACTIVATIONS[activation]
        self.down = nn.ModuleList(_conv(i, o, kernel) for i, o, kernel, _ in blocks)
        # used transposed; the lowest has two outputs: magnitude and position
        self.up = nn.ModuleList(
            _conv(2 if i == 1 else i, o, k, bias=False) for i, o, k, _ in blocks
        )
        self.skip = nn.ModuleList(nn.Conv2d(o, o, 1) for _, o, _, _ in blocks[:-1])
        top = blocks[-1][1]
        self.recurrent = nn.ModuleList(
            LSTMWithBackward(top if number == 0 else hidden, hidden) for number in range(layers)
        )
        # FiLM (Perez et al., 2018, arXiv 1709.07871): the budget scales each channel on the way back
        self.film = nn.ModuleList(budget_layer(o) for _, o, _, _ in blocks)
        self.sharpness = budget_layer(1, *SHARPNESS)
        self.head = nn.Linear(hidden, classes)
        self.head_backward = nn.Linear(classes, hidden, bias=False)
        for layer in self.skip:  # at first the decoder uses only what comes from above
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run_classifiers(
        self, x: Tensor, lengths: Tensor | None, features: Tensor
    ) -> list[LogitsAndBackward]:
        encoding = self.encode(x, lengths)
        states = self.states(encoding)

        def backward(grad_logits: Tensor) -> tuple[Tensor, Tensor]:
            grad = self.feature_gradient(grad_logits, states, encoding.frames, features)
            return self.decode(grad, encoding.levels, x.shape[1], features)

        return [(self.logits(states[-1], encoding.frames), backward)]

    def freeze_encoder(self) -> None:
        """Freezes the classifier: the decoder reads its features, which training would move."""
        self.down.requires_grad_(False)
        self.head.requires_grad_(False)
        for layer in self._layers():
            layer.lstm.requires_grad_(False)

    def _layers(self) -> list[LSTMWithBackward]:
        return [layer for layer in self.recurrent if isinstance(layer, LSTMWithBackward)]

    def encode(self, waveforms: Tensor, lengths: Tensor | None = None) -> Encoding:
        """Runs the convolutions of the classifier on ``[B, T]``."""
        x = standardise(waveforms, lengths)[:, None, None].contiguous(
            memory_format=torch.channels_last
        )
        frames, levels = lengths, []
        for conv, pool in zip(self.down, self.pools, strict=True):
            assert isinstance(conv, nn.Conv2d)
            time = x.shape[3]
            pooled, argmax = self.conv_maxpool(_pad_to_frame(x, conv, pool), conv, pool)
            x, inside = self.activate(pooled), None
            if frames is not None:  # biases write into the padding: clear it again
                frames = (frames + 2 * int(conv.padding[1]) - conv.kernel_size[1] + 1) // pool
                frames = frames.clamp_min(1)  # a short clip is padded, see _pad_to_frame
                inside = valid_mask(frames, x.shape[3])[:, None, None]
                x = x * inside
            levels.append(Level(time, pooled, argmax, inside))
        return Encoding(channels_to_rows(x).float(), frames, levels)

    def conv_maxpool(self, x: Tensor, conv: nn.Conv2d, pool: int) -> tuple[Tensor, Tensor]:
        """Returns ``pooled`` and ``argmax`` of a ``Level`` for ``x [B, C, 1, T]``."""
        if conv.in_channels == 1 and is_long(x, pool):
            rows = conv_maxpool(
                x[:, 0, 0], conv.weight[:, 0, 0], conv.bias, int(conv.padding[1]), pool
            )
            pooled, argmax = (values.transpose(1, 2)[:, :, None] for values in rows)
            return pooled, argmax
        convolve = in_float32(conv.forward) if conv.in_channels == 1 else conv
        pooled, index = F.max_pool2d(convolve(x), (1, pool), return_indices=True)
        starts = pool * torch.arange(pooled.shape[3], device=x.device)
        return pooled, (index - starts).to(torch.uint8)

    def states(self, encoding: Encoding) -> list[Tensor]:
        """Returns the input of the first recurrent layer ``[B, S, C]``, then each layer's output ``[B, S, H]``."""
        states = [encoding.features]
        for layer in self._layers():
            states.append(layer(states[-1]))
        return states

    @in_float32
    def logits(self, outputs: Tensor, frames: Tensor | None) -> Tensor:
        """Returns the classifier's logits ``[B, K]`` from the last recurrent outputs ``[B, S, H]``."""
        if frames is None:
            mean = outputs.mean(dim=1)
        else:
            inside = valid_mask(frames, outputs.shape[1])[..., None]
            mean = (outputs * inside).sum(dim=1) / frames[:, None]
        return cast(Tensor, self.head(mean))

    @in_float32
    def feature_gradient(
        self,
        grad_logits: Tensor,
        states: Sequence[Tensor],
        frames: Tensor | None,
        features: Tensor | None = None,
    ) -> Tensor:
        """Returns the direction of each topmost feature, ``[B, S, C]`` in (-1, 1).

        Args:
            grad_logits: Direction of the logits, ``[B, K]``; see ``logit_gradient``.
            states: What ``states`` returned.
            frames: Steps of each clip, ``[B]``, or None.
            features: Those of the budget, ``[B, FEATURES]``; None: as before any training.
        """
        steps = states[-1].shape[1]
        grad = self.head_backward(grad_logits)[:, None].expand(-1, steps, -1)
        if frames is not None:
            grad = grad * valid_mask(frames, steps)[..., None]
        pairs = zip(reversed(self._layers()), states[-2::-1], states[:0:-1], strict=True)
        for layer, inputs, outputs in pairs:
            grad = layer.backward(grad, inputs, outputs)
        # towards signs quiet frames and weak features move as much as strong ones
        sizes = None if frames is None else frames * grad.shape[2]
        scale = 1.0 if features is None else torch.exp(self.sharpness(features))
        return torch.tanh(scale * unit_rms(grad.flatten(1), sizes)).view_as(grad)

    def decode(
        self, grad: Tensor, levels: Sequence[Level], time: int, features: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Runs the backward pass of the convolutions, ``[B, S, C]`` -> ``o_v, o_m [B, time]``."""
        x = grad.transpose(1, 2)[:, :, None]
        for number in reversed(range(len(levels))):
            below, pooled, argmax, inside = levels[number]
            if number < len(self.skip):
                x = x + _pointwise(self.skip[number], self.activate(pooled))
            if inside is not None:
                x = x * inside
            x = x * self.slope(pooled)
            if features is not None:
                x = x * (1 + self.film[number](features))[:, :, None, None]
            conv, pool = self.up[number], self.pools[number]
            assert isinstance(conv, nn.Conv2d)
            if number == 0:
                x = self.unpool_samples(x, argmax, conv.weight, pool)
            else:
                x = F.conv_transpose2d(max_unpool(x, argmax, pool), conv.weight)
            x = self.fit_time(x[..., int(conv.padding[1]) :], below if number else time)
        return x[:, 0, 0], x[:, 1, 0]

    def unpool_samples(self, x: Tensor, argmax: Tensor, weight: Tensor, pool: int) -> Tensor:
        """Runs the lowest level of ``decode``, ``[B, C, 1, S] -> [B, O, 1, T]`` at the sample rate."""
        rows = channels_to_rows(x), channels_to_rows(argmax)
        return unpool_conv_transpose(*rows, weight[:, :, 0], pool)[:, :, None]

    def fit_time(self, x: Tensor, time: int) -> Tensor:
        """Returns ``x [B, C, 1, T]`` cut to ``time`` frames, or with zeros behind it."""
        return F.pad(x, (0, time - x.shape[3])) if x.shape[3] < time else x[..., :time]


def _conv(channels_in: int, channels_out: int, kernel: int, bias: bool = True) -> nn.Conv2d:
    padding = (0, (kernel - 1) // 2)
    return nn.Conv2d(channels_in, channels_out, (1, kernel), padding=padding, bias=bias)


def _pad_to_frame(x: Tensor, conv: nn.Conv2d, pool: int) -> Tensor:
    """``x [B, C, 1, T]`` with zeros behind it where it is too short for one pooled frame."""
    missing = pool + conv.kernel_size[1] - 1 - 2 * int(conv.padding[1]) - x.shape[3]
    return F.pad(x, (0, missing)) if missing > 0 else x


def _pointwise(conv: nn.Module, x: Tensor) -> Tensor:
    """A convolution of kernel 1 as one matrix product, which is quicker on a CPU."""
    assert isinstance(conv, nn.Conv2d)
    output = F.linear(channels_to_rows(x), conv.weight[:, :, 0, 0], conv.bias)
    return output.transpose(1, 2)[:, :, None]
