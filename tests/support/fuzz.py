"""``python -m bench fuzz --n 1000000``: mutants of every kind of file that is read.

A mutant is made of a good file by cutting, flipping, inserting, removing and splicing bytes, drawn from
``(seed, kind, number)``, so that each can be made again. It must be refused by a ``StaaNetError`` that
names the file, or be read as what it is: audio with its true length and finite samples, weights that
their hash vouches for, rows that stay inside their folder. Anything else is a finding.

>>> made = originals("json")[0]
>>> mutate(made, rng(0, "json", 5)) == mutate(made, rng(0, "json", 5)) != made
True
"""

from __future__ import annotations

import io
import json
import math
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from staanet import audio, config, storage
from staanet.errors import InvalidInput, StaaNetError, UnusableClip
from staanet.results import adversarial_set, row_files

RATE, LENGTH = 16_000, 3_000
TOKENS = (
    b"",
    b"\0",
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\x80",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"nan",
    b"inf",
    b"-1",
    b"1e999",
    b"9" * 5000,
    b"[" * 2000,
    b"{" * 50,
    b'"',
    b"'",
    b",",
    b";",
    b"\t",
    b"\r",
    b"\n",
    b"\\",
    b"../",
    b"/etc/passwd",
    b"~",
    b"C:\\",
    b"=cmd",
    b"\xe2\x80\xae",
    b"\x1b[31m",
    b"null",
    b"true",
    b"RIFF",
    b"data",
    b"fmt ",
    b"fLaC",
    b"OggS",
    b"ID3",
    b"TAG",
    b"a.b.c.",
    b'"\\ud800"',
    b"<script>",
    b"{{7*7}}",
)


class Finding(AssertionError):
    """A mutant that was neither refused in words nor read as what it is."""


@dataclass
class Tally:
    """How many mutants of each kind were refused or read, and those that did neither."""

    refused: Counter[str] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def __iadd__(self, other: Tally) -> Tally:
        self.refused += other.refused
        self.read += other.read
        self.findings += other.findings
        return self


# ---------------------------------------------------------------- mutants


def rng(seed: int, kind: str, number: int) -> random.Random:
    """The draws of one mutant."""
    return random.Random(f"{seed} {kind} {number}")


def mutate(data: bytes, draw: random.Random) -> bytes:
    """One to three changes, at the head of the file more often than elsewhere."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        at = draw.randrange(max(1, min(len(data), draw.choice((64, 400, len(data))))))
        match draw.randrange(7):
            case 0:
                data = data[:at]
            case 1 if data:
                data = data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
            case 2 if data:
                data = data[:at] + bytes([draw.choice((0, 1, 127, 128, 255))]) + data[at + 1 :]
            case 3:
                data = data[:at] + draw.randbytes(draw.randrange(1, 40)) + data[at:]
            case 4:
                data = data[:at] + data[at + draw.randrange(1, 40) :]
            case 5:
                data = data[:at] + draw.choice(TOKENS) + data[at + draw.randrange(8) :]
            case 6:
                length = draw.randrange(1, 400)
                data = data[:at] + data[at : at + length] + data[at:]
    return data


@cache
def originals(kind: str) -> list[bytes]:
    """The good files whose mutants are tried."""
    return KINDS[kind][0]()


# ---------------------------------------------------------------- kinds: good files, and the law


def _speech() -> np.ndarray[Any, np.dtype[np.float64]]:
    time = np.arange(LENGTH) / RATE
    noise = np.random.default_rng(0).standard_normal(LENGTH)
    return 0.3 * np.sin(2 * np.pi * 300 * time) + 0.01 * noise


def _audio() -> list[bytes]:
    import soundfile

    made = []
    for form, subtype, channels in (
        ("WAV", "PCM_16", 1),
        ("WAV", "PCM_U8", 1),
        ("WAV", "PCM_24", 2),
        ("WAV", "FLOAT", 1),
        ("WAV", "DOUBLE", 1),
        ("WAVEX", "PCM_16", 2),
        ("RF64", "PCM_16", 1),
        ("WAV", "ULAW", 1),
        ("FLAC", "PCM_16", 1),
        ("FLAC", "PCM_24", 2),
        ("OGG", "VORBIS", 1),
        ("OGG", "OPUS", 2),
        ("MP3", "MPEG_LAYER_III", 1),
    ):
        out = io.BytesIO()
        samples = np.repeat(_speech()[:, None], channels, axis=1)
        soundfile.write(out, samples, RATE, format=form, subtype=subtype)
        made.append(out.getvalue())
    return made


def _try_audio(folder: Path, data: bytes) -> bool:
    path = folder / "clip.bin"
    path.write_bytes(data)
    try:
        sound = audio.read_audio(path)
    except UnusableClip as problem:
        _explained(problem, path)
        return False
    if len(sound.samples) != LENGTH and data not in originals("audio"):
        raise Finding(f"{len(sound.samples)} samples without a word, not {LENGTH}")
    if not np.isfinite(sound.samples).all() or np.abs(sound.samples).max() > 1:
        raise Finding("samples that are not finite, or beyond full scale")
    return True


_CARD = {
    "kind": "victim",
    "schema": 1,
    "name": "tiny",
    "labels": ["joy", "fear"],
    "sample_rate": RATE,
    "architecture": "tiny",
    "settings": {},
    "inputs": {"seed": 0, "split": "a" * 64},
    "uar": 0.5,
}


def _json() -> list[bytes]:
    return [json.dumps(_CARD, indent=2).encode(), b'\xef\xbb\xbf{"a": [1, 2.5e3, null, "\\u00fc"]}']


def _try_json(folder: Path, data: bytes) -> bool:
    path = folder / "card.json"
    path.write_bytes(data)
    try:
        told = storage.read_json(path)
    except InvalidInput as problem:
        _explained(problem, path)
        return False
    storage.write_json(folder / "again.json", told)
    if storage.read_json(folder / "again.json") != told:
        raise Finding("another content after it was written again")
    return True


def _try_card(folder: Path, data: bytes) -> bool:
    from staanet.core.victim import check_victim_card

    path = folder / "card.json"
    path.write_bytes(data)
    try:
        card = storage.read_card(folder, "victim")
        check_victim_card(card, folder)
    except InvalidInput as problem:
        _explained(problem, folder)
        return False
    labels = card["labels"]
    if not (isinstance(labels, list) and len(set(labels)) == len(labels) >= 2):
        raise Finding(f"a victim of the labels {labels!r}")
    return True


def _recipes() -> list[bytes]:
    shipped = config.shipped_recipes().values()
    return [path.read_bytes() for path in shipped]


def _try_recipe(folder: Path, data: bytes) -> bool:
    path = folder / "recipe.toml"
    path.write_bytes(data)
    try:
        recipe = config.load_recipe(str(path))
    except StaaNetError as problem:
        _explained(problem, path)
        return False
    (folder / "again.toml").write_text(config.to_toml(recipe), encoding="utf-8")
    if config.load_recipe(str(folder / "again.toml")) != recipe:
        raise Finding("another recipe after it was written again")
    return True


def _manifests(form: str) -> Callable[[], list[bytes]]:
    rows = [
        {
            "file": f"{part}/a{n}.wav",
            "label": ("joy", "fear")[n % 2],
            "speaker": f"s{n // 2}",
            "start": 0.5,
            "end": 1.5 + n,
            "split": part,
        }
        for n in range(8)
        for part in ("train", "test")
    ]

    def made() -> list[bytes]:
        if form == "csv":
            return [
                row_files.csv_text(list(rows[0]), rows).encode(),
                b"\xef\xbb\xbffile_name,emotion\r\na.wav,joy\r\n",
            ]
        if form == "jsonl":
            return ["".join(json.dumps(row) + "\n" for row in rows).encode()]
        import pandas

        out = io.BytesIO()
        pandas.DataFrame(rows).to_parquet(out, index=False)
        return [out.getvalue()]

    return made


def _try_manifest(form: str) -> Callable[[Path, bytes], bool]:
    def attempt(folder: Path, data: bytes) -> bool:
        from staanet.corpora.folder import read_folder

        path = folder / f"list.{form}"
        path.write_bytes(data)
        try:
            corpus = read_folder(path)
            for part in corpus.split(0) if len(corpus.speakers) > 2 else ():
                len(part)
        except InvalidInput as problem:
            if "list." in str(problem.where):
                _explained(problem, path)
            return False
        ids = [u.id for u in corpus.utterances]
        if len(set(ids)) < len(ids):
            raise Finding("an id twice")
        for u in corpus.utterances:
            if ".." in u.path.relative_to(folder).parts or "/" in u.id or not u.id.isascii():
                raise Finding(f"{u.path} leads out of its folder, or {u.id!r} is no name")
            if not (u.label or "").isprintable() or not 0 <= u.start_s < (u.end_s or math.inf):
                raise Finding(f"label {u.label!r} from {u.start_s} to {u.end_s}")
        return True

    return attempt


def _weights() -> list[bytes]:
    import torch
    from safetensors.torch import save

    draw = torch.Generator().manual_seed(0)
    return [
        save({"w": torch.randn(3, 5, generator=draw), "b": torch.zeros(5, dtype=torch.float64)})
    ]


def _try_weights(folder: Path, data: bytes) -> bool:
    """With its card's hash, and as a forger would write it, with the hash of the mutant."""
    import hashlib

    for digest in (hashlib.sha256(originals("safetensors")[0]), hashlib.sha256(data)):
        (folder / storage.CARD).write_text(json.dumps({**_CARD, "sha256": digest.hexdigest()}))
        (folder / storage.WEIGHTS).write_bytes(data)
        try:
            tensors, _ = storage.load_model(folder, kind="victim")
        except InvalidInput as problem:
            _explained(problem, folder)
            continue
        if (
            digest.digest() == hashlib.sha256(originals("safetensors")[0]).digest()
            and data != originals("safetensors")[0]
        ):
            raise Finding("weights that their hash does not vouch for")
        if any(t.numel() > len(data) for t in tensors.values()):
            raise Finding("more numbers than the file has bytes")
        return True
    return False


def _checkpoints() -> list[bytes]:
    with tempfile.TemporaryDirectory() as name:
        import torch

        storage.save_checkpoint(Path(name), 7, {"w": torch.arange(6.0)}, {"step": 7, "rows": []})
        (path,) = Path(name).glob("step-*")
        return [path.read_bytes()]


def _try_checkpoint(folder: Path, data: bytes) -> bool:
    (folder / "step-00000007.safetensors").write_bytes(data)
    found = storage.latest_checkpoint(folder)
    if found is None:
        return False
    tensors, state = found
    if state != {"step": 7, "rows": []} or tensors["w"].tolist() != [0, 1, 2, 3, 4, 5]:
        raise Finding("a checkpoint that differs from what was saved")
    return True


def _sets() -> list[bytes]:
    row = {
        "file_name": "adversarial/a.wav",
        "original_file_name": "clean/a.wav",
        "id": "a",
        "label": "joy",
        "speaker": "s",
        "l0": "0",
        "density": "0.1",
        "linf": "0.1",
        "snr_db": "9.5",
        "peak_ratio_db": "1.5",
        "seconds": "0.25",
        "queries": "3",
    }
    return [
        row_files.csv_text(adversarial_set.COLUMNS, [row, {**row, "id": "b", "label": ""}]).encode()
    ]


def _try_set(folder: Path, data: bytes) -> bool:
    clip = audio.encode(audio.snap(_speech()), RATE)
    for part in ("adversarial", "clean"):
        (folder / part).mkdir(exist_ok=True)
        (folder / part / "a.wav").write_bytes(clip)
    (folder / storage.CARD).write_text('{"kind": "adversarial", "schema": 1, "attack": "x"}')
    (folder / "metadata.csv").write_bytes(data)
    try:
        for one in adversarial_set.AdversarialSet.load(folder):
            if len(one.adversarial) != LENGTH or one.measurements()["l0"] != 0:
                raise Finding("a clip that is not that of the files")
    except InvalidInput as problem:
        _explained(problem, folder)
        return False
    return True


def _explained(problem: StaaNetError, path: Path) -> None:
    told = str(problem)
    if not str(problem.where).startswith(str(path)):
        raise Finding(f"an error that does not name the file: {told[:200]}")
    if not told.isprintable() or "\n" in told or len(told) > 3000:
        raise Finding(f"an error that a terminal cannot show: {told[:300]!r}")


Attempt = Callable[[Path, bytes], bool]
KINDS: dict[str, tuple[Callable[[], list[bytes]], Attempt]] = {
    "audio": (_audio, _try_audio),
    "json": (_json, _try_json),
    "card": (_json, _try_card),
    "recipe": (_recipes, _try_recipe),
    "csv": (_manifests("csv"), _try_manifest("csv")),
    "jsonl": (_manifests("jsonl"), _try_manifest("jsonl")),
    "parquet": (_manifests("parquet"), _try_manifest("parquet")),
    "safetensors": (_weights, _try_weights),
    "checkpoint": (_checkpoints, _try_checkpoint),
    "metadata": (_sets, _try_set),
}


# ---------------------------------------------------------------- running them


def attempt(kind: str, number: int, seed: int, folder: Path, tally: Tally) -> None:
    """Make one mutant and try it."""
    draw = rng(seed, kind, number)
    data = mutate(draw.choice(originals(kind)), draw)
    begun = time.monotonic()
    try:
        read = KINDS[kind][1](folder, data)
        if time.monotonic() - begun > 30:
            raise Finding(f"took {time.monotonic() - begun:.0f} s")
        (tally.read if read else tally.refused)[kind] += 1
    except Exception as problem:
        last = traceback.extract_tb(problem.__traceback__)[-1]
        tally.findings.append(
            f"{kind} {number} of seed {seed}: {type(problem).__name__}: {str(problem)[:200]} "
            f"({Path(last.filename).name}:{last.lineno})"
        )


def fuzz(numbers: Iterable[int], seed: int = 0, kinds: Iterable[str] = KINDS) -> Tally:
    """Mutant number n of the kind whose turn it is, for each number."""
    names = list(kinds)
    tally = Tally()
    memory = Path("/dev/shm")  # a file that is written anew costs a disk a millisecond
    place = memory if os.access(memory, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="staanet-fuzz-", dir=place))
    try:
        for number in numbers:
            name = names[number % len(names)]
            (folder / name).mkdir(exist_ok=True)
            attempt(name, number, seed, folder / name, tally)
    finally:
        shutil.rmtree(folder)
    return tally


def _chunk(job: tuple[int, int, int, list[str]]) -> Tally:
    first, last, seed, kinds = job
    return fuzz(range(first, last), seed, kinds)


def _batches(n: int, seed: int, kinds: list[str], workers: int) -> Iterator[Tally]:
    size = 2_000
    jobs = [(first, min(first + size, n), seed, kinds) for first in range(0, n, size)]
    if workers < 2:
        yield from map(_chunk, jobs)
    else:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            yield from pool.imap_unordered(_chunk, jobs)


def main(n: int, seed: int, kinds: list[str], workers: int) -> str:
    """Try ``n`` mutants, with progress; the figures as Markdown."""
    tally, begun = Tally(), time.monotonic()
    for batch in _batches(n, seed, kinds, workers):
        tally += batch
        for line in batch.findings:
            print(line, file=sys.stderr)
        tried = sum(tally.read.values()) + sum(tally.refused.values()) + len(tally.findings)
        left = (time.monotonic() - begun) / tried * (n - tried)
        print(
            f"{tried}/{n} mutants, {len(tally.findings)} findings, about {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )
    rows = [
        f"| {k} | {tally.read[k] + tally.refused[k]} | {tally.refused[k]} | {tally.read[k]} |"
        for k in kinds
    ]
    found = [f"* {line}" for line in tally.findings[:50]]
    return "\n".join(
        [
            f"The command was `python -m bench fuzz --n {n} --seed {seed}`. It tested {n} damaged files in "
            f"{time.monotonic() - begun:.0f} s. The number of wrong results is {len(tally.findings)}. A result is "
            "wrong if a file was read incorrectly or refused without an error message.",
            "",
            "| kind of file | damaged files | refused | read |",
            "|---|---:|---:|---:|",
            *rows,
            "",
            *found,
        ]
    ).strip()
