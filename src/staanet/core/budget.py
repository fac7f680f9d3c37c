"""``Budget``: what an attack may change. Imports no torch, because the torch-free runner uses it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from staanet.audio.grid import FULL_SCALE
from staanet.audio.levels import active_level, active_levels
from staanet.config import check_epsilon, relative_db
from staanet.core.clips import Samples
from staanet.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor

    from staanet.config.epsilon import Epsilon

LOUDEST_DB = 300
"""No SNR of 16-bit audio is beyond this, and no power of ten below it is beyond a float."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of an attack: size of a change, number of samples, loudness. ``None`` is no limit.

    ``epsilon`` is a share of full scale, or such as ``"-20 dB"`` relative to the active speech level of
    each clip (ITU-T P.56: the power of speech without its pauses; ``audio.levels.active_level``). A
    share is louder than the speech of a quiet recording and inaudible in a loud one. The level is that
    of the speech rather than of its peak (as in Carlini and Wagner, 2018, arXiv:1801.01944), because a
    click would raise a peak and the budget with it. A change of at most ``-20 dB`` has an SNR of at
    least 20 dB in the active frames, and of more where it is sparse. A clip louder or quieter by some
    dB has a budget larger or smaller by as many.
    """

    epsilon: Epsilon
    max_density: float | None = None
    max_l0: int | None = None
    min_snr_db: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", check_epsilon(self.epsilon, least=0, largest=2))
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
    def is_relative(self) -> bool:
        """Whether epsilon differs from clip to clip."""
        return isinstance(self.epsilon, str)

    @property
    def epsilon_lsb(self) -> int:
        """Epsilon in whole steps of the 16-bit grid: ``floor(epsilon * 32768)``.

        Raises ``InvalidInput`` for a relative one: ``for_clip`` has that of a clip.

        >>> Budget(epsilon=0.03).epsilon_lsb
        983
        """
        if isinstance(self.epsilon, str):
            raise InvalidInput(
                f"epsilon {self.epsilon} differs from clip to clip",
                remedy="Ask Budget.for_clip(samples, sample_rate) or Budget.epsilon_of(x)",
            )
        return math.floor(self.epsilon * FULL_SCALE)

    def for_clip(self, clean: Samples, sample_rate: int | None) -> Budget:
        """Returns this budget with the epsilon that a clip ``[T]`` has, of full scale.

        Where that is below one step of the grid, ``epsilon_lsb`` is 0. ``sample_rate`` in Hz is needed
        where epsilon is relative.

        >>> tone = np.int16([16384, -16384] * 800)
        >>> Budget(epsilon="-20 dB").for_clip(tone, 16_000).epsilon_lsb
        1638
        """
        db = relative_db(self.epsilon)
        if db is None:
            return self
        level = active_level(clean.astype(np.float64) / FULL_SCALE, _required(sample_rate))
        steps = math.floor(min(level * 10 ** (db / 20), 1.0) * FULL_SCALE)
        return replace(self, epsilon=max(steps, 0.5) / FULL_SCALE)

    def epsilon_of(
        self, x: Tensor, lengths: Tensor | None = None, sample_rate: int | None = None
    ) -> Tensor:
        """Returns the epsilon of each clip of ``x [B, T]`` on the 16-bit grid, ``[B, 1]``.

        ``sample_rate`` in Hz is needed where epsilon is relative.

        >>> import torch
        >>> x = torch.tensor([[0.5, -0.5], [0.25, 0.25]])
        >>> Budget(epsilon="-6 dB").epsilon_of(x, None, 16_000)
        tensor([[0.2506],
                [0.1253]])
        """
        db = relative_db(self.epsilon)
        if db is None:
            return x.new_full((len(x), 1), self.epsilon_lsb / FULL_SCALE)
        levels = active_levels(x, lengths, _required(sample_rate))
        steps = ((levels * 10 ** (db / 20)).clamp_max(1) * FULL_SCALE).floor()
        return (steps / FULL_SCALE).to(x.dtype)

    def max_samples(self, length: int) -> int:
        """How many samples of a clip of ``length`` may change.

        >>> Budget(epsilon=0.01, max_density=0.05).max_samples(150)
        7
        """
        by_density = length if self.max_density is None else math.floor(self.max_density * length)
        return min(length, by_density, length if self.max_l0 is None else self.max_l0)

    def step_limit(
        self, x: Tensor, lengths: Tensor | None = None, sample_rate: int | None = None
    ) -> Tensor:
        """How far each sample may move where a clip of ``x [B, T]`` changes as many as it may, ``[B, 1]``.

        That is ``epsilon_of``, or as much less as ``min_snr_db`` asks: a search within epsilon whose result
        is scaled down in the end would have looked at another ball than the one it may use.

        >>> import torch
        >>> Budget(epsilon=0.25, max_l0=1, min_snr_db=20).step_limit(torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
        tensor([[0.1000]])
        """
        epsilon = self.epsilon_of(x, lengths, sample_rate)
        if self.min_snr_db is None:
            return epsilon
        sizes = [x.shape[1]] * len(x) if lengths is None else lengths.tolist()
        counts = x.new_tensor([max(1, self.max_samples(int(size))) for size in sizes])
        allowed = x.square().sum(dim=1) / 10 ** (self.min_snr_db / 10)
        return (allowed / counts).sqrt()[:, None].minimum(epsilon)

    def violations(
        self, clean: Samples, adversarial: Samples, sample_rate: int | None = None
    ) -> list[str]:
        """Each limit that a pair of 16-bit clips ``[T]`` breaks, in words; empty when it is kept.

        ``sample_rate`` in Hz is needed where epsilon is relative.

        >>> Budget(epsilon=0.01).violations(np.int16([0, 0]), np.int16([0, 328]))
        ['a sample moved by 328 steps of 2^-15; epsilon 0.01 allows 327']
        """
        if clean.shape != adversarial.shape:
            return [f"length changed from {len(clean)} to {len(adversarial)} samples"]
        delta = adversarial.astype(np.int64) - clean
        largest, moved = int(np.abs(delta).max(initial=0)), int(np.count_nonzero(delta))
        broken, allowed = [], self.for_clip(clean, sample_rate).epsilon_lsb
        if largest > allowed:
            broken.append(
                f"a sample moved by {largest} steps of 2^-15; epsilon {self.epsilon} allows {allowed}"
            )
        if moved > self.max_samples(len(clean)):
            broken.append(f"{moved} samples changed; {self.max_samples(len(clean))} are allowed")
        if self.min_snr_db is not None and moved:
            snr = 10 * math.log10(max(_energy(clean), 1e-12) / _energy(delta))
            if snr < self.min_snr_db:
                broken.append(f"snr {snr:.2f} dB is below {self.min_snr_db} dB")
        return broken

    def project(
        self, clean: Samples, adversarial: NDArray[np.floating], sample_rate: int | None = None
    ) -> Samples:
        """The attack's float result ``[T]`` as integers within epsilon, full scale and min_snr_db.

        Rounds to the grid around the clean integers; it never chooses *which* samples change:
        keeping max_density and max_l0 is the attack's own task. ``sample_rate`` in Hz is needed where
        epsilon is relative.
        """
        largest = self.for_clip(clean, sample_rate).epsilon_lsb
        delta = np.rint(adversarial.astype(np.float64) * FULL_SCALE) - clean
        delta = np.clip(delta, -largest, largest)
        if self.min_snr_db is not None:
            allowed = _energy(clean) / 10 ** (self.min_snr_db / 10)
            energy = _energy(delta)
            if energy > allowed:
                delta = np.trunc(delta * math.sqrt(allowed / energy))
        moved = np.clip(clean + delta, -FULL_SCALE, FULL_SCALE - 1)
        fitted: Samples = moved.astype(np.int16)
        return fitted


def _required(sample_rate: int | None) -> int:
    if sample_rate is None:
        raise InvalidInput(
            "a relative epsilon needs the sample rate", remedy="Give sample_rate in Hz"
        )
    return sample_rate


def _energy(samples: NDArray[Any]) -> float:
    return float(np.square(samples.astype(np.float64)).sum())
