"""Decodes an open file in blocks, averages its channels, and checks that it is complete."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from staanet.audio.containers.declared import Declared, fail
from staanet.audio.limits import AudioLimits, check_format
from staanet.errors import UnusableClip, printable

_BLOCK = 4_096  # frames decoded at a time: how exactly an error can say where a file is damaged
INTEGER_VALUES = 100.0
"""Float samples of at least this value are taken for integers that were never scaled."""
CANCELLED = "its channels cancel out when they are averaged"
CANCELLED_ENERGY = 0.02
"""Below this share of the channels' energy in their mean, the channels count as out of phase."""


@dataclass(slots=True)
class Decoder:
    """Iterates over the blocks ``[T]`` of an open file: channels averaged, float32 in [-1, 1].

    After the last block ``rate`` is in Hz, ``form`` names the format, and ``notes`` lists irregularities.
    Raises ``UnusableClip``, at the latest after the last block, where the file is damaged or incomplete.
    """

    descriptor: int
    declared: Declared
    limits: AudioLimits
    rate: int = 0
    channels: int = 0
    form: str = ""
    notes: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        import soundfile

        try:
            with soundfile.SoundFile(self._source(), closefd=False) as file:
                # soundfile seeks after each block of a seekable file, and the MP3 decoder then fails
                file.seekable = lambda: False
                check_format(file.channels, file.samplerate, self.limits)
                self.rate, self.channels = file.samplerate, file.channels
                self.form = f"{file.format} {file.subtype}"
                frames = file.frames if self.declared.frames is None else self.declared.frames
                digest = hashlib.md5(usedforsecurity=False)
                yield from self._mono(_blocks(file, frames, digest), frames)
        except soundfile.SoundFileError as error:
            raise UnusableClip(f"cannot be decoded ({_reason(error)})") from error
        if self.declared.md5 not in (None, digest.digest()):
            fail("its FLAC MD5 is not that of the decoded samples")

    def _source(self) -> Any:
        """Returns the descriptor, or a view of the file that ends earlier or has other bytes."""
        if self.declared.end is None and self.declared.patch is None:
            return self.descriptor
        return _View(self.descriptor, self.declared)

    def _mono(
        self, blocks: Iterator[NDArray[np.float32]], frames: int | None
    ) -> Iterator[NDArray[np.float32]]:
        """Averages the channels block by block, ``[T, channels] -> [T]``, so that memory stays small.

        Nothing is yielded of a clip that declares more ``frames`` than ``max_seconds``; None: unknown.
        """
        budget = self.limits.max_seconds * self.rate
        decoded, bad, first_bad, clipped, largest = 0, 0, 0, 0, 0.0
        channel_energy = mono_energy = 0.0
        has_sound = np.zeros(self.channels, bool)
        for block in blocks:
            non_finite = ~np.isfinite(block)
            if non_finite.any():
                first_bad = first_bad if bad else decoded + int(non_finite.any(axis=1).argmax())
                bad += int(non_finite.sum())
            decoded += len(block)
            if decoded > budget:
                limit = f"longer than the limit of {self.limits.max_seconds:g} s"
                raise UnusableClip(limit, remedy=self.limits.seconds_remedy)
            if (frames or 0) <= budget and not bad:
                mono = block[:, 0] if self.channels == 1 else block.mean(axis=1, dtype=np.float64)
                has_sound |= (block != block[0]).any(axis=0)
                clipped += int(np.count_nonzero(np.abs(mono) > 1))
                largest = max(largest, float(np.abs(mono).max(initial=0)))
                if self.channels > 1:
                    channel_energy += (
                        float(np.square(block, dtype=np.float64).sum()) / self.channels
                    )
                    mono_energy += float(np.square(mono, dtype=np.float64).sum())
                yield np.clip(mono, -1, 1).astype(np.float32)
        if frames is not None and decoded != frames:
            raise UnusableClip(
                f"holds {decoded} of {frames} declared frames", remedy=self.declared.remedy
            )
        if decoded == 0:
            fail("0 samples")
        if bad:
            fail(f"{bad} non-finite sample{'s' * (bad > 1)}, first at {first_bad}")
        self.notes += [f"{self.channels} channels averaged to mono"] if self.channels > 1 else []
        if mono_energy < CANCELLED_ENERGY * channel_energy:
            self.notes.append(f"{CANCELLED}: they are out of phase")
        elif has_sound.any() and not has_sound.all():
            silent = ", ".join(str(index + 1) for index in np.flatnonzero(~has_sound))
            self.notes.append(f"no sound in channel {silent} of {self.channels}")
        if clipped:
            self.notes.append(f"{clipped} sample{'s' * (clipped > 1)} beyond full scale, clipped")
        if largest >= INTEGER_VALUES:
            self.notes.append(f"its floats reach {largest:.0f}: integers that were not scaled")


class _View:
    """A file object for the decoder: an open file that ends earlier, or has other bytes at a position."""

    def __init__(self, descriptor: int, declared: Declared) -> None:
        self.descriptor, self.patch, self.position = descriptor, declared.patch, 0
        size = os.fstat(descriptor).st_size
        self.end = size if declared.end is None else declared.end

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.end}[whence]
        self.position = base + offset
        return self.position

    def tell(self) -> int:
        return self.position

    def read(self, count: int) -> bytes:
        data = os.pread(
            self.descriptor, max(0, min(count, self.end - self.position)), self.position
        )
        if self.patch is not None:
            first, patch = self.patch[0] - self.position, self.patch[1]
            patched = bytearray(data)
            for index, byte in enumerate(patch, start=first):
                if 0 <= index < len(patched):
                    patched[index] = byte
            data = bytes(patched)
        self.position += len(data)
        return data


def _blocks(file: Any, frames: int, digest: Any) -> Iterator[NDArray[np.float32]]:
    """Yields the decoded blocks ``[T, channels]``, and updates ``digest`` as FLAC computes its MD5."""
    import soundfile

    width = {"PCM_S8": 1, "PCM_16": 2, "PCM_24": 3}.get(file.subtype, 0) * (file.format == "FLAC")
    decoded, full = 0, np.float32(2**31)
    while True:
        # a read past the last frame loses that frame, where other bytes follow the FLAC data
        rest = frames - decoded if width else 0
        size = min(_BLOCK, rest) if rest > 0 else _BLOCK
        try:
            block = file.read(size, dtype="int32" if width else "float32", always_2d=True)
        except soundfile.SoundFileError as error:
            fail(f"damaged after frame {decoded} of {frames} declared frames ({_reason(error)})")
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
