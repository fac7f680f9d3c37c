"""MSP-Podcast: natural speech from podcasts, 8 emotions (Lotfian and Busso, IEEE TAC 2019).

``Labels/labels_consensus.csv`` (in earlier releases ``labels_concensus.csv``) holds label, speaker,
sex and part of each file of ``Audios`` (or ``Audio``). The test part is ``Test1``, whose speakers
are not in the others; the further test sets ``Test2`` and ``Test3`` are left out.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from staanet.core import Corpus
from staanet.corpora.dimensions import CLASSIFICATION, label_of_cells
from staanet.corpora.files import (
    list_folder,
    omission_notes,
    read_csv_table,
    require_folder,
    subfolder,
)
from staanet.corpora.records import RowProblem
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
NUMBERS = {"arousal": "EmoAct", "dominance": "EmoDom", "valence": "EmoVal"}
COLUMNS = ("FileName", "EmoClass", "SpkrID", "Gender", "Split_Set")


def read_msp_podcast(root: Path, task: str = CLASSIFICATION) -> Corpus:
    """Read the corpus below ``root``, the folder that holds ``Labels`` and ``Audios``.

    Left out with a note: files without a class (``O`` and ``X``), of other test sets, and without
    sound. Unknown speakers of one podcast are taken as one speaker. Where the task is ``regression``,
    labels are arousal, dominance and valence (1 to 7), which files without a class have, too. Raises
    ``InvalidInput`` without the table, and for a table without its columns.
    """
    is_regression = task == "regression"
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
    listing = Listing(where=table, root=audio, dimensions=tuple(NUMBERS) if is_regression else ())
    missing, omitted, unknown = [], Counter[str](), 0
    columns = (*COLUMNS, *NUMBERS.values()) if is_regression else COLUMNS
    for number, cells in enumerate(read_csv_table(table, columns), start=2):
        name, label, part = (cells[key].strip() for key in ("FileName", "EmoClass", "Split_Set"))
        if part not in PARTS or (label in NO_CLASS and not is_regression):
            omitted[NO_CLASS.get(label, part)] += 1
        elif name not in sounds:
            missing.append(name)
        else:
            speaker = cells["SpkrID"].strip()
            if speaker.casefold() in ("unknown", ""):
                speaker, unknown = f"podcast_{podcast_of(name)}", unknown + 1
            sex = cells["Gender"].strip().lower()
            try:
                text = (
                    label_of_cells(cells, NUMBERS) if is_regression else EMOTIONS.get(label, label)
                )
            except RowProblem as problem:
                listing.put_aside(f"{table}:{number}", problem.what, problem.remedy)
                continue
            listed_sex = sex if sex in ("female", "male") else None
            source = f"{table}:{number}"
            listing.rows.append(Row(source, name, text, speaker, listed_sex, part=PARTS[part]))
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
