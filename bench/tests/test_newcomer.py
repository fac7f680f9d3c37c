"""The newcomer's walk: what it copies, what it refuses to call a success, and what it writes."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from bench import newcomer
from bench.newcomer import Step
from tests.support.speech import RATE, tone

from staanet import audio, corpora, storage
from staanet.core import Corpus, Utterance


def stored(path, samples):
    storage.make_folder(path.parent)
    storage.write_bytes(path, audio.encode(samples, RATE))
    return path


def test_class_folders_under_names_of_their_own_are_a_corpus_with_the_same_speakers(tmp_path):
    spoken = tuple(
        Utterance(
            f"{label}{speaker}",
            stored(tmp_path / "from" / f"{label}{speaker}.wav", tone(0.3, hz)),
            label,
            speaker,
        )
        for label, hz in (("anger", 300.0), ("boredom", 400.0), ("neutral", 500.0))
        for speaker in ("03", "08")
    )
    corpus = Corpus("some", spoken, ("anger", "boredom", "neutral"))
    assert newcomer.copied(corpus, tmp_path / "meine Aufnahmen") == 4
    read = corpora.load_corpus(f"folder:{tmp_path / 'meine Aufnahmen'}")
    assert sorted(read.labels) == ["sachlich", "Ärger"] and len(read) == 4
    assert read.speakers == ("voice 03", "voice 08")


def test_a_recording_is_what_a_sound_card_makes_of_a_clip(tmp_path):
    newcomer.record(stored(tmp_path / "a.wav", tone(0.5, 440.0)), tmp_path / "my voice.wav")
    samples, rate = soundfile.read(tmp_path / "my voice.wav")
    assert rate == 44_100 and samples.shape == (22_050, 2)
    back = audio.load_samples(tmp_path / "my voice.wav", RATE)
    assert np.corrcoef(back, tone(0.5, 440.0))[0, 1] > 0.999


def test_only_a_changed_clip_within_the_budget_is_a_success(tmp_path):
    clean = tone(0.5, 440.0)
    moved = clean.copy()
    moved[100:110] += 900  # of at most 983
    paths = [stored(tmp_path / f"{i}.wav", x) for i, x in enumerate((clean, moved, moved + 500))]
    assert newcomer.kept(paths[0], paths[1]) == "10 of 8,000 samples changed, within the budget"
    for other in (paths[0], paths[2]):  # nothing changed; too many samples
        with pytest.raises(AssertionError):
            newcomer.kept(paths[0], other)
    with pytest.raises(AssertionError):
        newcomer.turned({"emo18": ["fear", "fear"]})


def test_the_sections_have_every_step_and_the_sums_that_matter():
    page = [
        Step("pip install 'staanet[web]'", 60.0, 40.0, "70 packages"),
        Step("download the adversarial clip", 7.0, 0.0, "kept"),
        Step("staanet attack 'my voice.wav' --out fooled", 4.0, 3.0, "fooled 2 of 2"),
    ]
    corpus = [
        Step("staanet corpus 'folder:x'", 3.0, 2.0, "268 clips"),
        Step("staanet run folder", 597.0, 580.0, "staa fooled emo18"),
    ]
    told = newcomer.section("page", page, "Python 3.11", 1.25)
    assert "The installation took 60 s. The steps up to the downloaded clip took 7 s." in told
    assert "The load at the start was 1.2." in told
    assert all(f"| `{one.what}` | {one.seconds:.1f} |" in told for one in page)
    told = newcomer.section("corpus", corpus, "Python 3.11", 0.0)
    assert "from the folder to the report took 10.0 minutes." in told and "installation" not in told
