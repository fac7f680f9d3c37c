"""The largest budget at which random signs change few answers: below it a fooling rate is the attack's.

A victim that noise of the same level confuses says nothing of an attack on it. So the budget of an
evaluation is searched before, on clips that are not those of the test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from staanet.attacks import Random, craft_batch, logits_of
from staanet.config import BudgetRecipe, default_of
from staanet.core import Budget, Clip, Progress, Victim, answers_to, metrics, silent

LOWEST_DB, HIGHEST_DB = -60, 0
"""Range of the search, in whole dB relative to the speech."""
LEVEL = 0.95
"""Confidence of the bound, which is one-sided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietBudget:
    """The largest epsilon for a density; ``epsilon`` is None where even the smallest is too large."""

    max_density: float
    epsilon: str | None
    control: float
    """Share of answers that random signs change at this epsilon, over all clips and draws."""
    bound: float
    """The share's one-sided 95 % bound over clips, which the search keeps below its limit."""
    snr_db: float | None
    """Median over clips."""
    full_scale: float | None
    """Median over clips of epsilon as a share of full scale."""
    clips: int
    draws: int


@dataclass(frozen=True, slots=True)
class _Measured:
    control: float
    bound: float
    snr_db: float | None


def largest_quiet_budget(
    victim: Victim,
    clips: Sequence[Clip],
    max_density: float,
    *,
    limit: float = default_of(BudgetRecipe, "control_limit"),
    draws: int = default_of(BudgetRecipe, "control_draws"),
    seed: int = 0,
    progress: Progress = silent,
) -> QuietBudget:
    """Returns the largest epsilon at which the control stays below ``limit`` with confidence.

    The epsilon is relative to the speech, in whole dB, found by bisection: louder noise is taken to
    change no fewer answers.

    Args:
        victim: The model whose answers count.
        clips: Clips at the victim's rate, none of them of the test.
        max_density: Share of the samples that change.
        limit: Share of answers that random signs may change.
        draws: Random signs for each clip.
        seed: Of the draws.
        progress: Shows the epsilon that is tried.
    """
    clean = logits_of(victim, clips)
    measured: dict[int, _Measured] = {}

    def is_quiet(db: int) -> bool:
        progress("budget", len(measured), 7, f"epsilon {db} dB on {100 * max_density:g} %")
        budget = Budget(epsilon=f"{db} dB", max_density=max_density)
        shares, snrs = zip(
            *(
                _changed_share(victim, clip, budget, outputs, range(seed, seed + draws))
                for clip, outputs in zip(clips, clean, strict=True)
            ),
            strict=True,
        )
        measured[db] = _measure(shares, [snr for snr in snrs if math.isfinite(snr)])
        return measured[db].bound < limit

    low, high = LOWEST_DB - 1, HIGHEST_DB + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_quiet(middle) else (low, middle)
    is_found = low >= LOWEST_DB
    result = measured[low if is_found else LOWEST_DB]
    budget = Budget(epsilon=f"{max(low, LOWEST_DB)} dB")
    steps = [budget.for_clip(clip.pcm16, clip.sample_rate).epsilon_lsb for clip in clips]
    return QuietBudget(
        max_density=max_density,
        epsilon=str(budget.epsilon) if is_found else None,
        control=result.control,
        bound=result.bound,
        snr_db=result.snr_db if is_found else None,
        full_scale=float(np.median(steps)) / 2**15 if is_found else None,
        clips=len(clips),
        draws=draws,
    )


def _changed_share(
    victim: Victim, clip: Clip, budget: Budget, clean: NDArray[np.float32], seeds: Sequence[int]
) -> tuple[float, float]:
    """How many of the draws change the answer, and the SNR of the first; a silent clip stays as it is."""
    if budget.for_clip(clip.pcm16, clip.sample_rate).epsilon_lsb == 0:
        return 0.0, math.inf
    pairs = [craft_batch(Random(budget=budget, seed=seed), victim, [clip])[0] for seed in seeds]
    noisy = [replace(clip, pcm16=pair.adversarial) for pair in pairs]
    before, after = (torch.from_numpy(x) for x in (clean[None], logits_of(victim, noisy)))
    (answer,) = answers_to(victim, before, before)
    changed = [other != answer for other in answers_to(victim, before, after)]
    return float(np.mean(changed)), pairs[0].measurements()["snr_db"]


def _measure(shares: Sequence[float], snrs: Sequence[float]) -> _Measured:
    of_clips = metrics.rate(shares, [str(number) for number in range(len(shares))], 2 * LEVEL - 1)
    bound = 1.0 if of_clips.high is None else of_clips.high
    return _Measured(float(np.mean(shares)), bound, float(np.median(snrs)) if snrs else None)
