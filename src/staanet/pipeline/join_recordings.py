"""Joins the attacked windows of long recordings into whole audio files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from staanet import audio, storage
from staanet.core import Samples
from staanet.corpora import recordings
from staanet.corpora.recordings import Recording
from staanet.pipeline.context import Context
from staanet.results import adversarial_set, row_files

RECORDINGS = "recordings.csv"


def join_recordings(
    windowed: Iterable[Recording], out: Path, *, context: Context
) -> list[dict[str, Any]]:
    """Writes each recording that was attacked in windows as a whole, and ``recordings.csv``.

    ``out`` is the folder of the adversarial set. Returns the rows of the table. What is there already
    is not written again.
    """
    ordered = sorted(windowed, key=lambda recording: recording.utterance.id)
    if not ordered:
        return []
    if (out / RECORDINGS).exists():
        return [dict(row) for row in read_recordings(out)]
    files = {row["id"]: row["file_name"] for row in adversarial_set.read_rows(out)}

    def adversarial(window: str) -> Samples | None:
        return audio.read_int16(out / files[window])[0] if window in files else None

    rows = []
    for number, recording in enumerate(ordered, start=1):
        rows.append(recording.join(adversarial, out))
        context.progress("join recordings", number, len(ordered), "")
    storage.write_text(out / RECORDINGS, row_files.csv_text(recordings.COLUMNS, rows))
    return rows


def read_recordings(out: Path) -> list[dict[str, str]]:
    """The rows of ``recordings.csv``; none if no file was long."""
    path = out / RECORDINGS
    return list(row_files.read_csv(path, recordings.COLUMNS)) if path.exists() else []
