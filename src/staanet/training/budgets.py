"""The budgets that a generator meets while it learns every budget, and those that judge it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from staanet import audio
from staanet.core import Budget

DENSITIES = (0.002, 1.0)
LEVELS_DB = (-50.0, -15.0)
"""Of a changed sample, relative to the root mean square of the speech."""
SNR_SHARE = 1 / 3
"""How often the level is imposed as an SNR, which leaves open how the change is spread."""
JUDGED = tuple((density, level) for density in (0.01, 1.0) for level in (-40.0, -20.0))
SHORTFALL = 10.0
"""How much more a budget that training made worse counts than one that it made better."""


def draw_budget(x: Tensor, rng: np.random.Generator) -> Budget:
    """Returns a budget for the crops ``x [B, T]``, its density log-uniform and its level uniform in dB."""
    density = math.exp(rng.uniform(*np.log(DENSITIES)))
    level_db = rng.uniform(*LEVELS_DB)
    if rng.random() < SNR_SHARE:
        snr_db = -level_db - 10 * math.log10(density)
        return Budget(epsilon=1.0, max_density=density, min_snr_db=snr_db)
    return relative_budget(x, density, level_db)


def relative_budget(x: Tensor, density: float, level_db: float) -> Budget:
    """Returns a budget whose epsilon is ``level_db`` relative to the median clip of ``x [B, T]``.

    >>> import torch
    >>> relative_budget(torch.full((1, 9), 0.5), 0.2, -20.0).epsilon
    0.05
    """
    level = float(x.square().mean(dim=1).sqrt().median())
    epsilon = round(level * 10 ** (level_db / 20), 6)
    return Budget(epsilon=min(1.0, max(epsilon, 1 / audio.FULL_SCALE)), max_density=density)


def score_budgets(rates: Sequence[float], start: Sequence[float]) -> float:
    """Returns the mean success over budgets, less what any budget lost since the start, many times over.

    >>> score_budgets([0.5, 0.75], [0.25, 0.25])
    0.625
    >>> score_budgets([0.125, 1.0], [0.25, 0.25]) < 0
    True
    """
    lost = sum(max(0.0, before - after) for before, after in zip(start, rates, strict=True))
    return float(np.mean(rates)) - SHORTFALL * lost
