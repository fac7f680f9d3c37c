"""Adversarial sets: clean and adversarial clips in memory, and on disk as an audiofolder.

On disk, ``metadata.csv`` lies beside ``adversarial/`` and ``clean/`` and a ``card.json``; Hugging Face
``datasets`` opens the folder as it is. Every figure is computed from the files as they were read back.
``seconds.csv`` holds how long each clip took. It is the only file that differs when the same set is
made again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from staanet import audio, storage
from staanet.core import Clip, Samples, metrics
from staanet.errors import InvalidInput, UnusableClip, printable
from staanet.results.row_files import read_csv, write_csv
from staanet.storage.lazy_rows import LazyRows, TextTable

COLUMNS = (
    "file_name",
    "original_file_name",
    "id",
    "label",
    "speaker",
    "l0",
    "density",
    "linf",
    "snr_db",
    "peak_ratio_db",
    "queries",
)
SOURCE_FILE = "source_file"
"""One more column: the file that the clip was read from."""
TARGET_CLASS = "target_class"
"""One more column for targeted attacks: the class that was the target."""
UNLABELLED = "unlabelled.csv"
"""The file beside a generator's card that lists training audio from outside its corpus."""
TIMES, TIMES_COLUMNS = "seconds.csv", ("id", "seconds")
_REMEDY = "Make the set again with staanet attack"


@dataclass(frozen=True, slots=True)
class AdversarialClip:
    """A clean clip and its adversarial version, both 16-bit ``[T]``, and the cost of crafting it."""

    clean: Clip
    adversarial: Samples
    seconds: float
    queries: int
    target_class: str | None = None
    """The target class of a targeted attack."""

    @property
    def delta(self) -> NDArray[np.int32]:
        """The change of each sample in steps of the 16-bit grid, ``[T]``."""
        return self.adversarial.astype(np.int32) - self.clean.pcm16

    @property
    def support(self) -> NDArray[np.intp]:
        """Indices of the samples that changed, ascending."""
        return np.flatnonzero(self.delta)

    def measurements(self) -> dict[str, float | int]:
        """Returns the metrics that need no victim, computed from the two integer clips."""
        x = self.clean.waveform[None]
        x_adv = torch.from_numpy(audio.to_float(self.adversarial))[None]
        return {
            "l0": int(metrics.l0(x, x_adv)),
            "density": int(metrics.l0(x, x_adv)) / x.shape[1],
            "linf": float(metrics.linf(x, x_adv)),
            "snr_db": float(metrics.snr_db(x, x_adv)),
            "peak_ratio_db": float(metrics.peak_ratio_db(x, x_adv)),
            "seconds": self.seconds,
            "queries": self.queries,
        }


@dataclass(frozen=True)
class AdversarialSet:
    """Adversarial clips of one attack on one source, with the card."""

    clips: Sequence[AdversarialClip]
    card: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[AdversarialClip]:
        return iter(self.clips)

    @property
    def attack(self) -> str:
        """The name of the attack."""
        return str(self.card["attack"])

    @property
    def source(self) -> str:
        """The name of the model that the clips were crafted on."""
        return str(self.card["source"])

    def save(self, folder: Path | str) -> None:
        """Writes the set as an audiofolder."""
        rows = [write_clip(Path(folder), clip) for clip in self.clips]
        write_set(Path(folder), rows, self.card)

    @classmethod
    def load(cls, folder: Path | str) -> AdversarialSet:
        """Opens a set; its audio is read clip by clip when used.

        Raises ``InvalidInput`` where the folder is not an adversarial set or a row is damaged.
        """
        folder = Path(folder)
        card = storage.read_card(folder, "adversarial")
        kinds = {"attack": str, "source": str, "budget": dict}
        for key, kind in kinds.items():
            if not isinstance(card.get(key, kind()), kind):
                raise InvalidInput(
                    f"its {key} is {printable(repr(card[key]))[:40]}",
                    where=folder / storage.CARD,
                    remedy=_REMEDY,
                )
        return cls(_StoredClips(folder, read_rows(folder)), card)


class _StoredClips(Sequence[AdversarialClip]):
    """Clips that are read from their files when they are used."""

    def __init__(self, folder: Path, rows: Sequence[dict[str, str]]) -> None:
        self.folder, self.rows = folder, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> AdversarialClip: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[AdversarialClip]: ...
    def __getitem__(self, index: int | slice) -> AdversarialClip | Sequence[AdversarialClip]:
        if isinstance(index, slice):
            return _StoredClips(self.folder, self.rows[index])
        row = self.rows[index]
        clip = read_clip(self.folder, row)
        written, measured = row["l0"], str(len(clip.support))
        if written != measured:
            raise InvalidInput(
                f"{measured} samples differ from its original, {printable(written)[:20]} by metadata.csv",
                where=self.folder / row["file_name"],
                remedy="A file was changed since: make the set again with staanet attack",
            )
        return clip


def write_clip(folder: Path, clip: AdversarialClip) -> dict[str, str]:
    """Writes one pair as 16-bit WAV, reads both back, and measures the files.

    Returns the row of ``metadata.csv``. The files are named by the clip's id alone.
    """
    names = {part: f"{part}/{clip.clean.id}.wav" for part in ("adversarial", "clean")}
    rate = clip.clean.sample_rate
    for part, samples in (("adversarial", clip.adversarial), ("clean", clip.clean.pcm16)):
        storage.write_bytes(folder / names[part], audio.encode(samples, rate))
    row = {
        "file_name": names["adversarial"],
        "original_file_name": names["clean"],
        "id": clip.clean.id,
        "label": clip.clean.label or "",
        "speaker": clip.clean.speaker,
        "seconds": repr(clip.seconds),
        "queries": str(clip.queries),
        SOURCE_FILE: clip.clean.source_file,
        **({TARGET_CLASS: clip.target_class} if clip.target_class else {}),
    }
    measured = read_clip(folder, row).measurements()
    return row | {key: repr(value) for key, value in measured.items()}


def read_clip(folder: Path, row: Mapping[str, str]) -> AdversarialClip:
    """Reads the pair that a row of ``metadata.csv`` names.

    Raises ``InvalidInput`` where a file or the row is damaged, or where the two clips differ in
    length or rate.
    """
    try:
        adversarial, rate = audio.read_int16(folder / row["file_name"])
        clean, clean_rate = audio.read_int16(folder / row["original_file_name"])
        seconds, queries = float(row["seconds"]), int(row["queries"])
        original = Clip(row["id"], clean, rate, row["label"] or None, row["speaker"])
    except UnusableClip as problem:
        raise InvalidInput(problem.what, where=problem.where, remedy=_REMEDY) from problem
    except (KeyError, ValueError, TypeError) as problem:
        raise InvalidInput(
            f"has a damaged row ({printable(str(problem))[:80]})",
            where=folder / "metadata.csv",
            remedy=_REMEDY,
        ) from problem
    if clean.shape != adversarial.shape or rate != clean_rate:
        raise InvalidInput(
            f"{len(adversarial)} samples at {rate} Hz, but its original has {len(clean)} at "
            f"{clean_rate} Hz",
            where=folder / row["file_name"],
            remedy=_REMEDY,
        )
    return AdversarialClip(original, adversarial, seconds, queries, row.get(TARGET_CLASS) or None)


def write_set(folder: Path, rows: Iterable[Mapping[str, str]], card: Mapping[str, Any]) -> None:
    """Finishes a set: writes its tables, then the card without which it is not finished.

    Lazy rows must be in the order of their ids.
    """
    ordered = rows if isinstance(rows, LazyRows) else sorted(rows, key=lambda row: row["id"])
    targeted = any(row.get(TARGET_CLASS) for row in ordered)
    columns = [*COLUMNS, SOURCE_FILE, *([TARGET_CLASS] if targeted else [])]
    write_csv(folder / TIMES, TIMES_COLUMNS, ordered)
    write_csv(folder / "metadata.csv", columns, ordered)
    storage.write_card(folder, {"kind": "adversarial", **card, "clips": len(ordered)})


def read_rows(folder: Path) -> Sequence[dict[str, str]]:
    """Reads the rows of ``metadata.csv``, each with its ``seconds``.

    Raises ``InvalidInput`` where a table cannot be read or lacks columns, where a clip has two rows,
    and where a path leads out of the folder.
    """
    path = folder / "metadata.csv"
    rows = read_csv(path, COLUMNS)
    if rows and "seconds" not in rows[0]:
        seconds = {row["id"]: row["seconds"] for row in read_csv(folder / TIMES, TIMES_COLUMNS)}
        unknown = next((row["id"] for row in rows if row["id"] not in seconds), None)
        if unknown is not None:
            raise InvalidInput(
                f"has no row of '{printable(unknown)}'",
                where=folder / TIMES,
                remedy="Make the set again",
            )
        timed = (row | {"seconds": seconds[row["id"]]} for row in rows)
        rows = TextTable([*rows[0], "seconds"], timed).rows()
    names: set[str] = set()
    for number, row in enumerate(rows, start=2):
        for name in (row["id"], row["file_name"]):
            if name in names:  # it would count as two clips
                raise InvalidInput(
                    f"'{printable(name)[:100]}' is in two rows",
                    where=f"{path}:{number}",
                    remedy="Make the set again",
                )
        names |= {row["id"], row["file_name"]}
        for name in (row["file_name"], row["original_file_name"]):
            if len(name) > 300 or Path(name).is_absolute() or ".." in Path(name).parts:
                raise InvalidInput(
                    f"'{printable(name)[:100]}' is outside the folder",
                    where=f"{path}:{number}",
                    remedy="Make the set again",
                )
    return rows
