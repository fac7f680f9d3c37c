"""DEMoS: Italian emotional speech, 68 speakers, 7 emotions (Parada-Cabaleiro et al., 2020).

A file name such as ``NP_f_43_pau05b.wav`` holds prototypicality, sex, speaker, emotion and take. The
neutral clips, in the folder ``NEU``, are left out as in STAA-Net's paper.
"""

from __future__ import annotations

import re
from pathlib import Path

from staanet.core import Corpus, Utterance
from staanet.corpora.files import assemble, folder_of, left_out, listed, wav_files

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
    """The corpus below ``root``: the folder of the clips, or the one that holds ``DEMOS``.

    Files of another name are left out with a note. Raises ``InvalidInput`` without any clip.
    """
    root = folder_of(root, "demos")
    below = [p for p in listed(root) if p.name == "DEMOS" and p.is_dir()]
    utterances, others = [], []
    for path in wav_files(below[0] if below else root):
        name = NAME.fullmatch(path.stem)
        if name is None or name["emotion"] not in EMOTIONS:
            others.append(path.name)
        else:
            utterances.append(parse(path, name))
    notes = list(left_out(others, "not named as a DEMoS clip (such as NP_f_43_pau05b.wav)"))
    if any(p.name == "NEU" for p in [*listed(root), *(listed(below[0]) if below else [])]):
        notes.append("the neutral clips in NEU are left out, as in the paper")
    return assemble("demos", root, utterances, notes, "files such as DEMOS/NP_f_43_pau05b.wav")


def parse(path: Path, name: re.Match[str]) -> Utterance:
    """What a matching file name says.

    >>> path = Path("NP_f_43_pau05b.wav")
    >>> clip = parse(path, NAME.fullmatch(path.stem))
    >>> clip.label, clip.speaker, clip.sex, clip.content
    ('fear', 'f_43', 'female', 'pau05')
    """
    sex = "male" if name["sex"] == "m" else "female"
    speaker = f"{name['sex']}_{name['speaker']}"
    content = name["emotion"] + name["take"]
    return Utterance(path.stem, path, EMOTIONS[name["emotion"]], speaker, sex, content=content)
