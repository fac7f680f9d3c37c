"""RAVDESS: acted English speech, 24 actors, 8 emotions (Livingstone and Russo, PLoS ONE 2018).

A file name such as ``03-01-06-01-02-01-12.wav`` holds modality, channel, emotion, intensity,
statement, repetition and actor. Only speech (channel 01) that is audio alone (modality 03) is read.
"""

from __future__ import annotations

import re
from pathlib import Path

from staanet.core import Corpus, Utterance
from staanet.corpora.files import list_folder, read_by_names, require_folder, wav_files

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happiness",
    "04": "sadness",
    "05": "anger",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
NAME = re.compile(
    r"(?P<form>0[1-3]-0[12])-(?P<emotion>0[1-8])-0[12]-(?P<take>0[12]-0[12])-"
    r"(?P<actor>0[1-9]|1[0-9]|2[0-4])"
)
ACTOR_FOLDER = re.compile(r"Actor_[0-9]{2}")


def read_ravdess(root: Path) -> Corpus:
    """Read the corpus below ``root``: the folder of the ``Actor_NN`` folders, or one of these.

    Files of another name or form are left out with a note. Raises ``InvalidInput`` without any clip.
    """
    require_folder(root, "ravdess")
    actors = [p for p in list_folder(root) if ACTOR_FOLDER.fullmatch(p.name) and p.is_dir()]
    files = wav_files(*(actors or [root]))
    return read_by_names("ravdess", root, files, parse, "Actor_12/03-01-06-01-02-01-12.wav")


def parse(path: Path) -> Utterance | str:
    """Parse the file's name, or return the reason to leave the file out.

    Actors of odd number are male. There are only two statements, so the content of a clip is its
    statement and repetition.

    >>> clip = parse(Path("03-01-06-01-02-01-12.wav"))
    >>> clip.label, clip.speaker, clip.sex, clip.content
    ('fear', '12', 'female', '02-01')
    """
    name = NAME.fullmatch(path.stem)
    if name is None:
        return "not named as a RAVDESS clip (such as 03-01-06-01-02-01-12.wav)"
    if name["form"] != "03-01":
        return "song or video (only 03-01-... is speech that is audio alone)"
    sex = "male" if int(name["actor"]) % 2 else "female"
    label = EMOTIONS[name["emotion"]]
    return Utterance(path.stem, path, label, name["actor"], sex, content=name["take"])
