"""The baseline on openSMILE's features: trained by name, read again, a black box that attacks can ask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.support.speech import clip, real_speech

from staanet import audio, corpora, pipeline, storage, training
from staanet.attacks import ATTACKS, craft
from staanet.config import VictimRecipe
from staanet.core import Budget
from staanet.errors import StaaNetError
from staanet.victims import Egemaps, load_victim
from staanet.victims.egemaps import standardise_features

pytest.importorskip("opensmile", reason="the extra opensmile is not installed")
pytest.importorskip("sklearn", reason="the extra opensmile is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Trained by name on high and low tones of six speakers."""
    root = tmp_path_factory.mktemp("egemaps")
    for label, hz in (("high", 300.0), ("low", 120.0)):
        for speaker in range(6):
            tone = clip(0.3, hz + 5 * speaker, seed=speaker).pcm16
            path = root / "corpus" / label / f"s{speaker}" / "0.wav"
            path.parent.mkdir(parents=True)
            storage.write_bytes(path, audio.encode(tone, 16_000))
    pipeline.train_victim(
        corpora.load_corpus(f"folder:{root / 'corpus'}"),
        "egemaps",
        root / "victim",
        recipe=VictimRecipe(),
        context=pipeline.Context(),
    )
    return root / "victim"


def test_it_separates_pitch_and_is_the_same_function_once_read_again(folder):
    victim, card = load_victim(folder), storage.read_card(folder, "victim")
    assert card["test_uar"] == 1.0 and victim.labels == ("high", "low")
    high, low = (victim(clip(0.3, hz, seed=9).waveform[None]) for hz in (310.0, 125.0))
    assert high.argmax() == 0 and low.argmax() == 1
    assert torch.allclose(high.sum(), torch.tensor(0.0), atol=1e-6)  # two classes, one score


@pytest.mark.parametrize("labels", [("b", "a"), ("b", "c", "a")])
def test_its_scores_are_those_of_the_fitted_model(labels):
    rng = np.random.default_rng(0)
    truth = np.array(sorted(labels) * 4)
    features = rng.standard_normal((len(truth), 88)) + 3 * (truth == "a")[:, None]
    fitted, victim = training.linear._Scaled.fit(features, truth, 0.1), Egemaps(labels)
    fitted.copy_to(victim)
    x = clip(0.3)
    scaled = standardise_features(victim.functionals(x.samples[None]), fitted.mean, fitted.std)
    shares = torch.softmax(victim(x.waveform[None])[0], dim=0)
    expected = dict(zip(fitted.model.classes_, fitted.model.predict_proba(scaled)[0], strict=True))
    assert shares.tolist() == pytest.approx([expected[label] for label in labels], abs=1e-6)


def test_folds_keep_speakers_apart_and_need_two_of_each_class():
    labels, speakers = np.array(["a", "b"] * 4), np.array(list("uuvvwwxx"))
    folds = training.linear._speaker_folds(labels, speakers)
    assert len(folds) == 4 and all(
        not set(speakers[inside]) & set(speakers[~inside]) for inside in folds
    )
    assert training.linear._speaker_folds(labels, labels) == []


def test_it_is_a_black_box_that_queries_can_attack(folder):
    victim = load_victim(folder)
    with pytest.raises(StaaNetError) as error:
        victim(torch.zeros(1, 4000, requires_grad=True))
    assert "black box" in str(error.value)
    attack = ATTACKS["sparse_rs"](budget=Budget(epsilon=0.1, max_density=0.1), steps=5)
    (pair,) = craft(attack, victim, [clip(0.2)])
    assert 1 <= pair.queries <= 6
    with pytest.raises(StaaNetError):
        victim(torch.zeros(1, victim.minimum_samples - 1))
    assert torch.isfinite(victim(torch.zeros(1, victim.minimum_samples))).all()


def test_real_speech_gives_finite_features(folder):
    corpus = corpora.load_corpus(f"emodb:{real_speech('emodb')}")
    victim = load_victim(folder)
    features = np.stack([victim.functionals(c.samples[None])[0] for c in corpus[:3]])
    assert features.shape == (3, 88) and np.isfinite(features).all()
