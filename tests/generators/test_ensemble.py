"""Several mirrors at once: one voice is itself, a silent voice is not there, and all can aim."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.support.speech import clip

from staanet import storage
from staanet.attacks import Staa, craft
from staanet.core import Budget, Targeted, Untargeted, standardise
from staanet.errors import InvalidInput
from staanet.generators.ensemble import EnsembleGenerator
from staanet.generators.iterative import BestProposal, budget_features, logit_gradient
from staanet.generators.registry import build_generator, load_generator, save_generator
from staanet.generators.warm_start import backward_net_from, warm_start_generator
from staanet.victims import Ensemble, build_victim, load_victims, members_of

LABELS = ("anger", "fear", "joy")


@pytest.fixture(scope="module")
def sources():
    torch.manual_seed(0)
    return [build_victim(name, LABELS).requires_grad_(False).eval() for name in ("emo18", "zhao19")]


def test_a_chorus_of_one_is_its_mirror(sources):
    backward_net, x = backward_net_from(sources[0], 0.1), torch.randn(2, 5000) * 0.1
    alone, sung = backward_net(x), EnsembleGenerator.of([backward_net], density=0.1)(x)
    assert torch.allclose(alone.magnitude, sung.magnitude, atol=1e-5)
    assert torch.equal(alone.mask(), sung.mask())


def test_a_silent_voice_is_not_there_and_the_order_does_not_matter(sources):
    backward_nets, x = (
        [backward_net_from(source, 0.1) for source in sources],
        torch.randn(1, 6000) * 0.1,
    )
    both = EnsembleGenerator.of(backward_nets, density=0.1)
    turned = EnsembleGenerator.of(backward_nets[::-1], density=0.1)
    assert torch.allclose(both(x).magnitude, turned(x).magnitude, atol=1e-5)
    with torch.no_grad():
        both.weights[1] = 0
    assert torch.allclose(both(x).magnitude, backward_nets[0](x).magnitude, atol=1e-5)


def test_it_comes_back_from_disk_as_it_was(sources, tmp_path):
    ensemble, x = warm_start_generator(sources, 0.1, 0.03, 2), torch.randn(1, 4000) * 0.1
    save_generator(ensemble, tmp_path / "g")
    assert storage.read_card(tmp_path / "g", "generator")["architecture"] == "ensemble"
    for before, after in zip(ensemble(x), load_generator(tmp_path / "g")(x), strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("number", [0, 1])
def test_untrained_it_goes_with_the_gradient_towards_the_wanted_class(sources, number):
    source, x = sources[number], (torch.randn(1, 8000) * 0.1).requires_grad_()
    goal = Targeted(2)
    (gradient,) = torch.autograd.grad(goal.margin(source(x)).sum(), x)
    change = backward_net_from(source, 1.0)(x.detach(), None, torch.tensor([2])).magnitude
    agreed = (change * gradient).sum() / (change.norm() * gradient.norm())
    assert agreed < -0.3  # far from the 0.01 of chance: the margin falls along it


def test_the_question_is_about_the_wanted_class_and_sums_to_nothing(sources):
    backward_net = backward_net_from(sources[0])
    steps = backward_net.states(backward_net.encode(torch.randn(2, 5000) * 0.1))[-1]
    question = logit_gradient(backward_net.logits(steps, None), Targeted(torch.tensor([0, 2])))
    assert question.argmax(dim=1).tolist() == [0, 2]
    assert torch.allclose(question.sum(dim=1), torch.zeros(2), atol=1e-6)


def test_a_proposal_replaces_another_only_if_it_fools_every_classifier_that_the_other_fools():
    def readings(*margins):
        return [(torch.tensor([[m, 0.0] for m in row]), None) for row in margins]

    clean = readings([1.0] * 4, [1.0] * 4)  # two classifiers, four clips
    best = BestProposal.initial(torch.zeros(4, 2), clean, None)
    #           both later; another one; lower worst margin; loses the first
    rounds = [
        readings([-1.0, -1.0, 3.0, -1.0], [2.0, 2.0, 2.0, 2.0]),
        readings([-1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, 2.0, 0.5]),
    ]
    for number, outputs in enumerate(rounds, start=1):
        proposal = torch.full((4, 2), float(number))
        best = best.update(proposal, -proposal, best.margins(outputs))
    assert best.magnitude[:, 0].tolist() == [2.0, 1.0, 2.0, 1.0]
    assert torch.equal(best.position, -best.magnitude)


@pytest.mark.parametrize("wanted", [None, torch.tensor([2, 1, 0, 2])])
def test_more_looks_never_lose_what_fewer_reached(sources, wanted):
    torch.manual_seed(1)
    waves, epsilon = torch.randn(4, 8000) * 0.05, 0.02
    own = sources[0](waves).argmax(dim=1)
    goal = Untargeted(own) if wanted is None else Targeted(wanted)
    budget, kept = Budget(epsilon=epsilon, max_density=0.2), torch.zeros(4, dtype=torch.bool)
    for iterations in (1, 2, 4, 6):
        backward_net = backward_net_from(
            sources[0], 0.2, budget.epsilon_lsb / 32768, iterations
        ).eval()
        attack = Staa(generator=backward_net, budget=budget)
        reached = goal.achieved(sources[0](attack(sources[0], waves, goal)))
        assert not (kept & ~reached).any()
        kept |= reached
    assert kept.any()


def test_more_iterations_lose_no_clip_of_any_member(sources):
    torch.manual_seed(1)
    waves, unsure = torch.randn(4, 8000) * 0.05, copy.deepcopy(sources)
    for source in unsure:  # every clip is near a boundary
        source.network.head.bias -= source(waves).mean(dim=0)
    goals = [Untargeted(source(waves).argmax(dim=1)) for source in unsure]
    generator = warm_start_generator(unsure, 0.2, 0.003, 1).eval()
    kept = torch.zeros(2, 4, dtype=torch.bool)
    for iterations in (1, 2, 4):
        budget = Budget(epsilon=0.003, max_density=0.2)
        attack = Staa(generator=generator, budget=budget, iterations=iterations)
        changed = attack(unsure[0], waves, goals[0])
        pairs = zip(goals, unsure, strict=True)
        reached = torch.stack([goal.achieved(source(changed)) for goal, source in pairs])
        assert not (kept & ~reached).any()
        kept |= reached
    assert kept.any()


def test_the_budget_is_read_without_the_level_of_the_recording():
    x, budget = torch.randn(2, 4000) * 0.1, Budget(epsilon=0.01, max_density=0.05)
    softer = Budget(epsilon=0.001, max_density=0.05)
    assert torch.allclose(
        budget_features(x, None, budget), budget_features(x / 10, None, softer), atol=0.02
    )  # epsilon is in whole steps
    lengths = torch.tensor([4000, 3000])
    x[1, 3000:] = 0
    alone = budget_features(x[1:, :3000], None, budget)
    assert torch.allclose(budget_features(x, lengths, budget)[1:], alone, atol=1e-3)
    limited = budget_features(x, lengths, Budget(epsilon=0.01, max_density=0.05, min_snr_db=60))
    assert (limited[:, 2] > 0).all() and (limited[:, 1] < alone[:, 1]).all()


def test_a_network_without_labels_cannot_aim_and_another_order_is_refused(sources):
    def attack(labels):
        generator = build_generator("compact", 0.1, labels).requires_grad_(False).eval()
        return Staa(generator=generator, budget=Budget(epsilon=0.03, max_density=0.1))

    craft(attack(LABELS), sources[0], [clip()], label="joy")
    for labels, said in (((), "--goal targeted"), (LABELS[::-1], "joy, fear, anger")):
        with pytest.raises(InvalidInput, match=said):
            craft(attack(labels), sources[0], [clip()], label="joy")


def test_the_wish_reaches_every_sample_rate_of_a_wave_u_net():
    torch.manual_seed(0)
    generator = build_generator("compact", 0.1, LABELS).eval()
    x = torch.randn(1, 3000) * 0.1
    one, other = (generator(x, None, torch.tensor([label])).magnitude for label in (0, 1))
    assert not torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("density", [0.002, 0.05, 0.37, 1.0])
def test_one_generator_serves_every_density_and_fewer_are_among_more(sources, density):
    generator = backward_net_from(sources[0], 0.2).requires_grad_(False).eval()
    x = torch.randn(1, 16_000) * 0.1

    def support(share):
        attack = Staa(generator=generator, budget=Budget(epsilon=0.03, max_density=share))
        return (attack(sources[0], x, Untargeted(0)) != x)[0]

    assert int(support(density).sum()) == pytest.approx(density * 16_000, rel=0.03)
    assert not (support(density / 2) & ~support(density)).any()


def test_an_attack_can_look_more_often_than_its_generator_was_trained_to(sources):
    x, goal = clip(0.5).waveform[None], Untargeted(sources[0](clip(0.5).waveform[None]).argmax(1))
    budget = Budget(epsilon=0.01, max_density=0.2)

    def attacked(generator, iterations):
        return Staa(generator=generator.eval(), budget=budget, iterations=iterations)(
            sources[0], x, goal
        )

    one, three = (backward_net_from(sources[0], 0.2, 0.01, iterations) for iterations in (1, 3))
    assert torch.equal(attacked(one, 3), attacked(three, 0))
    assert torch.equal(attacked(three, 1), attacked(one, 0)) and one.iterations == 1
    sung = EnsembleGenerator.of([one], density=0.2)
    assert torch.equal(attacked(sung, 3), attacked(EnsembleGenerator.of([three], density=0.2), 0))
    assert sung.members[0].iterations == 1
    with pytest.raises(InvalidInput, match="Leave iterations out"):
        attacked(build_generator("compact", 0.2), 2)


def test_a_budget_that_names_no_number_leaves_a_look_the_samples_that_the_attack_takes(sources):
    x, budget = clip(0.5).waveform[None], Budget(epsilon=0.01)
    backward_net = backward_net_from(sources[0], 0.2, budget.epsilon_lsb / 32768, 2).eval()
    heads = torch.randn(2, 1, x.shape[1], generator=torch.Generator().manual_seed(0))
    seen = backward_net._preview(x, *heads, None, budget)
    assert torch.equal(seen, backward_net._preview(x, *heads, None, None))
    assert 0 < (seen != x).float().mean() < 1


def test_an_ensemble_is_the_mean_of_log_probabilities(sources, tmp_path):
    x = torch.randn(2, 4000) * 0.1
    both = Ensemble(sources)
    wanted = sum(torch.log_softmax(source(x), dim=1) for source in sources) / 2
    assert torch.allclose(both(x), wanted)
    assert both.name == "emo18,zhao19" and members_of(both) == sources
    for source in sources:
        source.save_pretrained(tmp_path / source.name)
    again = load_victims([tmp_path / source.name for source in sources])
    assert torch.equal(again(x), both(x))


def test_an_ensemble_wants_one_list_of_labels_and_names_of_their_own(sources):
    other = build_victim("emo18", LABELS[:2])
    with pytest.raises(InvalidInput, match="labels"):
        Ensemble([sources[0], other])
    with pytest.raises(InvalidInput, match="called emo18"):
        Ensemble([sources[0], sources[0]])


def test_features_stay_those_of_each_source(sources):
    x = torch.randn(1, 5000) * 0.1
    ensemble = warm_start_generator(sources, 0.1, 0.03, 1)
    for source, backward_net in zip(sources, ensemble.members, strict=True):
        heard = standardise(x)[:, None, None]
        for block in source.network.blocks:
            heard = block(heard)
        assert torch.allclose(
            backward_net.encode(x).features, heard[:, :, 0].transpose(1, 2), atol=1e-4
        )
