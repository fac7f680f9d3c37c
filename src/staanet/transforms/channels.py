"""What audio goes through on its way to a classifier: codecs, resampling, level, room, noise.

A channel takes 16-bit mono samples and returns as many, aligned with its input: what a codec delays
or pads is cut. The same samples, rate and ``seed`` give the same result. It is written
``NAME[:SETTING]``, such as ``mp3:64``; ``CHANNELS`` are the names.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from staanet import audio
from staanet.core import NO_CHANNEL, Samples
from staanet.errors import InvalidInput, printable, unknown_name

_BLOCK = 4096  # frames written at a time: 130 s of Vorbis in one call crash libsndfile 1.2.2
_TAIL_S = 0.05  # zeros appended before resampling, so that the last samples survive both filters
_OPUS_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)
_MP3_HZ = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_MP3_DELAY = 576 + 529  # samples: of the LAME encoder and of the decoder


class Channel(Protocol):
    """A frozen dataclass with at most one setting: ``[T]`` at ``rate`` Hz -> ``[T]``, aligned.

    ``seed`` draws what is random in it, so that a clip and its twin meet the same noise or room.
    """

    def __call__(self, samples: Samples, rate: int, *, seed: int = 0) -> Samples: ...


@dataclass(frozen=True, slots=True)
class Pcm16:
    """The file as it is."""

    def __call__(self, samples: Samples, rate: int, *, seed: int = 0) -> Samples:
        return samples.copy()


@dataclass(frozen=True, slots=True)
class Resample:
    """Down (or up) to ``hz`` and back: what lies above half of it is lost."""

    limits: ClassVar[tuple[float, float]] = (1_000, 192_000)
    hz: int = 8_000

    def __call__(self, samples: Samples, rate: int, *, seed: int = 0) -> Samples:
        return _via(self.hz, samples, rate)


@dataclass(frozen=True, slots=True)
class Mp3:
    """MPEG layer III by LAME at a constant ``kbps`` (the nearest that the rate has)."""

    limits: ClassVar[tuple[float, float]] = (8, 320)
    kbps: int = 64

    def __post_init__(self) -> None:
        _require("MP3", "MPEG_LAYER_III")

    def __call__(self, samples: Samples, rate: int, *, seed: int = 0) -> Samples:
        return _at(_nearest(rate, _MP3_HZ), samples, rate, self._coded)

    def _coded(self, samples: Samples, rate: int) -> Samples:
        low, high = (32, 320) if rate >= 32_000 else (8, 160) if rate >= 16_000 else (8, 64)
        if not low < self.kbps <= high:
            raise InvalidInput(
                f"{self.kbps} kbit/s at {rate} Hz; MP3 has more than {low} and up to {high} there",
                where="channel mp3",
                remedy=f"Give, say, mp3:{min(high, 64)}",
            )
        coded = _recoded(
            samples, rate, "MP3", "MPEG_LAYER_III", (high - self.kbps) / (high - low), "CONSTANT"
        )
        # frames below 48 kbit/s or so have no room for the tag by which a decoder cuts the delay
        return coded[_MP3_DELAY:] if len(coded) > len(samples) else coded


@dataclass(frozen=True, slots=True)
class Opus:
    """Opus (RFC 6716) at about ``kbps``; 24 is a good voice call."""

    limits: ClassVar[tuple[float, float]] = (6, 256)
    kbps: int = 24

    def __post_init__(self) -> None:
        _require("OGG", "OPUS")

    def __call__(self, samples: Samples, rate: int, *, seed: int = 0) -> Samples:
        return _at(_nearest(rate, _OPUS_HZ), samples, rate, self._coded)

    def _coded(self, samples: Samples, rate: int) -> Samples:
        return _recoded(samples, rate, "OGG", "OPUS", (256 - self.kbps) / 250)


@dataclass(frozen=True, slots=True)
class Vorbis:
    """Vorbis at its encoder's default quality."""

    def __post_init__(self) -> None:
        _require("OGG", "VORBIS")

    def __call__(self, samples: Samples, rate: int, *, seed: int = 0) -> Samples:
        return _fit(_recoded(samples, rate, "OGG", "VORBIS"), len(samples))


@dataclass(frozen=True, slots=True)
class Gsm:
    """A call by GSM 06.10 full rate: 13 kbit/s at 8 kHz, and back to the rate of the clip."""

    def __post_init__(self) -> None:
        _require("WAV", "GSM610")

    def __call__(self, samples: Samples, rate: int, *, seed: int = 0) -> Samples:
        return _at(8_000, samples, rate, lambda x, hz: _recoded(x, hz, "WAV", "GSM610"))


@dataclass(frozen=True, slots=True)
class MuLaw:
    """8 bits a sample by mu-law (ITU-T G.711) at the rate of the clip."""

    def __post_init__(self) -> None:
        _require("WAV", "ULAW")

    def __call__(self, samples: Samples, rate: int, *, seed: int = 0) -> Samples:
        return _fit(_recoded(samples, rate, "WAV", "ULAW"), len(samples))


@dataclass(frozen=True, slots=True)
class Gain:
    """Louder or softer by ``db``, cut at full scale.

    >>> Gain(-20.0)(np.int16([1000, -10]), 16_000)
    array([100,  -1], dtype=int16)
    """

    limits: ClassVar[tuple[float, float]] = (-60, 60)
    db: float = -6.0

    def __call__(self, samples: Samples, rate: int, *, seed: int = 0) -> Samples:
        return audio.snap(_double(samples) * 10 ** (self.db / 20))


@dataclass(frozen=True, slots=True)
class Room:
    """A room that is silent (-60 dB) ``rt60_s`` after a sound, drawn by ``seed``.

    The direct path arrives at once; 2.5 ms later begins Gaussian noise that decays exponentially
    (Polack 1988), half as strong as the direct path in energy. The response has unit energy.
    """

    limits: ClassVar[tuple[float, float]] = (0.05, 5)
    rt60_s: float = 0.5

    def __call__(self, samples: Samples, rate: int, *, seed: int = 0) -> Samples:
        from scipy.signal import fftconvolve

        if not len(samples):
            return samples.copy()
        heard = fftconvolve(_double(samples), self.response(rate, seed))
        return audio.snap(heard[: len(samples)])

    def response(self, rate: int, seed: int) -> NDArray[np.float64]:
        """The impulse response ``[rt60_s * rate]``, its direct path at 0."""
        time = np.arange(max(2, round(self.rt60_s * rate))) / rate
        rng = np.random.default_rng([seed, 1])
        late = rng.standard_normal(len(time)) * 10 ** (-3 * time / self.rt60_s) * (time >= 0.0025)
        late *= np.sqrt(0.5 / max(np.square(late).sum(), 1e-12))
        late[0] = 1.0
        unit: NDArray[np.float64] = late / np.sqrt(np.square(late).sum())
        return unit


@dataclass(frozen=True, slots=True)
class Noise:
    """White noise at ``snr_db`` below the clip's own energy, drawn by ``seed``; none on silence."""

    limits: ClassVar[tuple[float, float]] = (-40, 90)
    snr_db: float = 20.0

    def __call__(self, samples: Samples, rate: int, *, seed: int = 0) -> Samples:
        speech = _double(samples)
        rng = np.random.default_rng([seed, 2])
        level = np.sqrt(np.square(speech).mean()) if len(speech) else 0.0
        noise = level * 10 ** (-self.snr_db / 20) * rng.standard_normal(len(speech))
        return audio.snap(speech + noise)


CHANNELS: dict[str, type[Any]] = {
    NO_CHANNEL: Pcm16,
    "gain": Gain,
    "gsm": Gsm,
    "mp3": Mp3,
    "mulaw": MuLaw,
    "noise": Noise,
    "opus": Opus,
    "resample": Resample,
    "rir": Room,
    "vorbis": Vorbis,
}


def parse_channel(text: str) -> Channel:
    """The channel of ``NAME[:SETTING]``; ``InvalidInput`` names what is wrong and what is known.

    Also raised where this machine's libsndfile lacks the codec.

    >>> parse_channel("resample:8000"), parse_channel("gain:-6")
    (Resample(hz=8000), Gain(db=-6.0))
    >>> parse_channel("mp4")
    Traceback (most recent call last):
    staanet.errors.InvalidInput: unknown channel 'mp4'. Did you mean 'mp3'? ...
    """
    name, colon, setting = text.partition(":")
    if name not in CHANNELS:
        raise unknown_name("channel", name, CHANNELS)
    kind = CHANNELS[name]
    made: Channel
    if not colon:
        made = kind()
        return made
    fields = dataclasses.fields(kind)
    if not fields:
        raise InvalidInput(
            f"channel {name} takes no setting, but '{printable(setting)}' was given",
            remedy=f"Write {name}",
        )
    default, (low, high) = fields[0].default, kind.limits
    convert = int if isinstance(default, int) else float
    try:
        value = convert(setting)
    except (ValueError, OverflowError):
        value = None
    if value is None or not low <= value <= high:
        what = "whole number" if isinstance(default, int) else "number"
        raise InvalidInput(
            f"channel {name}: {fields[0].name} is '{printable(setting)}', not a {what} from "
            f"{low:g} to {high:g}",
            remedy=f"Write, say, {name}:{default:g}",
        )
    made = kind(value)
    return made


def clip_seed(clip_id: str) -> int:
    """The seed of a clip's noise and room, the same wherever the clip is heard.

    >>> clip_seed("03a01Fa") == clip_seed("03a01Fa") != clip_seed("03a01Nc")
    True
    """
    return int.from_bytes(hashlib.sha256(clip_id.encode("utf-8", "surrogatepass")).digest()[:8])


# ---------------------------------------------------------------- helpers


class _Code(Protocol):
    def __call__(self, samples: Samples, rate: int, /) -> Samples: ...


def _double(samples: Samples) -> NDArray[np.float64]:
    return samples.astype(np.float64) / audio.FULL_SCALE


def _fit(samples: Samples, length: int) -> Samples:
    """Cut, or filled up with zeros, ``-> [length]``."""
    fitted = np.zeros(length, dtype=np.int16)
    fitted[: len(samples)] = samples[:length]
    return fitted


def _nearest(rate: int, known: tuple[int, ...]) -> int:
    """The lowest rate of a codec that keeps all of the clip, or else its highest."""
    return min((hz for hz in known if hz >= rate), default=known[-1])


def _at(hz: int, samples: Samples, rate: int, code: _Code) -> Samples:
    """Through a codec that works at ``hz``."""
    if hz == rate:
        return _fit(code(samples, rate), len(samples))
    return _via(hz, samples, rate, code)


def _via(hz: int, samples: Samples, rate: int, code: _Code | None = None) -> Samples:
    """To ``hz``, through ``code`` there, and back."""
    padded = np.pad(audio.to_float(samples), (0, round(_TAIL_S * rate)))
    there = audio.resample(padded, rate, hz)
    if code is not None:
        there = audio.to_float(code(audio.snap(there), hz))
    return _fit(audio.snap(audio.resample(there, hz, rate)), len(samples))


def _require(container: str, coding: str) -> None:
    import soundfile

    known = container in soundfile.available_formats()
    if not known or coding not in soundfile.available_subtypes(container):
        raise InvalidInput(
            f"this machine's libsndfile {soundfile.__libsndfile_version__} cannot write {coding} in "
            f"{container}",
            where="channel",
            remedy="Install the soundfile wheel that brings its own (pip install --force-reinstall "
            "soundfile), or leave the channel out",
        )


def _recoded(
    samples: Samples,
    rate: int,
    container: str,
    coding: str,
    compression: float | None = None,
    mode: Literal["CONSTANT"] | None = None,
) -> Samples:
    """Written and read in memory, ``[T] -> [T or more]``; ``compression`` 0 (best) to 1."""
    import soundfile

    if not len(samples):
        return samples
    settings = {"compression_level": compression, "bitrate_mode": mode}
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer,
        "w",
        rate,
        1,
        format=container,
        subtype=coding,
        **{key: value for key, value in settings.items() if value is not None},
    ) as file:
        for start in range(0, len(samples), _BLOCK):
            file.write(samples[start : start + _BLOCK])
    buffer.seek(0)
    heard = soundfile.read(buffer, dtype="float32")[0]  # as integers, it would wrap around at peaks
    return audio.snap(heard)
