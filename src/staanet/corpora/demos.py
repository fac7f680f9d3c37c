"""DEMoS: Italian emotional speech, 68 speakers, 7 emotions (Parada-Cabaleiro et al., 2020).

A file name such as ``NP_f_43_pau05b.wav`` holds prototypicality, sex, speaker, emotion and take. The
neutral clips, in the folder ``NEU``, are left out as in STAA-Net's paper.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from staanet.core import Corpus, Utterance
from staanet.corpora.files import read_by_names, subfolder, wav_files

EMOTIONS = {
    "col": "guilt",
    "dis": "disgust",
    "gio": "happiness",
    "pau": "fear",
    "rab": "anger",
    "sor": "surprise",
    "tri": "sadness",
}
NAME = re.compile(
    r"(?:NP|PR)_(?P<sex>[fm])_(?P<speaker>[0-9]+)_(?P<emotion>[a-z]{3})(?P<take>[0-9]+)[a-z]*"
)


def read_demos(root: Path) -> Corpus:
    """Read the corpus below ``root``: the folder of the clips, or the one that holds ``DEMOS``.

    Files of another name are left out with a note. Raises ``InvalidInput`` without any clip.
    """
    folder = subfolder(root, "demos", "DEMOS")
    corpus = read_by_names("demos", root, wav_files(folder), parse, "DEMOS/NP_f_43_pau05b.wav")
    if not any((parent / "NEU").is_dir() for parent in (root, folder)):
        return corpus
    note = "the neutral clips in NEU are left out, as in the paper"
    return replace(corpus, notes=(*corpus.notes, note))


def parse(path: Path) -> Utterance | str:
    """Parse the file's name, or return the reason to leave the file out.

    >>> clip = parse(Path("NP_f_43_pau05b.wav"))
    >>> clip.label, clip.speaker, clip.sex, clip.content
    ('fear', 'f_43', 'female', 'pau05')
    """
    name = NAME.fullmatch(path.stem)
    if name is None or name["emotion"] not in EMOTIONS:
        return "not named as a DEMoS clip (such as NP_f_43_pau05b.wav)"
    sex = "male" if name["sex"] == "m" else "female"
    speaker = f"{name['sex']}_{name['speaker']}"
    content = name["emotion"] + name["take"]
    return Utterance(path.stem, path, EMOTIONS[name["emotion"]], speaker, sex, content=content)
