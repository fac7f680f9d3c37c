"""The log-mel network: its bands, padding, saving, and a generator that begins as it."""

from __future__ import annotations

import pytest
import torch

from staanet.core import Untargeted
from staanet.generators.warm_start import warm_start_member
from staanet.victims import LogmelCnn, build_victim, load_victim

LABELS = ("anger", "joy", "fear")


@pytest.fixture(scope="module")
def victim():
    torch.manual_seed(0)
    network = build_victim("logmel_cnn", LABELS)
    with torch.no_grad():
        network(torch.randn(4, 8000))  # BatchNorm meets data
    return network.requires_grad_(False).eval()


@pytest.mark.parametrize("frequency", [300.0, 1000.0, 5000.0])
def test_a_tone_is_loudest_in_the_band_of_its_frequency(victim, frequency):
    tone = torch.sin(2 * torch.pi * frequency * torch.arange(4000) / 16_000)[None]
    band = int(victim.log_mel(tone).mean(dim=2).argmax())
    centre = (victim.filters[:, band] * torch.arange(201) * 40).sum()
    assert abs(float(centre) - frequency) <= max(40, 0.06 * frequency)


def test_a_padded_batch_gives_what_single_clips_give(victim):
    lengths, batch = [4000, 9001, 7777], torch.zeros(3, 9001)
    for row, length in enumerate(lengths):
        batch[row, :length] = torch.randn(length) * 0.1 + 0.02
    together = victim(batch, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        assert torch.allclose(together[row], victim(batch[row : row + 1, :length])[0], atol=1e-4)


def test_the_smallest_clip_works_and_a_smaller_one_would_not(victim):
    assert victim(torch.randn(1, victim.minimum_samples)).shape == (1, 3)
    with pytest.raises(RuntimeError):
        victim(torch.randn(1, victim.minimum_samples - 1))


def test_level_and_silence_do_not_matter(victim):
    x = torch.randn(1, 8000) * 0.05
    assert torch.allclose(victim(x), victim(3 * x + 0.1), atol=1e-4)
    assert torch.isfinite(victim(torch.zeros(1, 8000))).all()


def test_a_saved_victim_is_the_same_function(victim, tmp_path):
    victim.save_pretrained(tmp_path / "v")
    again, x = load_victim(tmp_path / "v"), torch.randn(2, 8000) * 0.1
    assert isinstance(again, LogmelCnn) and torch.equal(victim(x), again(x))


def test_a_generator_begins_as_its_gradient(victim):
    x = 0.1 * torch.randn(2, 8000)
    change = warm_start_member(victim, density=0.2)(x)
    logits = victim(x.requires_grad_())
    goal = Untargeted(logits.argmax(dim=1))
    (gradient,) = torch.autograd.grad(goal.margin(logits).sum(), x)
    assert (change.magnitude * gradient).sum() < 0
