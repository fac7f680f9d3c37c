"""A reflection is its source's gradient, whatever the source is made of; it aims, lasts and learns."""

from __future__ import annotations

import pytest
import torch
from tests.support.models import LinearVictim

from staanet.attacks import Staa
from staanet.core import Budget, Targeted, Untargeted
from staanet.errors import InvalidInput
from staanet.generators.base import unit_rms
from staanet.generators.ensemble import EnsembleGenerator
from staanet.generators.iterative import DECAY, logit_gradient
from staanet.generators.registry import load_generator, save_generator
from staanet.generators.surrogate import SurrogateGradient
from staanet.generators.warm_start import has_warm_start, warm_start_generator, warm_start_member
from staanet.victims import build_victim
from staanet.victims.blueprint import blueprint, build_from_blueprint

pytest.importorskip("transformers")
LABELS = ("anger", "fear", "joy")


@pytest.fixture(scope="module", params=["wav2vec2", "wavlm", "hubert"])
def source(request):
    torch.manual_seed(0)
    victim = build_victim(request.param, LABELS, config="tiny")
    return victim.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def waves():
    return 0.1 * torch.randn(2, 6000, generator=torch.Generator().manual_seed(1))


def test_it_answers_with_the_gradient_of_its_source(source, waves):
    x = waves.clone().requires_grad_()
    answers = source(x)
    question = logit_gradient(answers.detach(), Untargeted(answers.argmax(dim=1)))
    (slope,) = torch.autograd.grad((answers * question).sum(), x)
    magnitude, position = warm_start_member(source).heads(waves, None, None)
    assert torch.allclose(magnitude, unit_rms(slope, None), atol=1e-3)
    assert (position == 0).all()


def test_inside_inference_mode_as_outside(source, waves):
    surrogate = warm_start_member(source, 0.1).eval()
    with torch.inference_mode():
        inside = surrogate(waves)
    assert torch.equal(inside.magnitude, surrogate(waves).magnitude)


def test_clips_in_a_batch_are_answered_as_alone(source, waves):
    lengths, batch = torch.tensor([6000, 5000]), waves.clone()
    batch[1, 5000:] = 0
    surrogate = warm_start_member(source, 0.1).eval()
    both, alone = surrogate(batch, lengths), surrogate(batch[1:, :5000])
    assert torch.allclose(both.magnitude[1, :5000], alone.magnitude[0], atol=1e-3)
    assert (both.magnitude[1, 5000:] == 0).all()


def test_untrained_it_moves_its_source_as_the_goal_says(source, waves):
    attack = Staa(
        generator=warm_start_member(source, 0.2).eval(),
        budget=Budget(epsilon=0.01, max_density=0.2),
    )
    own = source(waves).argmax(dim=1)
    for goal in (Untargeted(own), Targeted((own + 1) % 3)):
        moved = attack(source, waves, goal)
        assert (goal.margin(source(moved)) < goal.margin(source(waves))).all()


def test_a_second_look_sees_what_the_first_proposed(source, waves):
    near = 1e-6  # too little to fool: else the first proposal is kept
    one, two = (warm_start_member(source, 0.2, near, iterations).eval() for iterations in (1, 2))
    first = one(waves)
    two = two.train()  # which returns the last sum, not the best
    assert not torch.equal(first.magnitude, two(waves).magnitude)
    moved = waves + near * first.magnitude * first.mask()
    x = moved.clamp(-1, 1).requires_grad_()
    goal = Untargeted(source(waves).argmax(dim=1))
    answers = source(x)
    (slope,) = torch.autograd.grad((answers * logit_gradient(answers.detach(), goal)).sum(), x)
    decay = torch.sigmoid(torch.tensor(DECAY))
    sum_of_both = decay * one.heads(waves, None, None)[0] + unit_rms(slope, None)
    assert torch.allclose(two.heads(waves, None, None)[0], sum_of_both, atol=1e-3)


def test_a_second_look_never_serves_worse_than_the_first(source, waves):
    one, two = (warm_start_member(source, 0.2, 0.5, iterations).eval() for iterations in (1, 2))
    first = one(waves)
    goal, second = Untargeted(source(waves).argmax(dim=1)), two(waves)
    before, after = (
        goal.margin(source((waves + 0.5 * c.magnitude * c.mask()).clamp(-1, 1)))
        for c in (first, second)
    )
    assert (before < 0).any() and (after <= before + 1e-3).all()


def test_it_learns_and_dropout_stays_off(source, waves):
    surrogate = warm_start_member(source, 0.2)
    before = surrogate.eval()(waves).magnitude
    change = surrogate.requires_grad_(True).train()(waves)
    assert torch.allclose(before, change.magnitude.detach(), atol=1e-3)
    change.magnitude.square().mean().backward()
    slopes = [w.grad for w in surrogate.parameters() if w.grad is not None]
    assert any(slope.abs().max() > 0 for slope in slopes)
    assert all(torch.isfinite(slope).all() for slope in slopes)


def test_it_comes_back_from_disk_without_its_source(source, waves, tmp_path):
    surrogate = warm_start_member(source, 0.2).eval()
    save_generator(surrogate, tmp_path / "g")
    again = load_generator(tmp_path / "g")
    assert isinstance(again, SurrogateGradient)
    assert torch.allclose(again(waves).magnitude, surrogate(waves).magnitude, atol=1e-3)


def test_it_sings_in_a_chorus_with_mirrors(source, waves, tmp_path):
    emo18 = build_victim("emo18", LABELS).requires_grad_(False).eval()
    ensemble = warm_start_generator([emo18, source], 0.2, 0.03, 1)
    assert isinstance(ensemble, EnsembleGenerator)
    save_generator(ensemble.eval(), tmp_path / "g")
    again = load_generator(tmp_path / "g")
    assert torch.allclose(again(waves).magnitude, ensemble(waves).magnitude, atol=1e-3)
    ensemble.requires_grad_(True).freeze_encoder()
    learning = {
        name.rsplit(".", 1)[0][:9] for name, w in ensemble.named_parameters() if w.requires_grad
    }
    assert learning == {
        "members.0",
        "weights",
        "decay",
    }  # the mirror learns, the reflection is held


def test_what_cannot_be_reflected_is_said():
    victim = LinearVictim(torch.ones(4))
    assert blueprint(victim) is None and not has_warm_start(victim)
    with pytest.raises(InvalidInput, match="no convolutional classifier"):
        warm_start_member(victim)
    with pytest.raises(InvalidInput, match="wav2vec"):
        build_from_blueprint(
            {"architecture": "wav2vec", "config": {}, "labels": ["a", "b"], "sample_rate": 16_000}
        )
