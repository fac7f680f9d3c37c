"""What tells clips from any others: hashes of their names and samples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from staanet.core import Clip


def clip_sha256(clip: Clip) -> str:
    """The hash of a clip's id and samples."""
    return hashlib.sha256(clip.id.encode() + b"\0" + clip.pcm16.tobytes()).hexdigest()


def clips_sha256(clips: Iterable[Clip]) -> str:
    """The hash of the ids and samples of clips, in their order."""
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(clip.id.encode() + b"\0" + clip.pcm16.tobytes())
    return digest.hexdigest()


def sum_of(digests: Iterable[str]) -> str:
    """The sum of hashes: the same in any order, and the sum of the sums of its parts.

    >>> sum_of(["01", "ff"])[-4:] == sum_of(["ff", "01"])[-4:] == "0100"
    True
    """
    return f"sum:{sum(int(digest, 16) for digest in digests) % 2**256:064x}"
