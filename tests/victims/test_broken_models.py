"""Models that are wired wrong: each is refused or flagged before it gives a figure, without a traceback."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.support.speech import clip
from torch import nn

from staanet.errors import StaaNetError
from staanet.victims import CallableVictim, TorchVictim, load_victim
from staanet.victims.quick_check import check_victim

LABELS = ["up", "down"]
CLIPS = [
    clip(0.1, 150.0 + 40 * n, seed=n, id=f"c{n}", label=LABELS[n % 2], speaker=f"s{n % 3}")
    for n in range(10)
]


def network(answer, **settings):
    """A module that returns ``answer(x, logits)``."""

    class Network(nn.Module):
        def forward(self, x):
            return answer(x, torch.stack([x.amax(-1), x.square().mean(-1).sqrt() * 3], dim=-1))

    labels, rate = settings.pop("labels", LABELS), settings.pop("rate", 16_000)
    return lambda: TorchVictim(Network(), labels, rate, **settings)


def callable_victim(answer, labels=LABELS, **settings):
    return lambda: CallableVictim(answer, labels, 16_000, **settings)


def raises(x, logits):
    raise KeyError("weights")


def leaves(x):
    raise SystemExit(3)


CASES = {
    # wrong output
    "constant": network(lambda x, y: y * 0 + torch.tensor([1.0, 2.0])),
    "all zeros": network(lambda x, y: y * 0),
    "same for all classes": network(lambda x, y: y[:, :1].expand(-1, 2)),
    "one class only": network(lambda x, y: y + torch.tensor([0.0, 100.0])),
    "one-hot": network(lambda x, y: nn.functional.one_hot(y.argmax(1), 2).float() + y * 0),
    "probabilities as logits": network(lambda x, y: torch.softmax(100 * y, 1)),
    "logits as probabilities": network(lambda x, y: 5 * y, probabilities=True),
    "two outputs, none named": network(lambda x, y: (x, y)),
    "an index too far": network(lambda x, y: (x, y), output=2),
    "an unknown name": network(lambda x, y: {"a": x, "b": y}, output="c"),
    "the hidden layer": network(lambda x, y: {"hidden": x, "logits": y}, output="hidden"),
    "no tensor": network(lambda x, y: [1, 2]),
    "text": network(lambda x, y: "up"),
    "nothing": network(lambda x, y: None),
    "an empty tuple": network(lambda x, y: ()),
    "random": network(lambda x, y: torch.randn(len(x), 2) + y * 0),
    "numpy inside": network(lambda x, y: torch.from_numpy(y.numpy())),
    "no gradient": network(lambda x, y: y.detach()),
    "a gradient of zero": network(lambda x, y: (8 * y).round() + 0 * y),
    # wrong labels
    "three labels for two": network(lambda x, y: y, labels=["a", "b", "c"]),
    "a label twice": network(lambda x, y: y, labels=["a", "a"]),
    "labels in one text": network(lambda x, y: y, labels="ab"),
    "one label": network(lambda x, y: y[:, :1], labels=["a"]),
    "no labels": network(lambda x, y: y, labels=[]),
    "an empty label": network(lambda x, y: y, labels=["a", ""]),
    "a label in two cases": network(lambda x, y: y, labels=["Up", "up"]),
    "swapped labels": network(lambda x, y: y, labels=["down", "up"]),
    # wrong rate
    "rate 0": network(lambda x, y: y, rate=0),
    "rate in kHz": network(lambda x, y: y, rate=16),
    "rate as text": network(lambda x, y: y, rate="16000"),
    "rate as a fraction": network(lambda x, y: y, rate=16_000.5),
    # wrong shape
    "a channel axis missing": lambda: TorchVictim(nn.Conv2d(1, 2, 3), LABELS, 16_000),
    "one number": network(lambda x, y: y.sum()),
    "one row for all clips": network(lambda x, y: y.new_ones(1, 2, 2)),
    "one row per frame": network(lambda x, y: y[:, None].repeat(1, 5, 1)),
    "an unknown shape": network(lambda x, y: y, input_shape="[T]"),
    # not finite
    "NaN": network(lambda x, y: y * float("nan")),
    "infinite": network(lambda x, y: y / 0),
    "a NaN gradient": network(lambda x, y: y + (x[:, :1] * 0).sqrt()),
    # raises
    "an exception": network(raises),
    "a function of NaN": callable_victim(lambda x: np.full((len(x), 2), np.nan)),
    "a function of another shape": callable_victim(lambda x: x),
    "a function that leaves Python": callable_victim(leaves),
    "a function of complex numbers": callable_victim(lambda x: np.ones((len(x), 2)) * 1j),
    "a function with labels in one text": callable_victim(lambda x: x[:, :2], labels="ab"),
    "numbers as labels": callable_victim(lambda x: x[:, :2], labels=[1, 2]),
    "a function at a negative rate": lambda: CallableVictim(len, LABELS, -16_000),
    # missing files
    **{
        f"no such {spec}": lambda spec=spec: load_victim(spec)
        for spec in ("onnx:no.onnx", "torchscript:no.pt", "python:no.py:f", "hf:./no", "audonnx:no")
    },
}


def test_there_are_forty_of_them():
    assert len(CASES) >= 40


@pytest.mark.parametrize("name", CASES)
def test_a_broken_model_is_refused_or_flagged(name):
    try:
        report = check_victim(CASES[name](), CLIPS)
    except StaaNetError as error:
        assert error.what and "\n" not in str(error) and len(str(error)) < 700
        return
    assert report.flags, f"{name}: no warning"


@pytest.mark.parametrize("scheme, name", [("onnx", "m.onnx"), ("torchscript", "m.pt")])
def test_a_pointer_of_git_lfs_is_called_that(scheme, name, tmp_path):
    (tmp_path / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    (tmp_path / f"{name}.toml").write_text('sample_rate = 16000\nlabels = ["a", "b"]\n')
    with pytest.raises(StaaNetError, match=r"git-lfs pointer.*git lfs pull"):
        load_victim(f"{scheme}:{tmp_path / name}")


def test_an_error_in_torchscript_is_its_last_line():
    @torch.jit.script
    def fails(x):
        raise RuntimeError("too loud")
        return x

    victim = TorchVictim(fails, LABELS, 16_000)
    with pytest.raises(StaaNetError) as error:
        check_victim(victim, CLIPS)
    assert "too loud" in error.value.what and "Traceback" not in str(error.value)


def test_a_sound_model_is_neither():
    report = check_victim(network(lambda x, y: y * torch.tensor([1.0, 0.8]))(), CLIPS)
    assert all("chance" in flag or "same answer" in flag for flag in report.flags)
