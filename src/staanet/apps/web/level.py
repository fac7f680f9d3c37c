"""The level of a perturbation relative to the speech of a clip, and how audible it is."""

from __future__ import annotations

import math

import numpy as np

from staanet import audio
from staanet.core import Samples

LOWEST_DB, HIGHEST_DB, DEFAULT_DB = -60, 10, -20
"""Range and start of the page's slider."""
MARKS = {-50: "nobody hears it", -30: "heard in a quiet room", 5: "louder than the speech"}
"""Words at marks of the slider; they hold for a change of up to a fifth of the samples."""
_FRAME_S = 0.02
_RANGE_DB = 30.0


def speech_level(samples: Samples, sample_rate: int) -> float:
    """Returns the root mean square of the loud frames of a clip ``[T]``, of full scale 1.

    Pauses do not count: a frame of 20 ms is loud where it lies less than 30 dB below the loudest.

    >>> speech_level(np.int16([3277] * 1600 + [0] * 1600), 16_000).__round__(3)
    0.1
    """
    size = max(1, min(len(samples), round(_FRAME_S * sample_rate)))
    frames = audio.to_float(samples[: len(samples) // size * size]).reshape(-1, size)
    power = np.square(frames, dtype=np.float64).mean(axis=1)
    return float(np.sqrt(power[power >= power.max() * 10 ** (-_RANGE_DB / 10)].mean()))


def epsilon_at(level_db: float, samples: Samples, sample_rate: int) -> float:
    """Returns the epsilon that lies ``level_db`` above the speech of a clip, of full scale 1.

    It is at least one step of the 16-bit grid and at most full scale.

    >>> epsilon_at(-20, np.int16([3277] * 1600), 16_000).__round__(4)
    0.01
    """
    epsilon = speech_level(samples, sample_rate) * 10 ** (level_db / 20)
    return min(max(epsilon, 1 / audio.FULL_SCALE), 1.0)


def level_text(level_db: float) -> str:
    """Returns a level in words.

    >>> level_text(-20), level_text(3), level_text(-math.inf)
    ('20 dB below the speech', '3 dB above the speech', 'silent')
    """
    if not math.isfinite(level_db):
        return "silent"
    side = "below" if level_db < 0 else "above"
    return f"{abs(level_db):.0f} dB {side} the speech"
