"""Synthetic speech: seeded, resumable, verified, and as its emotions are meant."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.support.corpora import ids_are_sorted_and_unique, refusal, speakers_are_apart

from staanet import audio, storage
from staanet.corpora import describe, espeak, load_corpus, prosody, render_synthetic
from staanet.errors import InvalidInput


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    pytest.importorskip("espeakng_loader", reason='synthetic speech: pip install "staanet[demo]"')
    folder = tmp_path_factory.mktemp("synthetic") / "corpus"
    render_synthetic(folder, voices=8, sentences=3)
    return folder


def pitch_hz(samples: np.ndarray, rate: int) -> float:
    """The median fundamental frequency of the loud frames, by autocorrelation."""
    size = rate // 25
    frames = np.lib.stride_tricks.sliding_window_view(samples / 32768, size)[:: rate // 100]
    loud = frames[frames.std(axis=1) > 0.5 * samples.std() / 32768] * np.hanning(size)
    power = np.abs(np.fft.rfft(loud, 2 * size)) ** 2
    window = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(size), 2 * size)) ** 2)[:size]
    likeness = np.fft.irfft(power)[:, :size] / window.clip(1e-3 * window[0])
    lags = np.arange(rate // 500, rate // 60)
    near_best = likeness[:, lags] > 0.9 * likeness[:, lags].max(axis=1, keepdims=True)
    rising = likeness[:, lags] >= likeness[:, lags - 1]
    falling = likeness[:, lags] >= likeness[:, lags + 1]
    return float(np.median(rate / lags[(near_best & rising & falling).argmax(axis=1)]))


def test_synthetic_speech_is_a_corpus_of_speakers_apart(rendered: Path) -> None:
    corpus = load_corpus(f"synthetic:{rendered}")
    assert len(corpus) == 8 * 4 * 3 and corpus.labels == (
        "anger",
        "happiness",
        "neutral",
        "sadness",
    )
    ids_are_sorted_and_unique(corpus)
    speakers_are_apart(corpus)
    described = describe(corpus)
    assert not described["problems"] and described["formats"] == {"16000 Hz, 1 channel": 96}


def test_synthetic_emotions_sound_as_they_are_meant(rendered: Path) -> None:
    corpus = load_corpus(f"synthetic:{rendered}")
    rows = []
    for u in corpus.utterances:
        samples, rate = audio.read_int16(u.path)
        seconds = len(samples) / rate
        assert rate == 16_000 and 0.7 < seconds < 3.5
        assert abs(samples.astype(int)).max() < 32_767, "clipped"
        assert not np.any(
            np.all(np.lib.stride_tricks.sliding_window_view(samples, 40) == 0, axis=1)
        )
        level = 10 * np.log10(np.mean((samples / 32768) ** 2))
        rows.append((u.label, u.sex, u.speaker, seconds, level, pitch_hz(samples, rate)))

    def mean(label: str, column: int, sex: tuple[str, ...] = ("female", "male")) -> float:
        return float(np.median([row[column] for row in rows if row[0] == label and row[1] in sex]))

    assert mean("sadness", 3) > 1.2 * mean("neutral", 3) > 1.2 * mean("happiness", 3)
    assert mean("anger", 4) > mean("happiness", 4) > mean("neutral", 4) > mean("sadness", 4)
    for sex in ("female", "male"):
        by_pitch = [mean(k, 5, (sex,)) for k in ("sadness", "neutral", "anger", "happiness")]
        assert by_pitch == sorted(by_pitch) and by_pitch[2] > 1.2 * by_pitch[1]
    for label in corpus.labels:
        assert mean(label, 5, ("female",)) > 1.5 * mean(label, 5, ("male",))
    assert len({round(row[3], 3) for row in rows}) > 80, "each clip varies"


def test_synthetic_speech_is_the_same_in_any_order_and_after_a_kill(
    rendered: Path, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def kill(what: str, done: int, total: int, figures: str = "") -> None:
        if done == 5:
            raise Killed

    with pytest.raises(Killed):
        render_synthetic(tmp_path / "again", kill, voices=2, sentences=2)
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "again" / "wav").iterdir()}
    assert len(kept) == 5
    with pytest.raises(InvalidInput, match="other sentences"):
        render_synthetic(tmp_path / "again", voices=2, sentences=3)
    (tmp_path / "again" / "wav" / "f2_anger_00.wav").write_bytes(b"torn")
    corpus = render_synthetic(tmp_path / "again", voices=2, sentences=2)
    assert len(corpus) == 16
    for u in corpus.utterances:
        assert u.path.read_bytes() == (rendered / "wav" / u.path.name).read_bytes()
        if u.path.name in kept and u.id != "f2_anger_00":
            assert u.path.stat().st_mtime_ns == kept[u.path.name], "not rendered twice"
    other = render_synthetic(tmp_path / "other", voices=1, sentences=1, seed=1)
    assert other.utterances[0].path.read_bytes() != corpus.utterances[0].path.read_bytes()


def test_synthetic_files_are_verified(rendered: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(rendered, folder)
    assert len(render_synthetic(folder, voices=8, sentences=3)) == 96, "nothing to do"
    with pytest.raises(InvalidInput, match="other voices, seed"):
        render_synthetic(folder, voices=6, sentences=3, seed=2)
    victim = folder / "wav" / "m1_anger_01.wav"
    data = bytearray(victim.read_bytes())
    data[999] ^= 1
    victim.write_bytes(data)
    message = refusal(f"synthetic:{folder}")
    assert "m1_anger_01.wav" in message and "Delete the folder" in message
    victim.unlink()
    assert "is missing" in refusal(f"synthetic:{folder}")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "victim"}, "is not the manifest"),
        ({"schema": 2}, "has schema 2; this version reads 1"),
        ({"files": [{"id": "../../x"}]}, "is damaged"),
        ({"files": {}}, "is damaged"),
        ({"parameters": None}, "is damaged"),
        ({"files": []}, "holds no clip"),
    ],
)
def test_a_manifest_that_lies_is_refused(change: dict, said: str, rendered, tmp_path: Path) -> None:
    good = storage.read_json(rendered / "manifest.json")
    storage.write_json(tmp_path / "manifest.json", good | change)
    assert said in refusal(f"synthetic:{tmp_path}")


def test_nothing_is_rendered_into_a_strange_folder_or_without_espeak(
    tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "draft.txt").write_text("dear reader")
    assert "holds no synthetic speech" in refusal(f"synthetic:{tmp_path / 'thesis'}")
    with pytest.raises(InvalidInput, match="voices is 99"):
        render_synthetic(tmp_path / "many", voices=99)
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    assert 'pip install "staanet[demo]"' in refusal(f"synthetic:{tmp_path / 'new'}")


def test_a_broken_espeak_is_reported(tmp_path: Path, monkeypatch) -> None:
    wheel = pytest.importorskip("espeakng_loader")
    monkeypatch.setattr(wheel, "get_data_path", lambda: str(tmp_path / "no-data"))
    assert "eSpeak NG" in refusal(f"synthetic:{tmp_path / 'a'}")
    monkeypatch.setattr(wheel, "get_library_path", lambda: str(tmp_path / "no-library.so"))
    assert "eSpeak NG ended" in refusal(f"synthetic:{tmp_path / 'b'}")


def test_an_unknown_voice_is_reported_and_the_next_one_speaks() -> None:
    pytest.importorskip("espeakng_loader")
    with espeak.start_espeak() as (_, say):
        with pytest.raises(InvalidInput, match="no voice 'xx'"):
            say("xx", "<speak>Hello.</speak>")
        first = say("en-us+m1", "<speak>Hello.</speak>")
        assert np.array_equal(first, say("en-us+m1", "<speak>Hello.</speak>"))


def test_every_voice_is_another_and_half_are_female() -> None:
    assert len({v.espeak for v in prosody.VOICES}) == len({v.name for v in prosody.VOICES})
    sexes = [v.sex for v in prosody.VOICES]
    assert sexes == ["female", "male"] * (len(sexes) // 2)
    assert len(set(prosody.SENTENCES)) == len(prosody.SENTENCES)
