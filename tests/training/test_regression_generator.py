"""Generators are trained against regression victims, and move their numbers."""

from __future__ import annotations

import pytest
import torch
from tests.support.speech import clip

from staanet import pipeline, training
from staanet.attacks import Staa, craft
from staanet.config import GeneratorRecipe
from staanet.core import Budget, Shift
from staanet.errors import InvalidInput
from staanet.evaluation import transfer_matrix
from staanet.generators.losses import Objective
from staanet.generators.registry import load_generator, save_generator
from staanet.generators.warm_start import warm_start_generator
from staanet.pipeline.train_generator import make_generator, require_one_task
from staanet.victims import build_victim

BUDGET = Budget(epsilon=0.02, max_density=0.2)


def numbers(tolerance: float):
    training.seed_weights(3)
    victim = build_victim("emo18", ("arousal", "valence")).requires_grad_(False).eval()
    with torch.no_grad():
        victim.network.head.weight.mul_(20)  # an untrained network hardly moves
    victim.tolerance = (tolerance, tolerance)
    return victim


@pytest.fixture(scope="module")
def victim():
    return numbers(0.05)


def test_a_generator_begins_as_a_regression_victim_and_moves_its_numbers(victim, tmp_path):
    generator = warm_start_generator([victim], 0.2, 0.02, 2)
    assert generator.tolerance == (0.05, 0.05) and not generator.is_conditional
    save_generator(generator, tmp_path)
    again = load_generator(tmp_path)
    assert again.tolerance == (0.05, 0.05)
    clips = [clip(0.2, 200.0 + 90 * n, seed=n) for n in range(3)]
    adversarial = craft(Staa(generator=again, budget=BUDGET), victim, clips)
    cell = transfer_matrix([adversarial], [victim]).cells[0]
    assert cell["dimensions"]["arousal"]["mean_absolute_shift"]["value"] > 0.01
    with pytest.raises(InvalidInput, match="not to reach a target class"):
        craft(Staa(generator=again, budget=BUDGET), victim, clips, label="arousal+")


def test_training_lowers_the_margin_of_a_shift(victim, tmp_path):
    recipe = GeneratorRecipe(network="small", max_density=0.2)
    generator = make_generator(recipe, victim)
    clips = [clip(0.2, 200.0 + 90 * n, seed=n) for n in range(4)]
    schedule = training.Schedule(steps=2, batch_size=2, seconds=0.2, evaluate_every=2)
    settings = training.GeneratorSettings(budget=BUDGET, objective=Objective())
    history = training.train_generator(
        generator, victim, clips, clips[:1], schedule, tmp_path, settings=settings
    )
    assert 0 <= history.best_score <= 1 and len(history.rows) == 1
    task = training.GeneratorTask(
        generator, [victim], training.Crops(clips, schedule), clips, settings
    )
    goals, classes = task.goals(torch.zeros(1, 3200), None)
    assert isinstance(goals[0], Shift) and classes is None


def test_what_needs_classes_or_one_task_says_so(victim):
    other = build_victim("emo18", ("joy", "fear"))
    with pytest.raises(InvalidInput, match="one generator cannot follow both"):
        require_one_task([victim, other])
    require_one_task([victim, numbers(0.1)])
    with pytest.raises(InvalidInput, match="needs a class"):
        pipeline.train_generator(
            None, victim, None, recipe=GeneratorRecipe(goal="targeted"), context=pipeline.Context()
        )
