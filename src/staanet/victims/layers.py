"""Layers of the convolutional victims: a block that is cheap when frozen, and the recurrent head.

Features are ``[B, C, 1, T]`` in channels-last memory. Convolutions are two-dimensional with a kernel of
height 1: they compute what Conv1d computes, twice as fast on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from staanet.core import valid_mask
from staanet.nn.conv_maxpool import conv_maxpool, is_long
from staanet.nn.precision import in_float32


class ConvBlock(nn.Module):
    """Convolution, BatchNorm, MaxPool, activation; ``[B, C, 1, T] -> [B, C', 1, T']``.

    The papers activate before they pool. A monotone activation commutes with the maximum, so the
    block pools first and activates ``1 / pool`` of the values. In ``eval()`` BatchNorm is a fixed affine
    map, which is folded into the convolution. Both are exact; logits change by rounding only.
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
        needs_grad = x.requires_grad
        is_shared = "forward" in vars(self.norm)  # several processes share its statistics
        is_learning = self.norm.training  # a frozen norm may be part of a network that learns
        if is_learning and self.is_first_layer and not needs_grad and not is_shared:
            pooled = self._pool_samples(x, *fold_batch_statistics(x[:, 0, 0], self.conv, self.norm))
        elif is_learning:
            pooled = F.max_pool2d(self.norm(self.conv(x)), (1, self.pool))
        elif self.is_first_layer and (needs_grad or is_long(x, self.pool)):
            pooled = self._pool_samples(x, *fold_batch_norm(self.conv, self.norm))
        else:
            convolve = in_float32(F.conv2d) if self.is_first_layer else F.conv2d
            features = convolve(
                x, *fold_batch_norm(self.conv, self.norm), padding=(0, self.padding)
            )
            pooled = F.max_pool2d(features, (1, self.pool))
        return self.activation(pooled)

    @property
    def is_first_layer(self) -> bool:
        """Whether this is a first layer, whose features need not be stored for a gradient."""
        return self.conv.in_channels == 1

    def _pool_samples(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        pooled, _ = conv_maxpool(x[:, 0, 0], weight[:, 0, 0], bias, self.padding, self.pool)
        return pooled.transpose(1, 2)[:, :, None]

    def frames(self, lengths: Tensor) -> Tensor:
        """Returns the number of output frames for clips of ``lengths [B]`` input frames, ``[B]``."""
        return (lengths + 2 * self.padding - self.kernel + 1) // self.pool


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Returns weight and bias of the convolution that equals ``conv`` followed by a frozen ``norm``."""
    assert conv.bias is not None and norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    weight = (conv.weight * gain[:, None, None, None]).contiguous(memory_format=torch.channels_last)
    return weight, (conv.bias - norm.running_mean) * gain + norm.bias


@in_float32
def fold_batch_statistics(
    x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d
) -> tuple[Tensor, Tensor]:
    """Returns weight and bias of the convolution that equals ``conv`` followed by ``norm`` in training.

    The input is samples ``x [B, T]``. The mean and variance of a feature follow from the mean and covariance
    of the samples under the kernel, so features need not be computed; gradients follow as well. The running
    statistics of ``norm`` are updated.
    """
    assert norm.running_mean is not None and norm.running_var is not None and conv.bias is not None
    assert norm.momentum is not None
    kernel, padding = conv.weight.shape[3], int(conv.padding[1])
    windows = F.pad(x, (padding, padding)).unfold(1, kernel, 1).flatten(0, 1)
    means = windows.mean(dim=0)
    centred = windows - means
    covariance = centred.t() @ centred / len(windows)
    rows = conv.weight[:, 0, 0]
    mean, variance = rows @ means + conv.bias, ((rows @ covariance) * rows).sum(dim=1)
    with torch.no_grad():
        norm.running_mean.lerp_(mean, norm.momentum)
        unbiased = variance * len(windows) / max(1, len(windows) - 1)
        norm.running_var.lerp_(unbiased, norm.momentum)
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked += 1
    gain = norm.weight / torch.sqrt(variance + norm.eps)
    return conv.weight * gain[:, None, None, None], (conv.bias - mean) * gain + norm.bias


def run_lstm(lstm: nn.LSTM, x: Tensor) -> Tensor:
    """Returns the states of ``lstm`` at each step, ``[B, S, I] -> [B, S, H]``, with a gradient for ``x``.

    cuDNN supports a backward pass in training mode only, so a frozen LSTM runs in that mode. Without dropout
    its states are the same.
    """
    is_frozen = x.is_cuda and x.requires_grad and torch.is_grad_enabled() and not lstm.training
    assert not (is_frozen and lstm.dropout)
    lstm.training |= is_frozen
    try:
        steps: Tensor = lstm(x)[0]
    finally:
        lstm.training &= not is_frozen
    return steps


class ConvRecurrent(nn.Module):
    """Convolution blocks, two LSTM layers, and a linear head averaged over time."""

    def __init__(self, blocks: list[ConvBlock], classes: int, hidden: int = 256) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.lstm = nn.LSTM(blocks[-1].conv.out_channels, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, standardised: Tensor, lengths: Tensor | None) -> Tensor:
        """Returns logits, ``[B, T] -> [B, K]``, of standardised clips that are zero beyond ``lengths [B]``."""
        x = standardised[:, None, None].contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            assert isinstance(block, ConvBlock)
            x = block(x)
            if lengths is not None:  # a bias makes padding non-zero
                lengths = block.frames(lengths)
                x = x * valid_mask(lengths, x.shape[3])[:, None, None]
        steps = run_lstm(self.lstm, x[:, :, 0].transpose(1, 2))
        if lengths is None:
            mean = steps.mean(dim=1)
        else:
            inside = valid_mask(lengths, steps.shape[1])[..., None]
            mean = (steps * inside).sum(dim=1) / lengths[:, None]
        logits: Tensor = self.head(mean)  # the mean of a linear map is the map of the mean
        return logits

    def minimum_samples(self) -> int:
        """Returns the length, in samples, of the shortest clip that gives one step."""
        low, high = 1, 1 << 20
        while low < high:
            middle = (low + high) // 2
            length = torch.tensor(middle)
            for block in self.blocks:
                assert isinstance(block, ConvBlock)
                length = block.frames(length)
            low, high = (low, middle) if int(length) >= 1 else (middle + 1, high)
        return low
