"""A mirror begins as its source: the same features, the same backward pass; and it learns the rest."""

from __future__ import annotations

import pytest
import torch

from conftest import LinearVictim, clip
from staanet import training, warm_start
from staanet.core import standardise
from staanet.generator import Mirror
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
    features = warm_start.mirror_of(source).listen(x).features
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
    mirror = warm_start.mirror_of(source)
    magnitude, position = mirror.back(direction, mirror.listen(x.detach()).levels, time)
    assert (magnitude - exact).abs().max() < 1e-4 * exact.abs().max()
    assert (position == 0).all()


def test_its_answers_are_those_of_the_source(source):
    x = torch.randn(2, 8000) * 0.1
    mirror = warm_start.mirror_of(source)
    answer = mirror.understood(mirror.listen(x)).answer
    assert torch.allclose(answer[:, : len(LABELS)], torch.softmax(source(x), dim=1), atol=1e-5)


def margin(source, features, answer):
    steps, _ = source.network.lstm(features)
    logits = source.network.head(steps.mean(dim=1))
    own = logits.gather(1, answer[:, None])[:, 0]
    return own - logits.scatter(1, answer[:, None], -torch.inf).amax(dim=1)


def test_a_lesson_is_the_gradient_of_the_clean_answers_margin_at_each_look(source):
    x = torch.randn(2, 8000) * 0.1
    answer = source(x).argmax(dim=1)
    lesson = warm_start.lesson(warm_start.mirror_of(source, density=0.5), source, x)
    assert len(lesson.heard) == len(lesson.gradients) == 2
    for heard, gradient in zip(lesson.heard, lesson.gradients, strict=True):
        step = 1e-3 * gradient.sign()
        low, high = (margin(source, heard.features + sign * step, answer) for sign in (-1, 1))
        assert (high > low).all()
        slope = (gradient.abs() * 2e-3).sum(dim=(1, 2))
        assert torch.allclose(high - low, slope, rtol=0.05, atol=1e-6)
    before, after = (margin(source, heard.features, answer) for heard in lesson.heard)
    assert (after < before).all()  # the clip of the second look has been moved against the gradient


def test_another_kind_of_source_gets_an_untrained_mirror():
    victim = LinearVictim(torch.randn(3, 2000))
    assert warm_start.network_of(victim) is None
    mirror = warm_start.mirror_of(victim, density=0.2)
    assert isinstance(mirror, Mirror) and mirror.density == 0.2


def test_following_the_gradient_is_learned_and_resumes_bit_for_bit(source, tmp_path):
    clips = [clip(0.4, 200.0 + 150 * n, n, id=f"c{n}", speaker=f"s{n}") for n in range(6)]
    schedule = training.Schedule(
        steps=30, batch_size=4, seconds=0.3, evaluate_every=10, learning_rate=1e-3
    )

    def taught(folder, progress=training.silent):
        torch.manual_seed(1)
        mirror = warm_start.mirror_of(source, density=0.2)
        history = training.warm(
            mirror, source, clips[:4], clips[4:], schedule, folder, lessons=3, progress=progress
        )
        return mirror, history

    whole, history = taught(tmp_path / "whole")
    assert history.rows[-1]["alignment"] > history.rows[0]["alignment"] + 0.1

    class StoppedError(Exception):
        pass

    def stop(what, done, total, figures):
        if done == 17:
            raise StoppedError

    with pytest.raises(StoppedError):
        taught(tmp_path / "half", stop)
    resumed, _ = taught(tmp_path / "half")
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
