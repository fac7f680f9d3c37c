"""A least SNR: what keeps it moves by less, on as many samples, and searches know how much that is."""

from __future__ import annotations

import pytest
import torch
from tests.support.speech import clip

from staanet.attacks import ATTACKS, Staa, craft, project_to_snr
from staanet.core import Budget, Untargeted, metrics
from staanet.generators.warm_start import backward_net_from
from staanet.victims import build_victim

LABELS = ("anger", "fear", "joy")


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(0)
    return build_victim("emo18", LABELS).requires_grad_(False).eval()


@pytest.mark.parametrize("snr", [26.0, 30.0, 40.0])
@pytest.mark.parametrize("refine", [0, 2])
def test_a_limit_in_db_is_kept_by_less_on_as_many_samples(source, snr, refine):
    generator = backward_net_from(source, 0.2).requires_grad_(False).eval()
    budget = Budget(epsilon=0.03, max_density=0.2, min_snr_db=snr)
    attack = Staa(generator=generator, budget=budget, refine=refine)
    made = craft(attack, source, [clip(1.0)]).clips[0]
    measured = made.measurements()
    assert measured["snr_db"] >= snr
    assert measured["snr_db"] < snr + (2.5 if refine else 0.1)  # places chosen anew are wanted less
    assert 0.17 < measured["density"] <= 0.2


def test_what_has_to_be_quieter_moves_in_proportion_to_how_much_it_is_wanted():
    x = torch.full((2, 4), 0.5)
    wanted = torch.tensor([0.8, -0.4, 0.1, 0.0]).atanh().expand(2, -1)
    budget = Budget(epsilon=0.5, min_snr_db=40)
    loud = project_to_snr(x, torch.tanh(wanted), torch.tensor([[0.5], [1e-4]]), budget)
    assert torch.equal(loud[1], torch.tanh(wanted[1]))  # that clip kept the limit already
    assert torch.allclose(loud[0] / loud[0, 0], wanted[0] / wanted[0, 0], atol=1e-3)
    assert metrics.snr_db(x[:1], x[:1] + 0.5 * loud[:1]).item() == pytest.approx(40, abs=0.05)


@pytest.mark.parametrize("name", ["fgsm", "pgd", "mi_fgsm", "vmi_fgsm", "spgd"])
def test_searches_know_the_ball_that_a_limit_in_db_leaves(source, name):
    budget = Budget(epsilon=0.03, max_density=0.2, min_snr_db=35)
    x = clip(1.0).waveform[None]
    delta = ATTACKS[name](budget=budget)(source, x, Untargeted(torch.tensor([0]))) - x
    moved = delta[delta != 0].abs()
    assert moved.max() <= budget.step_limit(x).item() * (1 + 1e-4) < 0.03 / 2
    assert metrics.snr_db(x, x + delta).item() >= 35 - 1e-3
