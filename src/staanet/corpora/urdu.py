"""URDU: utterances from Urdu talk shows, 38 speakers, 4 emotions (Latif et al., FIT 2018).

``Angry/SM1_F1_A01.wav``: the folder is the emotion, the first part of the name the speaker.
"""

from __future__ import annotations

import re
from pathlib import Path

from staanet.core import Corpus, Utterance
from staanet.corpora.files import assemble, folder_of, left_out, listed, wav_files

EMOTIONS = {"angry": "anger", "happy": "happiness", "neutral": "neutral", "sad": "sadness"}
NAME = re.compile(r"(?P<speaker>S(?P<sex>[MF])[0-9]+)_\w+")


def read_urdu(root: Path) -> Corpus:
    """The corpus below ``root``: the folder of ``Angry``, ``Happy``, ``Neutral`` and ``Sad``.

    Files of another name are left out with a note. Raises ``InvalidInput`` without any clip.
    """
    root = folder_of(root, "urdu")
    utterances, others = [], []
    for folder in (p for p in listed(root) if p.name.lower() in EMOTIONS and p.is_dir()):
        for path in wav_files(folder):
            name = NAME.fullmatch(path.stem)
            if name is None:
                others.append(path.name)
            else:
                utterances.append(parse(path, name))
    notes = left_out(others, "not named as an URDU clip (such as SM1_F1_A01.wav)")
    return assemble("urdu", root, utterances, notes, "files such as Angry/SM1_F1_A01.wav")


def parse(path: Path, name: re.Match[str]) -> Utterance:
    """What a matching file name and its folder say.

    >>> path = Path("Angry/SM1_F1_A01.wav")
    >>> clip = parse(path, NAME.fullmatch(path.stem))
    >>> clip.label, clip.speaker, clip.sex
    ('anger', 'SM1', 'male')
    """
    sex = "male" if name["sex"] == "M" else "female"
    return Utterance(path.stem, path, EMOTIONS[path.parent.name.lower()], name["speaker"], sex)
