"""OGG: parses every page and verifies its checksum."""

from __future__ import annotations

import zlib
from typing import BinaryIO

from staanet.audio.containers.declared import Declared, fail
from staanet.audio.limits import AudioLimits

_BIT_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def declared_ogg(stream: BinaryIO, size: int, start: int, limits: AudioLimits) -> Declared:
    """Parses every page; all must be complete, in order and of one stream, and the last marked as such."""
    position, number, serial, last = 0, 0, b"", False
    while position < size:
        stream.seek(position)
        page = stream.read(27)
        page += stream.read(page[26] if len(page) == 27 else 0)
        body = stream.read(sum(page[27:]))
        if len(page) < 27 or len(page) < 27 + page[26] or len(body) < sum(page[27:]):
            fail(f"cut in OGG page {number} at byte {position} of {size}")
        if page[:4] != b"OggS" or last:
            fail(f"OGG page {number} at byte {position} is damaged, or follows the last page")
        bare = page[:22] + bytes(4) + page[26:] + body
        if _ogg_crc(bare) != int.from_bytes(page[22:26], "little"):
            fail(f"OGG page {number} at byte {position} is damaged (checksum)")
        if number == 0:
            serial = page[14:18]
        if page[14:18] != serial or int.from_bytes(page[18:22], "little") != number:
            fail(f"OGG page {number} at byte {position} is of another stream or out of order")
        last = bool(page[5] & 4)
        position, number = position + len(page) + len(body), number + 1
    if not last:
        fail(f"cut: its last OGG page is missing ({number} pages, {size} bytes)")
    return Declared()


def _ogg_crc(data: bytes) -> int:
    """CRC-32 of OGG: zlib's with mirrored bits, initial and final value 0."""
    mirrored = zlib.crc32(data.translate(_BIT_REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{mirrored:032b}"[::-1], 2)
