"""Regression targets: how many clips moved, how far, and what that does to CCC and MAE."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.support.models import LinearNumbers
from tests.support.speech import clip

from staanet import pipeline, storage
from staanet.attacks import PGD, Random, craft
from staanet.config import AttackRecipe, VectorRecipe
from staanet.core import Budget, metrics
from staanet.core.dimensions import dimension_label
from staanet.errors import InvalidInput
from staanet.evaluation import transfer_matrix
from staanet.evaluation.transfer import recount_matrix
from staanet.results.adversarial_set import AdversarialSet
from staanet.results.cells import Cell
from staanet.results.transfer_tables import dimensions_table
from staanet.victims import build_victim, load_victim

WEIGHT = torch.randn(1600, generator=torch.Generator().manual_seed(0)) / 100
EPSILON = 0.01
REACH = EPSILON * float(WEIGHT.abs().sum())


@pytest.fixture(scope="module")
def victim():
    return LinearNumbers(WEIGHT, (0.5 * REACH, 2.5 * REACH))


@pytest.fixture(scope="module")
def matrix(victim):
    """PGD and random signs on clips of three speakers, labelled with the victim's own numbers."""
    clips = []
    for number in range(6):
        x = clip(0.1, 200.0 + 50 * number, seed=number, speaker=f"s{number % 3}")
        with torch.no_grad():
            values = dict(zip(victim.labels, victim(x.waveform[None])[0].tolist(), strict=True))
        clips.append(type(x)(x.id, x.pcm16, x.sample_rate, dimension_label(values), x.speaker))
    sets = [
        AdversarialSet(made.clips, {**made.card, "algorithm": name, "budget": {"epsilon": EPSILON}})
        for name, made in (
            (type(attack).__name__.lower(), craft(attack, victim, clips))
            for attack in (
                PGD(budget=Budget(epsilon=EPSILON)),
                Random(budget=Budget(epsilon=EPSILON)),
            )
        )
    ]
    return transfer_matrix(sets, [victim])


def test_the_fooling_rate_is_the_share_that_moved_beside_its_control(matrix):
    cell = matrix.cell("pgd", "numbers", "numbers")
    assert cell["fooling_rate"]["value"] == 1.0 and cell["uar_after"]["value"] is None
    assert matrix.cell("random", "numbers", "numbers")["fooling_rate"]["value"] == 0.0
    assert cell["above_control"]["value"] == 1.0
    answers = {row["adversarial_prediction"] for row in matrix.rows if row["attack"] == "pgd"}
    assert answers <= {"arousal+", "arousal-"}


def test_shift_ccc_and_mae_of_each_number_are_those_of_the_rows(matrix):
    rows = [row for row in matrix.rows if row["attack"] == "pgd"]
    before, after = (
        np.array([row[f"{side}_values"] for row in rows]) for side in ("clean", "adversarial")
    )
    figures = matrix.cell("pgd", "numbers", "numbers")["dimensions"]
    for index, name in enumerate(("arousal", "valence")):
        shift = np.abs(after - before)[:, index].mean()
        assert figures[name]["mean_absolute_shift"]["value"] == pytest.approx(shift)
        assert figures[name]["mae_before"]["value"] == pytest.approx(0, abs=1e-5)
        assert figures[name]["mae_after"]["value"] == pytest.approx(shift, abs=1e-5)
        assert figures[name]["ccc_before"]["value"] == pytest.approx(1, abs=1e-4)
        expected = metrics.ccc(before[:, index], after[:, index])
        assert figures[name]["ccc_after"]["value"] == pytest.approx(expected, abs=1e-4)
        assert figures[name]["ccc_after"]["clusters"] == 3
    assert figures["valence"]["mean_absolute_shift"]["value"] == pytest.approx(
        2 * figures["arousal"]["mean_absolute_shift"]["value"]
    )
    assert figures["arousal"]["mean_absolute_shift"]["value"] <= 1.01 * REACH


def test_a_matrix_is_counted_again_and_read_again_with_its_numbers(matrix, tmp_path):
    again = recount_matrix(matrix.rows, matrix.summary)
    assert again.cells == matrix.cells
    matrix.save(tmp_path)
    assert "| dimension |" in (tmp_path / "matrix.md").read_text("utf-8")
    cells = [Cell.from_dict(c) for c in storage.read_json(tmp_path / "summary.json")["cells"]]
    assert dimensions_table(cells) is not None and set(cells[0].dimensions) == {
        "arousal",
        "valence",
    }


def test_a_network_with_a_tolerance_is_saved_read_and_evaluated(tmp_path):
    torch.manual_seed(0)
    victim = build_victim("emo18", ("arousal", "valence")).requires_grad_(False).eval()
    victim.tolerance = (0.001, 0.001)
    victim.save_pretrained(tmp_path / "v")
    victim = load_victim(tmp_path / "v")
    assert victim.task == "regression" and victim.tolerance == (0.001, 0.001)
    clips = [
        clip(0.1, 200.0 + 90 * n, seed=n, speaker=str(n), label="arousal=1 valence=2")
        for n in range(3)
    ]
    plan = pipeline.plan_attack(
        "pgd", AttackRecipe(epsilon=0.05), victim, label="valence-", context=pipeline.Context()
    )
    pipeline.attack(plan, clips, tmp_path / "set", context=pipeline.Context())
    result = pipeline.evaluate(
        [tmp_path / "set"], [victim], tmp_path / "results", context=pipeline.Context()
    )
    (cell,) = result.cells
    assert cell["targeted_success_rate"]["value"] == 1.0
    shifts = [row["adversarial_values"][1] - row["clean_values"][1] for row in result.rows]
    assert max(shifts) < -0.001


def test_what_needs_classes_says_so(victim, tmp_path):
    with pytest.raises(InvalidInput) as error:
        pipeline.train_uap(
            None, victim, tmp_path, recipe=VectorRecipe(), context=pipeline.Context()
        )
    assert "numbers" in str(error.value) and "universal vector" in str(error.value)
