"""Goals, budgets, standardisation and splits obey their definitions."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from staanet.core import Budget, Corpus, Targeted, Untargeted, Utterance, standardise
from staanet.errors import InvalidInput


def corpus_of(speakers: dict[str, str], labels=("a", "b"), per_label: int = 2) -> Corpus:
    utterances = tuple(
        Utterance(f"{s}_{label}_{i}", Path(f"{s}{label}{i}.wav"), label, s, sex)
        for s, sex in speakers.items()
        for label in labels
        for i in range(per_label)
    )
    return Corpus("made", utterances, tuple(labels))


TEN = {f"s{i}": "fm"[i % 2] for i in range(10)}


def test_a_split_has_disjoint_speakers_both_sexes_and_all_classes():
    for seed in range(20):
        parts = corpus_of(TEN).split(seed)
        speakers = [set(part.speakers) for part in parts]
        assert not (
            speakers[0] & speakers[1] or speakers[0] & speakers[2] or speakers[1] & speakers[2]
        )
        assert set.union(*speakers) == set(TEN)
        for part in parts:
            assert {u.sex for u in part.utterances} == {"f", "m"}
            assert {u.label for u in part.utterances} == {"a", "b"}


def test_a_split_depends_on_the_seed_and_not_on_the_order_of_files():
    corpus = corpus_of(TEN)
    backwards = Corpus("made", corpus.utterances[::-1], corpus.labels)
    assert [p.speakers for p in corpus.split(3)] == [p.speakers for p in backwards.split(3)]
    assert corpus.split(3)[0].split_hash == backwards.split(3)[0].split_hash
    assert len({corpus.split(seed)[0].split_hash for seed in range(10)}) > 1


def test_too_few_speakers_and_unspreadable_classes_are_refused():
    with pytest.raises(InvalidInput, match="2 speakers cannot be split"):
        corpus_of({"x": "f", "y": "m"}).split()
    corpus = corpus_of({f"s{i}": "f" for i in range(5)})
    rare = Utterance("rare", Path("rare.wav"), "c", "s0", "f")
    with pytest.raises(InvalidInput, match="class 'c' has 0 .* clips"):
        Corpus("made", (*corpus.utterances, rare), ("a", "b", "c")).split()


@given(st.integers(2, 6), st.integers(0, 2**31))
def test_untargeted_margin_is_negative_exactly_when_the_answer_changed(classes, seed):
    logits = torch.randn(8, classes, generator=torch.Generator().manual_seed(seed))
    label = torch.arange(8) % classes
    goal = Untargeted(label)
    assert torch.equal(goal.margin(logits) < 0, goal.achieved(logits))
    aimed = Targeted(label)
    assert torch.equal(aimed.margin(logits) < 0, aimed.achieved(logits))


def test_a_margin_survives_logits_below_any_masking_constant():
    assert Untargeted(0).margin(torch.tensor([[-1e6, -2e6]])).item() == 1e6


def test_standardise_matches_numpy_and_ignores_padding():
    rng = np.random.default_rng(0)
    short = rng.standard_normal(70).astype(np.float32) * 0.1 + 0.2
    padded = torch.zeros(2, 100)
    padded[0, :70] = torch.from_numpy(short)
    padded[1] = torch.from_numpy(rng.standard_normal(100).astype(np.float32))
    done = standardise(padded, torch.tensor([70, 100]))
    assert np.allclose(done[0, :70], (short - short.mean()) / short.std(), atol=1e-5)
    assert (done[0, 70:] == 0).all()
    assert torch.allclose(done[1], standardise(padded[1:])[0], atol=1e-6)


def test_silence_standardises_to_zeros_with_a_finite_gradient():
    x = torch.zeros(1, 100, requires_grad=True)
    standardise(x).sum().backward()
    assert torch.isfinite(x.grad).all()


budgets = st.builds(
    Budget,
    epsilon=st.floats(0.0005, 0.2),
    max_density=st.one_of(st.none(), st.floats(0.01, 1)),
    min_snr_db=st.one_of(st.none(), st.floats(-10, 60)),
)


@given(budgets, st.integers(0, 2**31), st.floats(0.0001, 3))
def test_fit_keeps_epsilon_full_scale_and_snr_whatever_the_attack_returns(budget, seed, size):
    rng = np.random.default_rng(seed)
    clean = rng.integers(-32768, 32768, 200).astype(np.int16)
    wild = clean / 32768 + size * rng.standard_normal(200)
    fitted = budget.project(clean, wild)
    unlimited = Budget(epsilon=budget.epsilon, min_snr_db=budget.min_snr_db)
    assert unlimited.violations(clean, fitted) == []


@given(budgets, st.integers(0, 2**31))
def test_fit_leaves_untouched_samples_bit_identical(budget, seed):
    rng = np.random.default_rng(seed)
    clean = rng.integers(-32768, 32768, 200).astype(np.int16)
    moved = clean / np.float32(32768)
    places = rng.random(200) < 0.1
    moved[places] += 0.01
    fitted = budget.project(clean, moved)
    assert (fitted[~places] == clean[~places]).all()


def test_violations_name_each_limit():
    clean = np.array([1000, 0, 0, 0], dtype=np.int16)
    adversarial = np.array([2000, 5, 5, 5], dtype=np.int16)
    budget = Budget(epsilon=0.01, max_density=0.5, min_snr_db=20)
    found = " ".join(budget.violations(clean, adversarial))
    assert "epsilon 0.01 allows 327" in found
    assert "4 samples changed; 2 are allowed" in found
    assert "below 20 dB" in found
    assert "length changed" in budget.violations(clean, adversarial[:2])[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"epsilon": 0},
        {"epsilon": 2.001},
        {"epsilon": float("nan")},
        {"epsilon": 0.1, "max_density": 0},
        {"epsilon": 0.1, "max_density": 1.001},
        {"epsilon": 0.1, "max_l0": -1},
        {"epsilon": 0.1, "min_snr_db": float("nan")},
        {"epsilon": 0.1, "min_snr_db": float("inf")},
    ],
)
def test_a_budget_without_meaning_is_refused(wrong):
    (name, value) = list(wrong.items())[-1]
    with pytest.raises(InvalidInput, match=f"^{name} is {value}"):
        Budget(**wrong)


def test_the_ends_of_what_a_budget_may_be_are_allowed():
    widest = Budget(epsilon=2, max_density=1, max_l0=0, min_snr_db=-300)
    assert widest.epsilon_lsb == 65536 and widest.max_samples(7) == 0
    assert Budget(epsilon=1e-9, max_density=1e-9, max_l0=1).epsilon_lsb == 0


def test_the_fewest_of_all_limits_is_how_many_samples_may_change():
    assert Budget(epsilon=0.1).max_samples(150) == 150
    assert Budget(epsilon=0.1, max_density=0.5).max_samples(151) == 75
    assert Budget(epsilon=0.1, max_density=0.5, max_l0=10).max_samples(150) == 10
    assert Budget(epsilon=0.1, max_density=0.5, max_l0=80).max_samples(150) == 75
    assert Budget(epsilon=0.1, max_l0=1000).max_samples(150) == 150


def test_a_limit_that_is_just_kept_is_kept_and_one_more_breaks_it():
    clean = np.int16([1000, 1000, 0, 0])
    kept = np.int16([1327, 1000, 0, 0])
    assert Budget(epsilon=0.01, max_l0=1).violations(clean, kept) == []
    assert Budget(epsilon=0.01).violations(clean, -clean) == [
        "a sample moved by 2000 steps of 2^-15; epsilon 0.01 allows 327"
    ]
    assert Budget(epsilon=0.01, max_l0=0).violations(clean, kept) == [
        "1 samples changed; 0 are allowed"
    ]
    ratio = 10 * np.log10(2 * 1000**2 / 327**2)
    assert Budget(epsilon=0.01, min_snr_db=ratio - 1e-9).violations(clean, kept) == []
    assert Budget(epsilon=0.01, min_snr_db=ratio + 1e-3).violations(clean, kept) == [
        f"snr {ratio:.2f} dB is below {ratio + 1e-3} dB"
    ]
    assert Budget(epsilon=0.01, min_snr_db=90).violations(clean, clean) == []
    assert Budget(epsilon=0.01).violations(clean[:0], clean[:0]) == []
    silence = np.zeros(1, np.int16)
    assert Budget(epsilon=0.01, min_snr_db=-200).violations(silence, silence + 1) == []
    assert Budget(epsilon=0.01, min_snr_db=-100).violations(silence, silence + 1) == [
        "snr -120.00 dB is below -100 dB"
    ]
    assert Budget(epsilon=0.01).violations(clean, clean[:3]) == [
        "length changed from 4 to 3 samples"
    ]
    assert Budget(epsilon=2).violations(np.int16([-32768]), np.int16([32767])) == []  # no wrap


def test_fit_rounds_to_the_grid_and_stops_at_epsilon_full_scale_and_the_least_snr():
    clean = np.int16([100, -100, 32767, -32768, 0])
    wished = clean / 32768 + np.array([2.4, -2.6, 900, -900, 400]) / 32768
    assert Budget(epsilon=0.01).project(clean, wished).tolist() == [102, -103, 32767, -32768, 327]
    speech = np.int16([300, 400])  # of energy 500^2; at 20 dB the change may have 50^2
    loud = Budget(epsilon=0.5, min_snr_db=20).project(speech, (speech + [-60.0, 80.0]) / 32768)
    assert loud.tolist() == [300 - 30, 400 + 40]
    just = Budget(epsilon=0.5, min_snr_db=20).project(speech, (speech + [30.0, -40.0]) / 32768)
    assert just.tolist() == [330, 360] and just.dtype == np.int16
    odd = Budget(epsilon=0.5, min_snr_db=20).project(speech, (speech + [-60.0, 90.0]) / 32768)
    assert odd.tolist() == [300 - 27, 400 + 41]  # towards zero: rounding up would break the limit


def test_reach_spends_what_the_snr_leaves_on_as_many_samples_as_may_change():
    x = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.3, 0.3, 0.0, 0.0]])  # energies 1 and 0.18
    assert Budget(epsilon=0.25).step_limit(x).tolist() == [[0.25], [0.25]]
    budget = Budget(epsilon=0.25, max_density=0.5, min_snr_db=20)
    alone = budget.step_limit(
        x, torch.tensor([4, 2])
    )  # two samples and one, a hundredth of the energy
    assert alone.flatten().tolist() == pytest.approx([math.sqrt(0.01 / 2), math.sqrt(0.0018)])
    together = budget.step_limit(x)
    assert together.flatten().tolist() == pytest.approx([math.sqrt(0.01 / 2), 0.03])
    assert replace(budget, min_snr_db=0).step_limit(x)[0].item() == 0.25  # never beyond epsilon
    none = replace(budget, max_density=None, max_l0=0).step_limit(x)
    assert none.flatten().tolist() == pytest.approx([0.1, math.sqrt(0.0018)])


def test_a_limit_that_is_just_met_is_kept():
    clean = np.int16([100, 0])
    assert Budget(epsilon=1, min_snr_db=20).violations(clean, np.int16([100, 10])) == []
    assert Budget(epsilon=1e-5).violations(clean, clean) == []
