"""The budgets that a generator meets while it learns every budget, and those that judge it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from staanet.core import Budget

DENSITIES = (0.002, 1.0)
LEVELS_DB = (-50.0, -15.0)
"""Of a changed sample, relative to the active speech level of its crop."""
SNR_SHARE = 1 / 3
"""How often the level is imposed as an SNR, which leaves open how the change is spread."""
JUDGED = tuple(
    Budget(epsilon=level, max_density=density)
    for density in (0.01, 1.0)
    for level in ("-40 dB", "-20 dB")
)
SHORTFALL = 10.0
"""How much more a budget that training made worse counts than one that it made better."""


def draw_budget(rng: np.random.Generator) -> Budget:
    """Returns a budget, its density log-uniform and its level uniform in dB; each crop has an epsilon of its own.

    >>> round(draw_budget(np.random.default_rng(0)).min_snr_db)
    50
    """
    density = math.exp(rng.uniform(*np.log(DENSITIES)))
    level_db = rng.uniform(*LEVELS_DB)
    if rng.random() < SNR_SHARE:
        snr_db = -level_db - 10 * math.log10(density)
        return Budget(epsilon=1.0, max_density=density, min_snr_db=snr_db)
    return Budget(epsilon=f"{level_db:.1f} dB", max_density=density)


def score_budgets(rates: Sequence[float], start: Sequence[float]) -> float:
    """Returns the mean success over budgets, less what any budget lost since the start, many times over.

    >>> score_budgets([0.5, 0.75], [0.25, 0.25])
    0.625
    >>> score_budgets([0.125, 1.0], [0.25, 0.25]) < 0
    True
    """
    lost = sum(max(0.0, before - after) for before, after in zip(start, rates, strict=True))
    return float(np.mean(rates)) - SHORTFALL * lost
