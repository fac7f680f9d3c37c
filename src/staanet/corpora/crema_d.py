"""CREMA-D: acted English sentences, 91 actors, 6 emotions (Cao et al., IEEE TAC 2014).

A file name such as ``1001_DFA_ANG_XX.wav`` holds actor, sentence, emotion and level. The table
``VideoDemographics.csv`` holds the sex of the actors.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from staanet.core import Corpus, Utterance
from staanet.corpora.files import read_by_names, read_csv_table, subfolder, wav_files

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
DEMOGRAPHICS = "VideoDemographics.csv"


def read_crema_d(root: Path) -> Corpus:
    """Read the corpus below ``root``: the folder of the clips, or the one that holds ``AudioWAV``.

    Files of another name are left out with a note. Raises ``InvalidInput`` without any clip.
    """
    folder = subfolder(root, "crema_d", "AudioWAV")
    tables = [p for p in (root / DEMOGRAPHICS, folder.parent / DEMOGRAPHICS) if p.is_file()]
    parse_clip = partial(parse, sexes=_sexes(tables[0]) if tables else {})
    example = "AudioWAV/1001_DFA_ANG_XX.wav"
    return read_by_names("crema_d", root, wav_files(folder), parse_clip, example)


def parse(path: Path, sexes: dict[str, str]) -> Utterance | str:
    """Parse the file's name and look up its actor, or return the reason to leave the file out.

    >>> clip = parse(Path("1001_DFA_ANG_XX.wav"), {"1001": "male"})
    >>> clip.label, clip.speaker, clip.sex, clip.content
    ('anger', '1001', 'male', 'DFA')
    """
    name = NAME.fullmatch(path.stem)
    if name is None or name["emotion"] not in EMOTIONS:
        return "not named as a CREMA-D clip (such as 1001_DFA_ANG_XX.wav)"
    label, actor = EMOTIONS[name["emotion"]], name["actor"]
    return Utterance(path.stem, path, label, actor, sexes.get(actor), content=name["sentence"])


def _sexes(path: Path) -> dict[str, str]:
    """Return the sex of each actor by the table of actors."""
    sexes = {row.get("ActorID", ""): row.get("Sex", "").lower() for row in read_csv_table(path)}
    return {actor: sex for actor, sex in sexes.items() if sex in ("male", "female")}
