"""The folders that audonnx writes are models with one argument; their YAML builds no objects."""

from __future__ import annotations

import pytest
import torch
from tests.support.waveforms import LENGTHS, padded
from tests.victims.test_onnx import Outputs, written

from staanet import pipeline
from staanet.errors import InvalidInput
from staanet.victims import load_victim

pytest.importorskip("yaml", reason="the extra audonnx is not installed")
LABELS = "    answer:\n    - angry\n    - happy\n    - neutral\n"
HEAD = "$audonnx.core.model.Model==1.0.1:\n  path: model.onnx\n"


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audonnx")
    example = (torch.ones(2, 400),)
    path = written(folder / "m.onnx", Outputs(), example, ["signal"], outputs=["hidden", "answer"])
    return path.read_bytes()


def folder_of(tmp_path, network, text):
    folder = tmp_path / "emotion"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(network)
    (folder / "model.yaml").write_text(text)
    return folder


def test_labels_and_output_come_from_the_yaml(tmp_path, network):
    text = f"{HEAD}  labels:\n    hidden: null\n{LABELS}  transform: null\n"
    folder = folder_of(tmp_path, network, text)
    victim = load_victim(f"audonnx:{folder}")
    assert (victim.name, victim.labels) == ("emotion", ("angry", "happy", "neutral"))
    assert victim.differentiable and "16000 Hz is assumed" in victim.notes[0]
    rows = [Outputs()(row[None, :n])[1][0] for row, n in zip(padded(), LENGTHS, strict=True)]
    assert torch.allclose(victim(padded(), LENGTHS), torch.stack(rows), atol=1e-6)
    (folder / "model.onnx.toml").write_text("sample_rate = 8000\n")
    victim = load_victim(f"audonnx:{folder}")
    assert victim.sample_rate == 8000 and not victim.notes
    made = pipeline.defend(victim, ["median:3"], tmp_path / "d", context=pipeline.Context())
    assert torch.equal(made(padded()), load_victim(tmp_path / "d")(padded()))


@pytest.mark.parametrize(
    "text, word",
    [
        (f"{HEAD}  labels: [a, b]\n", "outputs hidden"),
        (f"{HEAD}  labels:\n    answer: [a, b]\n", "does not fit its 2 labels"),
        (f"{HEAD}  labels:\n    logits: [a, b]\n", "'logits'"),
        (f"{HEAD}  labels: null\n", "no card"),
        (f"{HEAD}  labels:\n{LABELS}  transform:\n    $opensmile.Smile: {{}}\n", "features"),
        (HEAD.replace("model.onnx", "../model.onnx"), "leaves the folder"),
        (HEAD.replace("model.onnx", "gone.onnx"), "no such file"),
        ("x: !!python/object/apply:os.system ['true']\n", "no plain YAML"),
        ("a: b: c", "no plain YAML"),
        ("[1, 2]", "describes no audonnx model"),
        ("$audb.Model: {path: x}", "describes no audonnx model"),
        ("", "describes no audonnx model"),
    ],
)
def test_a_folder_that_does_not_fit_is_explained(tmp_path, network, text, word):
    folder = folder_of(tmp_path, network, text)
    with pytest.raises(InvalidInput) as error:
        load_victim(f"audonnx:{folder}")
    assert word in str(error.value), str(error.value)
    with pytest.raises(InvalidInput, match="model.yaml"):
        load_victim(f"audonnx:{tmp_path}")


def test_a_model_of_dimensions_answers_with_numbers(tmp_path, network):
    text = f"{HEAD}  labels:\n    answer:\n    - arousal\n    - dominance\n    - valence\n"
    folder = folder_of(tmp_path, network, text)
    victim = load_victim(f"audonnx:{folder}")
    assert victim.task == "regression" and victim.tolerance == (0.05,) * 3
    assert victim.differentiable and "more than 0.05" in victim.notes[-1]
    (folder / "model.onnx.toml").write_text("tolerance = [0.1, 0.2, 0.3]\n")
    victim = load_victim(f"audonnx:{folder}")
    assert victim.tolerance == (0.1, 0.2, 0.3) and "0.05" not in " ".join(victim.notes)
