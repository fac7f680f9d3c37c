"""Transforms drawn at random for each crop of a training: everyday change, or a list of texts.

A number of such a text may be a range, ``noise:10..40``: each crop draws its own from it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from staanet.errors import InvalidInput
from staanet.transforms.base import Transform

EVERYDAY, NONE = "everyday", "none"

EVERYDAY_STEPS: tuple[tuple[float, tuple[str, ...]], ...] = (
    (0.3, ("rir:0.1..0.7", "highpass:40..300", "lowpass:2000..7000", "tilt:-12..12")),
    (0.1, ("clipping:0.1..8",)),
    (0.75, ("noise:10..40",)),
    (0.25, ("bandpass:200..400,3100..3700",)),
    (0.3, ("mulaw", "gsm", "quantise:8", "mp3:16..64", "opus:8..32", "packet_loss:1..8")),
    (0.5, ("random_gain:12",)),
    (0.5, ("silence:0..4000,0", "silence:0,0..4000", "silence:0..2000,0..2000")),
)
"""How often each step of everyday change happens to a crop, and the transforms of which it draws one.

Crops also differ in speed, colour and level; see ``staanet.training.crops``.
"""

_RANGE = re.compile(r"(-?[0-9.]+?)\.\.(-?[0-9.]+)")


@dataclass(frozen=True)
class Augmentation:
    """Augmentations of training crops: steps with their probability, in order."""

    steps: Sequence[tuple[float, Sequence[str]]]

    def __call__(
        self, crop: NDArray[np.float32], rng: np.random.Generator, sample_rate: int
    ) -> NDArray[np.float32]:
        """A crop ``[T]`` in [-1, 1] after the steps that ``rng`` draws for it, ``[T]``."""
        x = torch.from_numpy(crop)[None]
        for probability, texts in self.steps:
            if rng.random() < probability:
                transform = draw_transform(texts[int(rng.integers(len(texts)))], rng)
                generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
                x = transform(x, None, generator, sample_rate=sample_rate)
        changed: NDArray[np.float32] = x[0].numpy()
        return changed


def draw_transform(text: str, rng: np.random.Generator) -> Transform:
    """The transform of a text whose ranges ``LOW..HIGH`` are drawn from ``rng``, evenly.

    >>> 10 <= draw_transform("noise:10..40", np.random.default_rng(0)).snr_db <= 40
    True
    """
    from staanet.transforms import parse_transform

    def draw(match: re.Match[str]) -> str:
        low, high = match.groups()
        if "." in low + high:
            return f"{rng.uniform(float(low), float(high)):.4f}"
        return str(rng.integers(int(low), int(high), endpoint=True))

    return parse_transform(_RANGE.sub(draw, text))


def parse_augmentation(texts: Sequence[str]) -> Augmentation | None:
    """The augmentation of ``everyday``, or of texts of transforms, each applied to half of the crops.

    None for ``none`` and for no text. Raises ``InvalidInput`` for a text that is no transform.

    >>> parse_augmentation(["noise:10..40", "mp3:64"]).steps
    ((0.5, ('noise:10..40',)), (0.5, ('mp3:64',)))
    """
    if tuple(texts) in ((), (NONE,)):
        return None
    if NONE in texts:
        raise InvalidInput("augment names 'none' beside others", remedy="Leave either out")
    steps: list[tuple[float, tuple[str, ...]]] = []
    for text in texts:
        steps += EVERYDAY_STEPS if text == EVERYDAY else [(0.5, (text,))]
    for _, choices in steps:
        for text in choices:
            for end in (
                r"\1",
                r"\2",
            ):  # both ends of its ranges, so that a mistake stops no training
                draw_transform(_RANGE.sub(end, text), np.random.default_rng(0))
    return Augmentation(tuple(steps))
