"""An attack's rate above noise is paired by clip, and only with noise of its own size."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
from tests.support.models import LinearVictim

from staanet import storage
from staanet.core import Clip
from staanet.evaluation import recount_matrix, transfer_matrix
from staanet.results.adversarial_set import AdversarialClip, AdversarialSet
from staanet.results.cells import Cell

EPSILON = {"epsilon": 0.03}


def adversarial_set(attack, fooled, samples=100, **card):
    """24 clips of 6 speakers that a victim of ones answers 'up'; those in ``fooled`` become 'down'."""
    clips = []
    for index in range(24):
        clean = np.full(200, 10, dtype=np.int16)
        clean[0] += 1  # a constant clip is no speech
        changed = clean.copy()
        changed[:samples] = -300 if index in fooled else 9
        original = Clip(f"c{index:02d}", clean, 16_000, "up", f"s{index % 6}")
        clips.append(AdversarialClip(original, changed, 0.5, 3))
    return AdversarialSet(clips, {"attack": attack, "source": "linear", "budget": EPSILON, **card})


@pytest.fixture
def ones():
    return LinearVictim(torch.ones(200))


def above(ones, *sets):
    return transfer_matrix(sets, [ones]).cell("pgd", "linear", "linear")["above_control"]


def test_the_difference_is_of_the_same_clips(ones):
    noise = adversarial_set("random", {0, 1, 2})
    difference = above(ones, adversarial_set("pgd", range(18)), noise)
    assert difference["control"] == "random" and difference["value"] == pytest.approx(15 / 24)
    assert 0 < difference["low"] < difference["value"] < difference["high"]
    assert 0 < difference["least"] < 1 and (difference["count"], difference["clusters"]) == (24, 6)
    few = AdversarialSet(noise.clips[:6], noise.card)
    assert above(ones, adversarial_set("pgd", range(18)), few)["count"] == 6


def test_noise_that_is_matched_to_the_attack_is_preferred(ones):
    matched = adversarial_set("quiet", {0}, algorithm="random", matched="pgd__linear")
    other = adversarial_set("random", range(9))
    assert above(ones, adversarial_set("pgd", range(18)), other, matched)["control"] == "quiet"


@pytest.mark.parametrize(
    "noise",
    [
        adversarial_set("random", {0}, samples=200),
        adversarial_set("random", {0}, samples=20),
        adversarial_set("random", {0}, samples=50, budget={"epsilon": 0.3}),
        adversarial_set("uap", {0}, samples=50),
    ],
    ids=["far denser", "far sparser", "another epsilon", "no noise"],
)
def test_noise_of_another_size_is_no_comparison(ones, noise):
    assert above(ones, adversarial_set("pgd", range(18), samples=50), noise) is None


def test_a_control_itself_has_no_such_figure(ones):
    cells = transfer_matrix([adversarial_set("random", {0})], [ones]).cells
    assert "above_control" not in cells[0]


def test_each_channel_is_compared_with_noise_after_the_same_channel(ones):
    sets = [adversarial_set("pgd", range(18)), adversarial_set("random", {0})]
    matrix = transfer_matrix(sets, [ones], channels=["gain:-6"])
    cell = matrix.cell("pgd", "linear", "linear", "gain:-6")
    noise = matrix.cell("random", "linear", "linear", "gain:-6")
    difference = cell["fooling_rate"]["value"] - noise["fooling_rate"]["value"]
    assert cell["above_control"]["value"] == pytest.approx(difference)


def test_a_cell_is_read_back_from_its_file_with_that_difference(ones, tmp_path):
    pgd, noise = adversarial_set("pgd", range(18)), adversarial_set("random", {0})
    matrix = transfer_matrix([pgd, noise], [ones])
    matrix.save(tmp_path)
    raw = matrix.cell("pgd", "linear", "linear")["above_control"]
    written = storage.read_json(tmp_path / "summary.json")["cells"]
    cell, control = (Cell.from_dict(entry) for entry in written)
    assert control.above_control is None
    assert {"control": "random", **asdict(cell.above_control.difference)} == raw


def test_a_recount_gives_the_same(ones):
    sets = [adversarial_set("pgd", range(18)), adversarial_set("random", {0})]
    matrix = transfer_matrix(sets, [ones])
    again = recount_matrix(matrix.rows, matrix.summary)
    assert again.cells == matrix.cells
