"""Encodes samples as mono 16-bit WAV and FLAC files, in memory."""

from __future__ import annotations

import io
import struct
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from staanet.errors import InvalidInput


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
