"""The profile of a corpus: right figures, planted outliers named, none where all are alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.speech import RATE

from staanet import audio, storage
from staanet.corpora import describe, description_text, load_corpus
from staanet.corpora.profile import MEASURES, Profile, outlier_rows


def speech(seed: int, seconds: float = 1.0, level: float = 0.05, rate: int = RATE) -> np.ndarray:
    """Noise with pauses, so that its active level is that of the noise."""
    x = level * np.random.default_rng(seed).standard_normal(round(seconds * rate))
    x[: len(x) // 4] = 0
    return x


@pytest.fixture
def corpus(tmp_path: Path):
    """Six speakers of five clips; the last speaker is quiet, one clip loud, one narrow, one clipped."""
    for s in range(6):
        for n in range(5):
            level = 0.005 if s == 5 else 0.3 if (s, n) == (0, 0) else 0.05
            x, rate = speech(10 * s + n, level=level), RATE
            if (s, n) == (1, 0):
                narrow = audio.resample(x.astype(np.float32), RATE, 4000)
                x = audio.resample(narrow, 4000, RATE)
            if (s, n) == (2, 0):
                x = np.clip(x, -0.05, 0.05)
            if (s, n) == (3, 0):
                x, rate = speech(99, rate=8000), 8000
            path = tmp_path / "joy" / f"s{s}" / f"{n}.wav"
            storage.write_bytes(path, audio.encode(audio.snap(x), rate))
    return load_corpus(f"folder:{tmp_path}")


def outliers(profile: dict, kind: str, measure: str) -> dict[str, float]:
    entries = [e for e in profile["outliers"] if (e["of"], e["measure"]) == (kind, measure)]
    return entries[0]["named"] if entries else {}


def test_planted_outliers_are_named_and_nothing_else(corpus) -> None:
    profile = describe(corpus)["profile"]
    loud = outliers(profile, "clip", "level_db")
    quiet = {f"joy__s5__{n}" for n in range(5)}
    assert set(loud) <= {"joy__s0__0"} | quiet and len(loud) == 5
    assert set(outliers(profile, "clip", "bandwidth_hz")) == {"joy__s1__0", "joy__s3__0"}
    assert set(outliers(profile, "clip", "clipped")) == {"joy__s2__0"}
    assert outliers(profile, "clip", "sample_rate") == {"joy__s3__0": 8000.0}
    assert set(outliers(profile, "speaker", "level_db")) == {"s5"}
    assert not outliers(profile, "speaker", "bandwidth_hz") and not outliers(
        profile, "clip", "seconds"
    )


def test_figures_are_those_of_the_clips(corpus) -> None:
    profile = describe(corpus)["profile"]
    level = profile["corpus"]["level_db"]["median"]
    assert level == pytest.approx(20 * np.log10(0.05), abs=0.3), "the pauses do not count"
    assert profile["epsilon_db"]["0.03"] == pytest.approx(20 * np.log10(0.03) - level, abs=0.06)
    assert profile["epsilon_db"]["0.01"] == pytest.approx(20 * np.log10(0.01) - level, abs=0.06)
    assert profile["speakers"]["s5"]["level_db"] == pytest.approx(20 * np.log10(0.005), abs=0.3)
    assert profile["corpus"]["sample_rate"] == {"16000": 29, "8000": 1}
    assert profile["corpus"]["seconds"]["median"] == 1.0
    json.dumps(profile, allow_nan=False)


def test_the_profile_is_shown(corpus) -> None:
    text = description_text(describe(corpus))
    assert "level     -26" in text and "0.03 is 4." in text and "below, 0.01 is 1" in text
    assert "outlier   active level of 1 speaker: s5 -4" in text
    assert "speaker   s5: level -46" in text and "epsilon 0.03 is 15." in text
    assert "sample rate of 1 clip: joy__s3__0 8000 Hz; usual is 16000 Hz" in text


def test_a_quiet_corpus_warns_that_epsilon_is_louder_than_the_speech(tmp_path: Path) -> None:
    for n in range(3):
        samples = audio.snap(speech(n, level=0.02))
        storage.write_bytes(tmp_path / "joy" / "s" / f"{n}.wav", audio.encode(samples, RATE))
    warnings = describe(load_corpus(f"folder:{tmp_path}"))["warnings"]
    assert any(w.startswith("epsilon 0.03 of full scale is louder than") for w in warnings)


def test_silent_and_broken_clips_have_no_profile(tmp_path: Path) -> None:
    storage.write_bytes(tmp_path / "joy" / "a.wav", audio.encode(np.zeros(400, np.int16), RATE))
    storage.write_bytes(tmp_path / "joy" / "b.wav", b"no sound")
    described = describe(load_corpus(f"folder:{tmp_path}"))
    assert described["profile"] == {} and len(described["problems"]) == 2
    assert "level" not in description_text(described)


@given(st.lists(st.floats(-1e3, 1e3), max_size=30), st.floats(0, 10))
def test_outliers_are_beyond_both_bounds_and_farthest_first(values: list, least: float) -> None:
    column = np.array(values, np.float64)
    if not len(column):
        return
    rows, bound = outlier_rows(column, least)
    distance = np.abs(column - np.median(column))
    assert bound >= least and (np.diff(distance[rows]) <= 0).all()
    assert (distance[rows] > bound).all() and (len(column) >= 5 or not len(rows))
    if len(column) >= 5:
        assert len(rows) == (distance > bound).sum()


def test_a_profile_takes_little_memory_for_each_clip() -> None:
    profile = Profile()
    x = speech(0, 0.1).astype(np.float32)
    for index in range(50):
        profile.add(index, "s", x, RATE)
    size = sum(profile.columns[name].itemsize for name in MEASURES)
    assert size + profile.indices.itemsize + profile.speaker_of_row.itemsize <= 64
