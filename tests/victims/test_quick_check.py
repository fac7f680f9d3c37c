"""A victim that is wired wrong is refused or flagged; an honest one passes without a flag."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.support.speech import RATE, tone
from torch import nn

from staanet.core import Clip, Victim
from staanet.errors import InvalidInput
from staanet.victims import CallableVictim, Ensemble
from staanet.victims.quick_check import CheckedVictims, check_victim

LABELS = ("high", "low", "middle")
HZ = {"high": 1500.0, "middle": 700.0, "low": 200.0}


@pytest.fixture(scope="module")
def clips():
    return [
        Clip(f"{label}{n}", tone(0.2, HZ[label] * (1 + 0.01 * n), n), RATE, label, f"s{n % 4}")
        for label in LABELS
        for n in range(8)
    ]


def scores(x: np.ndarray) -> np.ndarray:
    """One number a class, by the share of sign changes: right for tones."""
    share = (np.diff(np.sign(x), axis=1) != 0).mean(axis=1)[:, None]
    return -((np.log(share + 1e-3) - np.log(2 * np.array([[1500, 200, 700]]) / RATE)) ** 2)


def softmax(x: np.ndarray) -> np.ndarray:
    odds = np.exp(scores(x))
    return odds / odds.sum(axis=1, keepdims=True)


def black_box(fn, **settings) -> CallableVictim:
    return CallableVictim(fn, LABELS, RATE, name="model", **settings)


class TorchClassifier(Victim):
    """A victim with a gradient: its network sees the logarithm of the spectrum in three bands."""

    architecture = "bands"

    def __init__(self, head: nn.Module) -> None:
        super().__init__(name="bands", labels=LABELS, sample_rate=RATE)
        self.head = head

    def forward(self, waveforms, lengths=None):
        power = torch.fft.rfft(waveforms).abs().square()
        bin_of = [int(hz * waveforms.shape[1] / RATE) for hz in (0, 400, 1000, 3000)]
        bands = [power[:, a:b].sum(1) for a, b in zip(bin_of, bin_of[1:], strict=False)]
        low, middle, high = bands
        return self.head(torch.stack([high, low, middle], dim=1).clamp_min(1e-9).log())


class Rounded(nn.Module):
    def forward(self, x):
        return x.round()


def test_honest_victims_have_no_flag(clips):
    for victim in (
        black_box(scores),
        black_box(softmax, probabilities=True),
        TorchClassifier(nn.Identity()),
    ):
        report = check_victim(victim, clips)
        assert report.flags == () and not report.is_doubtful and report.clips == len(clips)


def test_equal_clips_under_several_names_are_asked_once(clips):
    report = check_victim(black_box(scores), [clips[0]] * 3)
    assert report.clips == 1 and report.flags == ()


@pytest.mark.parametrize(
    "fn, said",
    [
        (lambda x: np.tile([0.1, 0.2, 0.3], (len(x), 1)), "answers the same to each of 24"),
        (lambda x: np.repeat(scores(x)[:, :1], 3, axis=1), "all classes the same number"),
        (lambda x: np.full((len(x), 3), np.nan), "non-finite"),
        (lambda x: scores(x)[:, :2], "[1, 2]"),
        (lambda x: np.repeat(scores(x)[:, None], 5, axis=1), "[1, 5, 3]"),
    ],
)
def test_what_cannot_be_judged_is_refused(clips, fn, said):
    with pytest.raises(InvalidInput) as error:
        check_victim(black_box(fn), clips)
    assert said in str(error.value) and error.value.remedy


@pytest.mark.parametrize(
    "labels, said", [(("a", "a", "b"), "2 times"), (("valence", "arousal"), "regression")]
)
def test_labels_that_are_no_classes_are_refused_without_a_clip(labels, said):
    with pytest.raises(InvalidInput, match=said):
        check_victim(CallableVictim(scores, labels, RATE), [])


@pytest.mark.parametrize(
    "problem, said", [("regression", "regression"), ("multi_label_classification", "multi-label")]
)
def test_a_model_of_another_task_is_refused(clips, problem, said):
    victim = TorchClassifier(nn.Identity())
    victim.network = nn.Identity()
    victim.network.config = type("Config", (), {"problem_type": problem})()
    with pytest.raises(InvalidInput, match=said):
        check_victim(victim, clips)


def test_a_network_with_nan_weights_is_refused(clips):
    head = nn.Linear(3, 3)
    with torch.no_grad():
        head.weight[0, 0] = torch.nan
    with pytest.raises(InvalidInput, match="not finite"):
        check_victim(TorchClassifier(head), clips)


def drawn(x: np.ndarray) -> np.ndarray:
    return np.random.default_rng().standard_normal((len(x), 3))


def noisy(x: np.ndarray) -> np.ndarray:
    return scores(x) + 0.01 * drawn(x)


@pytest.mark.parametrize(
    "victim, said",
    [
        (black_box(drawn), "when asked twice"),
        (black_box(noisy), "does not repeat"),
        (black_box(softmax), "probabilities where logits are due"),
        (black_box(lambda x: np.eye(3)[scores(x).argmax(axis=1)]), "one-hot"),
        (black_box(lambda x: 1 / (1 + np.exp(-scores(x)))), "multi-label"),
        (black_box(lambda x: scores(x) + [9, 0, 0]), "the same answer to all of 24"),
        (black_box(lambda x: np.roll(scores(x), 1, axis=1)), "no better than chance: 0 of 24"),
        (TorchClassifier(nn.Softmax(dim=1)), "probabilities where logits are due"),
        (TorchClassifier(Rounded()), "gradient of zero on 4 of 4"),
    ],
)
def test_what_is_doubtful_is_flagged_under_the_model_s_name(clips, victim, said):
    report = check_victim(victim, clips)
    assert report.is_doubtful
    assert any(said in flag and flag.startswith(f"{victim.name}: ") for flag in report.flags)


def test_a_gradient_that_is_not_finite_is_flagged(clips):
    class Endless(nn.Module):
        def forward(self, x):
            return x + 0 * (x - x).clamp_min(0).sqrt()

    report = check_victim(TorchClassifier(Endless()), clips)
    assert any("not finite" in flag for flag in report.flags)


def test_few_clips_or_other_labels_say_nothing_about_chance(clips):
    wrong = black_box(lambda x: np.roll(scores(x), 1, axis=1))
    strangers = [Clip(c.id, c.pcm16, RATE, "cat") for c in clips]
    assert not check_victim(wrong, strangers).flags
    assert not check_victim(wrong, clips[6:10]).flags


def test_every_member_of_an_ensemble_is_looked_at(clips):
    dead = TorchClassifier(Rounded())
    dead.name = "dead"
    report = check_victim(Ensemble([TorchClassifier(nn.Identity()), dead]), clips)
    assert [flag.partition(":")[0] for flag in report.flags] == ["dead"]


def test_a_victim_is_looked_at_once_a_process(clips):
    calls = []

    def counted(x):
        calls.append(len(x))
        return scores(x)

    memory, victim = CheckedVictims(), black_box(counted)
    first = memory.check(victim, clips)
    count = len(calls)
    assert memory.check(victim, clips) is first and len(calls) == count > 0


def test_errors_of_a_function_are_flagged_and_an_error_on_each_clip_is_refused(clips):
    def picky(x):
        if x[0, 0] > 0:
            raise ValueError("starts above zero")
        return scores(x)

    report = check_victim(black_box(picky), clips)
    assert any("fails on" in flag and "ValueError" in flag for flag in report.flags)

    def broken(x):
        raise ValueError("no model")

    with pytest.raises(InvalidInput, match="fails on each of 24 clips"):
        check_victim(black_box(broken), clips)
