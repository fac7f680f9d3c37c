"""A cache of a decoded corpus: all clips as 16-bit samples in one memory-mapped file.

A run reads each clip for many stages, and reading means decoding, resampling and checking.
``with_cache`` returns the same corpus with its samples in a folder of the run. The file is named by
the content of every source file, written wholly or not at all, and compared with its sha256 before
it is used. Clips that it lacks (unusable ones, or all where the folder cannot be written) are read
from their sources.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path

import numpy as np

from staanet import audio, storage
from staanet.core import Corpus, Samples, Utterance
from staanet.errors import StaaNetError, UnusableClip

FORMAT = 2
Spans = Mapping[str, tuple[int, int, tuple[str, ...]]]
"""Of each utterance: its first sample in the file, how many it has, and what is odd about its source."""


def with_cache(corpus: Corpus, folder: Path) -> Corpus:
    """Return the corpus, each of whose clips is decoded at most once for each rate, into ``folder``."""
    return replace(corpus, decoded=DecodedCache(corpus, folder))


def discard_cache(folder: Path) -> None:
    """Remove the files of ``with_cache``; nothing else is touched."""
    if folder.is_dir():
        for pattern in ("*.i16", "*.json", "*.part"):
            for path in sorted(folder.glob(pattern)):
                storage.remove(path)
        if not any(folder.iterdir()):
            folder.rmdir()


@dataclass(frozen=True)
class DecodedCache:
    """The clips that ``Corpus.load`` need not decode."""

    corpus: Corpus
    folder: Path
    notes: list[str] = field(default_factory=list)
    """Warnings, such as a damaged file that was rebuilt."""
    by_rate: dict[int, tuple[Samples, Spans]] = field(default_factory=dict)

    def samples(self, utterance: Utterance, sample_rate: int) -> Samples | None:
        """Return the clip ``[T]``, read-only; None where it must be read from its source."""
        samples, spans = self._opened(sample_rate)
        start, length, _ = spans.get(utterance.id, (0, 0, ()))
        return samples[start : start + length] if length else None

    def recording_notes(self, utterance: Utterance, sample_rate: int) -> tuple[str, ...]:
        """Return what was odd about the file of a clip when it was decoded."""
        return self._opened(sample_rate)[1].get(utterance.id, (0, 0, ()))[2]

    def _opened(self, sample_rate: int) -> tuple[Samples, Spans]:
        if sample_rate not in self.by_rate:
            self.by_rate[sample_rate] = self._open(sample_rate)
        return self.by_rate[sample_rate]

    def _open(self, sample_rate: int) -> tuple[Samples, Spans]:
        empty: tuple[Samples, Spans] = np.zeros(0, np.int16), {}
        try:
            key = content_key(self.corpus, sample_rate)
            path = self.folder / f"{key[:32]}.i16"
            spans = _valid_spans(path, key)
            if spans is None:
                if path.exists():
                    self.notes.append(f"the decoded clips in {path.name} were damaged and rebuilt")
                spans = _write(self.corpus, sample_rate, path, key)
        except StaaNetError:  # the cache only saves time, so the sources are read instead
            return empty
        if not path.stat().st_size:
            return empty
        return np.memmap(path, dtype="<i2", mode="r").view(np.ndarray), spans


def content_key(corpus: Corpus, sample_rate: int) -> str:
    """Return a sha256 over all that the samples depend on: sources, cuts, rate and limits."""
    max_bytes = corpus.limits.max_bytes
    paths = {u.path for u in corpus.utterances}
    files = {path: audio.source_file(path) for path in paths}
    hashes = {file: _file_hash(file, max_bytes) for file in set(files.values())}
    rows = [
        [u.id, _source_hash(u.path, files, hashes), u.start_s, u.end_s] for u in corpus.utterances
    ]
    parts = [FORMAT, _version(), sample_rate, repr(corpus.limits), rows]
    return hashlib.sha256(json.dumps(parts).encode("ascii")).hexdigest()


def _source_hash(path: Path, files: Mapping[Path, Path], hashes: Mapping[Path, str]) -> str:
    """Return the sha256 of a file, and of an embedded sound also its row."""
    file = files[path]
    return hashes[file] if file == path else f"{hashes[file]}{path.name.removeprefix(file.name)}"


def _version() -> str:
    """Return the version of this package, because the next one may decode otherwise."""
    try:
        return metadata.version("staanet")
    except metadata.PackageNotFoundError:
        return ""


def _file_hash(path: Path, max_bytes: int) -> str:
    try:
        is_usable = path.suffix == ".parquet" or path.stat().st_size <= max_bytes
        return storage.sha256(path) if is_usable else ""
    except (OSError, ValueError, StaaNetError):
        return ""  # unusable: reading it says why


def _valid_spans(path: Path, key: str) -> Spans | None:
    """Return where the clips lie, if the file and its index are there and as they were written."""
    index = path.with_suffix(".json")
    if not (path.is_file() and index.is_file()):
        return None
    entry = storage.read_json(index)
    if entry.get("key") != key or entry.get("sha256") != storage.sha256(path):
        return None
    return {
        name: (int(start), int(length), tuple(map(str, notes)))
        for name, (start, length, notes) in entry["spans"].items()
    }


def _write(corpus: Corpus, sample_rate: int, path: Path, key: str) -> Spans:
    sources, digest = replace(corpus, decoded=None), hashlib.sha256()
    spans: dict[str, tuple[int, int, tuple[str, ...]]] = {}
    start = 0
    with storage.FileWriter(path) as file:
        for utterance in corpus.utterances:
            try:
                clip = sources.load(utterance, sample_rate)
            except UnusableClip:
                continue
            data = clip.pcm16.astype("<i2").tobytes()
            file.write(data)
            digest.update(data)
            spans[utterance.id] = start, len(clip.pcm16), clip.notes
            start += len(clip.pcm16)
    entry = {"key": key, "sha256": digest.hexdigest(), "spans": spans}
    storage.write_json(path.with_suffix(".json"), entry)
    return spans
