"""Models of other packages, each named by one argument, go through ``attack`` and ``audit`` to the end."""

from __future__ import annotations

import ast
import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tests.support.speech import clip
from tests.victims.test_onnx import Outputs, written
from typer.testing import CliRunner

from staanet import audio, storage
from staanet.cli import app
from staanet.victims import load_victim

ROOT = Path(__file__).parents[2]
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "id2label": {0: "high", 1: "low"},
}
SPEECH = {**SMALL, "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16}
SPEECH |= {"num_conv_pos_embedding_groups": 4}
AUDIT = [
    "--clips",
    "4",
    "--query-clips",
    "1",
    "--queries",
    "2",
    "--surrogate",
    "logmel_cnn",
    "--surrogate-steps",
    "1",
    "--generator-steps",
    "1",
    "--batch-size",
    "2",
    "--seconds",
    "0.3",
    "--epsilon",
    "0.02",
    "--density",
    "1",
    "--channel",
    "mulaw",
    "--defence",
    "quantise:8",
    "--defended-clips",
    "2",
    "--no-everyday",
    "--json",
]
PACKAGES = {
    "voice_activity": ("silero_vad", ("silence", "speech"), "white box"),
    "end_of_turn": ("pipecat", ("incomplete", "complete"), "black box"),
    "speech_quality": ("speechmos", ("high", "low"), "white box"),
    "speaker": ("resemblyzer", ("high", "low"), "white box"),
}
"""The examples: the package that each needs, the classes of its corpus, and what it gives."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Writes tones of six speakers in folders of two classes."""

    def make(labels=("high", "low"), seconds=0.6, takes=1):
        root = tmp_path_factory.mktemp("tones")
        for number, label in enumerate(labels):
            for index in range(6):
                tone = clip(seconds, 180 + 400 * number + 5 * index, seed=index).pcm16
                path = root / label / f"s{index // takes}" / f"{index % takes}.wav"
                storage.write_bytes(path, audio.encode(tone, 16_000))
        return f"folder:{root}"

    return make


def run(*arguments):
    """The JSON that a command prints."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, f"{done.stderr} {done.exception!r}"
    return json.loads(done.stdout)


def attack_and_audit(spec, corpus, folder, answer, *options):
    """Both commands to their end, with no figure that is not finite."""
    victim = load_victim(spec)
    assert victim.differentiable is (answer == "white box"), victim.notes
    attack = ["--attack", "fgsm"] if victim.differentiable else ["--attack", "sparse_rs"]
    attack += [] if victim.differentiable else ["--set", "steps=2"]
    budget = ("--epsilon", 0.02, "--max-density", 1, "--clips", 2, "--json", *options)
    assert run("attack", corpus, "--source", spec, *attack, *budget, "--out", folder / "set")
    audit = ["--victim", spec, "--corpus", corpus, "--out", folder / "audit"]
    facts = run("audit", *audit, *AUDIT, *options)
    assert facts["victim"]["gradients"] is victim.differentiable
    assert ("white_box" in facts["attackers"]) is victim.differentiable
    rates = [cell["fooling_rate"] for cell in facts["cells"]]
    assert rates and all(0 <= rate <= 1 for rate in rates)
    assert "noise" in facts["attackers"] and facts["verdict"]


def saved(folder, network, extractor=None):
    """A folder as the library saves it."""
    for part in filter(None, (network, extractor)):
        part.save_pretrained(folder)
    return f"hf:{folder}"


def wav2vec2(folder):
    lib = pytest.importorskip("transformers", reason="the extra ssl is not installed")
    return saved(folder, lib.Wav2Vec2ForSequenceClassification(lib.Wav2Vec2Config(**SPEECH)))


def wav2vec2_of_emotion(folder, **settings):
    lib = pytest.importorskip("transformers", reason="the extra ssl is not installed")
    from staanet.victims.speech_head import speech_classifier

    config = lib.Wav2Vec2Config(**{**SPEECH, **settings})
    return saved(folder, speech_classifier("wav2vec2")(config))


def wav2vec2_of_numbers(folder):
    names = {0: "arousal", 1: "dominance", 2: "valence"}
    return wav2vec2_of_emotion(folder, id2label=names, problem_type="regression")


def whisper(folder):
    lib = pytest.importorskip("transformers", reason="the extra ssl is not installed")
    sizes = {f"{part}_{what}": n for part in ("encoder", "decoder") for what, n in WHISPER}
    config = lib.WhisperConfig(
        d_model=32, max_source_positions=50, vocab_size=8, pad_token_id=0, num_mel_bins=16,
        classifier_proj_size=16, id2label=SMALL["id2label"], **sizes,
    )  # fmt: skip
    extractor = lib.WhisperFeatureExtractor(feature_size=16, chunk_length=1)
    return saved(folder, lib.WhisperForAudioClassification(config), extractor)


def spectrogram_transformer(folder):
    lib = pytest.importorskip("transformers", reason="the extra ssl is not installed")
    config = lib.ASTConfig(**SMALL, max_length=64, num_mel_bins=32)
    extractor = lib.ASTFeatureExtractor(max_length=64, num_mel_bins=32)
    return saved(folder, lib.ASTForAudioClassification(config), extractor)


def audonnx(folder):
    pytest.importorskip("yaml", reason="the extra audonnx is not installed")
    folder.mkdir()
    written(folder / "model.onnx", Outputs(), (torch.ones(2, 400),), ["x"], outputs=["h", "answer"])
    text = "$audonnx.core.model.Model==1.0.1:\n  path: model.onnx\n  labels:\n    answer: "
    (folder / "model.yaml").write_text(f"{text}[high, low, other]\n")
    return f"audonnx:{folder}"


WHISPER = (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))
MADE = (
    wav2vec2,
    wav2vec2_of_emotion,
    wav2vec2_of_numbers,
    whisper,
    spectrogram_transformer,
    audonnx,
)


@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)
def test_a_folder_of_another_library_is_attacked_and_audited(make, corpus, tmp_path):
    torch.manual_seed(0)
    attack_and_audit(make(tmp_path / "model"), corpus(), tmp_path, "white box")


def test_a_folder_of_egemaps_is_attacked_and_audited(corpus, tmp_path):
    pytest.importorskip("opensmile", reason="the extra opensmile is not installed")
    pytest.importorskip("sklearn", reason="the extra opensmile is not installed")
    clips = corpus(seconds=0.3)
    run("train-victim", clips, "egemaps", "--out", tmp_path / "egemaps", "--json")
    attack_and_audit(tmp_path / "egemaps", clips, tmp_path, "black box")


@pytest.mark.parametrize("name", PACKAGES)
def test_an_example_of_a_package_is_attacked_and_audited(name, corpus, tmp_path, monkeypatch):
    package, labels, answer = PACKAGES[name]
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed: make models")
    takes, options = (3, ["--classes", "speaker"]) if name == "speaker" else (1, [])
    clips = corpus(labels, seconds=1.0, takes=takes)
    monkeypatch.setenv("SPEAKERS", clips)
    file = ROOT / "examples" / "models" / f"{name}.py"
    if name == "speech_quality":  # its network takes 9 s of each clip
        options = ["--clips", "1"]
    attack_and_audit(f"python:{file}:build", clips, tmp_path, answer, *options)


@pytest.mark.parametrize("name", PACKAGES)
def test_an_example_is_short_and_the_page_shows_it_with_its_gradient(name):
    path = ROOT / "examples" / "models" / f"{name}.py"
    text, page = path.read_text("utf-8"), (ROOT / "docs" / "models.md").read_text("utf-8")
    tree = ast.parse(text)
    skipped = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    skipped += [
        n.body[0] for n in ast.walk(tree) if isinstance(n, documented) and ast.get_docstring(n)
    ]
    rest = {*range(1, len(text.splitlines()) + 1)}
    rest -= {line for node in skipped for line in range(node.lineno, node.end_lineno + 1)}
    code = [line for line in rest if text.splitlines()[line - 1].strip()]
    assert len(code) < 20, f"{len(code)} lines"
    assert f'"examples/models/{name}.py"' in page
    row = next(line for line in page.splitlines() if f"{name}.py:build`" in line)
    assert PACKAGES[name][2] in row
