"""The format and length that a container declares before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from staanet.errors import UnusableClip


@dataclass(frozen=True, slots=True)
class Declared:
    """What the container declares of its content; None where only the decoder can know."""

    frames: int | None = None
    md5: bytes | None = None
    remedy: str = ""
    note: str = ""
    end: int | None = None
    """Where the sound ends in the file; None: with the file. Decoders stumble over tags behind it."""
    patch: tuple[int, bytes] | None = None
    """Position and bytes that the decoder reads there, in place of a length that is not filled in."""


def fail(what: str) -> NoReturn:
    """Raises ``UnusableClip``; whoever opened the file adds its name."""
    raise UnusableClip(what)


def read_at(stream: BinaryIO, position: int, length: int) -> bytes:
    """Returns at most ``length`` bytes from ``position`` on."""
    stream.seek(position)
    return stream.read(length)
