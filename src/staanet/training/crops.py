"""Random crops of clips as batches, each with another speed, spectrum, level and noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from staanet import audio
from staanet.core import Clip, Samples, Victim
from staanet.nn import distributed
from staanet.training.fit import Schedule
from staanet.training.prefetch import Prefetcher
from staanet.transforms import Augmentation, parse_augmentation


@dataclass(frozen=True)
class Crops:
    """Random crops of clips; the batch of a step is determined by ``(seed, step)``.

    With ``weights`` (a number per clip) clips are drawn in that proportion, for balanced classes.
    """

    clips: Sequence[Clip]
    schedule: Schedule
    weights: NDArray[np.float64] | None = None
    colour_db: float = 6.0
    """Each crop is filtered at random by up to this gain: another voice, room, microphone."""
    augmentation: Augmentation | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "augmentation", parse_augmentation(self.schedule.augment))

    def draw(self, step: int) -> tuple[Tensor, NDArray[np.intp]]:
        """Returns waveforms ``[B, T]`` in [-1, 1] and the index of each one's clip, ``[B]``.

        Where several processes train, these are the rows of this process.
        """
        rng = np.random.default_rng([self.schedule.seed, step])
        chosen = rng.choice(len(self.clips), self.schedule.batch_size, p=self.weights)
        rate = self.clips[0].sample_rate
        length = round(self.schedule.seconds * rate)
        crops = np.stack([self._crop(self.clips[i].pcm16, length, rng) for i in chosen])
        rows = self.rank_rows()
        return torch.from_numpy(crops[rows]), chosen[rows]

    def rank_rows(self) -> slice:
        """Returns which rows of a batch are this process's: all where it trains alone."""
        return distributed.rank_rows(self.schedule.batch_size)

    def _crop(self, samples: Samples, length: int, rng: np.random.Generator) -> NDArray[np.float32]:
        speed = 1 + rng.uniform(-1, 1) * self.schedule.speed
        needed = math.ceil(length * speed) + 1
        start = int(rng.integers(0, max(1, len(samples) - needed + 1)))
        piece = audio.to_float(audio.fit_length(samples, needed, start))
        crop = np.interp(np.arange(length) * speed, np.arange(needed), piece)
        crop = filter_octaves(crop, rng.uniform(-self.colour_db, self.colour_db, 8))
        crop *= rng.choice([-1, 1]) * 10 ** (rng.uniform(-6, 6) / 20)  # polarity is arbitrary
        noise = 10 ** (-rng.uniform(self.schedule.noise_db, 60.0) / 20)
        crop += float(np.sqrt(np.mean(np.square(crop)))) * noise * rng.standard_normal(length)
        clipped: NDArray[np.float32] = np.clip(crop, -1, 1).astype(np.float32)
        if self.augmentation is None:
            return clipped
        return self.augmentation(clipped, rng, self.clips[0].sample_rate)


def filter_octaves(
    samples: NDArray[np.float64], gains_db: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns ``samples [T]`` with a gain per octave, the first being the lowest.

    The last octave ends at half the sampling rate. Gains between octaves are interpolated.

    >>> filter_octaves(np.array([1.0, 0.0, 0.0, 0.0]), np.zeros(3)).round(6)
    array([1., 0., 0., 0.])
    """
    spectrum = np.fft.rfft(samples)
    octave = np.log2(np.linspace(2.0 ** -len(gains_db), 1, len(spectrum)))
    gain = np.interp(octave, np.arange(-len(gains_db) + 1, 1), gains_db)
    filtered: NDArray[np.float64] = np.fft.irfft(spectrum * 10 ** (gain / 20), len(samples))
    return filtered


def class_weights(labels: Sequence[str]) -> NDArray[np.float64]:
    """Returns drawing weights that make each class as frequent as every other.

    >>> class_weights(["joy", "joy", "fear"])
    array([0.25, 0.25, 0.5 ])
    """
    names, index, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    return np.asarray(1 / (counts[index] * len(names)))


def balanced_crops(clips: Sequence[Clip], schedule: Schedule) -> Crops:
    """Returns crops of labelled clips, every class as often."""
    return Crops(clips, schedule, class_weights([clip.label or "" for clip in clips]))


def labelled_batches(victim: Victim, crops: Crops) -> Prefetcher:
    """Returns batches of crops ``[B, T]`` and the indices of their labels ``[B]``, on the device."""
    index = {label: number for number, label in enumerate(victim.labels)}
    labels = np.array([index[clip.label or ""] for clip in crops.clips])

    def draw(step: int) -> tuple[Tensor, Tensor]:
        x, chosen = crops.draw(step)
        return x, torch.from_numpy(labels[chosen])

    return Prefetcher(draw, victim.device)
