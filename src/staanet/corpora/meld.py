"""MELD: utterances from the series Friends, 7 emotions (Poria et al., ACL 2019).

``train_sent_emo.csv``, ``dev_sent_emo.csv`` and ``test_sent_emo.csv`` hold emotion, speaker and
words of ``dia0_utt0`` and its like, whose sound lies in ``train_splits``, ``dev_splits_complete``
and ``output_repeated_splits_test``. It is published as MPEG-4; sound converted to WAV or FLAC with
the same names is preferred. The main cast speaks in all three parts, so that the published split
shares speakers: by default speakers are drawn instead.
"""

from __future__ import annotations

from pathlib import Path

from staanet.core import Corpus
from staanet.corpora.files import omission_notes, read_csv_table, require_folder
from staanet.corpora.row_corpus import build_from_rows
from staanet.corpora.rows import Listing, Row
from staanet.errors import InvalidInput

FOLDERS = {
    "train": ("train_splits", "train/train_splits", "train"),
    "dev": ("dev_splits_complete", "dev/dev_splits_complete", "dev_splits", "dev"),
    "test": (
        "output_repeated_splits_test",
        "test/output_repeated_splits_test",
        "test_splits",
        "test",
    ),
}
SUFFIXES = (".wav", ".flac", ".mp3", ".mp4")
"""Of the sound of an utterance; the first that is there is read."""
EMOTIONS = {"joy": "happiness"}
"""Published words that the other corpora write otherwise."""
SEXES = dict.fromkeys(("Chandler", "Joey", "Ross"), "male") | dict.fromkeys(
    ("Monica", "Phoebe", "Rachel"), "female"
)
COLUMNS = ("Emotion", "Speaker", "Dialogue_ID", "Utterance_ID", "Utterance")


def read_meld(root: Path) -> Corpus:
    """Read the corpus below ``root``, the folder of the three tables or those of them that are there.

    Utterances without sound are left out with a note. Raises ``InvalidInput`` without any table,
    and for a table without its columns.
    """
    require_folder(root, "meld")
    listing, missing, tables = Listing(where=root, root=root), [], 0
    for part, names in FOLDERS.items():
        table = next((p for p in _tables(root, part) if p.is_file()), None)
        if table is None:
            continue
        tables += 1
        folders = [root / name for name in names if (root / name).is_dir()]
        for number, cells in enumerate(read_csv_table(table, COLUMNS), start=2):
            stem = f"dia{cells['Dialogue_ID'].strip()}_utt{cells['Utterance_ID'].strip()}"
            path = _sound(folders, stem)
            if path is None:
                missing.append(f"{part}/{stem}")
                continue
            emotion, speaker = cells["Emotion"].strip(), cells["Speaker"].strip()
            listing.rows.append(
                Row(
                    f"{table}:{number}",
                    path.relative_to(root).as_posix(),
                    EMOTIONS.get(emotion, emotion),
                    speaker,
                    SEXES.get(speaker),
                    part=part,
                    content=cells["Utterance"].strip(),
                )
            )
    if not tables:
        raise InvalidInput(
            "holds no clip of 'meld': looked for files such as train_sent_emo.csv",
            where=root,
            remedy="Give the folder that holds the tables",
        )
    listing.notes += omission_notes(missing, "labelled but without sound")
    return build_from_rows(listing, "sound such as train_splits/dia0_utt0.wav", name="meld")


def _tables(root: Path, part: str) -> tuple[Path, Path]:
    name = f"{part}_sent_emo.csv"
    return root / name, root / part / name


def _sound(folders: list[Path], stem: str) -> Path | None:
    """Return the file of an utterance, in the first folder and with the first suffix that has it."""
    paths = (folder / f"{stem}{suffix}" for suffix in SUFFIXES for folder in folders)
    return next((path for path in paths if path.is_file()), None)
