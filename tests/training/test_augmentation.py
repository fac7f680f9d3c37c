"""Everyday change in training: drawn from the seed, checked before any work, off when asked."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support.speech import RATE, clip

from staanet import training
from staanet.config import load_recipe, shipped_recipes, validate_settings
from staanet.config.training import VictimRecipe
from staanet.errors import InvalidInput
from staanet.transforms import parse_augmentation
from staanet.transforms.augment import EVERYDAY_STEPS, draw_transform


def crops(*augment: str) -> training.Crops:
    schedule = training.Schedule(steps=3, batch_size=6, seconds=0.2, seed=4, augment=augment)
    return training.Crops([clip(0.5, 300.0), clip(0.5, 700.0, 1)], schedule)


def test_a_batch_is_determined_by_seed_and_step_and_everyday_changes_it():
    first, again = (crops("everyday").draw(2)[0].numpy() for _ in range(2))
    assert np.array_equal(first, again) and np.isfinite(first).all() and np.abs(first).max() <= 1
    assert not np.array_equal(first, crops().draw(2)[0].numpy())
    assert not np.array_equal(first, crops("everyday").draw(1)[0].numpy())


def test_none_leaves_the_crops_as_they_are():
    assert np.array_equal(crops("none").draw(2)[0], crops().draw(2)[0])


def test_a_list_happens_as_often_as_not():
    change = parse_augmentation(["gain:-20"])
    rng = np.random.default_rng(0)
    ones = np.full(10, 0.5, np.float32)
    softer = [bool(change(ones, rng, RATE).max() < 0.1) for _ in range(400)]
    assert 0.42 < np.mean(softer) < 0.58


@pytest.mark.parametrize("text", [text for _, texts in EVERYDAY_STEPS for text in texts])
def test_every_step_of_everyday_change_is_drawn_within_its_ranges(text):
    rng = np.random.default_rng(1)
    drawn = {str(draw_transform(text, rng)) for _ in range(20)}
    assert len(drawn) > 1 or ".." not in text


@pytest.mark.parametrize(
    "texts, said",
    [
        (["everyday", "none"], "none"),
        (["nosie:20"], "noise"),
        (["noise:10..400"], "from -40 to 90"),
    ],
)
def test_a_wrong_augmentation_is_told_before_any_work(texts, said):
    with pytest.raises(InvalidInput) as error:
        parse_augmentation(texts)
    assert said in str(error.value)


def test_recipes_augment_by_default_and_the_paper_s_do_not():
    for name in shipped_recipes():
        augments = {victim.augment for victim in load_recipe(name).victims.values()}
        assert augments == {("none",) if name.startswith("paper_") else ("everyday",)}, name
    assert validate_settings(VictimRecipe, {"augment": "mp3:64"}, where="x").augment == ("mp3:64",)
