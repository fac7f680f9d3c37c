"""Recordings of any length: windows that equal their parts attacked as files, joined in flat memory."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.speech import RATE, tone

from staanet import audio, corpora, pipeline, storage
from staanet.config import AttackRecipe
from staanet.core import Utterance, metrics
from staanet.corpora.recordings import Recording, file_distances, window_bounds
from staanet.errors import InvalidInput, UnusableClip
from staanet.generators.registry import save_generator
from staanet.generators.warm_start import backward_net_from
from staanet.results import adversarial_set
from staanet.victims import build_victim, load_victim


@settings(deadline=None)
@given(st.integers(1, 10**5), st.integers(20, 10**5))
def test_windows_cover_a_recording_and_none_is_short(samples, window):
    edges = window_bounds(samples, window)
    assert edges[0][0] == 0 and edges[-1][1] == samples
    assert all(a[1] == b[0] for a, b in itertools.pairwise(edges))
    assert all(end - start == window for start, end in edges[:-1])
    last = edges[-1][1] - edges[-1][0]
    assert len(edges) == 1 or window / 2 <= last < 1.5 * window


@pytest.mark.parametrize(
    "form, subtype, rate, channels",
    [
        ("WAV", "PCM_16", 16_000, 1),
        ("FLAC", "PCM_24", 44_100, 2),
        ("WAV", "FLOAT", 8_000, 1),
        ("OGG", "VORBIS", 48_000, 2),
    ],
)
def test_a_stream_is_what_is_read_at_once(tmp_path, form, subtype, rate, channels):
    x = 0.4 * np.random.default_rng(0).standard_normal((30_011, channels)).clip(-2, 2)
    soundfile.write(tmp_path / "a", x, rate, format=form, subtype=subtype)
    streamed = np.concatenate(list(audio.stream_samples(tmp_path / "a", RATE)))
    assert np.array_equal(streamed, audio.load_samples(tmp_path / "a", RATE))
    assert audio.declared_seconds(tmp_path / "a") == pytest.approx(30_011 / rate)


def test_a_stream_finds_what_is_wrong(tmp_path):
    storage.write_bytes(tmp_path / "a.wav", audio.encode(tone(2, 300), RATE)[:-1000])
    with pytest.raises(UnusableClip, match="declared"):
        list(audio.stream_samples(tmp_path / "a.wav", RATE))
    storage.write_bytes(tmp_path / "b.wav", audio.encode(tone(2, 300), RATE))
    with pytest.raises(UnusableClip, match="limit of 1 s"):
        list(audio.stream_samples(tmp_path / "b.wav", RATE, audio.AudioLimits(max_seconds=1)))
    (tmp_path / "c.wav").write_text("no audio")
    assert audio.declared_seconds(tmp_path / "c.wav") == 0
    with pytest.raises(InvalidInput, match="WAV file"):
        audio.wav_header(2**31, RATE)


def test_distances_by_accumulation_are_those_of_the_whole(tmp_path):
    rng = np.random.default_rng(1)
    clean = tone(1.3, 440)
    moved = clean + np.where(rng.random(len(clean)) < 0.1, rng.integers(-300, 300, len(clean)), 0)
    moved = moved.clip(-32768, 32767).astype(np.int16)
    for name, samples in (("c.wav", clean), ("a.wav", moved)):
        storage.write_bytes(tmp_path / name, audio.encode(samples, RATE))
    x, x_adv = (torch.from_numpy(audio.to_float(s))[None] for s in (clean, moved))
    found = file_distances(tmp_path / "c.wav", tmp_path / "a.wav", RATE)
    assert found["l0"] == int(metrics.l0(x, x_adv))
    assert found["density"] == found["l0"] / len(clean)
    assert found["linf"] == float(metrics.linf(x, x_adv))
    for name in ("snr_db", "peak_ratio_db"):
        assert found[name] == pytest.approx(float(getattr(metrics, name)(x, x_adv)), abs=1e-4)
    assert file_distances(tmp_path / "c.wav", tmp_path / "c.wav", RATE)["snr_db"] == np.inf


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """An untrained victim and its mirror; a recording of 2.2 s, silent from 1.0 to 1.5, and a clip."""
    root = tmp_path_factory.mktemp("recordings")
    torch.manual_seed(0)
    victim = build_victim("emo18", ("high", "low", "none")).eval()
    victim.save_pretrained(root / "emo18")
    save_generator(
        backward_net_from(victim, 0.1),
        root / "g",
        source="emo18",
        source_folder="../emo18",
        source_sha256=storage.read_card(root / "emo18", "victim")["sha256"],
        epsilon=0.05,
        max_density=0.1,
    )
    samples = tone(2.2, 300)
    samples[RATE : RATE * 3 // 2] = 0
    (root / "in").mkdir()
    storage.write_bytes(root / "in" / "long.wav", audio.encode(samples, RATE))
    storage.write_bytes(root / "in" / "short.wav", audio.encode(tone(0.4, 500), RATE))
    return root


def attacked(root, out, paths, window_s):
    victim, context = load_victim(root / "emo18"), pipeline.Context()
    recipe = AttackRecipe(attack="staa", epsilon=0.05, max_density=0.1)
    plan = pipeline.plan_attack("staa", recipe, victim, generator=root / "g", context=context)
    clips = pipeline.ReadingClips(corpora.unlabelled_corpus(paths), victim, context, window_s)
    pipeline.attack(plan, clips, out, context=context)
    rows = pipeline.join_recordings(clips.recordings.values(), out, context=context)
    return rows, context.quarantine


def test_each_window_equals_that_part_attacked_as_a_file(world, tmp_path):
    rows, quarantine = attacked(world, tmp_path / "o", [world / "in"], 0.5)
    whole, _ = audio.read_int16(world / "in" / "long.wav")
    parts = tmp_path / "parts"
    edges = window_bounds(len(whole), RATE // 2)
    assert len(edges) == 4 and edges[-1] == (24_000, 35_200)  # the rest of 0.2 s joins the last
    for number, (start, end) in enumerate(edges, start=1):
        data = audio.encode(whole[start:end], RATE)
        storage.write_bytes(parts / f"p{number}.wav", data)
    attacked(world, tmp_path / "p", [parts], None)
    joined = []
    for number, (start, end) in enumerate(edges, start=1):
        if number == 3:  # silent
            joined.append(whole[start:end])
            continue
        window = audio.read_int16(tmp_path / "o" / "adversarial" / f"long~{number:05d}.wav")[0]
        part = audio.read_int16(tmp_path / "p" / "adversarial" / f"p{number}.wav")[0]
        assert np.array_equal(window, part) and not np.array_equal(part, whole[start:end])
        joined.append(part)
    (row,) = rows
    assert (row["windows"], row["put_aside"], row["samples"]) == (4, 1, len(whole))
    adversarial = audio.read_int16(tmp_path / "o" / row["file_name"])[0]
    assert np.array_equal(adversarial, np.concatenate(joined))
    assert np.array_equal(audio.read_int16(tmp_path / "o" / row["original_file_name"])[0], whole)
    own = [r for r in adversarial_set.read_rows(tmp_path / "o") if r["id"].startswith("long~")]
    assert row["l0"] == sum(int(r["l0"]) for r in own)
    assert row["linf"] == max(float(r["linf"]) for r in own)
    assert [r["id"] for r in quarantine.rows] == ["long~00003"]
    assert quarantine.rows[0]["reason"] == "digital silence"
    assert "short" in {r["id"] for r in adversarial_set.read_rows(tmp_path / "o")}
    again, _ = attacked(world, tmp_path / "o", [world / "in"], 0.5)  # done: nothing is made again
    assert {k: str(v) for k, v in again[0].items()} == {k: str(v) for k, v in row.items()}


def test_a_file_that_changes_while_it_is_attacked_is_told(world, tmp_path):
    storage.write_bytes(tmp_path / "a.wav", audio.encode(tone(1, 300), RATE))
    limits = audio.AudioLimits()
    recording = Recording.measure(Utterance("a", tmp_path / "a.wav", None, "s"), RATE, 0.3, limits)
    assert recording is not None and len(recording) == 3
    storage.write_bytes(tmp_path / "a.wav", audio.encode(tone(0.7, 300), RATE))
    with pytest.raises(UnusableClip, match="shorter than when it was read first"):
        list(recording.windows())


MEASURE = """
import json, sys
from pathlib import Path
from tests.corpora.test_recordings import attacked
root, path, out = map(Path, sys.argv[1:])
attacked(root, out / "warm", [root / "in" / "short.wav"], 2.0)
rows, _ = attacked(root, out / "o", [path], 2.0)
status = Path("/proc/self/status").read_text()  # ru_maxrss would be inherited from whoever starts it
print(json.dumps([int(status.split("VmHWM:")[1].split()[0]), rows[0]["windows"]]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to read the peak from")
def test_memory_does_not_grow_with_the_length(world, tmp_path):
    peaks = []
    for seconds in (8, 60):
        path = tmp_path / f"{seconds}.wav"
        storage.write_bytes(path, audio.encode(tone(seconds, 300), RATE))
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(world), str(path), str(tmp_path / str(seconds))],
            capture_output=True,
            text=True,
            check=True,
        )
        kilobytes, windows = json.loads(done.stdout)
        assert windows == seconds // 2
        peaks.append(kilobytes / 1024)
    # whole, 60 s would take 64 features x 0.96 million samples x 4 bytes = 245 MB in one layer alone
    assert peaks[1] < peaks[0] + 60, peaks
