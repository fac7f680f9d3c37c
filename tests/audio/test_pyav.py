"""WebM, MPEG-4 and AAC are read where PyAV is installed (extra ``av``)."""

from __future__ import annotations

import io

import numpy as np
import pytest

from staanet import audio
from staanet.audio.limits import AudioLimits
from staanet.errors import UnusableClip

av = pytest.importorskip("av", reason="the extra av is not installed")
RATE = 48_000
TONE = (0.4 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)


def encoded(form: str, codec: str) -> bytes:
    """A second of a tone in a container."""
    data = io.BytesIO()
    with av.open(data, "w", format=form) as container:
        stream = container.add_stream(codec, rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(TONE[None], format="fltp", layout="mono")
        frame.rate = RATE
        resampler = av.AudioResampler(
            format=stream.format, layout="mono", rate=RATE, frame_size=stream.frame_size or None
        )
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return data.getvalue()


@pytest.mark.parametrize(("form", "codec"), [("mp4", "aac"), ("webm", "libopus"), ("adts", "aac")])
def test_foreign_containers_are_read(tmp_path, form, codec):
    path = tmp_path / "a.bin"
    path.write_bytes(encoded(form, codec))
    sound = audio.read_audio(path)
    assert sound.sample_rate == RATE and sound.channels == 1
    assert abs(len(sound.samples) - RATE) < 0.15 * RATE
    spectrum = np.abs(np.fft.rfft(sound.samples[: RATE // 2]))
    assert abs(int(spectrum.argmax()) * 2 - 440) <= 2
    with pytest.raises(UnusableClip, match="longer than"):
        audio.read_audio(path, AudioLimits(max_seconds=0.5))


def test_a_cut_or_empty_container_is_unusable(tmp_path):
    path = tmp_path / "a.webm"
    data = encoded("webm", "libopus")
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UnusableClip, match="declared s|cannot be decoded"):
        audio.read_audio(path)
    path.write_bytes(data[:60])
    with pytest.raises(UnusableClip, match="cannot be decoded|no sound"):
        audio.read_audio(path)
