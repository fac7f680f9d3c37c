"""``python:FILE.py:FACTORY`` gives the user's own model; what fails is named with file, line and function."""

from __future__ import annotations

import sys

import pytest
import torch
from tests.support.speech import clip
from tests.support.waveforms import padded
from typer.testing import CliRunner

from staanet import pipeline
from staanet.attacks import ATTACKS, craft
from staanet.cli import app
from staanet.errors import InvalidInput, VictimError
from staanet.evaluation import transfer_matrix
from staanet.victims import load_victim, python_file

MODEL = """
import torch
from torch import nn
import staanet
from helper import BANDS

class Envelope(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(BANDS, 2)

    def forward(self, x):
        if x.shape[1] == 999:
            raise ValueError("not this one")
        return self.layer(nn.functional.adaptive_avg_pool1d(x.abs(), BANDS))

class Louder(staanet.Victim):
    architecture = "louder"
    def __init__(self):
        super().__init__(name="louder", labels=["high", "low"], sample_rate=16_000)
    def logits(self, x, lengths):
        return torch.stack([x.amax(1), x.amin(1) / (1 / (len(x[0]) - 999))], 1)

def parts():
    return Envelope(), ["high", "low"], 16_000

def victim():
    return staanet.TorchVictim(Envelope(), ["high", "low"], 16_000, name="mine")

def subclass():
    return Louder()

def two(): return 1, 2
def number(): return 5
def needs(path): return path
def divides(): return 1 / 0
def leaves(): raise SystemExit(3)
def wrong_labels(): return Envelope(), ["high"], 16_000
def function(): return torch.square, ["high", "low"], 16_000
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    (tmp_path / "helper.py").write_text("BANDS = 8\n")
    (tmp_path / "model.py").write_text(MODEL)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "helper", raising=False)
    return tmp_path / "model.py"


@pytest.mark.parametrize(
    "factory, name", [("parts", "parts"), ("victim", "mine"), ("subclass", "louder")]
)
def test_a_factory_gives_a_white_box_with_a_hash_of_its_code(file, factory, name):
    victim, x = load_victim(f"python:{file}:{factory}"), padded().requires_grad_()
    assert (victim.name, victim.labels, victim.differentiable) == (name, ("high", "low"), True)
    victim(x).sum().backward()
    assert x.grad.abs().sum() > 0
    again = load_victim(f"python:{file}:{factory}")
    assert again.sha256 == victim.sha256
    if victim.sha256:
        file.write_text(MODEL + "\n# changed\n")
        assert load_victim(f"python:{file}:{factory}").sha256 != again.sha256


@pytest.mark.parametrize(
    "factory, words",
    [
        ("two", ["two returned (int, int)"]),
        ("number", ["number returned int"]),
        ("needs", ["needs raised TypeError", "path"]),
        ("divides", ["divides raised ZeroDivisionError", "model.py:37, in divides"]),
        ("leaves", ["leaves raised SystemExit", "in leaves"]),
        ("wrong_labels", ["labels are ['high']"]),
        ("function", ["(builtin_function_or_method, list, int)", "staanet.TorchVictim(function"]),
        ("victm", ["unknown function 'victm'", "'victim'"]),
        ("", ["no such file or function"]),
        ("not a name", ["no such file or function"]),
    ],
)
def test_a_factory_that_fails_is_explained(file, factory, words):
    with pytest.raises(InvalidInput) as error:
        load_victim(f"python:{file}:{factory}")
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    "code, words",
    [
        ("def victim(:\n", ["SyntaxError in line 1"]),
        ("import nowhere_at_all\n", ["ModuleNotFoundError", "nowhere_at_all", "model.py:1"]),
        ("raise SystemExit\n", ["SystemExit", "model.py:1"]),
        ("\0", ["victim"]),
    ],
)
def test_a_file_that_does_not_run_is_explained(file, code, words):
    file.write_text(code)
    with pytest.raises(InvalidInput) as error:
        load_victim(f"python:{file}:victim")
    assert all(word in str(error.value) for word in [*words, str(file)]), str(error.value)


def test_an_exception_of_the_model_names_file_line_and_function(file):
    with pytest.raises(VictimError, match=r"ValueError: not this one \(model.py:15, in forward\)"):
        load_victim(f"python:{file}:parts")(torch.zeros(1, 999))
    with pytest.raises(VictimError, match=r"ZeroDivisionError.*\(model.py:23, in logits\)"):
        load_victim(f"python:{file}:subclass")(torch.zeros(1, 999))


def test_a_folder_names_the_file_and_runs_no_code_by_itself(file, tmp_path, monkeypatch):
    spec = f"python:{file}:parts"
    defended = pipeline.defend(
        load_victim(spec), ["median:3"], tmp_path / "d", context=pipeline.Context()
    )
    assert torch.equal(load_victim(tmp_path / "d")(padded()), defended(padded()))
    monkeypatch.setattr(python_file, "_NAMED", set())
    with pytest.raises(InvalidInput, match="no folder runs code by itself"):
        load_victim(tmp_path / "d")
    file.write_text(MODEL.replace("manual_seed(0)", "manual_seed(1)"))
    load_victim(spec)
    with pytest.raises(InvalidInput, match="changed since"):
        load_victim(tmp_path / "d")


def test_it_is_attacked_and_judged_and_a_command_explains_a_failure(file, tmp_path):
    victim, clips = (
        load_victim(f"python:{file}:parts"),
        [clip(0.1), clip(0.1, 300.0, seed=1, id="b")],
    )
    adversarial = craft(ATTACKS["fgsm"](), victim, clips)
    (cell,) = transfer_matrix([adversarial], [victim]).summary["cells"]
    assert cell["white_box"] and cell["target"] == "parts"
    adversarial.save(tmp_path / "set")
    command = ["evaluate", str(tmp_path / "set"), "--out", str(tmp_path / "r"), "--target"]
    done = CliRunner().invoke(app, [*command, f"python:{file}:divides"])
    assert done.exit_code == 3 and "in divides" in done.output and "Traceback" not in done.output
