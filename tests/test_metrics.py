"""Each metric agrees with slow NumPy, with audmetric, and with what can be worked out by hand."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import audmetric
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from staanet import metrics

sys.path.insert(0, str(Path(__file__).parent))
from reference import slow_metrics as slow


@given(st.integers(0, 2**31), st.integers(1, 200), st.floats(0, 1))
def test_distances_agree_with_the_slow_reference(seed, time, share):
    rng = np.random.default_rng(seed)
    clean = rng.integers(-32768, 32768, (3, time)) / 32768
    delta = rng.integers(-300, 301, (3, time)) / 32768 * (rng.random((3, time)) < share)
    x, x_adv = torch.from_numpy(clean).float(), torch.from_numpy(clean + delta).float()
    for row in range(3):
        a, b = x[row].double().tolist(), x_adv[row].double().tolist()
        assert metrics.l0(x, x_adv)[row] == slow.l0(a, b)
        assert float(metrics.density(x, x_adv)[row]) == pytest.approx(slow.l0(a, b) / time)
        assert float(metrics.linf(x, x_adv)[row]) == pytest.approx(slow.linf(a, b), abs=1e-9)
        assert float(metrics.snr_db(x, x_adv)[row]) == pytest.approx(slow.snr_db(a, b), abs=0.01)
        assert float(metrics.peak_ratio_db(x, x_adv)[row]) == pytest.approx(
            slow.peak_ratio_db(a, b), abs=0.01
        )


def test_padding_changes_no_distance():
    x, x_adv = torch.randn(1, 50), torch.randn(1, 50)
    padded = [torch.cat([t, torch.zeros(1, 30)], dim=1) for t in (x, x_adv)]
    for name in ("l0", "linf", "snr_db", "peak_ratio_db"):
        measure = getattr(metrics, name)
        assert float(measure(x, x_adv)) == pytest.approx(float(measure(*padded)), rel=1e-5)
    assert metrics.density(*padded, torch.tensor([50])) == metrics.density(x, x_adv)


def test_one_click_and_many_have_one_peak_ratio_and_two_energy_ratios():
    x = torch.full((1, 1000), 0.5)
    one, many = x.clone(), x.clone() + 0.01
    one[0, 0] += 0.01
    assert metrics.peak_ratio_db(x, one) == metrics.peak_ratio_db(x, many)
    assert float(metrics.snr_db(x, one) - metrics.snr_db(x, many)) == pytest.approx(30, abs=0.01)


def test_untouched_is_infinite_and_silence_is_minus_infinite():
    x = torch.ones(1, 4)
    assert metrics.snr_db(x, x).item() == math.inf
    assert metrics.snr_db(torch.zeros(1, 4), x).item() == -math.inf


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1, max_size=60)
)
def test_uar_agrees_with_audmetric(pairs):
    pairs += [(label, label) for label in "abcd"]  # every class occurs: else they count differently
    truth, answer = zip(*pairs, strict=True)
    expected = audmetric.unweighted_average_recall(truth, answer)
    assert metrics.uar(truth, answer) == pytest.approx(expected)


def test_a_rate_holds_its_interval_and_one_speaker_gives_none():
    some = metrics.rate([1, 0, 1, 1], ["a", "b", "c", "d"])
    assert some.low < some.value < some.high and some.count == 4
    assert metrics.rate([1, 0], ["a", "a"]).low is None
    assert metrics.rate([], []).value is None


def test_certain_outcomes_still_have_an_interval():
    certain = metrics.rate([1] * 100, [f"s{i % 10}" for i in range(100)])
    assert certain.value == 1 and certain.high == 1 and 0.8 < certain.low < 1
    never = metrics.rate([0] * 100, [f"s{i % 10}" for i in range(100)])
    assert never.value == 0 and never.low == 0 and 0 < never.high < 0.2


def test_speakers_who_disagree_widen_the_interval():
    speakers = [f"s{i // 20}" for i in range(200)]
    alike = metrics.rate([i % 2 for i in range(200)], speakers)
    apart = metrics.rate([(i // 20) % 2 for i in range(200)], speakers)
    assert alike.value == apart.value == 0.5
    assert apart.high - apart.low > 2 * (alike.high - alike.low)


@settings(deadline=None, max_examples=1)
@given(st.just(0))
def test_intervals_cover_the_true_rate_as_often_as_they_say(seed):
    rng = np.random.default_rng(seed)
    speakers = [f"s{i // 15}" for i in range(150)]
    covered = 0
    for _ in range(400):
        own = rng.beta(6, 4, 10)  # speakers differ; the true rate is 0.6
        outcomes = rng.random(150) < np.repeat(own, 15)
        estimate = metrics.rate(outcomes, speakers)
        covered += estimate.low <= 0.6 <= estimate.high
    assert covered / 400 > 0.92


def test_the_jackknife_of_a_mean_is_the_classical_standard_error():
    values = np.arange(10.0) / 10
    estimate = metrics.jackknife(lambda i: float(values[i].mean()), [str(i) for i in range(10)])
    from scipy.stats import sem, t

    assert estimate.high - estimate.value == pytest.approx(sem(values) * t.ppf(0.975, 9))
