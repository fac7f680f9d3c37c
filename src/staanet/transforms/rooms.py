"""The transform that adds reverberation: a random impulse response of a given decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from staanet.transforms.base import BaseTransform, BatchInfo, Limits, convolve

_LATE = 0.5
"""The usual energy of the reverberation, of that of the direct path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room(BaseTransform):
    """A room in which a sound has fallen by 60 dB after ``rt60_s`` seconds.

    The direct path arrives at once; 2.5 ms later begins Gaussian noise that decays exponentially
    (Polack 1988), ``late`` times as strong as the direct path in energy: half as strong by default,
    and four times as strong at twice the distance. The response has unit energy. It is drawn from the
    seed of ``generator``: clips that share the seed stand in the same room.
    """

    name: ClassVar[str] = "rir"
    is_random: ClassVar[bool] = True
    limits: ClassVar[Limits] = {"rt60_s": (0.05, 5), "late": (0, 1_000)}
    rt60_s: float = 0.5
    late: float | None = None

    def change(self, x: Tensor, info: BatchInfo) -> Tensor:
        generator = info.generator
        seed = int(torch.randint(2**62, ())) if generator is None else generator.initial_seed()
        return convolve(x, torch.from_numpy(self.response(info.sample_rate, seed)))

    def response(self, sample_rate: int, seed: int) -> NDArray[np.float64]:
        """The impulse response ``[rt60_s * sample_rate]``, its direct path at 0."""
        time = np.arange(max(2, round(self.rt60_s * sample_rate))) / sample_rate
        rng = np.random.default_rng([seed, 1])
        late = rng.standard_normal(len(time)) * 10 ** (-3 * time / self.rt60_s) * (time >= 0.0025)
        energy = _LATE if self.late is None else self.late
        late *= np.sqrt(energy / max(np.square(late).sum(), 1e-12))
        late[0] = 1.0
        response: NDArray[np.float64] = late / np.sqrt(np.square(late).sum())
        return response
