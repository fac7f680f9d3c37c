"""One vector for all clips: the known optimum, any length, and a promise that it keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.support.speech import real_speech

from staanet import storage
from staanet.attacks import Random, collate
from staanet.attacks.universal import UAP, fit_uap, load_uap, save_uap, tile_to_length
from staanet.config import VectorRecipe
from staanet.core import Budget, Targeted, Untargeted
from staanet.core.sampling import stratified_subset
from staanet.corpora import load_corpus
from staanet.errors import InvalidInput
from staanet.victims import load_victim


def score(victim, x):
    return x @ victim.weight[: x.shape[1]]


def at_score(victim, wanted):
    """A clip whose score is ``wanted``: the margin is twice that."""
    noise = 0.1 * torch.randn(1, len(victim.weight), generator=torch.Generator().manual_seed(3))
    away = wanted - score(victim, noise)
    return noise + away[:, None] * victim.weight / victim.weight.square().sum()


def recipe(epsilon, length=1600, **settings):
    return VectorRecipe(epsilon=epsilon, seconds=length / 16_000, **settings)


def training_batches(victim, count):
    generator = torch.Generator().manual_seed(7)
    for _ in range(count):
        x = 0.1 * torch.randn(4, len(victim.weight), generator=generator)
        yield (
            x + (30 - score(victim, x))[:, None] * victim.weight / victim.weight.square().sum(),
            None,
        )


@pytest.mark.parametrize("length", [1600, 400])
@pytest.mark.parametrize("target", [None, 1], ids=["untargeted", "targeted"])
def test_a_universal_vector_reaches_its_closed_form_optimum(linear, length, target):
    epsilon = 328 / 32768
    uap = fit_uap(linear, training_batches(linear, 40), recipe(epsilon, length), target=target)
    best = epsilon * float(linear.weight.view(-1, length).sum(dim=0).abs().sum())
    x = at_score(linear, best / 1.05)
    goal = Untargeted(0) if target is None else Targeted(1)
    x_adv = uap(linear, x, goal)
    assert bool(goal.achieved(linear(x_adv)))
    assert float((x_adv - x).abs().max()) <= epsilon + 1e-6


def test_a_limited_universal_vector_takes_the_samples_that_count_most(linear):
    uap = fit_uap(linear, training_batches(linear, 40), recipe(0.01, max_density=0.1))
    silence = torch.zeros(1, 1600)
    chosen = set(torch.nonzero(uap(linear, silence, Untargeted(0))[0])[:, 0].tolist())
    assert chosen == set(linear.weight.abs().topk(160).indices.tolist())


def test_a_universal_vector_fits_any_length_and_keeps_the_budget(linear):
    budget = Budget(epsilon=0.01, max_density=0.25)
    vector = torch.where(torch.arange(50) % 3 == 0, 0.5, 0.0)  # too loud, and too many samples
    x, lengths = torch.zeros(3, 700), torch.tensor([700, 20, 333])
    x_adv = UAP(vector=vector, budget=budget)(linear, x, Untargeted(0), lengths)
    for row, length in enumerate(lengths.tolist()):
        assert 0 < int((x_adv[row] != 0).sum()) <= budget.max_samples(length)
        assert not x_adv[row, length:].any()
    assert float(x_adv.max()) == budget.epsilon_lsb / 32768
    assert tile_to_length(vector, 120).tolist() == (vector.tolist() * 3)[:120]


def test_a_universal_vector_says_what_it_was_learned_for(linear):
    x = torch.zeros(1, 100)
    with pytest.raises(InvalidInput, match="learned to change the prediction"):
        UAP(vector=torch.ones(10))(linear, x, Targeted(1))
    with pytest.raises(InvalidInput, match="reach class 1"):
        UAP(vector=torch.ones(10), target=1)(linear, x, Untargeted(0))
    with pytest.raises(InvalidInput, match="shape"):
        UAP(vector=torch.ones(1, 10))


@pytest.mark.parametrize("steps", [2, 5, 12])
def test_a_learned_vector_moves_every_sample_that_it_may(linear, steps):
    uap = fit_uap(linear, training_batches(linear, steps), recipe(0.01))
    assert float(uap.vector.abs().min()) * 32768 > 1  # none would be lost on the 16-bit grid


def test_a_vector_survives_the_disk_and_follows_epsilon(linear, tmp_path):
    uap = fit_uap(linear, training_batches(linear, 5), recipe(0.01))
    save_uap(uap, tmp_path / "v", source="linear")
    same = load_uap(tmp_path / "v", Budget(epsilon=0.01))
    assert torch.equal(same.vector, uap.vector) and torch.equal(same.importance, uap.importance)
    half = load_uap(tmp_path / "v", Budget(epsilon=0.005, max_l0=7))
    assert torch.allclose(half.vector, uap.vector / 2)
    moved = half(linear, torch.zeros(1, 1600), Untargeted(0)) != 0
    assert set(moved[0].nonzero()[:, 0].tolist()) == set(uap.importance.topk(7).indices.tolist())


def test_a_vector_is_not_taken_for_something_else(linear, tmp_path):
    storage.save_model(tmp_path / "g", kind="generator", tensors={}, card={})
    with pytest.raises(InvalidInput, match="holds a generator, not a vector"):
        load_uap(tmp_path / "g", Budget(epsilon=0.01))
    save_uap(UAP(vector=torch.ones(4), budget=Budget(epsilon=0.01)), tmp_path / "v", epsilon=0)
    with pytest.raises(InvalidInput, match="describes nothing that can be built"):
        load_uap(tmp_path / "v", Budget(epsilon=0.01))
    with pytest.raises(InvalidInput, match="one importance per sample"):
        UAP(vector=torch.ones(4), importance=torch.ones(3))


@pytest.mark.parametrize("max_density", [None, 0.1])
@pytest.mark.parametrize("name", ["emo18", "zhao19", "wav2vec2_tiny"])
def test_on_speech_a_universal_vector_is_no_weaker_than_random_signs(name, max_density):
    """It is learned on speakers of the train part, and fools speakers of the test part.

    At epsilon 0.1 random signs fool a tenth to a half of the clips: at 0.03 they fool next to none of a
    victim that shrugs off noise, and chance would decide.
    """
    if name == "wav2vec2_tiny":
        pytest.importorskip("transformers")
    victim = load_victim(f"shipped:{name}")
    parts = load_corpus(f"emodb:{real_speech('emodb')}").split(seed=0)
    train, test = (
        collate([cut(clip) for clip in stratified_subset(list(part.clips(16_000)), 64)], victim)[0]
        for part in (parts[0], parts[2])
    )
    batches = ((train[8 * (step % 8) : 8 * (step % 8) + 8], None) for step in range(48))
    uap = fit_uap(victim, batches, recipe(0.1, 8000, max_density=max_density))
    assert_no_weaker_than_random(victim, uap, test)


@pytest.mark.parametrize("max_density", [None, 0.1])
def test_on_a_linear_victim_a_universal_vector_is_no_weaker_than_random_signs(linear, max_density):
    uap = fit_uap(linear, training_batches(linear, 40), recipe(0.03, max_density=max_density))
    x = torch.cat([batch for batch, _ in training_batches(linear, 8)]) / 30
    assert_no_weaker_than_random(linear, uap, x)


def cut(clip):
    return replace(clip, pcm16=clip.pcm16[4000:12_000])


def assert_no_weaker_than_random(victim, uap, x):
    with torch.inference_mode():
        goal = Untargeted(victim(x).argmax(dim=1))
        attacks = [uap, *(Random(budget=uap.budget, seed=seed) for seed in range(3))]
        fooled, *by_random = [
            int(goal.achieved(victim(attack(victim, x, goal))).sum()) for attack in attacks
        ]
    assert fooled >= max(by_random) and fooled > 0
