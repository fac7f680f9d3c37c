"""EMO-DB: acted German speech, 10 speakers, 7 emotions (Burkhardt et al., Interspeech 2005).

A file name such as ``03a01Fa.wav`` holds speaker ``03``, text ``a01``, emotion ``F``, version ``a``.
"""

from __future__ import annotations

import re
from pathlib import Path

from staanet.core import Corpus, Utterance
from staanet.corpora.files import read_by_names, subfolder, wav_files

EMOTIONS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "T": "sadness",
    "N": "neutral",
}
SEXES = dict.fromkeys(("03", "10", "11", "12", "15"), "male") | dict.fromkeys(
    ("08", "09", "13", "14", "16"), "female"
)
NAME = re.compile(r"(?P<speaker>[0-9]{2})(?P<text>[ab][0-9]{2})(?P<emotion>[WLEAFTN])[a-z]")


def read_emodb(root: Path) -> Corpus:
    """Read the corpus below ``root``: its folder, or the folder ``wav`` itself.

    Files of another name are left out with a note. Raises ``InvalidInput`` without any clip.
    """
    folder = subfolder(root, "emodb", "wav")
    return read_by_names("emodb", folder, wav_files(folder), parse, "03a01Fa.wav here or in wav/")


def parse(path: Path) -> Utterance | str:
    """Parse the file's name, or return the reason to leave the file out.

    >>> clip = parse(Path("03a01Fa.wav"))
    >>> clip.id, clip.label, clip.speaker, clip.sex, clip.content
    ('03a01Fa', 'happiness', '03', 'male', 'a01')
    """
    name = NAME.fullmatch(path.stem)
    if name is None:
        return "not named as an EMO-DB clip (such as 03a01Fa.wav)"
    label, speaker = EMOTIONS[name["emotion"]], name["speaker"]
    return Utterance(path.stem, path, label, speaker, SEXES.get(speaker), content=name["text"])
