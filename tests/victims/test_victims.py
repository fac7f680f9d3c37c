"""The victims are the published networks; their shortcuts are exact; padding changes nothing."""

from __future__ import annotations

import copy
import functools
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from staanet.core import Victim
from staanet.errors import InvalidInput
from staanet.generators.registry import build_generator, save_generator
from staanet.generators.warm_start import backward_net_from
from staanet.nn import conv_maxpool
from staanet.victims import build_victim, load_victim

LABELS = ("anger", "joy", "fear")
PAPERS = {
    "emo18": ([(64, 8, 10), (128, 6, 8), (256, 6, 8)], F.leaky_relu),
    "zhao19": ([(64, 3, 4), (64, 3, 4), (128, 3, 4), (128, 3, 4)], F.elu),
}


def trained(name: str) -> Victim:
    """A victim whose BatchNorm has seen data and whose scales are not all one."""
    torch.manual_seed(0)
    victim = build_victim(name, LABELS)
    for module in victim.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, -1, 1)  # negative scales too
            torch.nn.init.uniform_(module.bias, -1, 1)
    with torch.no_grad():
        for _ in range(3):
            victim(torch.randn(4, 8000))
    return victim.requires_grad_(False).eval()


def as_published(victim: Victim, x: torch.Tensor) -> torch.Tensor:
    """Convolution, BatchNorm, activation, pooling, LSTM, a linear answer at each step, mean."""
    shapes, activation = PAPERS[victim.architecture]
    x = ((x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True, unbiased=False))[:, None]
    for block, (_, _, pool) in zip(victim.network.blocks, shapes, strict=True):
        norm = block.norm
        x = F.conv1d(x, block.conv.weight[:, :, 0], block.conv.bias, padding=block.padding)
        x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False)
        x = F.max_pool1d(activation(x), pool)
    steps, _ = victim.network.lstm(x.transpose(1, 2))
    return victim.network.head(steps).mean(dim=1)


@pytest.mark.parametrize("name", sorted(PAPERS))
def test_shapes_are_those_of_the_paper(name):
    shapes = [
        (b.conv.out_channels, b.conv.kernel_size[1], b.pool)
        for b in build_victim(name, LABELS).network.blocks
    ]
    assert shapes == PAPERS[name][0]


@pytest.mark.parametrize("name", sorted(PAPERS))
@pytest.mark.parametrize("training", [False, True])
def test_gradients_and_running_figures_are_those_of_the_layers_as_they_are(name, training):
    ours, x = trained(name).double().requires_grad_(True).train(training), torch.randn(3, 6000)
    plain = copy.deepcopy(ours)
    for block in plain.network.blocks:
        block.forward = functools.partial(convolved_normed_pooled, block)
    found, wanted = (
        torch.autograd.grad(
            F.cross_entropy(victim(one), torch.tensor([0, 1, 2])), [*victim.parameters(), *asked]
        )
        for victim, one, asked in (
            (victim, one, [] if training else [one])
            for victim in (ours, plain)
            for one in [x.double().requires_grad_(not training)]
        )
    )
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(found, wanted, strict=True))
    for a, b in zip(ours.buffers(), plain.buffers(), strict=True):
        assert torch.allclose(a, b)


@pytest.mark.parametrize("name", sorted(PAPERS))
def test_a_long_clip_is_answered_as_its_features_written_down(name, monkeypatch):
    victim, x = trained(name), torch.randn(2, 9000) * 0.1
    whole, heard = victim(x), backward_net_from(victim)
    listened = heard.encode(x)
    monkeypatch.setattr(conv_maxpool, "FORWARD_FRAMES", 100)
    assert torch.allclose(victim(x), whole, atol=1e-5)
    for one, other in zip(heard.encode(x).levels, listened.levels, strict=True):
        assert torch.allclose(one.pooled, other.pooled, atol=1e-5)
        assert (one.argmax == other.argmax).float().mean() > 0.999  # near ties aside


def convolved_normed_pooled(block, x):
    return block.activation(F.max_pool2d(block.norm(block.conv(x)), (1, block.pool)))


@pytest.mark.parametrize("name", sorted(PAPERS))
def test_folding_and_early_pooling_change_logits_by_rounding_only(name):
    victim = trained(name)
    x = torch.randn(3, 12_345) * 0.1
    assert torch.allclose(victim(x), as_published(victim, x), atol=1e-5)


@pytest.mark.parametrize("name", sorted(PAPERS))
def test_training_mode_is_the_published_order_too(name):
    victim = trained(name).train()
    x = torch.randn(3, 8000) * 0.1
    shapes, activation = PAPERS[name]
    y = ((x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True, unbiased=False))[:, None]
    for block, (_, _, pool) in zip(victim.network.blocks, shapes, strict=True):
        y = F.conv1d(y, block.conv.weight[:, :, 0], block.conv.bias, padding=block.padding)
        y = F.batch_norm(y, None, None, block.norm.weight, block.norm.bias, True)
        y = F.max_pool1d(activation(y), pool)
    steps, _ = victim.network.lstm(y.transpose(1, 2))
    assert torch.allclose(victim(x), victim.network.head(steps).mean(dim=1), atol=1e-4)


@pytest.mark.parametrize("name", sorted(PAPERS))
def test_a_frozen_norm_keeps_its_figures_in_a_network_that_learns(name):
    victim, x = build_victim(name, LABELS).eval(), 0.1 * torch.randn(2, 6000)
    frozen = victim(x)
    before = {k: v.clone() for k, v in victim.state_dict().items()}
    victim.train()
    for module in victim.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    assert torch.allclose(victim(x), frozen, atol=1e-5)
    assert all(torch.equal(before[k], v) for k, v in victim.state_dict().items())


@pytest.mark.parametrize("name", sorted(PAPERS))
def test_a_padded_batch_gives_what_single_clips_give(name):
    victim = trained(name)
    lengths = [4000, 9001, 7777]
    batch = torch.zeros(3, max(lengths))
    for row, n in enumerate(lengths):
        batch[row, :n] = torch.randn(n) * 0.1 + 0.02
    with torch.inference_mode():
        together = victim(batch, torch.tensor(lengths))
        for row, n in enumerate(lengths):
            assert torch.allclose(together[row], victim(batch[row : row + 1, :n])[0], atol=1e-5)


@pytest.mark.parametrize("name", sorted(PAPERS))
def test_gain_and_offset_are_standardised_away(name):
    victim = trained(name)
    x = torch.randn(1, 8000) * 0.05
    assert torch.allclose(victim(x), victim(3 * x + 0.1), atol=1e-4)


@pytest.mark.parametrize("name", sorted(PAPERS))
def test_the_smallest_clip_works_and_a_smaller_one_would_not(name):
    victim = trained(name)
    assert victim(torch.randn(1, victim.minimum_samples)).shape == (1, 3)
    with pytest.raises(RuntimeError):
        victim(torch.randn(1, victim.minimum_samples - 1))


@pytest.mark.parametrize("name", sorted(PAPERS))
def test_silence_gives_finite_logits(name):
    assert torch.isfinite(trained(name)(torch.zeros(1, 8000))).all()


@pytest.mark.parametrize("name", sorted(PAPERS))
def test_a_saved_victim_is_the_same_function_frozen(name, tmp_path):
    victim = trained(name)
    victim.save_pretrained(tmp_path / "v", dev_uar=0.5)
    again = load_victim(tmp_path / "v")
    x = torch.randn(2, 8000) * 0.1
    assert torch.equal(victim(x), again(x))
    assert again.labels == LABELS and not again.training
    assert not any(p.requires_grad for p in again.parameters())


def test_a_generator_is_not_a_victim_and_is_named(tmp_path):
    save_generator(build_generator("small"), tmp_path / "g")
    with pytest.raises(InvalidInput) as error:
        load_victim(tmp_path / "g")
    assert "generator" in str(error.value) and "victim" in str(error.value)


def test_a_registry_name_is_not_a_trained_victim():
    with pytest.raises(InvalidInput) as error:
        load_victim("emo18")
    assert "train-victim" in str(error.value)


@pytest.mark.parametrize("option", [{"pretrained": "facebook/x"}, {"config": "tiny"}])
def test_a_network_without_choices_refuses_them(option):
    with pytest.raises(InvalidInput) as error:
        build_victim("emo18", LABELS, **option)
    assert "emo18" in str(error.value)


@pytest.mark.parametrize("name", ["emo18", "zhao19", "logmel_cnn", "egemaps"])
def test_a_network_is_built_for_any_sample_rate(name):
    assert build_victim(name, LABELS, sample_rate=8000).sample_rate == 8000


def test_pretrained_weights_keep_their_sample_rate():
    pytest.importorskip("transformers", reason="extra ssl")
    with pytest.raises(InvalidInput, match="was pretrained at 16000 Hz, not at 8000 Hz"):
        build_victim("wavlm", LABELS, sample_rate=8000)


def test_registering_victims_imports_no_optional_library():
    code = (
        "import sys, staanet.victims as v; v.build_victim('emo18', ('a', 'b'));"
        "print([m for m in ('transformers', 'onnxruntime', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_a_victim_needing_an_absent_library_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InvalidInput) as error:
        build_victim("hubert", LABELS, config="tiny")
    assert "staanet[ssl]" in str(error.value)
