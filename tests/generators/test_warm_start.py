"""A mirror begins as its source: the same features, the source's own backward pass as its way back."""

from __future__ import annotations

import pytest
import torch
from tests.support.models import LinearVictim
from tests.support.speech import clip

from staanet import training
from staanet.attacks import Random, Staa
from staanet.core import Budget, Untargeted, standardise
from staanet.errors import InvalidInput
from staanet.generators import warm_start
from staanet.generators.iterative import logit_gradient
from staanet.generators.losses import Objective
from staanet.victims import build_victim

LABELS = ("anger", "fear", "joy")


@pytest.fixture(scope="module", params=["emo18", "zhao19"])
def source(request):
    torch.manual_seed(0)
    victim = build_victim(request.param, LABELS)
    for block in victim.network.blocks:  # statistics that folding has to respect
        torch.nn.init.normal_(block.norm.running_mean, std=0.1)
        torch.nn.init.uniform_(block.norm.running_var, 0.5, 2.0)
        torch.nn.init.uniform_(block.norm.weight, 0.5, 2.0)
    return victim.requires_grad_(False).eval()


@pytest.mark.parametrize("time", [4001, 12_345])
def test_its_features_are_those_of_the_source(source, time):
    x = torch.randn(2, time) * 0.1
    features = warm_start.backward_net_from(source).encode(x).features
    heard = standardise(x)[:, None, None]
    for block in source.network.blocks:
        heard = block(heard)
    assert torch.allclose(features, heard[:, :, 0].transpose(1, 2), atol=1e-4)


@pytest.mark.parametrize("time", [4001, 12_345])
def test_its_way_back_is_the_backward_pass_of_the_source(source, time):
    x = standardise(torch.randn(2, time) * 0.1).requires_grad_()
    heard = x[:, None, None]
    for block in source.network.blocks:
        heard = block(heard)
    direction = torch.randn_like(heard[:, :, 0].transpose(1, 2))
    (exact,) = torch.autograd.grad((heard[:, :, 0].transpose(1, 2) * direction).sum(), x)
    backward_net = warm_start.backward_net_from(source)
    magnitude, position = backward_net.decode(
        direction, backward_net.encode(x.detach()).levels, time
    )
    assert (magnitude - exact).abs().max() < 1e-4 * exact.abs().max()
    assert (position == 0).all()


def clean_answers(source, features):
    steps, _ = source.network.lstm(features)
    return source.network.head(steps.mean(dim=1))


def test_what_it_wants_is_the_gradient_of_the_answers_it_asks_about(source):
    backward_net = warm_start.backward_net_from(source)
    heard = backward_net.encode(torch.randn(2, 12_000) * 0.1)
    states = backward_net.states(heard)
    answers = backward_net.logits(states[-1], None)
    question = logit_gradient(answers, Untargeted(answers.argmax(dim=1)))
    leaf = heard.features.detach().requires_grad_()
    (exact,) = torch.autograd.grad((clean_answers(source, leaf) * question.detach()).sum(), leaf)
    wanted = backward_net.feature_gradient(question, states, None)
    rms = exact.square().mean(dim=(1, 2), keepdim=True).sqrt()
    assert torch.allclose(wanted, torch.tanh(exact / rms), atol=2e-3)


def test_it_asks_the_first_answer_down_and_likely_ones_up(source):
    backward_net = warm_start.backward_net_from(source)
    x = torch.randn(4, 12_000) * 0.1
    heard = backward_net.encode(x)
    answers = backward_net.logits(backward_net.states(heard)[-1], None)
    question = logit_gradient(answers, Untargeted(answers.argmax(dim=1)))
    first = source(x).argmax(dim=1)
    assert torch.equal(question.argmin(dim=1), first)
    assert torch.equal(question.gather(1, first[:, None]), -torch.ones(4, 1))
    assert torch.allclose(question.sum(dim=1), torch.zeros(4), atol=1e-5)
    others = source(x).scatter(1, first[:, None], -torch.inf)
    assert torch.equal(question.argmax(dim=1), others.argmax(dim=1))


@pytest.mark.parametrize("iterations", [1, 2])
def test_untrained_it_lowers_the_margin_as_a_gradient_step_does(source, iterations):
    x = torch.randn(6, 12_000) * 0.1
    goal = Untargeted(source(x).argmax(dim=1))
    budget = Budget(epsilon=0.01, max_density=0.2)
    backward_net = warm_start.backward_net_from(
        source, density=0.2, epsilon=0.01, iterations=iterations
    ).eval()
    moved = Staa(generator=backward_net, budget=budget)(source, x, goal)
    noise = Random(budget=budget)(source, x, goal)
    clean, fooled, noisy = (goal.margin(source(one)).mean() for one in (x, moved, noise))
    assert clean - fooled > 3 * (clean - noisy).abs()


def test_more_looks_lower_the_margin_further(source):
    x = torch.randn(6, 12_000) * 0.1
    goal = Untargeted(source(x).argmax(dim=1))
    margins = []
    for iterations in (1, 3):
        backward_net = warm_start.backward_net_from(
            source, density=0.2, iterations=iterations
        ).eval()
        attack = Staa(generator=backward_net, budget=Budget(epsilon=0.03, max_density=0.2))
        margins.append(float(goal.margin(source(attack(source, x, goal))).mean()))
    assert margins[1] < margins[0]


def test_another_kind_of_source_is_refused_by_name():
    victim = LinearVictim(torch.randn(3, 2000))
    assert warm_start.find_conv_recurrent(victim) is None
    with pytest.raises(InvalidInput, match="linear is no convolutional classifier"):
        warm_start.backward_net_from(victim, density=0.2)


def test_training_moves_the_way_back_and_leaves_the_ears(source, tmp_path):
    clips = [clip(0.4, 200.0 + 150 * n, n, id=f"c{n}", speaker=f"s{n}") for n in range(6)]
    backward_net = warm_start.backward_net_from(source, density=0.2)
    before = {name: value.clone() for name, value in backward_net.state_dict().items()}
    schedule = training.Schedule(steps=4, batch_size=2, seconds=0.3, evaluate_every=2)
    history = training.train_generator(
        backward_net,
        source,
        clips[:4],
        clips[4:],
        schedule,
        tmp_path,
        settings=training.GeneratorSettings(
            budget=Budget(epsilon=0.03, max_density=0.2), objective=Objective()
        ),
    )
    assert [row["density"] for row in history.rows] == pytest.approx([0.2, 0.2], abs=1e-3)
    for name, value in backward_net.state_dict().items():
        ears = name.startswith(("down.", "head.")) or ".lstm." in name
        is_unused = name.startswith("decay")  # a single iteration keeps nothing
        assert torch.equal(value, before[name]) == (ears or is_unused), name
