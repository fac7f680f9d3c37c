"""Reads an audio file of any common format completely, or raises an error.

Files are recognised by content and decoded in blocks under the limits. What the container declares
(frames, MD5, last page) must be what the decoder gives, because decoders return half a file
without an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from staanet.audio.containers import CONTAINERS, SUFFIXES, container_kind
from staanet.audio.containers.foreign import PYAV
from staanet.audio.decoding import CANCELLED, Decoder
from staanet.audio.grid import cut, degeneracy, resample, snap
from staanet.audio.levels import recording_notes
from staanet.audio.limits import DEFAULT_LIMITS, OWN_FILES, AudioLimits
from staanet.audio.opening import open_audio
from staanet.errors import StorageFault, UnusableClip

_RECOPY = "Re-copy or drop the row"


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """A decoded file: mono float samples ``[T]`` in [-1, 1], its format, and warnings."""

    samples: NDArray[np.float32]
    sample_rate: int
    channels: int
    notes: tuple[str, ...] = ()


def read_audio(path: Path | str, limits: AudioLimits = DEFAULT_LIMITS) -> Sound:
    """Decode a WAV, FLAC, OGG (Vorbis, Opus) or MP3 file at the file's rate, channels averaged.

    Raises ``UnusableClip`` where it is no audio, cut, damaged, not finite or beyond ``limits``.
    """
    sound, form = _read(path, limits)
    more = recording_notes(
        sound.samples,
        sound.sample_rate,
        is_clipped_by_reader=any("beyond full scale" in note for note in sound.notes),
        has_8_bits=form.endswith(("PCM_U8", "PCM_S8")),
    )
    return replace(sound, notes=(*sound.notes, *more))


def load_samples(
    path: Path | str,
    sample_rate: int,
    limits: AudioLimits = DEFAULT_LIMITS,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> NDArray[np.int16]:
    """Returns the samples of ``load_recording``, without its notes."""
    return load_recording(path, sample_rate, limits, start_s=start_s, end_s=end_s)[0]


def load_recording(
    path: Path | str,
    sample_rate: int,
    limits: AudioLimits = DEFAULT_LIMITS,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> tuple[NDArray[np.int16], tuple[str, ...]]:
    """Returns a file as mono 16-bit integers ``[T]`` at ``sample_rate`` Hz, and warnings about it.

    PCM16 at that rate is unchanged. Raises ``UnusableClip`` as ``read_audio`` and ``cut`` do, and for a clip that holds no sound.
    """
    sound = read_audio(path, limits)
    try:
        part = cut(sound.samples, sound.sample_rate, start_s, end_s)
    except UnusableClip as problem:
        raise UnusableClip(problem.what, where=path, remedy=problem.remedy) from None
    samples = snap(part)
    reason = degeneracy(samples)  # before resampling, which makes ripples out of a constant
    notes = list(sound.notes)
    if reason is None and sound.sample_rate != sample_rate:
        if sound.sample_rate < sample_rate:
            notes.append(
                f"sampled at {sound.sample_rate} Hz and used at {sample_rate} Hz: nothing above "
                f"{sound.sample_rate // 2} Hz"
            )
        samples = snap(resample(part, sound.sample_rate, sample_rate))
        reason = degeneracy(samples)
    if reason is not None:
        because = "".join(f" ({note})" for note in notes if note.startswith(CANCELLED))
        raise UnusableClip(f"{reason}{because}", where=path, remedy="Drop the row")
    return samples, tuple(notes)


def read_int16(path: Path | str) -> tuple[NDArray[np.int16], int]:
    """The exact integers ``[T]`` and the rate (Hz) of a file that ``encode`` made.

    Raises ``UnusableClip`` where it is damaged or not mono 16-bit WAV or FLAC.
    """
    sound, form = _read(path, OWN_FILES)
    if form not in ("WAV PCM_16", "WAVEX PCM_16", "FLAC PCM_16"):
        raise UnusableClip(
            f"{form}, not 16-bit WAV or FLAC", where=path, remedy="Attack the clip again"
        )
    return snap(sound.samples), sound.sample_rate


def stream_samples(
    path: Path | str,
    sample_rate: int,
    limits: AudioLimits = DEFAULT_LIMITS,
    notes: list[str] | None = None,
) -> Iterator[NDArray[np.int16]]:
    """The file in blocks ``[T]`` of mono 16-bit integers at ``sample_rate`` Hz, however long it is.

    Joined they are what ``load_samples`` gives. After the last block ``notes`` receives what was unusual
    about the file. Raises ``UnusableClip`` as ``read_audio`` does, at the
    latest after the last block: whoever must know before reads the file twice.
    """
    try:
        with open_audio(path, limits) as (stream, size):
            kind, start = container_kind(stream, size)
            declared = CONTAINERS[kind](stream, size, start, limits)
            os.lseek(stream.fileno(), 0, os.SEEK_SET)
            decoder = _decoder(kind)(stream.fileno(), declared, limits)
            for block in _resampled(decoder, sample_rate):
                yield snap(block)
            if notes is not None:
                notes.extend(decoder.notes)
    except UnusableClip as problem:
        raise UnusableClip(problem.what, where=path, remedy=problem.remedy or _RECOPY) from None


def _resampled(decoder: Decoder, sample_rate: int) -> Iterator[NDArray[np.float32]]:
    stream = None
    for block in decoder:
        if decoder.rate == sample_rate:
            yield block
            continue
        if stream is None:
            import soxr

            stream = soxr.ResampleStream(
                decoder.rate, sample_rate, 1, dtype="float32", quality="VHQ"
            )
        yield stream.resample_chunk(block)
    if stream is not None:
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def declared_seconds(path: Path | str, limits: AudioLimits = DEFAULT_LIMITS) -> float:
    """The declared duration of a file in s, not verified; 0 where it cannot be opened or declares none."""
    import soundfile

    try:
        with (
            open_audio(path, limits) as (stream, _),
            soundfile.SoundFile(stream.fileno(), closefd=False) as file,
        ):
            return float(file.frames / file.samplerate)
    except (UnusableClip, StorageFault, soundfile.SoundFileError, ZeroDivisionError):
        return 0.0


def _read(path: Path | str, limits: AudioLimits) -> tuple[Sound, str]:
    """The sound and its form, such as ``WAV PCM_16``."""
    try:
        with open_audio(path, limits) as (stream, size):
            kind, start = container_kind(stream, size)
            declared = CONTAINERS[kind](stream, size, start, limits)
            os.lseek(stream.fileno(), 0, os.SEEK_SET)
            sound, form = _decode(_decoder(kind)(stream.fileno(), declared, limits))
    except UnusableClip as problem:
        raise UnusableClip(problem.what, where=path, remedy=problem.remedy or _RECOPY) from None
    suffix = Path(path).suffix
    misnamed = SUFFIXES.get(suffix.lower(), kind) != kind
    return _noted(sound, f"named {suffix} but is {kind}" if misnamed else ""), form


def _noted(sound: Sound, note: str) -> Sound:
    return replace(sound, notes=(*sound.notes, note)) if note else sound


def _decoder(kind: str) -> type[Decoder]:
    if kind != PYAV:
        return Decoder
    from staanet.audio.pyav import PyavDecoder

    return PyavDecoder


def _decode(decoder: Decoder) -> tuple[Sound, str]:
    data = bytearray()
    for block in decoder:
        data += block.tobytes()
    samples = np.frombuffer(data, dtype=np.float32)
    sound = Sound(samples, decoder.rate, decoder.channels, tuple(decoder.notes))
    return _noted(sound, decoder.declared.note), decoder.form
