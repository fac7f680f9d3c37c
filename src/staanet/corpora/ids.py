"""Ids of clips: made from file names, unique, and safe as file names."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping

import numpy as np

from staanet.storage.lazy_rows import TextColumn, digests_of, duplicate_groups

MAX_LENGTH = 80
"""Characters of an id, apart from the digits of a hash that may follow."""
_SAFE = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")


def safe_ids(names: Mapping[str, str]) -> dict[str, str]:
    """Return an id for each key, made from the name of its file.

    An id is ASCII and safe as a file name. Digits of a hash follow where two names would give one
    id (upper and lower case count as equal), or where a name is not safe as it is. The order of
    the names never matters.

    >>> safe_ids({"x": "fear/a.wav", "y": "joy/a.wav", "z": "joy/\u00fc.wav"})
    {'x': 'fear__a', 'y': 'joy__a', 'z': 'joy__u-594e519a'}
    """
    keys, files = list(names), list(names.values())
    ids = distinct_ids(len(keys), keys.__getitem__, files.__getitem__)
    return dict(zip(keys, ids, strict=True))


def distinct_ids(count: int, key: Callable[[int], str], name: Callable[[int], str]) -> TextColumn:
    """Return the ids of ``safe_ids`` for ``count`` different keys, given by index."""
    ids, is_unique = TextColumn(), np.zeros(count, bool)
    for digits in (0, 8, 64):
        ids = TextColumn(
            ids[index] if unique else _safe_id(key(index), name(index), digits)
            for index, unique in enumerate(is_unique.tolist())
        )
        is_unique = np.fromiter((text != "" for text in ids), bool, count)
        for group in duplicate_groups(digests_of(text.casefold() for text in ids)):
            is_unique[group] = False
        if is_unique.all():
            break
    return ids


def _safe_id(key: str, name: str, digits: int) -> str:
    """Return the id with that many digits of the hash; without digits it may be ``""``: not safe."""
    base = name.rpartition("/")[2]
    dot = base.rfind(".")
    stem = name[: dot - len(base)] if 0 < dot < len(base) - 1 else name
    joined = stem.replace("/", "__")
    if digits == 0 and len(joined) <= MAX_LENGTH and _SAFE.fullmatch(joined):
        return joined
    plain = unicodedata.normalize("NFKD", joined).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip(".-")[:MAX_LENGTH]
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{safe or 'clip'}-{digest[: digits or 8]}"
