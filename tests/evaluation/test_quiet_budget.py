"""The largest budget at which random signs change few answers: against closed forms, and on other clips."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from staanet import audio
from staanet.attacks import Random, craft, logits_of
from staanet.core import Budget, Clip, Victim
from staanet.evaluation.quiet_budget import LOWEST_DB, largest_quiet_budget

RATE, LEVEL, THRESHOLD = 16_000, 0.1, 1e-4


class EnergyVictim(Victim):
    """It answers ``rough`` where the mean square beside the clip's mean is beyond a threshold."""

    architecture = "energy"

    def __init__(self, threshold: float = THRESHOLD) -> None:
        super().__init__(name="energy", labels=("smooth", "rough"))
        self.threshold = threshold

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        energy = (waveforms - waveforms.mean(dim=1, keepdim=True)).square().mean(dim=1)
        score = energy - self.threshold
        return torch.stack([-score, score], dim=1)


def clips(count: int, seed: int, roughest: float) -> list[Clip]:
    """Constant clips whose roughness is spread evenly from 0 to a share of the threshold."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        rough = math.sqrt(rng.uniform(0, roughest) * THRESHOLD)
        signs = rng.choice([-1.0, 1.0], 3200)
        made.append(Clip(f"{seed}-{number}", audio.snap(LEVEL + rough * signs), RATE))
    return made


@pytest.mark.parametrize("density", [0.2, 1.0])
def test_the_answer_is_that_of_the_closed_form(density: float) -> None:
    found = largest_quiet_budget(EnergyVictim(), clips(40, 0, 0.0), density, draws=1)
    # the control moves a share of the samples by epsilon: its energy is density * epsilon^2
    exact = 20 * math.log10(math.sqrt(THRESHOLD / density) / LEVEL)
    assert found.epsilon is not None and exact - 1.1 < float(found.epsilon[:-3]) <= exact
    assert found.control == 0 and found.snr_db == pytest.approx(
        -float(found.epsilon[:-3]) - 10 * math.log10(density), abs=0.2
    )
    assert found.full_scale == pytest.approx(
        LEVEL * 10 ** (float(found.epsilon[:-3]) / 20), rel=0.02
    )


@pytest.mark.parametrize("seed", range(3))
def test_it_keeps_the_control_below_the_limit_on_other_clips(seed: int) -> None:
    victim = EnergyVictim()
    found = largest_quiet_budget(victim, clips(60, seed, 1.0), 0.2, draws=1)
    assert found.epsilon is not None and found.control <= found.bound < 0.1
    others = clips(60, 100 + seed, 1.0)
    noise = Random(budget=Budget(epsilon=found.epsilon, max_density=0.2), seed=7)
    noisy = [Clip("x", pair.adversarial, RATE) for pair in craft(noise, victim, others)]
    answers = [logits_of(victim, group).argmax(axis=1) for group in (others, noisy)]
    assert (answers[0] != answers[1]).mean() < 0.1


def test_a_victim_that_any_noise_confuses_has_no_quiet_budget() -> None:
    found = largest_quiet_budget(EnergyVictim(1e-12), clips(3, 0, 0.0), 1.0, draws=1)
    assert found.epsilon is None and found.control == 1 and found.snr_db is None
    assert LOWEST_DB == -60
