"""Names file formats that are not supported, with the command that converts them."""

from __future__ import annotations

from staanet.errors import UnusableClip, printable

_CONVERT = (
    "Convert it: ffmpeg -i FILE FILE.wav, or install what reads it: pip install 'staanet[av]'"
)
PYAV = "PYAV"
"""What is read by PyAV, where that is installed."""
_SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (4, b"ftyp3gp", "3GP", _CONVERT),
    (4, b"ftyp", "MPEG-4 (M4A, AAC)", _CONVERT),
    (0, b"#!AMR", "AMR", _CONVERT),
    (0, b"\x1a\x45\xdf\xa3", "WebM or Matroska", _CONVERT),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media (WMA)", _CONVERT),
    (8, b"AVI ", "AVI", _CONVERT),
    (0, b"Creative Voice File", "Creative Voice (VOC)", _CONVERT),
    (8, b"8SVX", "Amiga 8SVX", _CONVERT),
    (0, b"wvpk", "WavPack", _CONVERT),
    (0, b"MAC ", "Monkey's Audio (APE)", _CONVERT),
    (0, b"FLV\1", "Flash video", _CONVERT),
    (0, b"version https://git-lfs", "a git-lfs pointer, not the sound", "Fetch it: git lfs pull"),
    (0, b"PK\x03\x04", "a ZIP archive", "Unpack it: unzip FILE"),
    (0, b"\x1f\x8b", "a gzip archive", "Unpack it: gunzip FILE"),
)
"""Position, bytes there, what such a file is, and what to do with it."""
SIGNATURE_BYTES = 64


def needs_pyav(head: bytes) -> bool:
    """Whether a file that starts with ``head`` is one that ffmpeg reads and libsndfile does not.

    >>> needs_pyav(b"#!AMR\\n"), needs_pyav(b"PK\\x03\\x04")
    (True, False)
    """
    return unreadable(head, len(head)).remedy == _CONVERT


def unreadable(head: bytes, size: int) -> UnusableClip:
    """Returns the error for a file that starts with ``head`` and is not a supported audio format.

    >>> str(unreadable(b"#!AMR-WB\\n" + bytes(20), 1000)).partition(".")[0]
    'AMR, which is not read'
    """
    for position, signature, kind, remedy in _SIGNATURES:
        if head[position:].startswith(signature):
            what = kind if kind.startswith("a ") else f"{kind}, which is not read"
            return UnusableClip(what, remedy=remedy)
    if head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xF6 == 0xF0:  # the sync word of ADTS
        return UnusableClip("AAC, which is not read", remedy=_CONVERT)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return UnusableClip("an HTML page, not audio", remedy="Download the file again")
    if text.startswith((b'{"', b"{\n", b"[{")):
        return UnusableClip("JSON text, not audio", remedy="Download the file again")
    if len(head) < 12:
        return UnusableClip(f"not audio ({size} bytes)")
    return UnusableClip(
        f"not audio (starts with '{printable(head[:12].decode('ascii', 'backslashreplace'))}')"
    )
