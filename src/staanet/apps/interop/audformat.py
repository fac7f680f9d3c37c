"""Writes an adversarial set as a database of audformat, https://audeering.github.io/audformat.

It needs the extra ``audformat``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from staanet import storage
from staanet.errors import needs_extra
from staanet.results import adversarial_set

SIGNATURES = {"db.yaml": b"source: staanet", "db.adversarial.csv": b"file,label,speaker,original,"}
"""The files that are written, and the bytes that mark a file of this package, which may be replaced."""
MEASURED: dict[str, type[Any]] = {
    "l0": int,
    "density": float,
    "linf": float,
    "snr_db": float,
    "peak_ratio_db": float,
    "seconds": float,
    "queries": int,
}
"""The per-clip measurements and their types."""


def write_table(folder: Path | str) -> Path:
    """Writes ``db.yaml`` and ``db.adversarial.csv`` beside the audio of an adversarial set.

    ``audformat.Database.load(folder)`` opens it: a file-wise table ``adversarial`` with label, speaker, the
    file name of the clean clip, and the distances. Returns the path of ``db.yaml``. Raises ``InvalidInput``
    where ``folder`` is no adversarial set or holds another database, and ``MissingExtra`` without audformat.
    """
    folder = Path(folder)
    card, rows = storage.read_card(folder, "adversarial"), adversarial_set.read_rows(folder)
    for name, signature in SIGNATURES.items():
        storage.refuse_foreign(folder / name, signature)
    database = _database(card, rows)
    with tempfile.TemporaryDirectory() as trial:
        database.save(trial, storage_format="csv")
        for path in sorted(Path(trial).iterdir(), key=lambda path: path.suffix == ".yaml"):
            storage.write_bytes(folder / path.name, path.read_bytes())
    return folder / "db.yaml"


def _database(card: Any, rows: Sequence[dict[str, str]]) -> Any:
    audformat = _library()
    description = f"{card.get('title', card.get('attack'))}, crafted on {card.get('source')}"
    database = audformat.Database(
        name="adversarial", source="staanet", usage="research", description=description
    )
    labels = sorted({row["label"] for row in rows if row["label"]})
    speakers = sorted({row["speaker"] for row in rows})
    database.schemes["label"] = audformat.Scheme(labels=labels or ["unlabelled"])
    database.schemes["speaker"] = audformat.Scheme(labels=speakers or ["unknown"])
    database.schemes["original"] = audformat.Scheme(
        "str", description="file name of the clean clip"
    )
    for name, kind in MEASURED.items():
        database.schemes[name] = audformat.Scheme(kind.__name__)
    table = database["adversarial"] = audformat.Table(
        audformat.filewise_index([row["file_name"] for row in rows])
    )
    columns: dict[str, list[Any]] = {
        "label": [row["label"] or None for row in rows],
        "speaker": [row["speaker"] for row in rows],
        "original": [row["original_file_name"] for row in rows],
    }
    columns |= {name: [kind(row[name]) for row in rows] for name, kind in MEASURED.items()}
    for name, values in columns.items():
        table[name] = audformat.Column(scheme_id=name)
        table[name].set(np.asarray(values, dtype=object) if name == "label" else values)
    return database


def _library() -> Any:
    with needs_extra("audformat", "audformat"):
        import audformat
    return audformat
