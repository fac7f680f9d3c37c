"""The models inside the package: whole, small, described, and enough to attack a clip without any set-up."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from tests.support.speech import RATE, real_speech, tone
from typer.testing import CliRunner

from staanet import audio, corpora, storage, victims
from staanet.attacks import logits_of
from staanet.cli import app
from staanet.core import metrics
from staanet.errors import InvalidInput
from staanet.generators.registry import load_generator
from staanet.pipeline import source_of
from staanet.report import model_cards
from staanet.storage import pretrained
from staanet.victims import load_victim

MODELS = [(kind, name) for kind in ("victims", "generators") for name in pretrained.names(kind)]


@pytest.mark.parametrize("kind, name", MODELS)
def test_each_has_its_weights_its_figures_and_a_card_for_people(kind, name):
    folder = pretrained.folder(kind, name)
    _, card = storage.load_model(folder, kind=kind.removesuffix("s"))  # sha256 is checked
    assert card["precision"] == "float16" and card["recipe"] and card["licence"]
    assert card["test_uar" if kind == "victims" else "test_fooling_rate"]
    assert (folder / "MODEL_CARD.md").read_text("utf-8") == model_cards.model_card(card)


def test_they_are_at_most_twenty_megabytes():
    assert sum(path.stat().st_size for path in pretrained.ROOT.rglob("*")) < 20e6


@pytest.mark.parametrize("name", pretrained.names("generators"))
def test_each_generator_finds_its_sources(name):
    folder = pretrained.folder("generators", name)
    source = source_of(folder)  # its hash is that of the card
    generator = load_generator(folder)
    assert generator.sample_rate == source.sample_rate and generator.labels == source.labels


def test_a_victim_is_named_by_its_scheme():
    victim = load_victim("shipped:emo18")
    assert victim.name == "emo18" and len(victim.labels) == 7
    assert (
        victim.sha256
        == storage.read_card(pretrained.folder("victims", "emo18"), "victim")["sha256"]
    )
    with pytest.raises(InvalidInput, match="emo18"):
        load_victim("shipped:emo81")


def test_a_clip_is_attacked_without_any_set_up(tmp_path):
    storage.write_bytes(tmp_path / "my.wav", audio.encode(tone(1.5, 200.0), RATE))
    done = subprocess.run(
        [sys.executable, "-m", "staanet", "attack", "my.wav", "--out", "fooled", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (clip,) = json.loads(done.stdout)["clips"]
    assert set(clip["answers"]) == set(pretrained.names("victims"))
    assert 0 < clip["density"] <= 0.2 and clip["snr_db"] >= 12
    (picture,) = (tmp_path / "fooled" / "pictures").glob("*.png")
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_without_transformers_the_victims_that_need_it_are_left_out_and_named(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert victims.missing_extra("shipped:emo18") is None
    assert "staanet[ssl]" in str(victims.missing_extra("shipped:wav2vec2_tiny"))
    clip, out = tmp_path / "my.wav", tmp_path / "fooled"
    storage.write_bytes(clip, audio.encode(tone(1.5, 200.0), RATE))
    done = CliRunner().invoke(app, ["attack", str(clip), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.stderr
    (told,) = json.loads(done.stdout)["clips"]
    assert set(told["answers"]) == {"emo18", "zhao19"}
    assert "without shipped:wav2vec2_tiny: the package transformers" in done.stderr


def test_the_card_tells_the_truth():
    corpus = corpora.load_corpus(f"emodb:{real_speech('emodb')}")
    test = list(corpus.split(0)[2].clips(RATE))
    card = storage.read_card(pretrained.folder("victims", "wav2vec2_tiny"), "victim")
    victim = load_victim("shipped:wav2vec2_tiny")
    answers = [victim.labels[i] for i in logits_of(victim, test).argmax(axis=1)]
    recall = metrics.uar([clip.label or "" for clip in test], answers)
    assert np.isclose(recall, card["test_uar"], atol=0.02)  # a clip at a boundary may tip over


def test_the_shipped_transformer_is_a_model_of_the_library_too():
    pytest.importorskip("transformers", reason="extra ssl")
    folder = pretrained.folder("victims", "wav2vec2_tiny")
    ours, theirs = load_victim(folder), load_victim(f"hf:{folder}")
    x = 0.1 * torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))
    assert theirs.labels == ours.labels and theirs.sample_rate == ours.sample_rate
    assert torch.allclose(theirs(x), ours(x), atol=1e-3)
