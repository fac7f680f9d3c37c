"""``Budget``: what an attack may change. Imports no torch, because the torch-free runner uses it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from staanet.audio.grid import FULL_SCALE
from staanet.core.clips import Samples
from staanet.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor

LOUDEST_DB = 300
"""No SNR of 16-bit audio is beyond this, and no power of ten below it is beyond a float."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of an attack: size of a change, number of samples, loudness. ``None`` is no limit."""

    epsilon: float
    max_density: float | None = None
    max_l0: int | None = None
    min_snr_db: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.epsilon <= 2:
            raise InvalidInput(f"epsilon is {self.epsilon}", remedy="Give a value in (0, 2]")
        if self.max_density is not None and not 0 < self.max_density <= 1:
            raise InvalidInput(
                f"max_density is {self.max_density}", remedy="Give a value in (0, 1]"
            )
        if self.max_l0 is not None and self.max_l0 < 0:
            raise InvalidInput(f"max_l0 is {self.max_l0}", remedy="Give 0 or more samples")
        if self.min_snr_db is not None and not abs(self.min_snr_db) <= LOUDEST_DB:
            raise InvalidInput(
                f"min_snr_db is {self.min_snr_db}", remedy=f"Give -{LOUDEST_DB} to {LOUDEST_DB} dB"
            )

    @property
    def epsilon_lsb(self) -> int:
        """Epsilon in whole steps of the 16-bit grid: ``floor(epsilon * 32768)``.

        >>> Budget(epsilon=0.03).epsilon_lsb
        983
        """
        return math.floor(self.epsilon * FULL_SCALE)

    def max_samples(self, length: int) -> int:
        """How many samples of a clip of ``length`` may change.

        >>> Budget(epsilon=0.01, max_density=0.05).max_samples(150)
        7
        """
        by_density = length if self.max_density is None else math.floor(self.max_density * length)
        return min(length, by_density, length if self.max_l0 is None else self.max_l0)

    def step_limit(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """How far each sample may move where a clip of ``x [B, T]`` changes as many as it may, ``[B, 1]``.

        That is epsilon, or as much less as ``min_snr_db`` asks: a search within epsilon whose result is
        scaled down in the end would have looked at another ball than the one it may use.

        >>> import torch
        >>> Budget(epsilon=0.25, max_l0=1, min_snr_db=20).step_limit(torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
        tensor([[0.1000]])
        """
        epsilon = self.epsilon_lsb / FULL_SCALE
        if self.min_snr_db is None:
            return x.new_full((len(x), 1), epsilon)
        sizes = [x.shape[1]] * len(x) if lengths is None else lengths.tolist()
        counts = x.new_tensor([max(1, self.max_samples(int(size))) for size in sizes])
        allowed = x.square().sum(dim=1) / 10 ** (self.min_snr_db / 10)
        return (allowed / counts).sqrt().clamp_max(epsilon)[:, None]

    def violations(self, clean: Samples, adversarial: Samples) -> list[str]:
        """Each limit that a pair of 16-bit clips ``[T]`` breaks, in words; empty when it is kept.

        >>> Budget(epsilon=0.01).violations(np.int16([0, 0]), np.int16([0, 328]))
        ['a sample moved by 328 steps of 2^-15; epsilon 0.01 allows 327']
        """
        if clean.shape != adversarial.shape:
            return [f"length changed from {len(clean)} to {len(adversarial)} samples"]
        delta = adversarial.astype(np.int64) - clean
        largest, moved = int(np.abs(delta).max(initial=0)), int(np.count_nonzero(delta))
        broken = []
        if largest > self.epsilon_lsb:
            broken.append(
                f"a sample moved by {largest} steps of 2^-15; epsilon {self.epsilon} allows {self.epsilon_lsb}"
            )
        if moved > self.max_samples(len(clean)):
            broken.append(f"{moved} samples changed; {self.max_samples(len(clean))} are allowed")
        if self.min_snr_db is not None and moved:
            snr = 10 * math.log10(max(_energy(clean), 1e-12) / _energy(delta))
            if snr < self.min_snr_db:
                broken.append(f"snr {snr:.2f} dB is below {self.min_snr_db} dB")
        return broken

    def project(self, clean: Samples, adversarial: NDArray[np.floating]) -> Samples:
        """The attack's float result ``[T]`` as integers within epsilon, full scale and min_snr_db.

        Rounds to the grid around the clean integers; it never chooses *which* samples change:
        keeping max_density and max_l0 is the attack's own task.
        """
        delta = np.rint(adversarial.astype(np.float64) * FULL_SCALE) - clean
        delta = np.clip(delta, -self.epsilon_lsb, self.epsilon_lsb)
        if self.min_snr_db is not None:
            allowed = _energy(clean) / 10 ** (self.min_snr_db / 10)
            energy = _energy(delta)
            if energy > allowed:
                delta = np.trunc(delta * math.sqrt(allowed / energy))
        moved = np.clip(clean + delta, -FULL_SCALE, FULL_SCALE - 1)
        fitted: Samples = moved.astype(np.int16)
        return fitted


def _energy(samples: NDArray[Any]) -> float:
    return float(np.square(samples.astype(np.float64)).sum())
