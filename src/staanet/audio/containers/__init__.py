"""Containers of audio, recognised by content, and what each declares of itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from staanet.audio.containers.declared import Declared, fail
from staanet.audio.containers.flac import declared_flac
from staanet.audio.containers.mp3 import declared_mp3, mp3_frame_bytes
from staanet.audio.containers.ogg import declared_ogg
from staanet.audio.containers.wav import declared_wav
from staanet.audio.limits import AudioLimits
from staanet.errors import printable


def container_kind(stream: BinaryIO, size: int) -> tuple[str, int]:
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
    if mp3_frame_bytes(head[:4]):
        return "MP3", start
    if len(head) < 12:
        fail(f"not audio ({size} bytes)")
    if head[4:8] == b"ftyp":
        fail("MPEG-4 (M4A, AAC), which is not read. Convert it to WAV or FLAC")
    fail(f"not audio (starts with '{printable(head.decode('ascii', 'backslashreplace'))}')")


CONTAINERS: dict[str, Callable[[BinaryIO, int, int, AudioLimits], Declared]] = {
    "WAV": declared_wav,
    "FLAC": declared_flac,
    "OGG": declared_ogg,
    "MP3": declared_mp3,
}

SUFFIXES = {
    ".wav": "WAV",
    ".wave": "WAV",
    ".flac": "FLAC",
    ".ogg": "OGG",
    ".oga": "OGG",
    ".opus": "OGG",
    ".mp3": "MP3",
}
