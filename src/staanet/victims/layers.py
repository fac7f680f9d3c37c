"""What the convolutional victims share: a block that is cheap when frozen, and the recurrent head.

Features are ``[B, C, 1, T]`` in channels-last memory, and convolutions two-dimensional with a kernel
of height 1: the same arithmetic as Conv1d, twice as fast on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from staanet.core import valid
from staanet.nn.conv_maxpool import conv_maxpool, is_long
from staanet.nn.precision import in_float32


class ConvBlock(nn.Module):
    """Convolution, BatchNorm, MaxPool, activation; ``[B, C, 1, T] -> [B, C', 1, T']``.

    The papers activate before they pool. A monotone activation commutes with the maximum, so the
    block pools first and activates ``1 / pool`` of the values; in ``eval()`` BatchNorm is a fixed
    affine map and is folded into the convolution. Both are exact and change logits by rounding only.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        pool: int,
        activation: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.padding = (kernel - 1) // 2
        self.conv = nn.Conv2d(channels_in, channels_out, (1, kernel), padding=(0, self.padding))
        self.norm = nn.BatchNorm2d(channels_out)
        self.kernel, self.pool, self.activation = kernel, pool, activation

    def forward(self, x: Tensor) -> Tensor:
        asked = x.requires_grad
        shared = "forward" in vars(self.norm)  # its figures are those of several processes
        learning = self.norm.training  # its own: a frozen norm may stand in a network that learns
        if learning and self.reads_samples and not asked and not shared:
            pooled = self._of_samples(x, *normalising(x[:, 0, 0], self.conv, self.norm))
        elif learning:
            pooled = F.max_pool2d(self.norm(self.conv(x)), (1, self.pool))
        elif self.reads_samples and (asked or is_long(x, self.pool)):
            pooled = self._of_samples(x, *folded(self.conv, self.norm))
        else:
            convolve = in_float32(F.conv2d) if self.reads_samples else F.conv2d
            features = convolve(x, *folded(self.conv, self.norm), padding=(0, self.padding))
            pooled = F.max_pool2d(features, (1, self.pool))
        return self.activation(pooled)

    @property
    def reads_samples(self) -> bool:
        """Whether it is a first layer, whose features need not be remembered for a gradient."""
        return self.conv.in_channels == 1

    def _of_samples(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        pooled, _ = conv_maxpool(x[:, 0, 0], weight[:, 0, 0], bias, self.padding, self.pool)
        return pooled.transpose(1, 2)[:, :, None]

    def frames(self, lengths: Tensor) -> Tensor:
        """Frames that come out of clips of ``lengths [B]`` frames."""
        return (lengths + 2 * self.padding - self.kernel + 1) // self.pool


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of one convolution equal to ``conv`` and then the frozen ``norm``."""
    assert conv.bias is not None and norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    weight = (conv.weight * gain[:, None, None, None]).contiguous(memory_format=torch.channels_last)
    return weight, (conv.bias - norm.running_mean) * gain + norm.bias


@in_float32
def normalising(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of one convolution of samples ``x [B, T]`` equal to ``conv`` and then ``norm`` in
    training, whose running figures it moves.

    Mean and deviation of a feature follow from those of the ``K`` samples that a kernel sees, without
    the features themselves, and so do their gradients.
    """
    assert norm.running_mean is not None and norm.running_var is not None and conv.bias is not None
    assert norm.momentum is not None
    kernel, padding = conv.weight.shape[3], int(conv.padding[1])
    seen = F.pad(x, (padding, padding)).unfold(1, kernel, 1).flatten(0, 1)
    means = seen.mean(dim=0)
    centred = seen - means
    spread = centred.t() @ centred / len(seen)
    rows = conv.weight[:, 0, 0]
    mean, variance = rows @ means + conv.bias, ((rows @ spread) * rows).sum(dim=1)
    with torch.no_grad():
        norm.running_mean.lerp_(mean, norm.momentum)
        unbiased = variance * len(seen) / max(1, len(seen) - 1)
        norm.running_var.lerp_(unbiased, norm.momentum)
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked += 1
    gain = norm.weight / torch.sqrt(variance + norm.eps)
    return conv.weight * gain[:, None, None, None], (conv.bias - mean) * gain + norm.bias


def recurrent(lstm: nn.LSTM, x: Tensor) -> Tensor:
    """What ``lstm`` says at each step, ``[B, S, I] -> [B, S, H]``, so that gradients find back to ``x``.

    cuDNN keeps what its way back needs in training alone, which without dropout answers as any other time.
    """
    frozen = x.is_cuda and x.requires_grad and torch.is_grad_enabled() and not lstm.training
    assert not (frozen and lstm.dropout)
    lstm.training |= frozen
    try:
        steps: Tensor = lstm(x)[0]
    finally:
        lstm.training &= not frozen
    return steps


class ConvRecurrent(nn.Module):
    """Convolution blocks, two LSTM layers, a linear answer at each step, averaged over time."""

    def __init__(self, blocks: list[ConvBlock], classes: int, hidden: int = 256) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.lstm = nn.LSTM(blocks[-1].conv.out_channels, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, standardised: Tensor, lengths: Tensor | None) -> Tensor:
        """``[B, T]`` standardised clips, zero beyond ``lengths`` -> ``[B, K]`` logits."""
        x = standardised[:, None, None].contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            assert isinstance(block, ConvBlock)
            x = block(x)
            if lengths is not None:  # biases and BatchNorm write into the padding: clear it again
                lengths = block.frames(lengths)
                x = x * valid(lengths, x.shape[3])[:, None, None]
        steps = recurrent(self.lstm, x[:, :, 0].transpose(1, 2))
        if lengths is None:
            mean = steps.mean(dim=1)
        else:
            mean = (steps * valid(lengths, steps.shape[1])[..., None]).sum(dim=1) / lengths[:, None]
        answer: Tensor = self.head(mean)  # the mean of a linear map is the map of the mean
        return answer

    def minimum_samples(self) -> int:
        """The shortest clip that still gives one step."""
        low, high = 1, 1 << 20
        while low < high:
            middle = (low + high) // 2
            length = torch.tensor(middle)
            for block in self.blocks:
                assert isinstance(block, ConvBlock)
                length = block.frames(length)
            low, high = (low, middle) if int(length) >= 1 else (middle + 1, high)
        return low
