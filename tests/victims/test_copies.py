"""A copy of a network in another format is as weak as the network: equal logits, and PGD fools it as often."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.support.speech import clip
from torch import nn

from staanet import storage
from staanet.attacks import ATTACKS, craft
from staanet.core import Budget
from staanet.victims import build_victim, load_victim

LABELS = ("anger", "joy", "fear")
SETTINGS = {"emo18": {}, "zhao19": {}, "wav2vec2": {"config": "tiny"}}
TONES = [replace(clip(0.3, hz, seed), label="anger") for seed, hz in enumerate((180, 400, 900))]


class Logits(nn.Module):
    """What a copy holds: from waveforms to logits."""

    def __init__(self, victim):
        super().__init__()
        self.victim = victim

    def forward(self, waveforms):
        return self.victim(waveforms)


def as_onnx(network, example, path):
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    axes = {"waveforms": {0: "batch", 1: "time"}, "logits": {0: "batch"}}
    names = {"input_names": ["waveforms"], "output_names": ["logits"], "dynamic_axes": axes}
    torch.onnx.export(network, (example,), str(path), dynamo=False, **names)


def as_torchscript(network, example, path):
    torch.jit.save(torch.jit.trace(network, example, check_trace=False), path)


@pytest.fixture(scope="module", params=SETTINGS)
def victim(request):
    if request.param == "wav2vec2":
        pytest.importorskip("transformers", reason="the extra ssl is not installed")
    torch.manual_seed(0)
    network = build_victim(request.param, LABELS, **SETTINGS[request.param])
    with torch.no_grad():
        tones = torch.stack([tone.waveform for tone in TONES])
        network(tones)  # BatchNorm has seen them
        network.eval().output_layer.bias -= network(tones).mean(0)  # answers lie near a boundary
    return network.requires_grad_(False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("write", [as_onnx, as_torchscript], ids=["onnx", "torchscript"])
def test_pgd_fools_the_copy_and_the_network_alike(victim, write, tmp_path):
    path = tmp_path / "copy"
    write(Logits(victim).eval(), torch.zeros(2, 4000), path)
    labels = ", ".join(f'"{label}"' for label in LABELS)
    storage.write_text(
        path.with_name("copy.toml"),
        f"sample_rate = 16000\nlabels = [{labels}]\nminimum_samples = {victim.minimum_samples}\n",
    )
    copy = load_victim(f"{write.__name__[3:]}:{path}")
    assert copy.differentiable, copy.notes
    attack = ATTACKS["pgd"](budget=Budget(epsilon="-20 dB"), steps=10)
    sets = [craft(attack, attacked, TONES) for attacked in (victim, copy)]
    clean = torch.stack([tone.waveform for tone in TONES])
    sounds = [
        clean,
        *(torch.stack([torch.from_numpy(c.adversarial) for c in s]) / 32768 for s in sets),
    ]
    with torch.no_grad():
        for x in sounds:
            assert torch.allclose(copy(x), victim(x), rtol=0, atol=1e-4)
        ours, theirs = (
            attacked(x).argmax(1) != attacked(clean).argmax(1)
            for attacked, x in zip((victim, copy), sounds[1:], strict=True)
        )
    assert ours.any(), "no clip is fooled: nothing is compared"
    assert ours.sum() == theirs.sum()
