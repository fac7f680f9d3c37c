"""A TorchScript file answers and differentiates as the network that it was written from."""

from __future__ import annotations

import pytest
import torch
from tests.support.speech import clip
from tests.support.waveforms import LENGTHS, padded
from torch import nn

from staanet import pipeline
from staanet.attacks import ATTACKS, craft
from staanet.core import Budget
from staanet.errors import InvalidInput
from staanet.victims import build_victim, load_victim

LABELS = ("anger", "joy", "fear")
CARD = 'sample_rate = 16000\nlabels = ["anger", "joy", "fear"]\nstandardise = true\n'


class Logits(nn.Module):
    """The network of a victim, on standardised clips."""

    def __init__(self, victim):
        super().__init__()
        self.victim = victim

    def forward(self, x):
        return self.victim.logits(x, None)


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    torch.manual_seed(0)
    victim = build_victim("emo18", LABELS).requires_grad_(False).eval()
    path = tmp_path_factory.mktemp("script") / "emo18.pt"
    module = torch.jit.trace(Logits(victim), torch.randn(2, 8000), check_trace=False)
    torch.jit.save(module, path)
    path.with_name("emo18.pt.toml").write_text(CARD + f"minimum_samples = {victim.minimum_samples}")
    return victim, path


def test_answers_gradients_and_attacks_are_those_of_the_network(scripted):
    victim, path = scripted
    again = load_victim(f"torchscript:{path}")
    assert (again.name, again.labels, again.differentiable) == ("emo18", LABELS, True)
    assert again.minimum_samples == victim.minimum_samples
    assert torch.allclose(again(padded(), LENGTHS), victim(padded(), LENGTHS), atol=1e-5)
    x, y = (padded().requires_grad_() for _ in range(2))
    victim(x, LENGTHS).square().sum().backward()
    again(y, LENGTHS).square().sum().backward()
    assert torch.allclose(x.grad, y.grad, atol=1e-4 * float(x.grad.abs().max()))
    attack = ATTACKS["pgd"](budget=Budget(epsilon=0.01), steps=3)
    ours, theirs = (next(iter(craft(attack, v, [clip(0.2)]))) for v in (victim, again))
    assert (ours.adversarial == theirs.adversarial).mean() > 0.99


def test_it_is_copied_into_a_defended_victim(scripted, tmp_path):
    victim = load_victim(f"torchscript:{scripted[1]}")
    defended = pipeline.defend(victim, ["median:3"], tmp_path / "d", context=pipeline.Context())
    again = load_victim(tmp_path / "d")
    assert torch.equal(defended(padded()), again(padded())) and again.differentiable


@pytest.mark.parametrize("fill, tail", [("tile", "clip"), ("zeros", "zeros")])
def test_a_model_of_one_length_gets_clips_of_that_length(tmp_path, fill, tail):
    class Ends(nn.Module):
        def forward(self, x):
            assert x.shape[1] == 5000
            return torch.stack([x[:, 0], x[:, 4000], x[:, -1]], dim=1)

    path = tmp_path / "ends.pt"
    torch.jit.save(torch.jit.script(Ends()), path)
    card = 'sample_rate = 16000\nlabels = ["a", "b", "c"]\n'
    path.with_name("ends.pt.toml").write_text(f'{card}samples = 5000\nfill = "{fill}"\n')
    victim, x = load_victim(f"torchscript:{path}"), padded().requires_grad_()
    logits = victim(x, LENGTHS)
    assert torch.equal(logits[1], x[1, [0, 4000, 4999]])
    second = x[0, [0, 0, 999]] * (tail == "clip")
    assert torch.equal(logits[0, 1:], second[1:])
    logits[0].sum().backward()
    assert x.grad[0, 0] == (2 if tail == "clip" else 1)
    assert "5000 samples" in victim.notes[0]


@pytest.mark.parametrize(
    "content, card, word",
    [
        (None, CARD, "no such file"),
        (b"not a model", None, "no card"),
        (b"not a model", CARD, "no TorchScript"),
        (b"", CARD, "no TorchScript"),
        ("pickle", CARD, "no TorchScript"),
        (b"x", "labels = 3", "labels"),
        (b"x", CARD + "speed = 2", "speed"),
        (b"x", CARD + 'fill = "loop"', "fill"),
        (b"x", CARD + "samples = -1", "samples is -1"),
    ],
)
def test_files_that_are_missing_or_damaged_are_explained(tmp_path, content, card, word):
    path = tmp_path / "m.pt"
    if content == "pickle":
        torch.save({"weight": torch.ones(3)}, path)
    elif content is not None:
        path.write_bytes(content)
    if card is not None:
        path.with_name("m.pt.toml").write_text(card)
    with pytest.raises(InvalidInput) as error:
        load_victim(f"torchscript:{path}")
    assert word in str(error.value)
