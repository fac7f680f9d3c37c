"""EMO-DB: acted German speech, 10 speakers, 7 emotions (Burkhardt et al., Interspeech 2005).

A file name such as ``03a01Fa.wav`` holds speaker ``03``, text ``a01``, emotion ``F``, version ``a``.
"""

from __future__ import annotations

import re
from pathlib import Path

from staanet.core import Corpus, Utterance
from staanet.corpora.files import assemble, folder_of, left_out, wav_files

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
    """The corpus below ``root``: its own folder, or the ``wav`` folder itself.

    Files of another name are left out with a note. Raises ``InvalidInput`` without any clip.
    """
    root = folder_of(root, "emodb")
    wav = root / "wav" if (root / "wav").is_dir() else root
    utterances, others = [], []
    for path in wav_files(wav):
        utterance = parse(path)
        if utterance:
            utterances.append(utterance)
        else:
            others.append(path.name)
    notes = left_out(others, "not named as an EMO-DB clip (such as 03a01Fa.wav)")
    return assemble("emodb", wav, utterances, notes, "files such as 03a01Fa.wav here or in wav/")


def parse(path: Path) -> Utterance | None:
    """What the file's name says, or None where it is no EMO-DB name.

    >>> clip = parse(Path("03a01Fa.wav"))
    >>> clip.id, clip.label, clip.speaker, clip.sex, clip.content
    ('03a01Fa', 'happiness', '03', 'male', 'a01')
    >>> parse(Path("03x01Fa.wav")) is None
    True
    """
    name = NAME.fullmatch(path.stem)
    if name is None:
        return None
    label, speaker = EMOTIONS[name["emotion"]], name["speaker"]
    return Utterance(path.stem, path, label, speaker, SEXES.get(speaker), content=name["text"])
