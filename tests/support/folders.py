"""Folders as the files in them."""

from __future__ import annotations

import hashlib

from staanet.results import adversarial_set

TIMED = {adversarial_set.TIMES, ".lock"}


def hashes(folder):
    """The sha256 of each file but those that hold times."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in TIMED
    }
