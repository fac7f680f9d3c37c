"""How suspicious a clip is, ``[B, T] -> [B]``: higher is more so. Every detector has a gradient.

A sparse change does not fit its neighbours. ``Residual`` predicts each sample from those on both sides
and iterations, stretch by stretch, at the largest error; ``Learned`` gives the errors to a small network;
``Disagreement`` compares the victim's answers to the clip and to squeezed copies (Xu, Evans and Qi
2018, arXiv 1704.01155).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from staanet.core import Victim
from staanet.defences.base import Defence
from staanet.defences.transforms import Average, Lowpass, Median, Quantise
from staanet.errors import unknown_name

ORDER = 8
"""Samples on each side that predict one."""
FRAME_S = 0.02
"""A stretch: a vowel's period fits in, a word does not."""


class Detector(nn.Module):
    """Gives clips a detector_score; ``victim`` is the one it stands before."""

    name: ClassVar[str]

    def forward(self, victim: Victim, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``[B, T] -> [B]``, each clip by itself."""
        rows = [
            self.score(victim, x[row, : x.shape[1] if lengths is None else int(lengths[row])])
            for row in range(len(x))
        ]
        return torch.stack(rows)

    def score(self, victim: Victim, clip: Tensor) -> Tensor:
        """``[T] -> []`` of one clip without padding."""
        raise TypeError(f"{type(self).__name__} does not implement score")


def residuals(clip: Tensor, order: int = ORDER) -> Tensor:
    """What each sample is beside its best linear prediction from both sides, ``[T] -> [T]``.

    ``e_t = x_t - sum_k a_k (x_{t-k} + x_{t+k})`` with the ``a`` of least mean square over the clip:
    ``(r_{|j-k|} + r_{j+k}) a_k = r_j``, r its autocorrelation. Beyond the ends is silence.

    >>> t = torch.arange(400)
    >>> float(residuals(torch.sin(0.3 * t))[20:-20].abs().max()) < 1e-2  # a tone is foreseen
    True
    """
    time = clip.shape[0]
    order = min(order, max(1, (time - 1) // 2))
    x = clip.double()
    padded = 1 << (time + 2 * order).bit_length()  # a fast length, and nothing wraps around
    power = torch.fft.rfft(x, padded).abs().square()
    r = torch.fft.irfft(power)[: 2 * order + 1]
    k = torch.arange(1, order + 1, device=clip.device)
    matrix = r[(k[:, None] - k).abs()] + r[k[:, None] + k]
    # a little white noise: silence has a prediction too
    matrix = matrix + (1e-6 * r[0] + 1e-12) * torch.eye(order, dtype=x.dtype, device=clip.device)
    a = torch.linalg.solve(matrix, r[1 : order + 1])
    kernel = torch.cat([-a.flip(0), a.new_ones(1), -a])
    found = torch.nn.functional.conv1d(x[None, None], kernel[None, None], padding=order)
    errors: Tensor = found[0, 0].to(clip.dtype)
    return errors


class Residual(Detector):
    """The largest residual of each 20 ms; of those the value that a tenth of the clip stays below,
    over the clip's root mean square, in powers of ten.

    In the quiet tenth of clean speech nothing stands out; a change of every fifth sample does.
    """

    name = "residual"
    quantile = 0.1

    def score(self, victim: Victim, clip: Tensor) -> Tensor:
        largest = _frames(residuals(clip).abs(), victim.sample_rate).amax(dim=1)
        quiet = largest.quantile(self.quantile)
        level = clip.square().mean().add(1e-12).sqrt()
        return (quiet / level).clamp_min(1e-7).log10()


class Disagreement(Detector):
    """The largest L1 distance between the victim's probabilities for a clip and for a squeezed copy."""

    name = "disagreement"
    squeezers: tuple[Defence, ...] = (
        Median(width=3),
        Average(width=3),
        Quantise(bits=8),
        Lowpass(hz=3000),
    )

    def score(self, victim: Victim, clip: Tensor) -> Tensor:
        x = clip[None]
        rate = victim.sample_rate
        usable = [s for s in self.squeezers if getattr(s, "hz", 0.0) < rate / 2]
        answers = victim(torch.cat([x, *(s(x, sample_rate=rate) for s in usable)])).softmax(dim=1)
        furthest: Tensor = (answers[1:] - answers[:1]).abs().sum(dim=1).amax()
        return furthest


class Learned(Detector):
    """Three strided convolutions on the sizes of residuals; mean, largest and least over time; a logit."""

    name = "learned"

    def __init__(self, features: int = 24) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(1, features, 8, stride=4, padding=2),
            nn.ReLU(),
            nn.Conv1d(features, features, 8, stride=4, padding=2),
            nn.ReLU(),
            nn.Conv1d(features, features, 8, stride=4, padding=2),
            nn.ReLU(),
        )
        self.head = nn.Linear(3 * features, 1)

    def score(self, victim: Victim, clip: Tensor) -> Tensor:
        level = clip.square().mean().add(1e-12).sqrt()
        sizes = (residuals(clip) / level).abs().add(1e-3).log10() + 2  # -1 to about 2: quiet counts
        short = max(0, 128 - len(sizes))
        found = self.layers(nn.functional.pad(sizes, (0, short))[None, None])[0]
        told = torch.cat([found.mean(dim=1), found.amax(dim=1), found.amin(dim=1)])
        logit: Tensor = self.head(told)[0]
        return logit


def _frames(values: Tensor, rate: int) -> Tensor:
    """Whole stretches of a clip, ``[T] -> [N, F]``; a clip shorter than one is one."""
    size = min(len(values), max(1, round(FRAME_S * rate)))
    return values[: len(values) // size * size].view(-1, size)


DETECTORS: dict[str, type[Detector]] = {
    "disagreement": Disagreement,
    "learned": Learned,
    "residual": Residual,
}
"""``residual``: what does not fit its neighbours; ``disagreement``: answers that change when the clip
is squeezed; ``learned``: a small network on residuals."""


def build_detector(name: str) -> Detector:
    """A detector by its registry name; ``learned`` with weights from torch's global generator.

    >>> build_detector("residual").name
    'residual'
    """
    if name not in DETECTORS:
        raise unknown_name("detector", name, DETECTORS)
    return DETECTORS[name]()
