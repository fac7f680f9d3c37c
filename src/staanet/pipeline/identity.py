"""Hashes that identify clips by name and samples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from staanet.core import Clip


def clip_sha256(clip: Clip) -> str:
    """The hash of a clip's id, label, speaker and samples."""
    return hashlib.sha256(_clip_bytes(clip)).hexdigest()


def clips_sha256(clips: Iterable[Clip]) -> str:
    """The hash of clips with their labels and speakers, in their order."""
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(_clip_bytes(clip))
    return digest.hexdigest()


def _clip_bytes(clip: Clip) -> bytes:
    words = (clip.id, clip.label or "", clip.speaker, "")
    return "\0".join(words).encode("utf-8", "surrogatepass") + clip.pcm16.tobytes()
