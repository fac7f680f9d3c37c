"""``--label-map`` through each command that takes a model with other words than the corpus."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest
import torch
from typer.testing import CliRunner

from staanet import storage
from staanet.cli import app
from staanet.pipeline import everyday_change
from staanet.victims import build_victim

MODEL = '''
import torch
from torch import nn


class Bands(nn.Module):
    """The energy near 1200 and near 200 Hz, ``[B, T] -> [B, 2]``."""

    def __init__(self):
        super().__init__()
        time = torch.arange(320) / 16_000
        waves = [torch.sin(6.2832 * hz * time + p) for hz in (1200, 200) for p in (0.0, 1.5708)]
        self.filters = nn.Parameter(torch.stack(waves)[:, None])

    def forward(self, x):
        power = nn.functional.conv1d(x[:, None], self.filters, stride=160).square().mean(2)
        return power.view(-1, 2, 2).sum(2).add(1e-6).log()


def build():
    return Bands(), ["LABEL_0", "LABEL_1"], 16_000
'''
MAP = "LABEL_0=high,LABEL_1=low"
TRAINING = ["--steps", "1", "--batch-size", "2", "--seconds", "0.2"]
COMMANDS = {
    "attack": [
        "CORPUS",
        "--source",
        "MODEL",
        "--attack",
        "fgsm",
        "--label",
        "high",
        "--clips",
        "2",
    ],
    "sweep": [
        "CORPUS",
        "--source",
        "MODEL",
        "--attack",
        "fgsm",
        "--epsilon",
        "0.01",
        "--density",
        "1",
    ],
    "train-generator": ["CORPUS", "--source", "MODEL", "--goal", "targeted", *TRAINING],
    "train-uap": ["CORPUS", "--source", "MODEL", *TRAINING],
    "tune": ["CORPUS", "--source", "MODEL", "--trials", "1", "--network", "narrow", *TRAINING],
    "detect": ["CORPUS", "--victim", "MODEL", "--detector", "residual"],
    "budget": ["CORPUS", "--victim", "MODEL", "--density", "1", "--clips", "2"],
    "everyday": ["--victim", "MODEL", "--corpus", "CORPUS", "--clips", "2"],
    "defend": ["--victim", "MODEL", "--with", "median:3", "--corpus", "CORPUS"],
    "certify": ["CORPUS", "--victim", "MODEL", "--method", "smoothing", "--clips", "1"],
}
"""The words of each command; ``--out`` and ``--label-map`` are added."""
CHECKS = {
    "attack": lambda result: {clip["before"] for clip in result["clips"]} == {"high", "low"},
    "everyday": lambda result: result["uar"] == 1.0,
    "defend": lambda card: card["test_uar"] == 1.0 and card["labels"] == ["LABEL_0", "LABEL_1"],
    "certify": lambda result: result["right"] == 1,
}
"""What shows in the answers that the words have met."""


def run(words, out, label_map, corpus, model):
    names = {"CORPUS": f"folder:{corpus}", "MODEL": model}
    extra = [] if label_map is None else ["--label-map", label_map]
    words = [words[0], *(names.get(word, word) for word in words[1:]), *extra]
    words += [] if words[0] == "budget" else ["--out", str(out)]
    return CliRunner().invoke(app, [*words, "--json"])


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "bands.py"
    path.write_text(MODEL)
    return f"python:{path}:build"


@pytest.fixture(autouse=True)
def few_conditions(monkeypatch):
    monkeypatch.setattr(everyday_change, "CONDITIONS", {"unheard": {"6 dB louder": "gain:6"}})


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_takes_the_map(command, model, tiny_corpus, tmp_path):
    if command == "tune" and find_spec("optuna") is None:
        pytest.skip("the extra tune is not installed")
    done = run([command, *COMMANDS[command]], tmp_path / "out", MAP, tiny_corpus, model)
    assert done.exit_code == 0, f"{done.stderr} {done.exception!r}"
    result = json.loads(done.stdout)
    meets = command not in (
        "budget",
        "sweep",
        "train-generator",
        "tune",
    )  # no word of theirs counts
    assert ("LABEL_0 = high, LABEL_1 = low" in done.stderr) is meets
    assert CHECKS.get(command, lambda _: True)(result), result
    wrong = run([command, *COMMANDS[command]], tmp_path / "no", "LABEL_7=high", tiny_corpus, model)
    assert wrong.exit_code == 3 and "'LABEL_7'" in wrong.stderr


def test_without_a_map_no_uar_is_told_of_words_that_say_nothing(model, tiny_corpus, tmp_path):
    words = [*COMMANDS["defend"]]
    refused = run(["defend", *words], tmp_path / "defended", None, tiny_corpus, model)
    assert refused.exit_code == 3 and "--label-map LABEL_0=" in refused.stderr
    done = run(["everyday", *COMMANDS["everyday"]], tmp_path / "day", None, tiny_corpus, model)
    assert done.exit_code == 0 and json.loads(done.stdout)["uar"] is None


def test_a_word_that_no_clip_has_is_flagged(tiny_corpus, model, tmp_path):
    label_map = "LABEL_0=high,LABEL_1=lwo"
    done = run(["defend", *COMMANDS["defend"]], tmp_path / "out", label_map, tiny_corpus, model)
    assert done.exit_code == 3 and "lwo" in done.stderr


def test_a_model_that_answers_always_the_same_gives_no_everyday_figure(tiny_corpus, tmp_path):
    (tmp_path / "bands.py").write_text(MODEL.replace(".log()", ".log() * 0"))
    model = f"python:{tmp_path / 'bands.py'}:build"
    done = run(["everyday", *COMMANDS["everyday"]], tmp_path / "day", MAP, tiny_corpus, model)
    assert done.exit_code == 3 and "same number" in done.stderr


def test_a_victim_is_hardened_on_the_words_that_the_map_gives(tiny_corpus, tmp_path):
    torch.manual_seed(0)
    victim = tmp_path / "victim"
    build_victim("logmel_cnn", ("LABEL_0", "LABEL_1")).eval().save_pretrained(victim)
    words = ["harden", "CORPUS", "--victim", str(victim), "--method", "pgd", *TRAINING]
    words += ["--inner-steps", "1", "--steps", "3", "--learning-rate", "0.01"]
    cards, weights = {}, {}
    maps = {
        "model": MAP,
        "corpus": "high=LABEL_0,low=LABEL_1",
        "swapped": "LABEL_0=low,LABEL_1=high",
    }
    for name, label_map in maps.items():
        done = run(words, tmp_path / name, label_map, tiny_corpus, "")
        assert done.exit_code == 0, f"{done.stderr} {done.exception!r}"
        weights[name], cards[name] = storage.load_model(tmp_path / name, kind="victim")
        assert ("LABEL_0 = " in done.stderr) is (name != "corpus")
    layers = [n for n, w in weights["model"].items() if not torch.equal(w, weights["corpus"][n])]
    assert not layers
    layers = [n for n, w in weights["model"].items() if not torch.equal(w, weights["swapped"][n])]
    assert layers
    assert cards["model"]["labels"] == ["LABEL_0", "LABEL_1"]
    again = run(words, tmp_path / "model", maps["swapped"], tiny_corpus, "")
    assert again.exit_code == 3 and "Choose another --out" in again.stderr
    lacking = run(words, tmp_path / "none", None, tiny_corpus, "")
    assert lacking.exit_code == 3 and "--label-map LABEL_0=" in lacking.stderr
    wrong = run(words, tmp_path / "wrong", "LABEL_7=high", tiny_corpus, "")
    assert wrong.exit_code == 3 and "'LABEL_7'" in wrong.stderr


def test_words_are_matched_with_all_classes_of_the_corpus(model, tiny_corpus, tmp_path):
    """One clip has one class; the aim is the other, which only the corpus names."""
    words = COMMANDS["attack"][:-1] + ["1"]
    for label in ("high", "low"):
        aimed = [label if word == "high" else word for word in words]
        done = run(["attack", *aimed], tmp_path / label, MAP, tiny_corpus, model)
        assert done.exit_code == 0, done.stderr
        assert "LABEL_0 = high, LABEL_1 = low" in done.stderr and "no clip has" not in done.stderr
