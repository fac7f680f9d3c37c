"""ONNX files and exports answer as the networks that they were made from."""

from __future__ import annotations

import json

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
    with pytest.raises(StaaNetError):
        again(padded().requires_grad_())


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
        (('input = "waveforms"', 'input = "speech"'), "'speech'"),
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
    assert "text.onnx.toml" in str(error.value)
    (tmp_path / "text.onnx.toml").write_text('sample_rate = 16000\nlabels = ["a", "b"]\n')
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
    assert torch.allclose(victim(x), torch.stack([z.amax(1), z.amin(1)], 1), atol=1e-5)
    if shape == [1, 4000]:
        with pytest.raises(InvalidInput) as error:
            victim(padded())
        assert "4000" in str(error.value) and "6001" in str(error.value)


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
