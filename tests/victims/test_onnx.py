"""ONNX files and exports answer as the networks that they were made from."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from tests.support.models import LinearVictim
from tests.support.speech import clip
from tests.support.waveforms import LENGTHS, padded
from typer.testing import CliRunner

from staanet.attacks import ATTACKS, craft
from staanet.cli import app
from staanet.core import standardise
from staanet.errors import InvalidInput, StaaNetError
from staanet.victims import build_victim, load_victim
from staanet.victims import export as exporting

LABELS = ("anger", "joy", "fear")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Both networks as ONNX files, with the victims that they were made from."""
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    root, made = tmp_path_factory.mktemp("onnx"), {}
    for name in ("emo18", "zhao19"):
        torch.manual_seed(0)
        victim = build_victim(name, LABELS)
        with torch.no_grad():
            victim(torch.randn(4, 8000))  # BatchNorm has seen something
        victim.requires_grad_(False).eval()
        assert exporting.export_onnx(victim, root / f"{name}.onnx") < 1e-4
        made[name] = victim, root / f"{name}.onnx"
    return made


@pytest.mark.parametrize("name", ["emo18", "zhao19"])
def test_an_exported_victim_gives_the_same_logits_at_every_length(exported, name):
    victim, path = exported[name]
    again = load_victim(f"onnx:{path}")
    assert (again.labels, again.sample_rate, again.name) == (LABELS, 16_000, name)
    assert again.minimum_samples == victim.minimum_samples
    for time in (victim.minimum_samples, 5000, 16_001):
        x = torch.randn(2, time) * 0.1 + 0.05
        assert torch.allclose(again(x), victim(x), atol=1e-5)
    assert torch.allclose(again(padded(), LENGTHS), victim(padded(), LENGTHS), atol=1e-5)


@pytest.mark.parametrize("name", ["emo18", "zhao19"])
def test_an_exported_victim_is_a_white_box_with_the_gradient_of_the_network(exported, name):
    victim, path = exported[name]
    again = load_victim(f"onnx:{path}")
    assert again.differentiable and not again.notes
    x, y = (padded().requires_grad_() for _ in range(2))
    victim(x, LENGTHS).square().sum().backward()
    again(y, LENGTHS).square().sum().backward()
    assert torch.allclose(x.grad, y.grad, atol=1e-4 * float(x.grad.abs().max()))


def test_an_export_that_differs_is_not_written(exported, monkeypatch, tmp_path):
    victim, _ = exported["zhao19"]
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    with pytest.raises(StaaNetError) as error:
        exporting.export_onnx(victim, tmp_path / "v.onnx")
    assert "differs" in str(error.value) and not list(tmp_path.iterdir())


def test_a_victim_that_cannot_be_exported_is_named(exported, tmp_path):
    with pytest.raises(InvalidInput) as error:
        exporting.export_onnx(LinearVictim(torch.ones(10)), tmp_path / "v.onnx")
    assert "linear" in str(error.value) and "emo18" in str(error.value)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (("sample_rate = 16000", ""), "sample_rate"),
        (("sample_rate = 16000", "sample_rate = 0"), "sample_rate is 0"),
        (("sample_rate", "samplerate"), "rate"),
        (('"joy"', '"anger"'), "labels"),
        (("labels = [", 'input = "speech"\nlabels = ['), "'speech'"),
        (("labels = [", 'output = "hidden"\nlabels = ['), "'hidden'"),
        (('"joy",', ""), "logits [batch, 3] does not fit its 2 labels"),
        (("sample_rate = 16000", "sample_rate = 16000\nsamples = -1"), "samples is -1"),
        (("labels = [", "labels = "), "TOML"),
    ],
)
def test_a_card_that_does_not_fit_is_explained(exported, tmp_path, change, word):
    _, path = exported["zhao19"]
    (tmp_path / "v.onnx").write_bytes(path.read_bytes())
    card = path.with_name("zhao19.onnx.toml").read_text()
    assert change[0] in card
    (tmp_path / "v.onnx.toml").write_text(card.replace(*change))
    with pytest.raises(InvalidInput) as error:
        load_victim(f"onnx:{tmp_path / 'v.onnx'}")
    assert word in str(error.value)


def test_files_that_are_missing_or_no_model_are_explained(exported, tmp_path):
    with pytest.raises(InvalidInput) as error:
        load_victim(f"onnx:{tmp_path / 'none.onnx'}")
    assert "no such file" in str(error.value)
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(InvalidInput) as error:
        load_victim(f"onnx:{tmp_path / 'text.onnx'}")
    assert "onnxruntime" in str(error.value)


@pytest.mark.parametrize("shape", [["batch", "time"], [1, "time"], ["batch", 1, "time"], [1, 4000]])
def test_other_shapes_of_input_and_a_standardising_card_are_served(tmp_path, shape):
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    helper, kinds = onnx.helper, onnx.TensorProto
    axis = len(shape) - 1
    axes = helper.make_tensor("axes", kinds.INT64, [1], [axis])
    steps = [
        helper.make_node("ReduceMax", ["x", "axes"], ["top"], keepdims=int(axis == 1)),
        helper.make_node("ReduceMin", ["x", "axes"], ["low"], keepdims=int(axis == 1)),
        helper.make_node("Concat", ["top", "low"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        steps,
        "range",
        [helper.make_tensor_value_info("x", kinds.FLOAT, shape)],
        [helper.make_tensor_value_info("y", kinds.FLOAT, [shape[0], 2])],
        [axes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = tmp_path / "range.onnx"
    path.write_bytes(model.SerializeToString())
    card = 'sample_rate = 8000\nlabels = ["a", "b"]\ninput = "x"\nstandardise = true\n'
    (tmp_path / "range.onnx.toml").write_text(card)
    victim, x = load_victim(f"onnx:{path}"), padded()[:, :4000]
    z = standardise(x)
    expected = torch.stack([z.amax(1), z.amin(1)], 1)
    assert torch.allclose(victim(x), expected, atol=1e-5) and victim.differentiable
    assert torch.allclose(victim(x.clone().requires_grad_()), expected, atol=1e-5)
    if shape == [1, 4000]:
        assert "4000 samples" in victim.notes[0]
        longer = torch.cat([x, 0 * x], dim=1)
        assert torch.allclose(victim(longer[:, :4000]), victim(x))
        short = victim(x[:, :1000].contiguous())
        z = standardise(x[:, :1000])
        assert torch.allclose(short, torch.stack([z.amax(1), z.amin(1)], 1), atol=1e-5)


def test_the_command_exports_and_evaluates_what_it_exported(exported, tmp_path):
    victim, _ = exported["zhao19"]
    victim.save_pretrained(tmp_path / "v")
    out = tmp_path / "z.onnx"
    done = CliRunner().invoke(app, ["export", str(tmp_path / "v"), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["difference"] < 1e-4 and out.is_file()
    made = craft(ATTACKS["random"](), victim, [clip(0.1, label="joy", speaker="s", id="one")])
    made.save(tmp_path / "set")
    done = CliRunner().invoke(
        app,
        [
            "evaluate",
            str(tmp_path / "set"),
            "--target",
            f"onnx:{out}",
            "--out",
            str(tmp_path / "r"),
            "--json",
        ],
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["cells"][0]["target"] == "z"


def test_the_command_says_what_cannot_be_exported(tmp_path):
    done = CliRunner().invoke(app, ["export", str(tmp_path / "none"), "--out", "x.onnx"])
    assert done.exit_code == 3


class Outputs(torch.nn.Module):
    """Answers three numbers a clip, and beside them a hidden layer that is as wide."""

    def forward(self, x, attention_mask=None):
        logits = torch.stack([x.amax(1), x.amin(1), x.square().mean(1)], 1)
        if attention_mask is not None:
            logits = logits * attention_mask.float().mean(1, keepdim=True)
        return 2 * logits, logits


def written(path, module, inputs, names, *, outputs, metadata=None, fixed=False):
    """A module as an ONNX file; every first and second axis is free unless ``fixed``."""
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    free = {} if fixed else {name: {0: "batch", 1: "time"} for name in names}
    free |= {} if fixed else {name: {0: "batch"} for name in outputs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            inputs,
            str(path),
            dynamo=False,
            input_names=names,
            output_names=outputs,
            dynamic_axes=free,
        )
    if metadata:
        model = onnx.load(str(path))
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, str(path))
    return path


CARD = 'sample_rate = 16000\nlabels = ["a", "b", "c"]\n'


def test_outputs_go_by_name_a_mask_is_filled_and_metadata_may_stand_for_the_card(tmp_path):
    x = 0.1 * torch.randn(2, 4000)
    mask = torch.ones(2, 4000, dtype=torch.long)
    path = written(
        tmp_path / "two.onnx",
        Outputs(),
        (x, mask),
        ["speech", "attention_mask"],
        outputs=["hidden", "answer"],
        metadata={"labels": '["a", "b", "c"]', "sample_rate": "16000"},
    )
    with pytest.raises(InvalidInput, match=r"hidden \[batch, 3\], answer \[batch, 3\]"):
        load_victim(f"onnx:{path}")
    (tmp_path / "two.onnx.toml").write_text('output = "answer"\n')
    victim = load_victim(f"onnx:{path}")
    assert (victim.labels, victim.sample_rate, victim.differentiable) == (
        ("a", "b", "c"),
        16_000,
        True,
    )
    expected = Outputs()(padded()[:, :3000])[1]
    assert torch.allclose(victim(padded()[:, :3000]), expected, atol=1e-6)
    (tmp_path / "two.onnx.toml").write_text("output = 0\n")
    assert torch.allclose(load_victim(f"onnx:{path}")(padded()[:, :3000]), 2 * expected, atol=1e-6)


def test_a_graph_that_torch_cannot_run_stays_a_black_box_and_says_why(tmp_path):
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    path = written(tmp_path / "m.onnx", Outputs(), (torch.ones(2, 400),), ["x"], outputs=["h", "y"])
    model = onnx.load(str(path))
    model.graph.node.append(onnx.helper.make_node("Hardmax", ["y"], ["z"]))
    model.graph.output[1].name = "z"
    onnx.save(model, str(path))
    (tmp_path / "m.onnx.toml").write_text(f'{CARD}output = "z"\n')
    victim = load_victim(f"onnx:{path}")
    assert not victim.differentiable and "Hardmax" in victim.notes[0]
    assert victim(padded()).sum() == 3
    with pytest.raises(StaaNetError, match="black box"):
        victim(padded().requires_grad_())
    (tmp_path / "m.onnx.toml").write_text(f'{CARD}output = "h"\n')
    assert not load_victim(f"onnx:{path}").differentiable


def test_a_fixed_batch_is_filled_up(tmp_path):
    path = written(
        tmp_path / "f.onnx", Outputs(), (torch.ones(2, 400),), ["x"], outputs=["h", "y"], fixed=True
    )
    (tmp_path / "f.onnx.toml").write_text(f'{CARD}output = "y"\n')
    victim, x = load_victim(f"onnx:{path}"), padded()[:, :400]
    assert torch.allclose(victim(x), Outputs()(x)[1], atol=1e-6) and "400" in victim.notes[0]


def recurrent(kind, **settings):
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv1d(1, 8, 80, 40)
            self.layers = kind(8, 6, batch_first=True, **settings)
            self.head = torch.nn.Linear(12 if settings else 6, 3)

        def forward(self, x):
            return self.head(self.layers(self.conv(x[:, None]).transpose(1, 2))[0].amax(1))

    return Network()


class Spectrogram(torch.nn.Module):
    """A small network on log spectra, with the layers of image models."""

    def __init__(self):
        super().__init__()
        self.register_buffer("window", torch.hann_window(200))
        layers = [torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.SiLU()]
        layers += [torch.nn.AvgPool2d(2, padding=1), torch.nn.GroupNorm(2, 4), torch.nn.Hardswish()]
        layers += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3)]
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, x):
        x = torch.stft(x, 200, 80, window=self.window, return_complex=False).square().sum(-1)
        return torch.log_softmax(self.layers(x.clamp_min(1e-6).log()[:, None]), 1)


NETWORKS = {
    "gru": lambda: recurrent(torch.nn.GRU),
    "two-way gru": lambda: recurrent(torch.nn.GRU, bidirectional=True, num_layers=2),
    "lstm": lambda: recurrent(torch.nn.LSTM, bidirectional=True),
    "rnn": lambda: recurrent(torch.nn.RNN),
    "spectrogram": Spectrogram,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_graphs_of_many_layers_give_the_gradient_of_their_network(name, tmp_path):
    torch.manual_seed(0)
    module = NETWORKS[name]().requires_grad_(False)
    path = written(tmp_path / "n.onnx", module, (torch.ones(2, 4000),), ["x"], outputs=["y"])
    (tmp_path / "n.onnx.toml").write_text(CARD)
    victim = load_victim(f"onnx:{path}")
    assert victim.differentiable, victim.notes
    x, y = (padded()[:, :3500].clone().requires_grad_() for _ in range(2))
    module(x).square().sum().backward()
    victim(y).square().sum().backward()
    assert torch.allclose(x.grad, y.grad, atol=1e-4 * float(x.grad.abs().max()))
    assert torch.allclose(victim(padded()), module(padded()), atol=1e-5)


class Loud(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 1e5 * self.inner(x)


def test_large_logits_are_compared_relative_to_their_size(tmp_path):
    torch.manual_seed(0)
    module = Loud(recurrent(torch.nn.GRU)).requires_grad_(False)
    path = written(tmp_path / "n.onnx", module, (torch.ones(2, 4000),), ["x"], outputs=["y"])
    (tmp_path / "n.onnx.toml").write_text(CARD)
    victim = load_victim(f"onnx:{path}")
    x = padded()
    assert float((victim(x) - victim._torch_logits(x)).abs().max()) > 1e-4  # rounding alone
    assert victim.differentiable, victim.notes
