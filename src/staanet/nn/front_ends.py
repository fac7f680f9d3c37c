"""Differentiable front ends: what published models compute from a waveform before their network.

Each equals the feature extractor of the transformers library, whose NumPy code has no gradient. Filters are
constants and no weights: they take no part in a model's hash.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


class Normalise(nn.Module):
    """Zero mean and unit variance of each clip, as wav2vec 2.0 takes it, ``[B, T] -> [B, T]``.

    >>> Normalise()(torch.tensor([[0.1, 0.3]])).round(decimals=3)
    tensor([[-1.,  1.]])
    """

    def forward(self, waveforms: Tensor) -> Tensor:
        centred = waveforms - waveforms.mean(dim=1, keepdim=True)
        return centred / (centred.square().mean(dim=1, keepdim=True) + 1e-7).sqrt()


class WhisperLogMel(nn.Module):
    """Log-mel spectrogram of Whisper (Radford et al., 2022, arXiv:2212.04356), ``[B, T] -> [B, M, F]``.

    Clips are padded with zeros, or cut, to ``samples``. Values lie within 8 decades of the clip's loudest.

    >>> WhisperLogMel(torch.ones(201, 80), samples=1600)(torch.zeros(1, 400)).shape
    torch.Size([1, 80, 10])

    Args:
        filters: The mel filters, ``[window // 2 + 1, M]``.
        samples: The length that the network takes.
        window: The length of the Hann window in samples.
        hop: The distance of two frames in samples.
    """

    filters: Tensor

    def __init__(self, filters: Tensor, *, samples: int, window: int = 400, hop: int = 160) -> None:
        super().__init__()
        self.register_buffer("filters", filters.float(), persistent=False)
        self.samples, self.window, self.hop = samples, window, hop

    def forward(self, waveforms: Tensor) -> Tensor:
        _, time = waveforms.shape
        x = pad(waveforms[:, : self.samples], (0, max(0, self.samples - time)))
        window = torch.hann_window(self.window, dtype=x.dtype, device=x.device)
        spectrum = torch.stft(x, self.window, self.hop, window=window, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        mel = self.filters.T.to(x.dtype) @ power[..., :-1]
        log_mel = mel.clamp_min(1e-10).log10()
        loudest = log_mel.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(log_mel, loudest - 8) + 4) / 4


class KaldiLogMel(nn.Module):
    """Kaldi's log-mel filter bank as the Audio Spectrogram Transformer takes it, ``[B, T] -> [B, F, M]``.

    Frames of 400 samples, 160 apart, lose their mean and are pre-emphasised (0.97). Frames are padded with
    zeros, or cut, to ``frames``; then ``(x - mean) / (2 std)``. Source: Gong et al., 2021, arXiv:2104.01778.
    It computes in double precision, as quiet bands ask for.

    >>> KaldiLogMel(torch.ones(257, 128), frames=64)(torch.zeros(1, 800)).shape
    torch.Size([1, 64, 128])

    Args:
        filters: The mel filters, ``[257, M]``.
        frames: How many frames the network takes.
        mean: The mean that is taken away.
        std: Half of the divisor.
    """

    filters: Tensor

    def __init__(
        self, filters: Tensor, *, frames: int, mean: float = 0.0, std: float = 0.5
    ) -> None:
        super().__init__()
        self.register_buffer("filters", filters.double(), persistent=False)
        self.frames, self.mean, self.std = frames, mean, std

    def forward(self, waveforms: Tensor) -> Tensor:
        frames = waveforms.double().unfold(1, 400, 160)
        frames = frames - frames.mean(dim=2, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
        window = torch.hann_window(400, periodic=False, dtype=frames.dtype, device=frames.device)
        spectrum = torch.fft.rfft((frames - 0.97 * before) * window, n=512)
        power = spectrum.real.square() + spectrum.imag.square()
        log_mel = (power @ self.filters).clamp_min(torch.finfo(torch.float32).eps).log()
        missing = max(0, self.frames - log_mel.shape[1])
        fixed = pad(log_mel[:, : self.frames], (0, 0, 0, missing))
        return ((fixed - self.mean) / (2 * self.std)).to(waveforms.dtype)
