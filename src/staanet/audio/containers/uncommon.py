"""AIFF, AU, CAF, Wave64 and NIST SPHERE: compares declared frames with the bytes of the file.

The decoder gives half a file without an error, so the declared bytes must be there.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from staanet.audio.containers.declared import Declared, fail, read_at
from staanet.audio.limits import AudioLimits

_MAX_CHUNKS = 1000
_W64_HEADER, _W64_GUID_BYTES = 40, 16  # "riff", its size, "wave"
_AU_SAMPLE_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
_UNKNOWN_LENGTH = "streamed: the header declares no length, the sound ends with the file"


def declared_aiff(stream: BinaryIO, size: int, start: int, limits: AudioLimits) -> Declared:
    """AIFF and AIFF-C: ``COMM`` declares the frames, ``SSND`` holds them."""
    frames, position = None, 12
    for _ in range(_MAX_CHUNKS):
        head = read_at(stream, position, 8)
        length = int.from_bytes(head[4:8], "big")
        if head[:4] == b"COMM":
            frames = int.from_bytes(read_at(stream, position + 10, 4), "big")
        if len(head) < 8 or (frames is not None and head[:4] == b"SSND"):
            break
        position += 8 + length + length % 2
    return Declared(frames)


def declared_au(stream: BinaryIO, size: int, start: int, limits: AudioLimits) -> Declared:
    """AU: the header holds the bytes of sound, or 0xFFFFFFFF where the writer did not know."""
    head = read_at(stream, 0, 24)
    offset, length = (int.from_bytes(head[at : at + 4], "big") for at in (4, 8))
    if length == 0xFFFF_FFFF:
        return Declared(note=_UNKNOWN_LENGTH)
    coding, channels = (int.from_bytes(head[at : at + 4], "big") for at in (12, 20))
    return _declared(size, offset, length, _AU_SAMPLE_BYTES.get(coding, 0) * channels)


def declared_caf(stream: BinaryIO, size: int, start: int, limits: AudioLimits) -> Declared:
    """CAF: the chunk ``data`` declares its bytes, or -1 where the writer did not know."""
    position, frame_bytes = 8, 0
    for _ in range(_MAX_CHUNKS):
        head = read_at(stream, position, 12)
        length = int.from_bytes(head[4:12], "big", signed=True)
        if head[:4] == b"desc":
            frame_bytes = int.from_bytes(read_at(stream, position + 28, 4), "big")
        if head[:4] == b"data":
            if length == -1:
                return Declared(note=_UNKNOWN_LENGTH)
            return _declared(size, position + 16, length - 4, frame_bytes)
        if len(head) < 12 or length < 0:
            break
        position += 12 + length
    fail(f"no audio data found ({size} bytes)")


def declared_w64(stream: BinaryIO, size: int, start: int, limits: AudioLimits) -> Declared:
    """Parses Wave64, whose chunks have a GUID and a 64-bit size that includes their header."""
    position, frame_bytes = _W64_HEADER, 0
    for _ in range(_MAX_CHUNKS):
        head = read_at(stream, position, _W64_GUID_BYTES + 8)
        length = int.from_bytes(head[_W64_GUID_BYTES:], "little")
        if head[:4] == b"fmt ":
            form = read_at(stream, position + 24, 16)
            is_linear = int.from_bytes(form[:2], "little") in (1, 3, 6, 7)
            frame_bytes = int.from_bytes(form[12:14], "little") * is_linear
        if head[:4] == b"data":
            return _declared(size, position + 24, length - 24, frame_bytes)
        if len(head) < _W64_GUID_BYTES + 8 or length < 24:
            break
        position += length + -length % 8
    fail(f"no audio data found ({size} bytes)")


def declared_nist(stream: BinaryIO, size: int, start: int, limits: AudioLimits) -> Declared:
    """NIST SPHERE: a text header with the number of samples of each channel."""
    length = int(re.sub(rb"[^0-9]", b"", read_at(stream, 8, 8)) or b"0")
    header = read_at(stream, 0, min(length, 65_536))
    values = {name: int(value) for name, value in re.findall(rb"(\w+) -i ([0-9]{1,15})\n", header)}
    if b"sample_count" not in values:
        fail("its NIST SPHERE header declares no sample_count")
    return Declared(values[b"sample_count"])


def _declared(size: int, start: int, length: int, frame_bytes: int) -> Declared:
    """Frames of ``length`` bytes from ``start`` on; of coded frames, only that the bytes are there."""
    if frame_bytes:
        return Declared(length // frame_bytes)
    if start + length > size:
        fail(f"holds {max(0, size - start)} of {length} declared bytes of sound")
    return Declared()
