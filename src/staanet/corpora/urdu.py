"""URDU: utterances from Urdu talk shows, 38 speakers, 4 emotions (Latif et al., FIT 2018).

In ``Angry/SM1_F1_A01.wav`` the folder is the emotion, the first part of the name the speaker.
"""

from __future__ import annotations

import re
from pathlib import Path

from staanet.core import Corpus, Utterance
from staanet.corpora.files import list_folder, read_by_names, require_folder, wav_files

EMOTIONS = {"angry": "anger", "happy": "happiness", "neutral": "neutral", "sad": "sadness"}
NAME = re.compile(r"(?P<speaker>S(?P<sex>[MF])[0-9]+)_\w+")


def read_urdu(root: Path) -> Corpus:
    """Read the corpus below ``root``: the folder of ``Angry``, ``Happy``, ``Neutral`` and ``Sad``.

    Files of another name are left out with a note. Raises ``InvalidInput`` without any clip.
    """
    require_folder(root, "urdu")
    folders = [p for p in list_folder(root) if p.name.lower() in EMOTIONS and p.is_dir()]
    return read_by_names("urdu", root, wav_files(*folders), parse, "Angry/SM1_F1_A01.wav")


def parse(path: Path) -> Utterance | str:
    """Parse the names of file and folder, or return the reason to leave the file out.

    >>> clip = parse(Path("Angry/SM1_F1_A01.wav"))
    >>> clip.label, clip.speaker, clip.sex
    ('anger', 'SM1', 'male')
    """
    name = NAME.fullmatch(path.stem)
    if name is None:
        return "not named as an URDU clip (such as SM1_F1_A01.wav)"
    sex = "male" if name["sex"] == "M" else "female"
    return Utterance(path.stem, path, EMOTIONS[path.parent.name.lower()], name["speaker"], sex)
