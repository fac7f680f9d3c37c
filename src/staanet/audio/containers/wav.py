"""WAV: parses the chunks of RIFF, RIFX and RF64 files."""

from __future__ import annotations

import re
import struct
from typing import BinaryIO, Literal

from staanet.audio.containers.declared import Declared, fail, read_at
from staanet.audio.limits import AudioLimits, check_format
from staanet.errors import UnusableClip

_Order = Literal["little", "big"]

_MAX_CHUNKS = 1000

_WAV_LINEAR = (1, 3, 6, 7)  # PCM, float, A-law, mu-law

_WAV_BLOCKS = (2, 0x11, 0x31)  # ADPCM of Microsoft and IMA, GSM

_WAV_UNREAD = {
    0x50: "MPEG audio",
    0x55: "MP3",
    0xFF: "AAC",
    0x160: "WMA",
    0x161: "WMA",
    0x2000: "AC-3",
}


def declared_wav(stream: BinaryIO, size: int, start: int, limits: AudioLimits) -> Declared:
    """Parses RIFF chunks; they must fill the file without a gap, or a wrong length could hide in one."""
    head = read_at(stream, 0, 12)
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
            fail(f"no audio data found ({size} bytes)")
        position += 8 + length + length % 2
    else:
        fail(f"no audio data found in {_MAX_CHUNKS} chunks")
    coding, block = _wav_format(form, order, limits)
    held = size - position - 8
    if head[:4] == b"RF64":
        length = data_64 if length == 0xFFFF_FFFF else length
    elif length in (0, 0xFFFF_FFFF) and end in (8, 8 + 0xFFFF_FFFF) and held:
        return _streamed(position, held, coding, block, order)
    data_end = position + 8 + length
    if data_end > size:
        fail(f"holds {held // block} of {length // block} declared frames")
    if not _is_tiled(stream, data_end, min(end, size) if end >= data_end else size, order):
        fail(
            f"declares {length // block} frames, but {size - data_end} bytes follow that are no chunk"
        )
    if coding not in _WAV_LINEAR:  # frames are not of one size: the decoder knows them
        return Declared()
    if length % block:
        fail(f"its {length} bytes of data are no whole number of frames of {block} bytes")
    return Declared(length // block, note=_note_behind(stream, max(end, data_end), size, block))


def _streamed(position: int, held: int, coding: int, block: int, order: _Order) -> Declared:
    """A file whose writer could not go back to fill in its length, such as ffmpeg into a pipe."""
    rest = held % block if coding in _WAV_LINEAR else 0
    if held - rest >= 2**32 - 1:
        fail(f"streamed, and its {held} bytes of sound are more than a WAV file declares")
    note = "streamed: the header declares no length, the sound ends with the file"
    if rest:
        note += f"; its last {rest} bytes are no whole frame"
    return Declared(
        (held - rest) // block if coding in _WAV_LINEAR else None,
        note=note,
        patch=(position + 4, (held - rest).to_bytes(4, order)),
    )


def _note_behind(stream: BinaryIO, end: int, size: int, block: int) -> str:
    """Says how much stands behind the declared end, unless it is padding, tags or one byte."""
    behind = size - end
    if behind <= 1 or read_at(stream, end, 3) in (b"TAG", b"ID3", b"APE"):
        return ""
    stream.seek(end)
    while data := stream.read(65_536):
        if any(data):
            return (
                f"{behind} bytes behind the declared end are not read: "
                f"as samples they were {behind // block} frames"
            )
    return ""


def _chunk(stream: BinaryIO, position: int, order: _Order) -> tuple[bytes, int]:
    head = read_at(stream, position, 8)
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
        fail("no WAV format before its data")
    names = struct.unpack_from(f"{'>' if order == 'big' else '<'}HHIIHH", form)
    coding, channels, rate, byte_rate, block, bits = names
    check_format(channels, rate, limits)
    if coding == 0xFFFE:
        coding = int.from_bytes(form[24:26], order)
    if coding in _WAV_UNREAD:
        what = f"{_WAV_UNREAD[coding]} in a WAV container, which is not read"
        raise UnusableClip(what, remedy="Convert it: ffmpeg -i FILE -c:a pcm_s16le FILE.wav")
    samples = int.from_bytes(form[18:20], order) if coding in _WAV_BLOCKS else 1
    if block == 0 or (coding in _WAV_LINEAR and block != channels * ((bits + 7) // 8)):
        fail(f"its format contradicts itself ({channels} x {bits} bits, {block} bytes a frame)")
    is_checkable = samples and coding in _WAV_LINEAR + _WAV_BLOCKS
    if is_checkable and byte_rate and abs(byte_rate - rate * block / samples) > 1:
        fail(f"its format contradicts itself ({rate} Hz, {byte_rate} bytes a second)")
    return coding, block
