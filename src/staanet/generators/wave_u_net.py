"""The network of STAA-Net: a Wave-U-Net encoder, a decoder for positions and a decoder for magnitudes.

Chang et al. 2024, arXiv 2402.01227; Stoller et al., "Wave-U-Net", ISMIR 2018, arXiv 1806.03185.
Output sample ``t`` belongs to input sample ``t``; the published code shifts its output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from staanet.core import Budget, standardise, valid_mask
from staanet.generators.base import Generator
from staanet.nn import kernels
from staanet.nn.precision import in_float32

NORM_CHANNELS = 8  # channels per group of a GroupNorm


class ConvUnit(nn.Module):
    """Convolution (or transposed convolution), GroupNorm over the frames of the clip, ReLU.

    Features are ``[B, C, 1, T]`` in channels-last memory. With 8 to 64 channels at the full rate a CPU
    convolves them two to three times faster than with Conv1d.
    """

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        self.conv = conv
        self.norm = nn.GroupNorm(conv.out_channels // NORM_CHANNELS, conv.out_channels)
        self.cached_weight: tuple[object, Tensor] | None = None

    def forward(self, x: Tensor, inside: Tensor | None, time: int | None = None) -> Tensor:
        """Returns ``[B, C, 1, T] -> [B, C', 1, T']``, cut to ``time`` frames.

        ``inside [B, T']`` marks the frames of the clip; None where there is no padding. Frames outside do
        not count in the statistics and become zero. So a clip gives the same output alone and in a batch.
        """
        if inside is None and kernels.can_normalise(x, self.norm):
            return kernels.group_norm_relu(self._without_bias(x)[..., :time], self._bias, self.norm)
        x = self.conv(x)[..., :time]
        if inside is None:
            return F.relu(self.norm(x))
        return F.relu(masked_group_norm(x, inside, self.norm)) * inside[:, None, None]

    @property
    def _bias(self) -> Tensor:
        assert self.conv.bias is not None
        return self.conv.bias

    def _without_bias(self, x: Tensor) -> Tensor:
        conv, weight = self.conv, self._weight(x.device)
        stride, padding = conv.stride, conv.padding
        assert not isinstance(padding, str)
        if isinstance(conv, nn.ConvTranspose2d):
            return F.conv_transpose2d(x, weight, None, stride, padding, conv.output_padding)
        return F.conv2d(x, weight, None, stride, padding)

    def _weight(self, device: torch.device) -> Tensor:
        """Returns the frozen weight; under autocast a copy that is rounded once, not in every pass."""
        weight = self.conv.weight
        if not torch.is_autocast_enabled(device.type):
            return weight
        key = weight.data_ptr(), weight._version, torch.get_autocast_dtype(device.type)
        if self.cached_weight is None or self.cached_weight[0] != key:
            self.cached_weight = key, weight.to(key[2])
        return self.cached_weight[1]


@in_float32
def masked_group_norm(x: Tensor, inside: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Returns the GroupNorm of ``x [B, C, 1, T]`` by statistics of the frames ``inside [B, T]`` only."""
    batch, time = x.shape[0], x.shape[3]
    grouped = x.reshape(batch, norm.num_groups, -1, time)
    weight = inside[:, None, None].to(x.dtype)
    count = weight.sum(dim=3, keepdim=True) * grouped.shape[2]
    mean = (grouped * weight).sum(dim=(2, 3), keepdim=True) / count
    centred = (grouped - mean) * weight
    variance = centred.square().sum(dim=(2, 3), keepdim=True) / count
    normed = (centred / torch.sqrt(variance + norm.eps)).reshape(x.shape)
    return normed * norm.weight[:, None, None] + norm.bias[:, None, None]


def _run_both(
    first: Callable[[], Tensor], second: Callable[[], Tensor], x: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns both results; in the capture of a CUDA graph they run on two streams at the same time."""
    if not (x.is_cuda and torch.cuda.is_current_stream_capturing()):
        return first(), second()
    main, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(main)
    with torch.cuda.stream(side):
        second_output = second()
    first_output = first()
    main.wait_stream(side)
    return first_output, second_output


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> ConvUnit:
    return ConvUnit(
        nn.Conv2d(channels_in, channels_out, (1, kernel), (1, stride), padding=(0, kernel // 2))
    )


class Down(nn.Module):
    """One level of the encoder: makes the skip connection, widens, and keeps every ``stride``-th frame."""

    def __init__(self, channels_in: int, skip: int, channels_out: int, kernel: int, stride: int):
        super().__init__()
        self.before_skip = _conv(channels_in, skip, kernel)
        self.after_skip = _conv(skip, channels_out, kernel)
        self.shrink = _conv(channels_out, channels_out, kernel, stride)

    def forward(
        self, x: Tensor, fine: Tensor | None, coarse: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Returns the features of the next level and the skip connection.

        ``fine`` and ``coarse`` mark the frames of the clip at this level and at the next; see ``ConvUnit``.
        """
        skip = self.before_skip(x, fine)
        return self.shrink(self.after_skip(skip, fine), coarse), skip


class Up(nn.Module):
    """One level of a decoder: upsamples by ``stride``, narrows, and merges the skip connection."""

    def __init__(self, channels_in: int, skip: int, channels_out: int, kernel: int, stride: int):
        super().__init__()
        padding = kernel // 2  # with this output_padding, frame j lands on frame stride * j
        self.stretch = ConvUnit(
            nn.ConvTranspose2d(
                channels_in,
                channels_in,
                (1, kernel),
                (1, stride),
                padding=(0, padding),
                output_padding=(0, stride - kernel + 2 * padding),
            )
        )
        self.before_skip = _conv(channels_in, channels_out, kernel)
        self.after_skip = _conv(channels_out + skip, channels_out, kernel)

    def forward(self, x: Tensor, skip: Tensor, fine: Tensor | None) -> Tensor:
        """Returns the features of the finer level; ``fine`` marks the frames of the clip there."""
        x = self.before_skip(self.stretch(x, fine, skip.shape[3]), fine)
        merged: Tensor = self.after_skip(torch.cat([skip, x], dim=1), fine)
        return merged


class Decoder(nn.Module):
    """A bottleneck, the levels up to the full rate, and one output for each sample."""

    def __init__(self, widths: list[int], kernel: int, stride: int, fold: int) -> None:
        super().__init__()
        self.bottleneck = _conv(widths[-1], widths[-1], kernel)
        pairs = list(zip(reversed(widths[1:]), reversed(widths[:-1]), strict=True))
        self.ups = nn.ModuleList(Up(i, o, o, kernel, stride) for i, o in pairs)
        self.output = nn.Conv2d(widths[0], fold, 1)

    def forward(self, x: Tensor, skips: list[Tensor], inside: list[Tensor | None]) -> Tensor:
        """Returns ``[B, T]``; ``skips`` and ``inside`` hold an item per level, the full rate first."""
        x = self.bottleneck(x, inside[-1])
        for up, skip, fine in zip(self.ups, reversed(skips), reversed(inside[:-1]), strict=True):
            x = up(x, skip, fine)
        output = in_float32(self.output.forward)(
            x
        )  # in bfloat16 many samples would have equal rank
        return output[:, :, 0].transpose(1, 2).flatten(1)


class WaveUNet(Generator):
    """The published network; further settings are those of ``Generator``.

    ``fold`` is an addition to the paper: it avoids layers at the full rate, which cost most. With
    ``labels`` each target class has a learned vector that is added at the bottleneck.

    Args:
        features: Channels of the first level; they double per level.
        levels: Levels of the encoder.
        kernel: Kernel of each convolution.
        stride: Ratio of the rates of neighbouring levels.
        fold: Neighbouring samples that become the channels of one frame.
    """

    architecture = "wave_u_net"

    def __init__(
        self,
        *,
        features: int,
        levels: int = 6,
        kernel: int = 5,
        stride: int = 4,
        fold: int = 1,
        **settings: Any,
    ) -> None:
        super().__init__(**{"gain": None, "density": None, **settings})
        self.settings |= {
            "features": features,
            "levels": levels,
            "kernel": kernel,
            "stride": stride,
            "fold": fold,
        }
        widths = [features * 2**level for level in range(levels)]
        self.stride, self.fold = stride, fold
        self.downs = nn.ModuleList(
            Down(fold if i == 0 else widths[i], widths[i], widths[i + 1], kernel, stride)
            for i in range(levels - 1)
        )
        self.magnitude = Decoder(widths, kernel, stride, fold)
        self.position = Decoder(widths, kernel, stride, fold)
        classes = len(self.labels)
        self.class_embedding = nn.Embedding(classes, widths[-1]) if classes else None
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def heads(
        self,
        waveforms: Tensor,
        lengths: Tensor | None,
        target_class: Tensor | None,
        budget: Budget | None = None,
    ) -> tuple[Tensor, Tensor]:
        time = waveforms.shape[1]
        frames = (time + self.fold - 1) // self.fold
        x = F.pad(standardise(waveforms, lengths), (0, frames * self.fold - time))
        x = x.view(len(x), frames, self.fold).transpose(1, 2)[:, :, None]
        inside = self._inside(lengths, frames)
        skips: list[Tensor] = []
        for down, fine, coarse in zip(self.downs, inside[:-1], inside[1:], strict=True):
            x, skip = down(x, fine, coarse)
            skips.append(skip)
        if target_class is not None and self.class_embedding is not None:
            x = x + self.class_embedding(target_class)[:, :, None, None]
        magnitude, position = _run_both(
            lambda: self.magnitude(x, skips, inside), lambda: self.position(x, skips, inside), x
        )
        return magnitude[:, :time], position[:, :time]

    def _inside(self, lengths: Tensor | None, frames: int) -> list[Tensor | None]:
        """Returns for each level which frames are centred on a frame of the clip, ``[B, frames]`` bool."""
        if lengths is None:
            return [None] * (len(self.downs) + 1)
        sizes = (lengths + self.fold - 1) // self.fold
        rates = [self.stride**level for level in range(len(self.downs) + 1)]
        return [
            valid_mask((sizes + rate - 1) // rate, (frames + rate - 1) // rate) for rate in rates
        ]
