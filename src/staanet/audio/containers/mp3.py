"""MP3: counts frames, and reads the length that the first frame declares."""

from __future__ import annotations

from typing import BinaryIO

from staanet.audio.containers.declared import Declared, fail, read_at
from staanet.audio.limits import AudioLimits

_MP3_KBPS = (  # Layer III of MPEG 2, MPEG 1
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)

_MP3_TAG = ((21, 13), (36, 21))  # where it would stand: MPEG 2 or 1, stereo or mono

_MP3_UNPROVEN = "MP3 that does not prove its exact length"

_MP3_DELAY = 529  # samples: the decoder's own

_MP3_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def mp3_frame_bytes(head: bytes) -> int:
    """The bytes of the MPEG Layer III frame that starts with these 4 bytes; 0 where none does."""
    word = int.from_bytes(head, "big")
    version, layer, kbps, rate = word >> 19 & 3, word >> 17 & 3, word >> 12 & 15, word >> 10 & 3
    if word >> 21 != 0x7FF or version == 1 or layer != 1 or kbps in (0, 15) or rate == 3:
        return 0
    bits = _MP3_KBPS[version == 3][kbps] * (144_000 if version == 3 else 72_000)
    return bits // _MP3_HZ[version][rate] + (word >> 9 & 1)


def declared_mp3(stream: BinaryIO, size: int, start: int, limits: AudioLimits) -> Declared:
    """Frame after frame up to the tags at the end; decoders skip what they do not understand, and
    guess the length where the first frame does not say it."""
    first = read_at(stream, start, mp3_frame_bytes(read_at(stream, start, 4))).ljust(256, b"\0")
    position, count = start, 0
    while length := mp3_frame_bytes(head := read_at(stream, position, 4)):
        if position + length > size:
            fail(f"cut in MP3 frame {count} at byte {position} of {size}")
        if _mp3_form(head) != _mp3_form(first):
            fail(f"MP3 frame {count} at byte {position} is of another form than the first")
        position, count = position + length, count + 1
    rest = read_at(stream, position, 8)
    if any(rest) and not rest.startswith((b"TAG", b"APETAGEX", b"LYRICS")):
        fail(f"MP3 frame {count} at byte {position} is damaged")
    samples = 1152 if first[1] & 8 else 576
    tag = _MP3_TAG[bool(first[1] & 8)][first[3] >> 6 == 3]
    if first[tag : tag + 4] not in (b"Xing", b"Info") or not first[tag + 7] & 1:
        remedy = "Convert the MP3 to WAV, as it does not say its length"
        return Declared(count * samples, remedy=remedy, note=_MP3_UNPROVEN)
    declared = int.from_bytes(first[tag + 8 : tag + 12], "big")
    if count - 1 != declared:
        fail(f"holds {count - 1} of {declared} declared MP3 frames")
    if not any(first[tag + 120 : tag + 156]):  # no encoder's delay and padding, no checksum
        return Declared(max(0, declared * samples - _MP3_DELAY), note=_MP3_UNPROVEN)
    return Declared(max(0, declared * samples - _mp3_trimmed(first, tag)))


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
        fail("its first MP3 frame, which says how long it is, is damaged (checksum)")
    delay, padding = divmod(int.from_bytes(first[tag + 141 : tag + 144], "big"), 4096)
    return delay + padding or _MP3_DELAY
