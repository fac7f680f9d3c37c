"""Any torch module is a white-box victim by one line, and says what does not fit."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from tests.support.models import LinearVictim
from tests.support.speech import clip
from tests.support.waveforms import LENGTHS, padded
from torch import nn

import staanet
from staanet.attacks import ATTACKS, craft
from staanet.core import Budget, standardise
from staanet.errors import InvalidInput, VictimError
from staanet.victims import TorchVictim

LABELS = ["up", "down"]


class Peaks(nn.Module):
    """Logits (max, -min) of each clip, handed out as ``shape`` says."""

    def __init__(self, shape="plain"):
        super().__init__()
        self.scale, self.shape = nn.Parameter(torch.ones(2)), shape

    def forward(self, x):
        logits = torch.stack([x.amax(dim=-1), -x.amin(dim=-1)], dim=1) * self.scale
        match self.shape:
            case "tuple":
                return x, logits
            case "dict":
                return {"hidden": x, "logits": logits}
            case "named":
                return namedtuple("Output", "hidden answer")(x, logits)
            case "softmax":
                return torch.softmax(logits, dim=1)
            case "flat":
                return logits[:, 0]
            case "nan":
                return logits * float("nan")
            case "detached":
                return logits.detach()
            case "text":
                return "up"
        return logits


def expected(x, lengths=LENGTHS):
    rows = [row[:n] for row, n in zip(x, lengths, strict=True)]
    return torch.stack([torch.stack([row.amax(), -row.amin()]) for row in rows])


@pytest.mark.parametrize(
    "shape, settings",
    [
        ("plain", {}),
        ("dict", {}),
        ("tuple", {"output": 1}),
        ("tuple", {"output": -1}),
        ("dict", {"output": "logits"}),
        ("named", {"output": "answer"}),
        ("named", {"output": 1}),
    ],
)
def test_the_answer_is_picked_by_name_or_index_and_padding_is_never_seen(shape, settings):
    victim, x = TorchVictim(Peaks(shape), LABELS, 8000, **settings), padded().requires_grad_()
    logits = victim(x, LENGTHS)
    assert torch.equal(logits, expected(x))
    assert (victim.name, victim.labels, victim.differentiable) == ("Peaks", ("up", "down"), True)
    logits.sum().backward()
    assert x.grad.abs().sum() > 0 and not any(
        x.grad[i, n:].any() for i, n in enumerate(LENGTHS.tolist())
    )


def test_channel_axis_standardisation_and_probabilities():
    x = padded()
    conv = nn.Sequential(nn.Conv1d(1, 2, 9), nn.AdaptiveMaxPool1d(1), nn.Flatten())
    victim = TorchVictim(conv, LABELS, 8000, input_shape="[B, 1, T]")
    assert torch.allclose(victim(x), conv(x[:, None]))
    scaled = TorchVictim(Peaks(), LABELS, 8000, standardise=True)
    assert torch.allclose(scaled(x), Peaks()(standardise(x)))
    shares = TorchVictim(Peaks("softmax"), LABELS, 8000, probabilities=True)
    assert torch.allclose(shares(x).softmax(dim=1), Peaks("softmax")(x))
    function = TorchVictim(lambda x: Peaks()(x), LABELS, 8000, name="peaks")
    assert torch.equal(function(x), Peaks()(x)) and function.sha256


@pytest.mark.parametrize(
    "shape, settings, words",
    [
        ("tuple", {}, ["2 outputs", "[3, 6001]", "output"]),
        ("tuple", {"output": 2}, ["none is 2"]),
        ("dict", {"output": "answer"}, ["logits", "'answer'"]),
        ("dict", {"output": "hidden"}, ["[3, 6001]", "[3, 2]"]),
        ("flat", {}, ["[3]", "[3, 2]"]),
        ("nan", {}, ["6 non-finite"]),
        ("text", {}, ["str", "no tensor"]),
        ("plain", {"probabilities": True}, ["sums to"]),
        ("detached", {}, ["without a gradient", "CallableVictim"]),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_with_what_it_is(shape, settings, words):
    victim = TorchVictim(Peaks(shape), LABELS, 8000, **settings)
    with pytest.raises(InvalidInput) as error:
        victim(padded().requires_grad_())
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    "labels, rate, settings, word",
    [
        (["a", "a"], 8000, {}, "labels"),
        (["a"], 8000, {}, "labels"),
        (LABELS, 16, {}, "sample_rate is 16"),
        (LABELS, 8000.0, {}, "sample_rate"),
        (LABELS, 8000, {"input_shape": "[T, B]"}, "'[T, B]'"),
    ],
)
def test_settings_that_cannot_be_are_refused(labels, rate, settings, word):
    with pytest.raises(InvalidInput, match="Peaks") as error:
        TorchVictim(Peaks(), labels, rate, **settings)
    assert word in str(error.value)
    with pytest.raises(InvalidInput, match="no module"):
        TorchVictim(3, LABELS, 8000)


def test_an_exception_names_its_line_and_a_clip_can_be_too_short():
    conv = nn.Sequential(nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 2, 9))
    with pytest.raises(VictimError, match="RuntimeError") as error:
        TorchVictim(conv, LABELS, 8000)(torch.zeros(1, 8))
    assert "Sequential" in str(error.value)

    def broken(x):
        return x.nowhere

    with pytest.raises(VictimError, match=r"test_torch_victim.py:\d+, in broken"):
        TorchVictim(broken, LABELS, 8000)(padded())
    victim = TorchVictim(conv, LABELS, 8000)
    victim.minimum_samples = 9
    with pytest.raises(InvalidInput, match="9 that"):
        victim(torch.zeros(1, 8))


def test_the_hash_follows_weights_code_and_settings():
    same, other = (TorchVictim(Peaks(), LABELS, 8000, name=name) for name in "ab")
    assert same.sha256 == other.sha256
    changed = Peaks()
    changed.scale.data *= 2
    assert TorchVictim(changed, LABELS, 8000).sha256 != same.sha256
    assert TorchVictim(Peaks(), LABELS, 8000, standardise=True).sha256 != same.sha256


def test_white_box_attacks_on_a_wrapped_network_equal_those_on_the_victim_itself():
    torch.manual_seed(0)
    victim = LinearVictim(torch.randn(16_000))
    wrapped = staanet.TorchVictim(lambda x: victim(x), LABELS, 16_000)
    attack = ATTACKS["pgd"](budget=Budget(epsilon=0.01), steps=3)
    clips = [clip(0.1, 200.0 + 50 * n, seed=n) for n in range(2)]
    for a, b in zip(craft(attack, victim, clips), craft(attack, wrapped, clips), strict=True):
        assert (a.adversarial == b.adversarial).all()
