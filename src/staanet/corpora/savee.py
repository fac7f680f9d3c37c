"""SAVEE: acted English sentences, 4 male speakers, 7 emotions (Haq and Jackson, AVSP 2009).

In ``DC/sa05.wav`` the folder is the speaker, the letters the emotion (``sa`` is sadness, ``su``
surprise), the number the sentence; copies in one folder are named ``DC_sa05.wav``. Sentences 1 to 3
are the same for all emotions, the others are not. Which of the 30 neutral sentences are also said
with another emotion is not published in the names.
"""

from __future__ import annotations

import re
from pathlib import Path

from staanet.core import Corpus, Utterance
from staanet.corpora.files import list_folder, read_by_names, subfolder, wav_files

EMOTIONS = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "n": "neutral",
    "sa": "sadness",
    "su": "surprise",
}
SPEAKERS = ("DC", "JE", "JK", "KL")
NAME = re.compile(r"(?P<emotion>sa|su|[adfhn])(?P<sentence>[0-3][0-9])")
COMMON_SENTENCES = 3


def read_savee(root: Path) -> Corpus:
    """Read the corpus below ``root``: the folder of the speakers' folders, or of all clips.

    It may also be the folder that holds ``AudioData`` or ``ALL``. Files of another name are left
    out with a note. Raises ``InvalidInput`` without any clip.
    """
    folder = subfolder(root, "savee", "AudioData", "ALL")
    speakers = [p for p in list_folder(folder) if p.name in SPEAKERS and p.is_dir()]
    files = wav_files(*(speakers or [folder]))
    return read_by_names("savee", root, files, parse, "AudioData/DC/a01.wav")


def parse(path: Path) -> Utterance | str:
    """Parse the names of file and folder, or return the reason to leave the file out.

    >>> for name in ("DC/sa05.wav", "ALL/DC_sa03.wav"):
    ...     clip = parse(Path(name))
    ...     print(clip.id, clip.label, clip.speaker, clip.content)
    DC_sa05 sadness DC sa05
    DC_sa03 sadness DC 03
    """
    speaker, _, stem = path.stem.rpartition("_")
    speaker = speaker or path.parent.name
    name = NAME.fullmatch(stem)
    if name is None or speaker not in SPEAKERS:
        return "not named as a SAVEE clip (such as DC/a01.wav or DC_a01.wav)"
    is_common = int(name["sentence"]) <= COMMON_SENTENCES
    content = name["sentence"] if is_common else stem
    label = EMOTIONS[name["emotion"]]
    return Utterance(f"{speaker}_{stem}", path, label, speaker, "male", content=content)
