"""MSP-Podcast: natural speech from podcasts, 8 emotions (Lotfian and Busso, IEEE TAC 2019).

``Labels/labels_consensus.csv`` (in earlier releases ``labels_concensus.csv``) holds label, speaker,
sex and part of each file of ``Audios`` (or ``Audio``). The test part is ``Test1``, whose speakers
are not in the others; the further test sets ``Test2`` and ``Test3`` are left out.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from staanet.core import Corpus
from staanet.corpora.files import (
    list_folder,
    omission_notes,
    read_csv_table,
    require_folder,
    subfolder,
)
from staanet.corpora.row_corpus import build_from_rows
from staanet.corpora.rows import Listing, Row
from staanet.errors import InvalidInput

EMOTIONS = {
    "A": "anger",
    "C": "contempt",
    "D": "disgust",
    "F": "fear",
    "H": "happiness",
    "N": "neutral",
    "S": "sadness",
    "U": "surprise",
}
NO_CLASS = {"O": "other", "X": "no agreement"}
PARTS = {
    "Train": "train",
    "Development": "dev",
    "Validation": "dev",
    "Test1": "test",
    "Test": "test",
}
LABELS = ("Labels/labels_consensus.csv", "Labels/labels_concensus.csv")
COLUMNS = ("FileName", "EmoClass", "SpkrID", "Gender", "Split_Set")


def read_msp_podcast(root: Path) -> Corpus:
    """Read the corpus below ``root``, the folder that holds ``Labels`` and ``Audios``.

    Left out with a note: files without a class (``O`` and ``X``), of other test sets, and without
    sound. Unknown speakers of one podcast are taken as one speaker. Raises ``InvalidInput`` without
    the table, and for a table without its columns.
    """
    require_folder(root, "msp_podcast")
    table = next((root / name for name in LABELS if (root / name).is_file()), None)
    if table is None:
        raise InvalidInput(
            f"holds no clip of 'msp_podcast': looked for {LABELS[0]}",
            where=root,
            remedy="Give the folder that holds Labels and Audios",
        )
    audio = subfolder(root, "msp_podcast", "Audios", "Audio")
    sounds = {path.name for path in list_folder(audio)}
    listing = Listing(where=table, root=audio)
    missing, omitted, unknown = [], Counter[str](), 0
    for number, cells in enumerate(read_csv_table(table, COLUMNS), start=2):
        name, label, part = (cells[key].strip() for key in ("FileName", "EmoClass", "Split_Set"))
        if label in NO_CLASS or part not in PARTS:
            omitted[NO_CLASS.get(label, part)] += 1
        elif name not in sounds:
            missing.append(name)
        else:
            speaker = cells["SpkrID"].strip()
            if speaker.casefold() in ("unknown", ""):
                speaker, unknown = f"podcast_{podcast_of(name)}", unknown + 1
            sex = cells["Gender"].strip().lower()
            listing.rows.append(
                Row(
                    f"{table}:{number}",
                    name,
                    EMOTIONS.get(label, label),
                    speaker,
                    sex if sex in ("female", "male") else None,
                    part=PARTS[part],
                )
            )
    counts = ", ".join(f"{what} {count}" for what, count in sorted(omitted.items()))
    listing.notes += [f"{omitted.total()} files left out: {counts}"] * bool(counts)
    listing.notes += omission_notes(missing, "labelled but without sound")
    if unknown:
        listing.warnings.append(
            f"clips of unknown speakers, those of one podcast taken as one speaker: {unknown}"
        )
    return build_from_rows(listing, "sound in Audios", name="msp_podcast")


def podcast_of(name: str) -> str:
    """Return the number of the podcast in a file name.

    >>> podcast_of("MSP-PODCAST_0001_0008.wav")
    '0001'
    """
    return name.removeprefix("MSP-PODCAST_").partition("_")[0]
