"""Detectors give each clip a score, ``[B, T] -> [B]``, which is higher for more suspicious clips.

Every detector has a gradient. A sparse change does not fit its neighbours: ``Residual`` predicts each
sample from those on both sides and takes the largest error of each 20 ms. ``Learned`` gives the errors
to a small network. ``Disagreement`` compares the victim's answers to the clip and to squeezed copies
(Xu, Evans and Qi 2018, arXiv 1704.01155).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from staanet.core import Victim
from staanet.errors import unknown_name
from staanet.transforms import Average, BaseTransform, Lowpass, Median, Quantise

ORDER = 8
"""The number of samples on each side that predict a sample."""
FRAME_S = 0.02
"""The seconds of a frame: a vowel's period fits in, a word does not."""


class Detector(nn.Module):
    """What gives each clip a score; ``victim`` is the classifier behind the detector."""

    name: ClassVar[str]

    def forward(self, victim: Victim, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The score of each clip by itself, ``[B, T] -> [B]``."""
        rows = [
            self.score(victim, x[row, : x.shape[1] if lengths is None else int(lengths[row])])
            for row in range(len(x))
        ]
        return torch.stack(rows)

    def score(self, victim: Victim, clip: Tensor) -> Tensor:
        """The score of one clip without padding, ``[T] -> []``."""
        raise TypeError(f"{type(self).__name__} does not implement score")


def residuals(clip: Tensor, order: int = ORDER) -> Tensor:
    """The error of each sample's best linear prediction from both sides, ``[T] -> [T]``.

    ``e_t = x_t - sum_k a_k (x_{t-k} + x_{t+k})``, where ``a`` has the least mean square error over the
    clip: ``(r_{|j-k|} + r_{j+k}) a_k = r_j`` with the autocorrelation r. Beyond the ends is silence.

    >>> t = torch.arange(400)
    >>> float(residuals(torch.sin(0.3 * t))[20:-20].abs().max()) < 1e-2  # a tone is predicted
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
    errors = torch.nn.functional.conv1d(x[None, None], kernel[None, None], padding=order)[0, 0]
    return errors.to(clip.dtype)


class Residual(Detector):
    """The level of the residual in the quiet tenth of a clip.

    The score takes the largest residual of each 20 ms and the tenth percentile of those, divides it by
    the clip's root mean square, and is the decimal logarithm of that. In the quiet tenth of clean speech
    nothing stands out; a change of every fifth sample does.
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
    squeezers: tuple[BaseTransform, ...] = (
        Median(width=3),
        Average(width=3),
        Quantise(bits=8),
        Lowpass(hz=3000),
    )

    def score(self, victim: Victim, clip: Tensor) -> Tensor:
        x = clip[None]
        rate = victim.sample_rate
        usable = [s for s in self.squeezers if not s.problem_at(rate)]
        copies = torch.cat([x, *(s(x, sample_rate=rate) for s in usable)])
        probabilities: Tensor = victim(copies).softmax(dim=1)
        return (probabilities[1:] - probabilities[:1]).abs().sum(dim=1).amax()


class Learned(Detector):
    """A small network on the sizes of residuals: three strided convolutions, statistics over time, a logit."""

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
        missing = max(0, 128 - len(sizes))
        frames = self.layers(nn.functional.pad(sizes, (0, missing))[None, None])[0]
        pooled = torch.cat([frames.mean(dim=1), frames.amax(dim=1), frames.amin(dim=1)])
        logit: Tensor = self.head(pooled)[0]
        return logit


def _frames(values: Tensor, rate: int) -> Tensor:
    """The whole frames of a clip, ``[T] -> [N, F]``; a clip shorter than a frame is one frame."""
    size = min(len(values), max(1, round(FRAME_S * rate)))
    return values[: len(values) // size * size].view(-1, size)


DETECTORS: dict[str, type[Detector]] = {
    "disagreement": Disagreement,
    "learned": Learned,
    "residual": Residual,
}
"""``residual``: samples that do not fit their neighbours. ``disagreement``: answers that change when the
clip is squeezed. ``learned``: a small network on residuals."""


def build_detector(name: str) -> Detector:
    """A detector by its registry name; ``learned`` with weights from torch's global generator.

    >>> build_detector("residual").name
    'residual'
    """
    if name not in DETECTORS:
        raise unknown_name("detector", name, DETECTORS)
    return DETECTORS[name]()
