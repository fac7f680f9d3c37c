"""FLAC: parses the stream info and the first frame."""

from __future__ import annotations

from typing import BinaryIO

from staanet.audio.containers.declared import Declared, fail, read_at
from staanet.audio.limits import AudioLimits, check_format

_STREAM_START = b"fLaC\0\0\0\x22"
_FLAC_KHZ = (88.2, 176.4, 192, 8, 16, 22.05, 24, 32, 44.1, 48, 96)


def declared_flac(stream: BinaryIO, size: int, start: int, limits: AudioLimits) -> Declared:
    """The stream info, whose rate must be that of the first frame."""
    info = read_at(stream, start + 8, 34)
    packed = int.from_bytes(info[10:18], "big")
    if len(info) < 34 or read_at(stream, start + 4, 4)[0] & 0x7F:
        fail(f"not audio: no FLAC stream info ({size} bytes)")
    rate = packed >> 44
    check_format((packed >> 41 & 7) + 1, rate, limits)
    position, last = start + 4, False
    while not last and position < size:
        head = read_at(stream, position, 4)
        last = bool(head[0] & 0x80)
        position += 4 + int.from_bytes(head[1:], "big")
    if (first := flac_frame_rate(read_at(stream, position, 16).ljust(16, b"\0"))) not in (
        None,
        rate,
    ):
        fail(f"its stream info says {rate} Hz, its first frame {first} Hz")
    frames, end = packed & (1 << 36) - 1, _end_before_tags(stream, size)
    notes = []
    if (second := _second_stream(stream, position)) is not None:
        end = second
        notes.append(f"a second FLAC stream at byte {second} is not read")
    if not any(info[18:34]):
        notes.append("FLAC without MD5: nothing proves it whole")
        return Declared(frames, note="; ".join(notes), end=end)
    return Declared(frames, info[18:34], note="; ".join(notes), end=end)


def _second_stream(stream: BinaryIO, start: int) -> int | None:
    """The offset of another stream info from ``start`` on, as two files joined into one have it."""
    stream.seek(start)
    tail, offset = b"", start
    while block := stream.read(1 << 20):
        block = tail + block
        if (at := block.find(_STREAM_START)) >= 0:
            return offset + at
        tail = block[1 - len(_STREAM_START) :]
        offset += len(block) - len(tail)
    return None


def _end_before_tags(stream: BinaryIO, size: int) -> int | None:
    """Returns the offset of tags after the audio; None if there are none."""
    end = size
    if read_at(stream, max(0, end - 128), 3) == b"TAG":  # ID3v1
        end -= 128
    if (footer := read_at(stream, max(0, end - 32), 32)).startswith(b"APETAGEX"):
        has_header = footer[23] & 0x80
        end -= int.from_bytes(footer[12:16], "little") + (32 if has_header else 0)
    return end if end < size else None


def flac_frame_rate(head: bytes) -> int | None:
    """The rate in the header of a first frame (number 0 in one byte); None where it has none."""
    code, size_bytes = head[2] & 15, {6: 1, 7: 2}.get(head[2] >> 4, 0)
    if 1 <= code <= len(_FLAC_KHZ):
        return round(1000 * _FLAC_KHZ[code - 1])
    at, wide = 5 + size_bytes, int.from_bytes(head[5 + size_bytes : 7 + size_bytes], "big")
    return {12: head[at] * 1000, 13: wide, 14: wide * 10}.get(code)
