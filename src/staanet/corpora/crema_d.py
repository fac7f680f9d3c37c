"""CREMA-D: acted English sentences, 91 actors, 6 emotions (Cao et al., IEEE TAC 2014).

A file name such as ``1001_DFA_ANG_XX.wav`` holds actor, sentence, emotion and level. The actors' sex
stands in ``VideoDemographics.csv``.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from staanet.core import Corpus, Utterance
from staanet.corpora.files import assemble, folder_of, left_out, read_table, wav_files
from staanet.errors import InvalidInput

EMOTIONS = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}
NAME = re.compile(
    r"(?P<actor>1[0-9]{3})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})_(?:LO|MD|HI|XX|X)"
)


def read_crema_d(root: Path) -> Corpus:
    """The corpus below ``root``: the folder of the clips, or the one that holds ``AudioWAV``.

    Files of another name are left out with a note. Raises ``InvalidInput`` without any clip.
    """
    root = folder_of(root, "crema_d")
    audio = root / "AudioWAV" if (root / "AudioWAV").is_dir() else root
    tables = [p for p in (root, audio.parent) if (p / "VideoDemographics.csv").is_file()]
    sexes = _sexes(tables[0] / "VideoDemographics.csv") if tables else {}
    utterances, others = [], []
    for path in wav_files(audio):
        name = NAME.fullmatch(path.stem)
        if name is None or name["emotion"] not in EMOTIONS:
            others.append(path.name)
        else:
            utterances.append(parse(path, name, sexes))
    notes = left_out(others, "not named as a CREMA-D clip (such as 1001_DFA_ANG_XX.wav)")
    sought = "files such as AudioWAV/1001_DFA_ANG_XX.wav"
    return assemble("crema_d", root, utterances, notes, sought)


def parse(path: Path, name: re.Match[str], sexes: dict[str, str]) -> Utterance:
    """What a matching file name and the table of actors say.

    >>> path = Path("1001_DFA_ANG_XX.wav")
    >>> clip = parse(path, NAME.fullmatch(path.stem), {"1001": "male"})
    >>> clip.label, clip.speaker, clip.sex, clip.content
    ('anger', '1001', 'male', 'DFA')
    """
    label, actor = EMOTIONS[name["emotion"]], name["actor"]
    return Utterance(path.stem, path, label, actor, sexes.get(actor), content=name["sentence"])


def _sexes(path: Path) -> dict[str, str]:
    try:
        rows = list(csv.DictReader(io.StringIO(read_table(path), newline="")))
    except csv.Error as problem:
        raise InvalidInput(
            f"is not CSV ({problem})", where=path, remedy="Copy it from the corpus again"
        ) from problem
    known = {"male", "female"}
    return {
        str(row.get("ActorID")): sex
        for row in rows
        if (sex := str(row.get("Sex")).strip().lower()) in known
    }
