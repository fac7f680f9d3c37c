"""Random transforms: white noise, random gain, and the noise of randomised smoothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from staanet.config import ABLATION_KEEP, SMOOTHING_SIGMA
from staanet.errors import InvalidInput
from staanet.transforms.base import BaseTransform, BatchInfo, Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise(BaseTransform):
    """Adds white Gaussian noise.

    Its level is ``snr_db`` below the level of each clip. With ``sigma`` it is that standard deviation, of
    full scale 1.
    """

    name: ClassVar[str] = "noise"
    is_random: ClassVar[bool] = True
    limits: ClassVar[Limits] = {"snr_db": (-40, 90), "sigma": (0, 1)}
    snr_db: float = 20.0
    sigma: float | None = None

    def change(self, x: Tensor, info: BatchInfo) -> Tensor:
        noise = torch.randn(x.shape, generator=info.generator).to(
            x
        )  # the same draws in float32 and float64
        if self.sigma is not None:
            level: Tensor | float = self.sigma
        else:
            energy = x.square().sum(dim=1, keepdim=True) / info.lengths_of(x)[:, None]
            level = 10 ** (-self.snr_db / 20) * energy.clamp_min(1e-12).sqrt()
        return x + level * noise


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomGain(BaseTransform):
    """Amplifies or attenuates each clip by up to ``db``, uniform in dB; clips at full scale."""

    name: ClassVar[str] = "random_gain"
    is_random: ClassVar[bool] = True
    limits: ClassVar[Limits] = {"db": (0, 60)}
    db: float = 6.0

    def change(self, x: Tensor, info: BatchInfo) -> Tensor:
        uniform = torch.rand(len(x), 1, generator=info.generator).to(x)
        return x * 10 ** ((2 * uniform - 1) * self.db / 20)


# ---------------------------------------------------------------- randomised smoothing


class SmoothingNoise(Protocol):
    """The noise of a smoothed classifier, ``[B, T] -> [B, T]``, random by ``generator``."""

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor: ...

    def radius(self, votes: float, length: int) -> float:
        """Returns the certified radius of a clip of ``length`` samples.

        ``votes`` > 1/2 is a lower bound of the share of noisy copies that get the predicted class.
        """


@dataclass(frozen=True, slots=True)
class Gaussian:
    """White noise of standard deviation ``sigma``, of full scale 1; the radius is an L2 norm.

    Cohen et al. 2019, arXiv 1902.02918.

    >>> Gaussian(sigma=0.5).radius(0.9772498680518208, length=1)  # 0.5 * 2 sigma
    1.0
    """

    sigma: float = SMOOTHING_SIGMA

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= 1:
            raise InvalidInput(f"sigma is {self.sigma}", remedy="Give a value in (0, 1]")

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x + self.sigma * torch.randn(x.shape, generator=generator).to(x)

    def radius(self, votes: float, length: int) -> float:
        """Returns ``sigma * Phi^-1(votes)``: theorem 1 of the paper, with the second class at ``1 - votes``."""
        from scipy.stats import norm

        return float(round(self.sigma * norm.ppf(votes), 12))


@dataclass(frozen=True, slots=True)
class Ablation:
    """Keeps ``ceil(keep * T)`` random samples and replaces the others by linear interpolation.

    Interpolated samples depend only on the samples that are kept and their indices. So the theorem of
    Levine and Feizi (2020, arXiv 1911.09272) holds as for the paper's empty pixels. The radius is an L0
    norm: the number of samples that an attacker may set to any value.
    """

    keep: float = ABLATION_KEEP

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise InvalidInput(f"keep is {self.keep}", remedy="Give a share of samples in (0, 1]")

    def kept_samples(self, length: int) -> int:
        """Returns how many samples of a clip of ``length`` samples are kept.

        >>> Ablation(keep=0.3).kept_samples(10)
        3
        """
        return min(length, max(1, math.ceil(round(self.keep * length, 9))))

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        batch, time = x.shape
        order = torch.rand(batch, time, generator=generator, dtype=torch.float64).argsort(dim=1)
        indices = order[:, : self.kept_samples(time)].sort(dim=1).values.to(x.device)
        return interpolate(x, indices)

    def radius(self, votes: float, length: int) -> float:
        """Returns the largest rho with ``votes - Delta(rho) > 1/2``, by bisection (``hit_probability``)."""
        low, high = 0, length - self.kept_samples(length) + 1
        while high - low > 1:
            middle = (low + high) // 2
            hit = hit_probability(length, self.kept_samples(length), middle)
            low, high = (middle, high) if votes - hit > 0.5 else (low, middle)
        return float(low)


def hit_probability(length: int, keep_count: int, changed: int) -> float:
    """Returns the probability Delta that one of ``keep_count`` random samples is a changed one.

    Of ``length`` samples (T), ``changed`` (rho) are changed and k are kept: ``1 - C(T - rho, k) / C(T, k)``.
    It is computed by the logarithm of the gamma function, so any T is possible.

    >>> round(hit_probability(4, 2, 1), 12), hit_probability(4, 3, 2)
    (0.5, 1.0)
    """
    if changed <= 0:
        return 0.0
    if changed > length - keep_count:
        return 1.0
    rest = length - changed
    logs = math.lgamma(rest + 1) - math.lgamma(rest - keep_count + 1)
    logs -= math.lgamma(length + 1) - math.lgamma(length - keep_count + 1)
    return min(1.0, -math.expm1(min(0.0, logs)))


def interpolate(x: Tensor, indices: Tensor) -> Tensor:
    """Interpolates ``x [B, T]`` linearly between ascending ``indices [B, k]``; constant beyond both ends.

    >>> interpolate(torch.tensor([[0.0, 9.0, 2.0, 9.0]]), torch.tensor([[0, 2]]))
    tensor([[0., 1., 2., 2.]])
    """
    batch, time = x.shape
    values = x.gather(1, indices)
    position = torch.arange(time, device=x.device).expand(batch, time).contiguous()
    right = torch.searchsorted(indices.contiguous(), position).clamp_max(indices.shape[1] - 1)
    before = torch.searchsorted(indices.contiguous(), position, right=True).sub(1).clamp_min(0)
    start, end = indices.gather(1, before), indices.gather(1, right)
    share = (position - start) / (end - start).clamp_min(1)
    return torch.lerp(
        values.gather(1, before), values.gather(1, right), share.to(x.dtype).clamp(0, 1)
    )
