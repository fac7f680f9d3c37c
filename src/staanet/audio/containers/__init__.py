"""Audio containers: recognised by content, with the format and length that each declares."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import BinaryIO

from staanet.audio.containers.declared import Declared
from staanet.audio.containers.flac import declared_flac
from staanet.audio.containers.foreign import PYAV, SIGNATURE_BYTES, needs_pyav, unreadable
from staanet.audio.containers.mp3 import declared_mp3, mp3_frame_bytes
from staanet.audio.containers.ogg import declared_ogg
from staanet.audio.containers.uncommon import (
    declared_aiff,
    declared_au,
    declared_caf,
    declared_nist,
    declared_w64,
)
from staanet.audio.containers.wav import declared_wav
from staanet.audio.limits import AudioLimits


def container_kind(stream: BinaryIO, size: int) -> tuple[str, int]:
    """Returns the container, by content, and where it starts.

    ID3v2 tags stand before MP3 and FLAC. Raises ``UnusableClip`` that names any other file.
    """
    start, head = 0, stream.read(SIGNATURE_BYTES)
    while len(head) >= 10 and head.startswith(b"ID3"):
        a, b, c, d = head[6:10]
        start += 10 + (a << 21 | b << 14 | c << 7 | d)
        stream.seek(start)
        head = stream.read(SIGNATURE_BYTES)
    for kind, signature, form, offset in _SIGNATURES:
        if head.startswith(signature) and head[offset:].startswith(form):
            return kind, start
    if mp3_frame_bytes(head[:4]):
        return "MP3", start
    if needs_pyav(head) and find_spec("av") is not None:
        return PYAV, start
    raise unreadable(head, size)


_SIGNATURES = (
    ("WAV", b"RIFF", b"WAVE", 8),
    ("WAV", b"RIFX", b"WAVE", 8),
    ("WAV", b"RF64", b"WAVE", 8),
    ("FLAC", b"fLaC", b"", 0),
    ("OGG", b"OggS", b"", 0),
    ("AIFF", b"FORM", b"AIF", 8),
    ("AU", b".snd", b"", 0),
    ("CAF", b"caff", b"", 0),
    ("W64", b"riff\x2e\x91\xcf\x11", b"", 0),
    ("NIST", b"NIST_1A", b"", 0),
)
"""Container, the bytes it starts with, and its form with where that stands."""
CONTAINERS: dict[str, Callable[[BinaryIO, int, int, AudioLimits], Declared]] = {
    "WAV": declared_wav,
    "FLAC": declared_flac,
    "OGG": declared_ogg,
    "MP3": declared_mp3,
    "AIFF": declared_aiff,
    "AU": declared_au,
    "CAF": declared_caf,
    "W64": declared_w64,
    "NIST": declared_nist,
    PYAV: lambda stream, size, start, limits: Declared(),
}

SUFFIXES = {
    ".wav": "WAV",
    ".wave": "WAV",
    ".flac": "FLAC",
    ".ogg": "OGG",
    ".oga": "OGG",
    ".opus": "OGG",
    ".mp3": "MP3",
    ".aif": "AIFF",
    ".aiff": "AIFF",
    ".aifc": "AIFF",
    ".au": "AU",
    ".caf": "CAF",
    ".w64": "W64",
    ".sph": "NIST",
}
