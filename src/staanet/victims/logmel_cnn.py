"""A small convolutional network on a log-mel spectrogram: the kind that most shipped products are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from staanet.config import SAMPLE_RATE
from staanet.core import Victim, valid_mask

WINDOW_S, HOP_S = 0.025, 0.01
MELS = 64
CHANNELS = (32, 64, 96, 128)
FLOOR = 1.0
"""Added to each band's energy: what is 20 dB below speech hardly moves its logarithm."""


class LogmelCnn(Victim):
    """Four convolutions (3 x 3, BatchNorm, ReLU, MaxPool 2) on 64 log-mel bands, then a mean and a linear layer.

    It learns from scratch in minutes. Frames of 25 ms lie 10 ms apart; bands reach from 0 Hz to half the rate.
    """

    architecture = "logmel_cnn"

    def __init__(
        self, labels: Sequence[str], *, name: str = "logmel_cnn", sample_rate: int = SAMPLE_RATE
    ) -> None:
        super().__init__(name=name, labels=labels, sample_rate=sample_rate)
        self.window, self.hop = round(WINDOW_S * sample_rate), round(HOP_S * sample_rate)
        self.register_buffer("filters", mel_filters(self.window, sample_rate), persistent=False)
        shapes = zip((1, *CHANNELS[:-1]), CHANNELS, strict=True)
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in shapes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for channels in CHANNELS)
        self.head = nn.Linear(CHANNELS[-1], len(self.labels))
        self.minimum_samples = self.window + (2 ** len(CHANNELS) - 1) * self.hop

    @property
    def output_layer(self) -> nn.Linear:
        return self.head

    def logits(self, standardised: Tensor, lengths: Tensor | None) -> Tensor:
        x = self.log_mel(standardised)[:, None]
        frames = None if lengths is None else (lengths - self.window) // self.hop + 1
        x = _clear(x, frames)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.max_pool2d(F.relu(norm(conv(x))), 2)
            frames = None if frames is None else frames // 2
            x = _clear(x, frames)
        x = x.mean(dim=2).sum(dim=2) / (x.shape[3] if frames is None else frames[:, None])
        return cast(Tensor, self.head(x))

    def log_mel(self, x: Tensor) -> Tensor:
        """Returns ``log(FLOOR + energy)`` of each band and frame, ``[B, T] -> [B, M, F]``."""
        window = torch.hann_window(self.window, device=x.device)
        frames = x.float().unfold(1, self.window, self.hop)
        spectrum = torch.fft.rfft(frames * window)
        power = spectrum.real.square() + spectrum.imag.square()
        return torch.log(power @ cast(Tensor, self.filters) + FLOOR).transpose(1, 2)


def _clear(x: Tensor, frames: Tensor | None) -> Tensor:
    """``x [B, C, M, F]`` with zeros beyond the ``frames [B]`` of each clip."""
    return x if frames is None else x * valid_mask(frames, x.shape[3])[:, None, None]


def mel_filters(window: int, sample_rate: int, count: int = MELS) -> Tensor:
    """Returns triangles, evenly spaced in mel (O'Shaughnessy, 1987), each of sum 1: ``[window // 2 + 1, count]``.

    A band narrower than a bin takes its nearest bin.

    >>> mel_filters(400, 16_000).sum(dim=0).allclose(torch.ones(64))
    True
    """
    top = 2595 * torch.log10(torch.tensor(1 + sample_rate / 2 / 700))
    edges_hz = 700 * (10 ** (torch.linspace(0, float(top), count + 2) / 2595) - 1)
    bins = torch.arange(window // 2 + 1)[:, None]
    low, centre, high = (
        edges_hz[start : start + count] * window / sample_rate for start in range(3)
    )
    rise, fall = (bins - low) / (centre - low), (high - bins) / (high - centre)
    nearest = F.one_hot(centre.round().long(), len(bins)).T
    triangles = torch.minimum(rise, fall).clamp_min(0)
    filters = torch.where(triangles.sum(dim=0) > 0, triangles, nearest)
    return filters / filters.sum(dim=0)
