"""Each metric agrees with slow NumPy, with audmetric, and with what can be worked out by hand."""

from __future__ import annotations

import math

import audmetric
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import slow_metrics as slow

from staanet.core import metrics


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
    with_eot = audmetric.unweighted_average_recall(truth, answer)
    assert metrics.uar(truth, answer) == pytest.approx(with_eot)


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
    disjoint_by = metrics.rate([(i // 20) % 2 for i in range(200)], speakers)
    assert alike.value == disjoint_by.value == 0.5
    assert disjoint_by.high - disjoint_by.low > 2 * (alike.high - alike.low)


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


def tails(estimate: metrics.Estimate, size: float) -> tuple[float, float]:
    """What Clopper and Pearson make equal to ``(1 - level) / 2``: how likely the found share, or one more
    extreme, is of ``size`` clips at either end of the interval."""
    from scipy.special import betainc

    hits = estimate.value * size
    return (
        betainc(hits, size - hits + 1, estimate.low),
        1 - betainc(hits + 1, size - hits, estimate.high),
    )


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_an_interval_is_that_of_korn_and_graubard(level):
    from scipy.stats import t

    def narrower(clips: int, speakers: int) -> float:
        upper = 0.5 + level / 2
        return (t.ppf(upper, clips - 1) / t.ppf(upper, speakers - 1)) ** 2

    tail = pytest.approx(((1 - level) / 2,) * 2)
    own = metrics.rate([1, 0, 0, 1, 0], list("abcde"), level)  # each a speaker: one clip fewer
    assert tails(own, 4) == tail
    alike = metrics.rate([1, 0, 1, 0, 1, 0], list("aabbcc"), level)  # speakers do not matter
    assert tails(alike, 6 * narrower(6, 3)) == tail
    nearly = metrics.rate([1, 0, 1, 0, 0, 1, 0, 0], list("aaaabbbb"), level)  # never more than all
    assert tails(nearly, 8 * narrower(8, 2)) == tail
    # four speakers with 4, 4, 2 and 2 hits of 4: variance 4 / 3 * 4 / 16^2, simple 3/4 * 1/4
    disjoint_by = metrics.rate(
        [1] * 10 + [0] * 2 + [1] * 2 + [0] * 2, list("aaaabbbbccccdddd"), level
    )
    assert tails(disjoint_by, 3 / 16 / (1 / 48) * narrower(16, 4)) == tail
    assert (disjoint_by.count, disjoint_by.clusters) == (16, 4) and (own.count, own.clusters) == (
        5,
        5,
    )


def test_of_certain_outcomes_one_end_is_certain_and_the_other_is_not():
    for speakers, size in ((list("abcd"), 4.0), (list("abcdefgh"), 8.0)):
        never, always = (metrics.rate([hit] * len(speakers), speakers) for hit in (0, 1))
        assert (
            never.high == pytest.approx(1 - 0.025 ** (1 / size)) and never.low == never.value == 0
        )
        assert always.low == pytest.approx(0.025 ** (1 / size)) and always.high == always.value == 1


def test_an_interval_never_leaves_out_its_own_figure():
    rng = np.random.default_rng(0)
    for _ in range(200):
        hits = rng.random(12) < rng.random()
        estimate = metrics.rate(hits, [f"s{i // 6}" for i in range(12)], level=0.01)
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_figures_read_as_they_are():
    assert str(metrics.rate([], [])) == "n/a"
    assert str(metrics.Estimate(None, None, None, 7, 2)) == "n/a (0 of 7)"
    assert str(metrics.rate([1, 0], ["a", "a"])) == "0.500"
    assert str(metrics.Estimate(0.5, 0.25, 1.0, 7, 2)) == "0.500 [0.250, 1.000]"
    assert str(metrics.Estimate(0.5, 0.25, None, 7, 2)) == "0.500"
    assert metrics.rate([], []) == metrics.Estimate(None, None, None, 0, 0)
    assert metrics.rate([1, 0], ["a", "a"]) == metrics.Estimate(0.5, None, None, 2, 1)


def test_uar_counts_classes_alike_and_of_nothing_is_no_number():
    assert metrics.uar(["a", "a", "a", "b"], ["a", "a", "c", "c"]) == pytest.approx(1 / 3)
    assert math.isnan(metrics.uar([], []))
    assert metrics.changed(["a", "b"], ["a", "c"]).tolist() == [0, 1]


def test_a_jackknife_leaves_out_one_speaker_at_a_time():
    from scipy.stats import t

    values, speakers = np.array([0.2, 0.4, 0.4, 0.7, 0.5]), ["a", "b", "b", "c", "c"]

    def mean(i):
        return float(values[i].mean())

    left = np.array([values[1:].mean(), values[[0, 3, 4]].mean(), values[:3].mean()])
    error = math.sqrt(2 / 3 * np.square(left - left.mean()).sum())
    for level in (0.5, 0.95):
        found = metrics.jackknife(mean, speakers, level)
        reach = error * t.ppf(0.5 + level / 2, 2)
        assert found.value == pytest.approx(0.44) and (found.count, found.clusters) == (5, 3)
        assert (found.low, found.high) == pytest.approx(
            (max(0, 0.44 - reach), min(1, 0.44 + reach))
        )
    assert metrics.jackknife(mean, ["a"] * 5) == metrics.Estimate(
        mean(slice(None)), None, None, 5, 1
    )
    assert metrics.jackknife(mean, []) == metrics.Estimate(None, None, None, 0, 0)
    wild = metrics.jackknife(lambda i: float(i.mean() / 4), list("aabbb"))
    assert (wild.low, wild.high) == (0, 1)
