"""Every attack keeps its budget and its hands off the padding; the known optimum is reached."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from tests.support.speech import RATE, clip

from staanet import audio
from staanet.attacks import ATTACKS, PGD, UAP, Random, Staa, collate, craft, craft_batch
from staanet.attacks.random import clip_noise
from staanet.audio.psychoacoustics import masking_weight
from staanet.core import Budget, Clip, Targeted, Untargeted
from staanet.core.top_k import top_k_mask
from staanet.errors import BudgetExceeded, InvalidInput, StaaNetError, UnusableClip
from staanet.generators.registry import build_generator
from staanet.victims import build_victim


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(0)
    return build_victim("zhao19", ("a", "b", "c")).requires_grad_(False).eval()


def make(name: str, budget: Budget):
    if name == "staa":
        torch.manual_seed(0)
        return Staa(generator=build_generator("small", 0.5).eval(), budget=budget)
    if name == "uap":
        draw = torch.Generator().manual_seed(0)
        vector, importance = (0.1 * torch.randn(2, 1000, generator=draw)).unbind()
        return UAP(vector=vector, importance=importance, budget=budget)
    # rounding differs between batches and many steps amplify it: a few steps show the law
    settings = {
        "one_pixel": {"population": 8, "steps": 3},
        "sigma_zero": {"steps": 8},
        "sparse_rs": {"steps": 10},
        "sparsefool": {"steps": 2, "deepfool_steps": 1},
        "spgd": {"steps": 4},
        "vfga": {"steps": 12, "draws": 3},
        "vmi_fgsm": {"steps": 3, "neighbours": 2},
    }
    return ATTACKS[name](budget=budget, **settings.get(name, {}))


BUDGETS = [
    Budget(epsilon=0.03),
    Budget(epsilon=0.001, max_density=0.1),
    Budget(epsilon=0.01, max_l0=3),
    Budget(epsilon=0.05, max_density=0.5, min_snr_db=30),
    Budget(epsilon=0.02, max_l0=0),
    Budget(epsilon="-20 dB", max_density=0.3),
]


@pytest.mark.parametrize("name", sorted(ATTACKS))
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_every_attack_keeps_its_budget_on_16_bit_audio(name, budget, source):
    clips = [clip(0.1, 300, 1), clip(0.12, 900, 2)]
    loud = np.where(np.arange(1500) % 50 < 25, 32767, -32768).astype(np.int16)
    clips.append(Clip("loud", loud, RATE))
    for made in craft(make(name, budget), source, clips):
        assert budget.violations(made.clean.pcm16, made.adversarial, RATE) == []
        assert made.adversarial.dtype == np.int16


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_a_tighter_budget_never_adds_a_sample(name, source):
    counts = []
    for density in (0.02, 0.1, 0.4):
        budget = Budget(epsilon=0.03, max_density=density)
        counts.append(len(craft(make(name, budget), source, [clip(0.1)]).clips[0].support))
    assert counts == sorted(counts) and counts[-1] > 0


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_padding_is_never_touched_and_a_batch_equals_single_clips(name, source):
    clips = [clip(0.1, 300, 1), clip(0.16, 500, 2), clip(0.12, 900, 3)]
    attack = make(name, Budget(epsilon=0.03, max_density=0.2))
    x, lengths = collate(clips, source)
    goal = Untargeted(source(x, lengths).argmax(dim=1))
    x_adv = attack(source, x, goal, lengths)
    for row, length in enumerate(lengths):
        assert torch.equal(x_adv[row, length:], x[row, length:])
    assert_alike_in_a_batch(attack, source, clips)


def assert_alike_in_a_batch(attack, source, clips):
    """In double precision: over many steps single precision amplifies the rounding of another layout."""
    exact = copy.deepcopy(source).double()
    if isinstance(attack, Staa):
        attack = dataclasses.replace(attack, generator=copy.deepcopy(attack.generator).double())
    x, lengths = collate(clips, source)
    goal = Untargeted(exact(x.double(), lengths).argmax(dim=1))
    together = attack(exact, x.double(), goal, lengths)
    for row, one in enumerate(clips):
        own = one.waveform[None].double()
        alone = attack(exact, own, Untargeted(goal.label[row : row + 1]))[0]
        differing = (alone - together[row, : len(alone)]).abs() > 1e-6
        assert int(differing.sum()) <= 0.01 * len(alone)  # ties in a ranking


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_a_relative_budget_is_the_absolute_one_of_each_clip(name, source):
    loud = clip(0.1, 300, 1)
    quiet = Clip("quiet", np.int16(loud.pcm16 // 8), RATE)
    relative, budget = make(name, Budget(epsilon="-20 dB")), Budget(epsilon="-20 dB")
    for one in (loud, quiet):
        own = Budget(epsilon=budget.for_clip(one.pcm16, RATE).epsilon_lsb / 32768)
        absolute = make(name, own)
        if name == "uap":  # a vector counts in units of a relative epsilon
            relative = dataclasses.replace(relative, vector=relative.vector.sign())
            absolute = dataclasses.replace(
                relative, vector=own.epsilon * relative.vector, budget=own
            )
        made, other = (craft(attack, source, [one]).clips[0] for attack in (relative, absolute))
        assert np.array_equal(made.adversarial, other.adversarial) and len(made.support)


@pytest.mark.parametrize("name", ["random", "pgd", "staa"])
def test_clips_of_different_levels_in_one_batch_have_the_epsilon_of_each(name, source):
    clips = [clip(0.25, 300, 1), clip(0.4, 500, 2)]
    clips[1] = dataclasses.replace(clips[1], pcm16=np.int16(clips[1].pcm16 // 10))
    attack = make(name, Budget(epsilon="-20 dB"))
    largest = [int(np.abs(pair.delta).max()) for pair in craft(attack, source, clips, batch_size=2)]
    limits = [attack.budget.for_clip(c.pcm16, RATE).epsilon_lsb for c in clips]
    assert limits[0] > 9 * limits[1] and all(
        0.9 * limit <= moved <= limit for moved, limit in zip(largest, limits, strict=True)
    )


def test_a_clip_too_quiet_for_a_relative_epsilon_is_put_aside_with_the_reason(source):
    silent = Clip("quiet", np.int16(np.arange(4000) % 2), RATE)
    attack = Random(budget=Budget(epsilon="-20 dB"))
    with pytest.raises(
        UnusableClip, match=r"epsilon -20 dB of its speech \(-93 dB of full scale\)"
    ):
        craft(attack, source, [silent])


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_the_same_call_gives_the_same_audio(name, source):
    attack = make(name, Budget(epsilon=0.03, max_density=0.2))
    first, second = (craft(attack, source, [clip(0.1)]).clips[0] for _ in range(2))
    assert np.array_equal(first.adversarial, second.adversarial)


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_attacks_are_frozen(name):
    with pytest.raises(dataclasses.FrozenInstanceError):
        make(name, Budget(epsilon=0.01)).budget = Budget(epsilon=1)


@pytest.mark.parametrize(
    "budget",
    [Budget(epsilon=0.03), Budget(epsilon=0.03, max_l0=4500)],
    ids=["dense", "one limited"],
)
def test_pgd_treats_a_clip_alike_in_a_padded_batch(source, budget):
    clips = [clip(0.25, 300, 1), clip(0.4, 500, 2)]  # 4,000 and 6,400 samples
    assert_alike_in_a_batch(PGD(budget=budget), source, clips)


@pytest.mark.parametrize("limit", [None, 40, 400], ids=["dense", "40", "400"])
@pytest.mark.parametrize("goal", [Untargeted(0), Targeted(1)], ids=["untargeted", "targeted"])
def test_pgd_crosses_the_boundary_at_102_percent_of_the_optimum_not_at_98(linear, limit, goal):
    weight = linear.weight.abs().sort(descending=True).values
    reach = float(weight[:limit].sum())
    epsilon = 328 / 32768  # whole steps of the grid, as every attack uses
    direction = torch.randn(1, 1600, generator=torch.Generator().manual_seed(3)) * 0.1
    score = float(direction @ linear.weight)
    for share, crossed in ((1.02, True), (0.98, False)):
        wanted = epsilon * reach / share
        x = direction + (wanted - score) * linear.weight[None] / linear.weight.square().sum()
        attack = PGD(budget=Budget(epsilon=epsilon, max_l0=limit))
        x_adv = attack(linear, x, goal)
        assert bool(goal.achieved(linear(x_adv))) is crossed
        assert int((x_adv != x).sum()) <= (limit or 1600)


def test_random_moves_exactly_its_number_of_samples_by_all_of_epsilon(source):
    budget = Budget(epsilon=0.02, max_density=0.1)
    made = craft(Random(budget=budget), source, [clip(0.5)]).clips[0]
    assert len(made.support) == 800
    assert set(np.abs(made.delta[made.support])) == {655}
    assert 0.4 < np.mean(made.delta[made.support] > 0) < 0.6


def test_random_changes_with_its_seed_and_not_with_its_company(source):
    budget = Budget(epsilon=0.02, max_density=0.1)
    supports = [
        set(craft(Random(budget=budget, seed=s), source, [clip()]).clips[0].support) for s in (0, 1)
    ]
    assert supports[0] != supports[1]
    x = torch.randn(3, 50)
    assert torch.equal(clip_noise(x, None, 0)[:, 1], clip_noise(x[1:2], None, 0)[:, 0])


HIDING = [PGD, Random]


def half_loud() -> Clip:
    """A second of noise, its second half 40 dB weaker."""
    noise = 0.2 * np.random.default_rng(0).standard_normal(RATE)
    noise[RATE // 2 :] *= 0.01
    return Clip("half", audio.snap(noise), RATE)


@pytest.mark.parametrize("kind", HIDING)
def test_a_hidden_change_is_within_epsilon_times_the_weight_of_masking(kind, source):
    budget, one = Budget(epsilon=0.03, max_density=0.3), half_loud()
    weight = masking_weight(one.waveform[None], None, RATE)[0].numpy()
    for masking_power in (0.5, 1.0):
        made = craft(kind(budget=budget, masking_power=masking_power), source, [one]).clips[0]
        assert np.all(
            np.abs(made.delta) <= budget.epsilon_lsb * weight**masking_power + 0.51
        )  # rounded
        assert budget.violations(one.pcm16, made.adversarial) == [] and len(made.support)


@pytest.mark.parametrize("kind", HIDING)
def test_the_more_an_attack_hides_the_fewer_changes_lie_in_the_quiet(kind, source):
    quiet, one = RATE // 2 + 1000, half_loud()
    there = [
        np.count_nonzero(
            craft(
                kind(budget=Budget(epsilon=0.03, max_density=0.3), masking_power=masking_power),
                source,
                [one],
            )
            .clips[0]
            .support
            >= quiet
        )
        for masking_power in (0, 0.5, 2)
    ]
    assert there == sorted(there, reverse=True) and there[2] < 0.2 * there[0]


@pytest.mark.parametrize("kind", HIDING)
def test_a_hiding_attack_treats_a_clip_alike_in_a_padded_batch(kind, source):
    attack = kind(budget=Budget(epsilon=0.03, max_density=0.2), masking_power=1.0)
    assert_alike_in_a_batch(attack, source, [clip(0.25, 300, 1), clip(0.4, 500, 2)])


@pytest.mark.parametrize("kind", HIDING)
@pytest.mark.parametrize("masking_power", [-1.0, float("nan"), float("inf")])
def test_a_masking_power_that_would_enlarge_epsilon_is_refused(kind, masking_power, source):
    with pytest.raises(InvalidInput, match="masking_power is"):
        craft(kind(budget=Budget(epsilon=0.03), masking_power=masking_power), source, [clip()])


@pytest.mark.parametrize("run_length", [0, -4])
def test_a_run_of_no_samples_is_refused(run_length, source):
    with pytest.raises(InvalidInput, match="run_length is"):
        craft(PGD(budget=Budget(epsilon=0.03), run_length=run_length), source, [clip()])


def test_bursts_are_whole_runs(source):
    one = clip(0.5)  # 8,000 samples: 100 runs of 16
    budget = Budget(epsilon=0.03, max_l0=1_600)
    attack = PGD(budget=budget, steps=3, run_length=16)
    made = craft(attack, source, [one]).clips[0]
    runs = np.bincount(made.support // 16)
    assert len(made.support) <= 1_600 and np.count_nonzero(runs) == 100
    assert_alike_in_a_batch(attack, source, [clip(0.25, 300, 1), clip(0.4, 500, 2)])


def test_best_ranked_keeps_the_highest_and_never_minus_infinity():
    score = torch.tensor([[0.9, -torch.inf, 0.2, 0.5], [0.1, 0.2, 9.0, 9.0]])
    chosen = top_k_mask(score, Budget(epsilon=0.1, max_l0=3), torch.tensor([4, 2]))
    assert chosen.tolist() == [[True, False, True, True], [True, True, False, False]]


def test_staa_changes_only_where_its_generator_says_so(source):
    attack = make("staa", Budget(epsilon=0.03))
    one = clip()
    with torch.inference_mode():
        mask = attack.generator(one.waveform[None]).position[0] >= 0.5
    made = craft(attack, source, [one]).clips[0]
    assert len(made.support) > 0 and set(made.support) <= set(np.flatnonzero(mask.numpy()))


def test_staa_says_that_it_cannot_aim(source):
    with pytest.raises(InvalidInput) as error:
        craft(make("staa", Budget(epsilon=0.03)), source, [clip()], label="b")
    assert "pgd" in str(error.value) and "--goal targeted" in str(error.value)


class Cheat:
    """An attack that breaks its promise in a chosen way."""

    budget = Budget(epsilon=0.01, max_density=0.1)

    def __init__(self, how):
        self.how = how

    def __call__(self, source, x, goal, lengths=None):
        return {"everywhere": x + 0.005, "nan": x * torch.nan, "loud": x + 0.5}[self.how]


@pytest.mark.parametrize(
    "how, said",
    [("everywhere", "samples changed"), ("nan", "non-finite"), ("loud", "samples changed")],
)
def test_craft_refuses_an_attack_that_breaks_its_promise(how, said, source):
    with pytest.raises(BudgetExceeded) as error:
        craft(Cheat(how), source, [clip()])
    assert said in str(error.value)


def test_craft_checks_rate_and_length(source):
    with pytest.raises(InvalidInput) as error:
        craft_batch(Random(), source, [Clip("c", clip().pcm16, 8000)])
    assert "8000 Hz" in str(error.value) and "16000 Hz" in str(error.value)
    with pytest.raises(UnusableClip) as short:
        craft_batch(Random(), source, [Clip("c", clip().pcm16[:100], RATE)])
    assert "6.2 ms is shorter than the 16.0 ms" in str(short.value)


def test_queries_are_counted(source):
    made = craft(
        PGD(budget=Budget(epsilon=0.01), steps=5), source, [clip(), clip(seed=1)], batch_size=2
    )
    assert [one.queries for one in made] == [6, 6]  # one gradient chooses samples, five move them


def test_an_unknown_wanted_class_is_named(source):
    with pytest.raises(StaaNetError) as error:
        craft(PGD(), source, [clip()], label="joy")
    assert "a, b, c" in str(error.value)


def test_the_linear_victim_is_what_it_says(linear):
    x = torch.randn(2, 1600)
    assert torch.allclose(linear(x)[:, 0], x @ linear.weight)


@pytest.mark.parametrize(
    "name, settings, asked",
    [("staa", {}, False), ("random", {}, False), ("pgd", {"steps": 1}, True)],
)
def test_the_source_is_asked_about_a_clean_clip_only_for_who_looks_at_it(
    source, name, settings, asked
):
    calls = []
    handle = source.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        attack = dataclasses.replace(make(name, Budget(epsilon=0.01, max_density=0.1)), **settings)
        craft(attack, source, [clip()])
    finally:
        handle.remove()
    assert bool(calls) == asked
    with pytest.raises(RuntimeError):  # a label that no margin can be taken of
        Untargeted(-1).margin(torch.zeros(1, 3))


def test_answers_that_are_no_numbers_are_refused():
    """The largest of NaN is the first class: a model that answers so would seem to be fooled by nothing."""
    from staanet.attacks import logits_of
    from staanet.core import Victim

    class Broken(Victim):
        architecture = "broken"

        def forward(self, waveforms, lengths=None):
            return torch.full((len(waveforms), 2), torch.nan)

    clip = Clip("a", np.arange(100, dtype=np.int16), 16_000)
    with pytest.raises(InvalidInput, match=r"a: broken returns logits that are no numbers \(NaN\)"):
        logits_of(Broken(name="broken", labels=["a", "b"]), [clip])
