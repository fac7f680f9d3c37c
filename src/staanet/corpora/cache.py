"""A corpus decoded once: its clips in one file of 16-bit samples, mapped into memory.

A run reads each clip for many stages, and reading is decoding, resampling and checking. ``kept``
gives the same corpus with its samples in a folder of the run: named by the content of every source
file, written wholly or not at all, and compared with its sha256 before it is used. What is not in it
(an unusable clip, a folder that cannot be written) is read from its source as ever.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path

import numpy as np

from staanet import storage
from staanet.core import Corpus, Samples, Utterance
from staanet.errors import StaaNetError, UnusableClip

FORMAT = 1
Places = Mapping[str, tuple[int, int]]
"""Of each utterance: its first sample in the file, and how many it has."""


def kept(corpus: Corpus, folder: Path) -> Corpus:
    """The corpus, each of whose clips is decoded at most once for each rate, into ``folder``."""
    return replace(corpus, decoded=Decoded(corpus, folder))


def discard(folder: Path) -> None:
    """Remove what ``kept`` wrote; nothing else is touched."""
    if folder.is_dir():
        for pattern in ("*.i16", "*.json", "*.part"):
            for path in sorted(folder.glob(pattern)):
                storage.remove(path)
        if not any(folder.iterdir()):
            folder.rmdir()


@dataclass(frozen=True)
class Decoded:
    """What ``Corpus.load`` asks before it decodes."""

    corpus: Corpus
    folder: Path
    opened: dict[int, tuple[Samples, Places]] = field(default_factory=dict)

    def samples(self, utterance: Utterance, sample_rate: int) -> Samples | None:
        """The clip ``[T]``, read-only; None where it has to be read from its source."""
        if sample_rate not in self.opened:
            self.opened[sample_rate] = self._open(sample_rate)
        samples, places = self.opened[sample_rate]
        start, length = places.get(utterance.id, (0, 0))
        return samples[start : start + length] if length else None

    def _open(self, sample_rate: int) -> tuple[Samples, Places]:
        nothing: tuple[Samples, Places] = np.zeros(0, np.int16), {}
        try:
            key = content_key(self.corpus, sample_rate)
            path = self.folder / f"{key[:32]}.i16"
            places = _valid(path, key)
            if places is None:
                places = _write(self.corpus, sample_rate, path, key)
        except StaaNetError:  # no file of a corpus is written without need, so this is no fault
            return nothing
        if not path.stat().st_size:
            return nothing
        return np.memmap(path, dtype="<i2", mode="r").view(np.ndarray), places


def content_key(corpus: Corpus, sample_rate: int) -> str:
    """A sha256 over all that samples depend on: the sources' content, what is cut from them, and how."""
    most = corpus.limits.max_bytes
    hashes = {path: _content(path, most) for path in {u.path for u in corpus.utterances}}
    rows = [[u.id, hashes[u.path], u.start_s, u.end_s] for u in corpus.utterances]
    told = [FORMAT, _version(), sample_rate, repr(corpus.limits), rows]
    return hashlib.sha256(json.dumps(told).encode("ascii")).hexdigest()


def _version() -> str:
    """Of this package, whose next one may decode otherwise."""
    try:
        return metadata.version("staanet")
    except metadata.PackageNotFoundError:
        return ""


def _content(path: Path, most: int) -> str:
    try:
        return storage.sha256(path) if path.stat().st_size <= most else ""
    except (OSError, ValueError, StaaNetError):
        return ""  # unusable, and said so when it is read


def _valid(path: Path, key: str) -> Places | None:
    """Where the clips lie, if the file and its index are there and as they were written."""
    index = path.with_suffix(".json")
    if not (path.is_file() and index.is_file()):
        return None
    told = storage.read_json(index)
    if told.get("key") != key or told.get("sha256") != storage.sha256(path):
        return None
    return {name: (int(start), int(length)) for name, (start, length) in told["places"].items()}


def _write(corpus: Corpus, sample_rate: int, path: Path, key: str) -> Places:
    plain, digest = replace(corpus, decoded=None), hashlib.sha256()
    places, start = {}, 0
    with storage.FileWriter(path) as file:
        for utterance in corpus.utterances:
            try:
                data = plain.load(utterance, sample_rate).pcm16.astype("<i2").tobytes()
            except UnusableClip:
                continue
            file.write(data)
            digest.update(data)
            places[utterance.id] = start, len(data) // 2
            start += len(data) // 2
    told = {"key": key, "sha256": digest.hexdigest(), "places": places}
    storage.write_json(path.with_suffix(".json"), told)
    return places
