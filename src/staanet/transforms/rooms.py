"""The transform that adds reverberation: a random impulse response of a given decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from staanet.transforms.base import BaseTransform, Limits, convolve, inside


@dataclass(frozen=True, slots=True, kw_only=True)
class Room(BaseTransform):
    """A room in which a sound has fallen by 60 dB after ``rt60_s`` seconds.

    The direct path arrives at once; 2.5 ms later begins Gaussian noise that decays exponentially
    (Polack 1988), half as strong as the direct path in energy. The response has unit energy. It is
    drawn from the seed of ``generator``: clips that share the seed stand in the same room.
    """

    name: ClassVar[str] = "rir"
    is_random: ClassVar[bool] = True
    limits: ClassVar[Limits] = {"rt60_s": (0.05, 5)}
    rt60_s: float = 0.5

    def __call__(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        sample_rate: int = 16_000,
    ) -> Tensor:
        seed = int(torch.randint(2**62, ())) if generator is None else generator.initial_seed()
        response = torch.from_numpy(self.response(sample_rate, seed))
        return inside(convolve(inside(x, lengths), response), lengths).clamp(-1, 1)

    def response(self, sample_rate: int, seed: int) -> NDArray[np.float64]:
        """The impulse response ``[rt60_s * sample_rate]``, its direct path at 0."""
        time = np.arange(max(2, round(self.rt60_s * sample_rate))) / sample_rate
        rng = np.random.default_rng([seed, 1])
        late = rng.standard_normal(len(time)) * 10 ** (-3 * time / self.rt60_s) * (time >= 0.0025)
        late *= np.sqrt(0.5 / max(np.square(late).sum(), 1e-12))
        late[0] = 1.0
        response: NDArray[np.float64] = late / np.sqrt(np.square(late).sum())
        return response
