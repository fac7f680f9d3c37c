"""RAVDESS: acted English speech, 24 actors, 8 emotions (Livingstone and Russo, PLoS ONE 2018).

A file name such as ``03-01-06-01-02-01-12.wav`` holds modality, channel, emotion, intensity,
statement, repetition and actor. Only speech (channel 01) that is audio alone (modality 03) is read.
"""

from __future__ import annotations

import re
from pathlib import Path

from staanet.core import Corpus, Utterance
from staanet.corpora.files import assemble, folder_of, left_out, listed, wav_files

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
    """The corpus below ``root``: the folder of the ``Actor_NN`` folders, or one of these.

    Files of another name or form are left out with a note. Raises ``InvalidInput`` without any clip.
    """
    root = folder_of(root, "ravdess")
    actors = [p for p in listed(root) if ACTOR_FOLDER.fullmatch(p.name) and p.is_dir()]
    utterances, others, not_speech = [], [], []
    for path in (path for folder in actors or [root] for path in wav_files(folder)):
        name = NAME.fullmatch(path.stem)
        if name is None:
            others.append(path.name)
        elif name["form"] != "03-01":
            not_speech.append(path.name)
        else:
            utterances.append(parse(path, name))
    notes = (
        *left_out(others, "not named as a RAVDESS clip (such as 03-01-06-01-02-01-12.wav)"),
        *left_out(not_speech, "song or video (only 03-01-... is speech that is audio alone)"),
    )
    sought = "files such as Actor_12/03-01-06-01-02-01-12.wav"
    return assemble("ravdess", root, utterances, notes, sought)


def parse(path: Path, name: re.Match[str]) -> Utterance:
    """What a matching file name says; actors of odd number are male. As there are but two statements,
    the content is statement and repetition.

    >>> path = Path("03-01-06-01-02-01-12.wav")
    >>> clip = parse(path, NAME.fullmatch(path.stem))
    >>> clip.label, clip.speaker, clip.sex, clip.content
    ('fear', '12', 'female', '02-01')
    """
    sex = "male" if int(name["actor"]) % 2 else "female"
    label = EMOTIONS[name["emotion"]]
    return Utterance(path.stem, path, label, name["actor"], sex, content=name["take"])
