"""A generator that learns every budget: what it draws, and that no budget gets worse than at the start."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.support.speech import clip

from staanet import training
from staanet.attacks import Staa
from staanet.core import Budget, Untargeted, metrics
from staanet.generators.losses import Objective
from staanet.generators.warm_start import backward_net_from
from staanet.training import budgets
from staanet.victims import build_victim


@pytest.fixture(scope="module")
def victim():
    torch.manual_seed(0)
    return build_victim("zhao19", ("a", "b", "c")).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def clips():
    return [clip(0.3, 200.0 + 150 * n, n, id=f"c{n}", speaker=f"s{n}") for n in range(8)]


def test_budgets_spread_over_their_ranges():
    draws = [budgets.draw_budget(np.random.default_rng(n)) for n in range(300)]
    densities = np.log10([draw.max_density for draw in draws])
    assert densities.min() > -2.7 and densities.max() < 0 and abs(densities.mean() + 1.35) < 0.15
    levels = [float(draw.epsilon.split()[0]) for draw in draws if draw.min_snr_db is None]
    assert 0.6 < len(levels) / 300 < 0.73
    assert -50.1 < min(levels) < -47 and -18 < max(levels) < -14.9
    for draw in draws:
        if draw.min_snr_db is not None:
            level_db = -draw.min_snr_db - 10 * np.log10(draw.max_density)
            assert -50 <= level_db <= -15


def trained(victim, clips, folder, rate, steps=6):
    training.seed_weights(0)
    generator = backward_net_from(victim, density=0.2)
    schedule = training.Schedule(
        steps=steps, batch_size=2, seconds=0.25, evaluate_every=6, learning_rate=rate
    )
    settings = training.GeneratorSettings(
        budget=Budget(epsilon=0.03, max_density=0.2), objective=Objective(), any_budget=True
    )
    history = training.train_generator(
        generator, victim, clips[:4], clips[4:6], schedule, folder, settings=settings
    )
    return generator, history


def success(victim, generator, clips, budget):
    rates = []
    for sample in clips:
        x = sample.waveform[None]
        goal = Untargeted(victim(x).argmax(dim=1))
        x_adv = Staa(generator=generator, budget=budget)(victim, x, goal)
        assert float(metrics.density(x, x_adv)) <= budget.max_density
        rates.append(float(torch.sigmoid(-goal.margin(victim(x_adv)))))
    return float(np.mean(rates))


@pytest.mark.parametrize("rate", [3e-4, 0.3])
def test_no_budget_is_served_worse_than_at_the_start(victim, clips, tmp_path, rate):
    """A learning rate that destroys a network leaves its start."""
    start = backward_net_from(victim, density=0.2).requires_grad_(False).eval()
    generator, history = trained(victim, clips, tmp_path, rate)
    for budget in budgets.JUDGED:
        before, after = (success(victim, g, clips[4:6], budget) for g in (start, generator))
        assert after >= before - 1e-3
    if rate > 0.1:
        assert history.best_step == 0
    assert generator.density == 0.2 and 0 <= history.best_score <= 1
