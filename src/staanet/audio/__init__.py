"""Audio: read any usual file, wholly or not at all; resample; the 16-bit grid; write WAV and FLAC.

Files are recognised by content, decoded in blocks under the limits, and never believed: what the
container declares (frames, MD5, last page) must be what the decoder gives, since decoders return
half a file without a word. Clean audio is snapped to the grid of 16-bit integers once, and from
then on every sample is an exact integer: one that an attack does not move is bit-equal on disk.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from staanet.errors import InvalidInput, StorageFault, UnusableClip, printable

FULL_SCALE = 32_768
"""Steps of the 16-bit grid in [0, 1): one step is 2**-15."""

Element = TypeVar("Element", bound=np.generic)
_RECOPY = "Re-copy or drop the row"
_BLOCK = 4_096  # frames decoded at a time: how exactly an error can say where a file is damaged


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioLimits:
    """What is read at most; each limit is an option of the command line."""

    max_channels: int = 8
    min_rate_hz: int = 4_000
    max_rate_hz: int = 192_000
    max_seconds: float = 600.0
    max_bytes: int = 512 * 2**20


OUR_OWN = AudioLimits(
    max_channels=1, min_rate_hz=1, max_rate_hz=655_350, max_seconds=float("inf"), max_bytes=2**40
)
"""For files that we wrote: as long as they are."""


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """A decoded file: mono float samples ``[T]`` in [-1, 1], what it was, and what was unusual."""

    samples: NDArray[np.float32]
    sample_rate: int
    channels: int
    notes: tuple[str, ...] = ()


# ---------------------------------------------------------------- reading


def read_audio(path: Path | str, limits: AudioLimits = AudioLimits()) -> Sound:
    """Decode a WAV, FLAC, OGG (Vorbis, Opus) or MP3 file at its own rate, channels averaged.

    Raises ``UnusableClip`` where it is no audio, cut, damaged, not finite or beyond ``limits``.
    """
    return _read(path, limits)[0]


def load_samples(
    path: Path | str,
    sample_rate: int,
    limits: AudioLimits = AudioLimits(),
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> NDArray[np.int16]:
    """The file as mono 16-bit integers ``[T]`` at ``sample_rate`` Hz; PCM16 at that rate unchanged.

    Raises ``UnusableClip`` as ``read_audio`` and ``cut`` do, and for a clip that holds no sound.
    """
    sound = read_audio(path, limits)
    try:
        heard = cut(sound.samples, sound.sample_rate, start_s, end_s)
    except UnusableClip as problem:
        raise UnusableClip(problem.what, where=path, remedy=problem.remedy) from None
    samples = snap(heard)
    reason = degenerate(samples)  # before resampling, which makes ripples out of a constant
    if reason is None and sound.sample_rate != sample_rate:
        samples = snap(resample(heard, sound.sample_rate, sample_rate))
        reason = degenerate(samples)
    if reason is not None:
        raise UnusableClip(reason, where=path, remedy="Drop the row")
    return samples


def read_int16(path: Path | str) -> tuple[NDArray[np.int16], int]:
    """The exact integers ``[T]`` and the rate (Hz) of a file that ``encode`` made.

    Raises ``UnusableClip`` where it is damaged or not mono 16-bit WAV or FLAC.
    """
    sound, form = _read(path, OUR_OWN)
    if form not in ("WAV PCM_16", "WAVEX PCM_16", "FLAC PCM_16"):
        raise UnusableClip(
            f"{form}, not 16-bit WAV or FLAC", where=path, remedy="Attack the clip again"
        )
    return snap(sound.samples), sound.sample_rate


def stream_samples(
    path: Path | str, sample_rate: int, limits: AudioLimits = AudioLimits()
) -> Iterator[NDArray[np.int16]]:
    """The file in blocks ``[T]`` of mono 16-bit integers at ``sample_rate`` Hz, however long it is.

    Joined they are what ``load_samples`` gives. Raises ``UnusableClip`` as ``read_audio`` does, at the
    latest after the last block: whoever must know before reads the file twice.
    """
    try:
        with _opened(path, limits) as (stream, size):
            kind, start = _kind(stream, size)
            declared = _CONTAINERS[kind](stream, size, start, limits)
            os.lseek(stream.fileno(), 0, os.SEEK_SET)
            decoder = _Decoder(stream.fileno(), declared, limits)
            for block in _resampled(decoder, sample_rate):
                yield snap(block)
    except UnusableClip as problem:
        raise UnusableClip(problem.what, where=path, remedy=problem.remedy or _RECOPY) from None


def _resampled(decoder: _Decoder, sample_rate: int) -> Iterator[NDArray[np.float32]]:
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


def declared_seconds(path: Path | str, limits: AudioLimits = AudioLimits()) -> float:
    """How long the file says it is, in s, unproven; 0 where it cannot be opened or says nothing."""
    import soundfile

    try:
        with (
            _opened(path, limits) as (stream, _),
            soundfile.SoundFile(stream.fileno(), closefd=False) as file,
        ):
            return float(file.frames / file.samplerate)
    except (UnusableClip, StorageFault, soundfile.SoundFileError, ZeroDivisionError):
        return 0.0


def cut(
    samples: NDArray[Element], sample_rate: int, start_s: float = 0.0, end_s: float | None = None
) -> NDArray[Element]:
    """The part between two times, ``[T] -> [at most T]``; an ``end_s`` of None is the clip's end.

    An end within half a millisecond after the clip is its end: times are rounded to milliseconds.
    Raises ``UnusableClip`` for a part that does not lie in the clip.

    >>> cut(np.array([1, 2, 3, 4]), 2, 0.5, 1.5)
    array([2, 3])
    """
    first = round(start_s * sample_rate)
    last = len(samples) if end_s is None else round(end_s * sample_rate)
    if not 0 <= first <= len(samples) or last > len(samples) + sample_rate // 2000:
        end = "the end" if end_s is None else f"{end_s:.9g} s"
        raise UnusableClip(
            f"its part from {start_s:.9g} s to {end} is not in the file, which ends at "
            f"{len(samples) / sample_rate:.9g} s",
            remedy="Correct the times in its row, or drop the row",
        )
    return samples[first:last]


def degenerate(samples: NDArray[np.int16]) -> str | None:
    """Why a clip ``[T]`` holds no sound, or None: nothing measured on such a clip means anything.

    >>> degenerate(np.int16([0, 9, 0])), degenerate(np.int16([7, 7])), degenerate(np.int16([1, 2]))
    ('one click', 'constant (DC only)', 'one click')
    """
    if len(samples) == 0:
        return "0 samples"
    steps = np.flatnonzero(samples[1:] != samples[:-1])
    if len(steps) == 0:
        return "constant (DC only)" if samples[0] else "digital silence"
    first, last = int(steps[0]), int(steps[-1])
    there_and_back = last == first + 1 and samples[first] == samples[last + 1]
    at_an_end = first == last and first in (0, len(samples) - 2)
    return "one click" if there_and_back or at_an_end else None


# ---------------------------------------------------------------- the grid


def snap(samples: NDArray[np.floating[Any]]) -> NDArray[np.int16]:
    """The nearest 16-bit integers, within the 16-bit range; ``to_float`` undoes it exactly.

    >>> snap(np.array([0.5, 1.0, -1.5]))
    array([ 16384,  32767, -32768], dtype=int16)
    """
    scaled = np.rint(samples * samples.dtype.type(FULL_SCALE))
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1, out=scaled).astype(np.int16)


def to_float(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """Integers as float samples in [-1, 1), exactly.

    >>> to_float(np.int16([16384, -32768]))
    array([ 0.5, -1. ], dtype=float32)
    """
    return samples.astype(np.float32) / np.float32(FULL_SCALE)


def resample(samples: NDArray[np.float32], from_hz: int, to_hz: int) -> NDArray[np.float32]:
    """``[T] -> [about T * to_hz / from_hz]`` by a linear-phase filter of very high quality.

    >>> len(resample(np.zeros(480, np.float32), 48_000, 16_000))
    160
    """
    if from_hz == to_hz:
        return samples
    import soxr

    result: NDArray[np.float32] = soxr.resample(samples, from_hz, to_hz, quality="VHQ")
    return result


def fit_length(samples: NDArray[Element], length: int, start: int = 0) -> NDArray[Element]:
    """``[T] -> [length]``, from ``start`` on; a clip that ends too soon begins again (tiling).

    >>> fit_length(np.array([1, 2, 3]), 5)
    array([1, 2, 3, 1, 2])
    """
    return np.take(samples, np.arange(start, start + length), mode="wrap")


def content_hash(samples: NDArray[np.int16]) -> str:
    """The sha256 of the little-endian samples, 64 hex digits: equal for equal sound in any file."""
    return hashlib.sha256(samples.astype("<i2").tobytes()).hexdigest()


# ---------------------------------------------------------------- writing


def encode(
    samples: NDArray[np.int16], sample_rate: int, format: Literal["WAV", "FLAC"] | str = "WAV"
) -> bytes:
    """A mono 16-bit file as bytes, the same for the same samples.

    Raises ``InvalidInput`` for any format but WAV and FLAC.

    >>> encode(np.int16([1, -2]), 16_000)[-4:]
    b'\\x01\\x00\\xfe\\xff'
    """
    assert samples.dtype == np.int16 and samples.ndim == 1, "the attack's result is snapped first"
    if format == "WAV":
        return wav_header(len(samples), sample_rate) + samples.astype("<i2").tobytes()
    if format == "FLAC":
        import soundfile

        buffer = io.BytesIO()
        soundfile.write(buffer, samples, sample_rate, format="FLAC", subtype="PCM_16")
        return buffer.getvalue()
    raise InvalidInput(
        "adversarial audio is written as WAV or FLAC; a lossy codec changes every sample",
        where=f"format {format}",
    )


def wav_header(count: int, sample_rate: int) -> bytes:
    """What stands before ``count`` little-endian 16-bit samples in a mono WAV file.

    Raises ``InvalidInput`` for more samples than the format's 32-bit sizes can tell (37 h at 16 kHz).
    """
    size = 2 * count
    if size > 2**32 - 1 - 36:
        raise InvalidInput(
            f"{count} samples are more than a WAV file holds", remedy="Cut the recording in two"
        )
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    head = struct.pack("<4sI4s", b"RIFF", 28 + 8 + size, b"WAVE")
    return head + form + struct.pack("<4sI", b"data", size)


# ---------------------------------------------------------------- decoding in blocks


def _read(path: Path | str, limits: AudioLimits) -> tuple[Sound, str]:
    """The sound and its form, such as ``WAV PCM_16``."""
    try:
        with _opened(path, limits) as (stream, size):
            kind, start = _kind(stream, size)
            declared = _CONTAINERS[kind](stream, size, start, limits)
            os.lseek(stream.fileno(), 0, os.SEEK_SET)
            sound, form = _decode(stream.fileno(), declared, limits)
    except UnusableClip as problem:
        raise UnusableClip(problem.what, where=path, remedy=problem.remedy or _RECOPY) from None
    suffix = Path(path).suffix
    misnamed = _SUFFIXES.get(suffix.lower(), kind) != kind
    return _noted(sound, f"named {suffix} but is {kind}" if misnamed else ""), form


def _noted(sound: Sound, note: str) -> Sound:
    return replace(sound, notes=(*sound.notes, note)) if note else sound


@contextlib.contextmanager
def _opened(path: Path | str, limits: AudioLimits) -> Iterator[tuple[BinaryIO, int]]:
    """The open regular file and its size; a pipe is never waited for, a device never opened."""
    try:
        _check_regular(_status(path))
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            status = os.fstat(stream.fileno())
            _check_regular(status)
            if status.st_size > limits.max_bytes:
                raise UnusableClip(
                    f"{status.st_size} bytes, the limit is {limits.max_bytes}",
                    remedy="Cut the file or raise --max-bytes",
                )
            yield stream, status.st_size
    except OSError as error:
        if error.errno == errno.ELOOP:
            _fail("not a regular file (a loop of links)")
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):  # not the clip's fault
            what = f"cannot be opened ({reason})"
            raise StorageFault(
                what, where=path, remedy="Close other programs, run again"
            ) from error
        _fail(f"cannot be read ({reason})")


def _status(path: Path | str) -> os.stat_result:
    try:
        return Path(path).stat()
    except ValueError as error:  # NUL or a lone surrogate in the name
        _fail(f"no file can have this name ({error})")


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UnusableClip("not a regular file", remedy="Drop the row")


def _check_format(channels: int, rate: int, limits: AudioLimits) -> None:
    """Before any decoder or resampler is built from them."""
    if not 1 <= channels <= limits.max_channels:
        remedy = "Mix it down or raise --max-channels" if channels else ""
        raise UnusableClip(
            f"{channels} channels, the limit is {limits.max_channels}", remedy=remedy
        )
    if rate < limits.min_rate_hz:
        raise UnusableClip(
            f"{rate} Hz, at least {limits.min_rate_hz} Hz are needed",
            remedy="Drop the row or lower --min-rate-hz",
        )
    if rate > limits.max_rate_hz:
        raise UnusableClip(
            f"{rate} Hz, the limit is {limits.max_rate_hz} Hz",
            remedy="Resample it or raise --max-rate-hz",
        )


@dataclass(frozen=True, slots=True)
class _Declared:
    """What the container says of its content; None where only the decoder can know."""

    frames: int | None = None
    md5: bytes | None = None
    remedy: str = ""
    note: str = ""


def _decode(descriptor: int, declared: _Declared, limits: AudioLimits) -> tuple[Sound, str]:
    decoder, kept = _Decoder(descriptor, declared, limits), bytearray()
    for block in decoder:
        kept += block.tobytes()
    samples = np.frombuffer(kept, dtype=np.float32)
    sound = Sound(samples, decoder.rate, decoder.channels, tuple(decoder.notes))
    return _noted(sound, declared.note), decoder.form


@dataclass(slots=True)
class _Decoder:
    """The blocks ``[T]`` of an open file, channels averaged, and what was found in it.

    Raises ``UnusableClip``, at the latest after the last block, where the file is not what it says.
    """

    descriptor: int
    declared: _Declared
    limits: AudioLimits
    rate: int = 0
    channels: int = 0
    form: str = ""
    notes: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        import soundfile

        try:
            with soundfile.SoundFile(self.descriptor, closefd=False) as file:
                # told that it cannot seek, soundfile no longer seeks after each block, which makes
                # the MP3 decoder stumble
                file.seekable = lambda: False
                _check_format(file.channels, file.samplerate, self.limits)
                self.rate, self.channels = file.samplerate, file.channels
                self.form = f"{file.format} {file.subtype}"
                frames = file.frames if self.declared.frames is None else self.declared.frames
                digest = hashlib.md5(usedforsecurity=False)
                yield from self._mono(_blocks(file, frames, digest), frames)
        except soundfile.SoundFileError as error:
            raise UnusableClip(f"cannot be decoded ({_reason(error)})") from error
        if self.declared.md5 not in (None, digest.digest()):
            _fail("its FLAC MD5 is not that of the decoded samples")

    def _mono(
        self, blocks: Iterator[NDArray[np.float32]], frames: int
    ) -> Iterator[NDArray[np.float32]]:
        """Channels averaged block by block, so that they never lie in memory together; nothing is
        given of a clip that declares more than ``max_seconds``."""
        budget = self.limits.max_seconds * self.rate
        decoded, bad, first_bad, beyond = 0, 0, 0, 0
        for block in blocks:
            unsound = ~np.isfinite(block)
            if unsound.any():
                first_bad = first_bad if bad else decoded + int(unsound.any(axis=1).argmax())
                bad += int(unsound.sum())
            decoded += len(block)
            if decoded > budget:
                limit = f"longer than {self.limits.max_seconds:g} s, the limit"
                raise UnusableClip(limit, remedy="Cut it or raise --max-seconds")
            if frames <= budget and not bad:
                mono = block[:, 0] if self.channels == 1 else block.mean(axis=1, dtype=np.float64)
                beyond += int(np.count_nonzero(np.abs(mono) > 1))
                yield np.clip(mono, -1, 1).astype(np.float32)
        if decoded != frames:
            raise UnusableClip(
                f"holds {decoded} of {frames} declared frames", remedy=self.declared.remedy
            )
        if decoded == 0:
            _fail("0 samples")
        if bad:
            _fail(f"{bad} non-finite sample{'s' * (bad > 1)}, first at {first_bad}")
        self.notes += [f"{self.channels} channels averaged to mono"] if self.channels > 1 else []
        self.notes += [f"{beyond} samples beyond full scale, clipped"] if beyond else []


def _blocks(file: Any, frames: int, digest: Any) -> Iterator[NDArray[np.float32]]:
    """The decoded file in blocks ``[T, channels]``; ``digest`` is fed as FLAC feeds its MD5."""
    import soundfile

    width = {"PCM_S8": 1, "PCM_16": 2, "PCM_24": 3}.get(file.subtype, 0) * (file.format == "FLAC")
    decoded, full = 0, np.float32(2**31)
    while True:
        try:
            block = file.read(_BLOCK, dtype="int32" if width else "float32", always_2d=True)
        except soundfile.SoundFileError as error:
            _fail(f"damaged after frame {decoded} of {frames} declared frames ({_reason(error)})")
        if not len(block):
            return
        decoded += len(block)
        if width:  # the integers stand in the upper bytes
            integers = np.ascontiguousarray(block, dtype="<i4")
            digest.update(integers.view(np.uint8).reshape(-1, 4)[:, 4 - width :].tobytes())
            block = integers.astype(np.float32) / full
        yield block


def _reason(error: Exception) -> str:
    return printable(str(error).strip().removeprefix("Error : ").rstrip("."))


# ---------------------------------------------------------------- what containers declare


def _fail(what: str) -> NoReturn:
    raise UnusableClip(what)


def _at(stream: BinaryIO, position: int, length: int) -> bytes:
    stream.seek(position)
    return stream.read(length)


def _kind(stream: BinaryIO, size: int) -> tuple[str, int]:
    """The container, by content, and where it starts (ID3v2 tags stand before MP3 and FLAC)."""
    start, head = 0, stream.read(12)
    while len(head) >= 10 and head.startswith(b"ID3"):
        a, b, c, d = head[6:10]
        start += 10 + (a << 21 | b << 14 | c << 7 | d)
        stream.seek(start)
        head = stream.read(12)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return "WAV", start
    if head.startswith(b"fLaC"):
        return "FLAC", start
    if head.startswith(b"OggS"):
        return "OGG", start
    if _mp3_frame(head[:4]):
        return "MP3", start
    if len(head) < 12:
        _fail(f"not audio ({size} bytes)")
    if head[4:8] == b"ftyp":
        _fail("MPEG-4 (M4A, AAC), which is not read. Convert it to WAV or FLAC")
    _fail(f"not audio (starts with '{printable(head.decode('ascii', 'backslashreplace'))}')")


def _wav(stream: BinaryIO, size: int, start: int, limits: AudioLimits) -> _Declared:
    """RIFF chunks must fill the file without a gap: else a wrong length hides in one of them."""
    head = _at(stream, 0, 12)
    order: _Order = "big" if head[:4] == b"RIFX" else "little"
    end, position, data_64, form = 8 + int.from_bytes(head[4:8], order), 12, 0, b""
    for _ in range(_MAX_CHUNKS):
        name, length = _chunk(stream, position, order)
        if name == b"ds64":
            end_64, data_64 = struct.unpack("<QQ", stream.read(16).ljust(16, b"\0"))
            end = 8 + end_64
        elif name == b"fmt ":
            form = stream.read(min(length, 40))
        elif name == b"data":
            break
        elif not _is_name(name):
            _fail(f"no audio data found ({size} bytes)")
        position += 8 + length + length % 2
    else:
        _fail(f"no audio data found in {_MAX_CHUNKS} chunks")
    coding, block = _wav_format(form, order, limits)
    length = data_64 if head[:4] == b"RF64" and length == 0xFFFF_FFFF else length
    held, data_end = size - position - 8, position + 8 + length
    if data_end > size:
        _fail(f"holds {held // block} of {length // block} declared frames")
    if not _is_tiled(stream, data_end, min(end, size) if end >= data_end else size, order):
        _fail(
            f"declares {length // block} frames, but {size - data_end} bytes follow that are no chunk"
        )
    if coding not in _WAV_LINEAR:  # frames are not of one size: the decoder knows them
        return _Declared()
    if length % block:
        _fail(f"its {length} bytes of data are no whole number of frames of {block} bytes")
    return _Declared(length // block)


_Order = Literal["little", "big"]
_MAX_CHUNKS = 1000
_WAV_LINEAR = (1, 3, 6, 7)  # PCM, float, A-law, mu-law
_WAV_BLOCKS = (2, 0x11, 0x31)  # ADPCM of Microsoft and IMA, GSM


def _chunk(stream: BinaryIO, position: int, order: _Order) -> tuple[bytes, int]:
    head = _at(stream, position, 8)
    return head[:4], int.from_bytes(head[4:8], order)


def _is_name(name: bytes) -> bool:
    return re.fullmatch(rb"[ -~]{4}", name) is not None


def _is_tiled(stream: BinaryIO, position: int, end: int, order: _Order) -> bool:
    """Whether whole chunks fill ``position`` to ``end``: the samples after a data chunk that
    declares too little would not look like that."""
    for _ in range(_MAX_CHUNKS):
        padded = position + position % 2
        if padded >= end:
            break
        name, length = _chunk(stream, padded, order)
        if not _is_name(name) or name == b"data":
            return False
        position = padded + 8 + length
    return position <= end <= position + position % 2


def _wav_format(form: bytes, order: _Order, limits: AudioLimits) -> tuple[int, int]:
    """Coding and bytes per block of a format chunk whose parts agree with each other."""
    if len(form) < 16:
        _fail("no WAV format before its data")
    names = struct.unpack_from(f"{'>' if order == 'big' else '<'}HHIIHH", form)
    coding, channels, rate, byte_rate, block, bits = names
    _check_format(channels, rate, limits)
    if coding == 0xFFFE:
        coding = int.from_bytes(form[24:26], order)
    samples = int.from_bytes(form[18:20], order) if coding in _WAV_BLOCKS else 1
    if block == 0 or (coding in _WAV_LINEAR and block != channels * ((bits + 7) // 8)):
        _fail(f"its format contradicts itself ({channels} x {bits} bits, {block} bytes a frame)")
    known = samples and coding in _WAV_LINEAR + _WAV_BLOCKS
    if known and byte_rate and abs(byte_rate - rate * block / samples) > 1:
        _fail(f"its format contradicts itself ({rate} Hz, {byte_rate} bytes a second)")
    return coding, block


def _flac(stream: BinaryIO, size: int, start: int, limits: AudioLimits) -> _Declared:
    """The stream info, whose rate must be that of the first frame."""
    info = _at(stream, start + 8, 34)
    packed = int.from_bytes(info[10:18], "big")
    if len(info) < 34 or _at(stream, start + 4, 4)[0] & 0x7F:
        _fail(f"not audio: no FLAC stream info ({size} bytes)")
    rate = packed >> 44
    _check_format((packed >> 41 & 7) + 1, rate, limits)
    position, last = start + 4, False
    while not last and position < size:
        head = _at(stream, position, 4)
        last = bool(head[0] & 0x80)
        position += 4 + int.from_bytes(head[1:], "big")
    if (first := _flac_frame_rate(_at(stream, position, 16).ljust(16, b"\0"))) not in (None, rate):
        _fail(f"its stream info says {rate} Hz, its first frame {first} Hz")
    if not any(info[18:34]):
        return _Declared(packed & (1 << 36) - 1, note="FLAC without MD5: nothing proves it whole")
    return _Declared(packed & (1 << 36) - 1, info[18:34])


_FLAC_KHZ = (88.2, 176.4, 192, 8, 16, 22.05, 24, 32, 44.1, 48, 96)


def _flac_frame_rate(head: bytes) -> int | None:
    """The rate in the header of a first frame (number 0 in one byte); None where it has none."""
    code, size_bytes = head[2] & 15, {6: 1, 7: 2}.get(head[2] >> 4, 0)
    if 1 <= code <= len(_FLAC_KHZ):
        return round(1000 * _FLAC_KHZ[code - 1])
    at, wide = 5 + size_bytes, int.from_bytes(head[5 + size_bytes : 7 + size_bytes], "big")
    return {12: head[at] * 1000, 13: wide, 14: wide * 10}.get(code)


_BIT_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg(stream: BinaryIO, size: int, start: int, limits: AudioLimits) -> _Declared:
    """Every page whole, in order, of one stream, and the last one marked as such."""
    position, number, serial, last = 0, 0, b"", False
    while position < size:
        stream.seek(position)
        page = stream.read(27)
        page += stream.read(page[26] if len(page) == 27 else 0)
        body = stream.read(sum(page[27:]))
        if len(page) < 27 or len(page) < 27 + page[26] or len(body) < sum(page[27:]):
            _fail(f"cut in OGG page {number} at byte {position} of {size}")
        if page[:4] != b"OggS" or last:
            _fail(f"OGG page {number} at byte {position} is damaged, or follows the last page")
        bare = page[:22] + bytes(4) + page[26:] + body
        if _ogg_crc(bare) != int.from_bytes(page[22:26], "little"):
            _fail(f"OGG page {number} at byte {position} is damaged (checksum)")
        if number == 0:
            serial = page[14:18]
        if page[14:18] != serial or int.from_bytes(page[18:22], "little") != number:
            _fail(f"OGG page {number} at byte {position} is of another stream or out of order")
        last = bool(page[5] & 4)
        position, number = position + len(page) + len(body), number + 1
    if not last:
        _fail(f"cut: its last OGG page is missing ({number} pages, {size} bytes)")
    return _Declared()


def _ogg_crc(data: bytes) -> int:
    """CRC-32 of OGG: zlib's with bits mirrored, begun and ended at 0."""
    mirrored = zlib.crc32(data.translate(_BIT_REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{mirrored:032b}"[::-1], 2)


_MP3_KBPS = (  # Layer III of MPEG 2, MPEG 1
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
_MP3_TAG = ((21, 13), (36, 21))  # where it would stand: MPEG 2 or 1, stereo or mono
_MP3_UNPROVEN = "MP3 that does not prove its exact length"
_MP3_DELAY = 529  # samples: the decoder's own
_MP3_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def _mp3_frame(head: bytes) -> int:
    """The bytes of the MPEG Layer III frame that starts with these 4 bytes; 0 where none does."""
    word = int.from_bytes(head, "big")
    version, layer, kbps, rate = word >> 19 & 3, word >> 17 & 3, word >> 12 & 15, word >> 10 & 3
    if word >> 21 != 0x7FF or version == 1 or layer != 1 or kbps in (0, 15) or rate == 3:
        return 0
    bits = _MP3_KBPS[version == 3][kbps] * (144_000 if version == 3 else 72_000)
    return bits // _MP3_HZ[version][rate] + (word >> 9 & 1)


def _mp3(stream: BinaryIO, size: int, start: int, limits: AudioLimits) -> _Declared:
    """Frame after frame up to the tags at the end; decoders skip what they do not understand, and
    guess the length where the first frame does not say it."""
    first = _at(stream, start, _mp3_frame(_at(stream, start, 4))).ljust(256, b"\0")
    position, count = start, 0
    while length := _mp3_frame(head := _at(stream, position, 4)):
        if position + length > size:
            _fail(f"cut in MP3 frame {count} at byte {position} of {size}")
        if _mp3_form(head) != _mp3_form(first):
            _fail(f"MP3 frame {count} at byte {position} is of another form than the first")
        position, count = position + length, count + 1
    rest = _at(stream, position, 8)
    if any(rest) and not rest.startswith((b"TAG", b"APETAGEX", b"LYRICS")):
        _fail(f"MP3 frame {count} at byte {position} is damaged")
    samples = 1152 if first[1] & 8 else 576
    tag = _MP3_TAG[bool(first[1] & 8)][first[3] >> 6 == 3]
    if first[tag : tag + 4] not in (b"Xing", b"Info") or not first[tag + 7] & 1:
        remedy = "Convert the MP3 to WAV, as it does not say its length"
        return _Declared(count * samples, remedy=remedy, note=_MP3_UNPROVEN)
    declared = int.from_bytes(first[tag + 8 : tag + 12], "big")
    if count - 1 != declared:
        _fail(f"holds {count - 1} of {declared} declared MP3 frames")
    if not any(first[tag + 120 : tag + 156]):  # no encoder's delay and padding, no checksum
        return _Declared(max(0, declared * samples - _MP3_DELAY), note=_MP3_UNPROVEN)
    return _Declared(max(0, declared * samples - _mp3_trimmed(first, tag)))


def _mp3_form(head: bytes) -> tuple[int, int, bool]:
    """Version, rate, mono."""
    return head[1] & 0x18, head[2] & 0x0C, head[3] >> 6 == 3


def _mp3_trimmed(first: bytes, tag: int) -> int:
    """Samples that a decoder cuts off: the encoder's delay and padding, under their checksum."""
    crc = 0
    for byte in first[: tag + 154]:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    if crc != int.from_bytes(first[tag + 154 : tag + 156], "big"):
        _fail("its first MP3 frame, which says how long it is, is damaged (checksum)")
    delay, padding = divmod(int.from_bytes(first[tag + 141 : tag + 144], "big"), 4096)
    return delay + padding or _MP3_DELAY


_CONTAINERS: dict[str, Callable[[BinaryIO, int, int, AudioLimits], _Declared]] = {
    "WAV": _wav,
    "FLAC": _flac,
    "OGG": _ogg,
    "MP3": _mp3,
}
_SUFFIXES = {
    ".wav": "WAV",
    ".wave": "WAV",
    ".flac": "FLAC",
    ".ogg": "OGG",
    ".oga": "OGG",
    ".opus": "OGG",
    ".mp3": "MP3",
}
