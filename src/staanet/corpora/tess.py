"""TESS: acted English words, 2 actresses, 7 emotions (Pichora-Fuller and Dupuis, 2020).

A file name such as ``OAF_back_angry.wav`` holds the actress (``OAF`` is 64, ``YAF`` is 26 years
old), the word that follows "Say the word" and the emotion (``ps`` is pleasant surprise).
doi 10.5683/SP2/E8H2MF.
"""

from __future__ import annotations

import re
from pathlib import Path

from staanet.core import Corpus, Utterance
from staanet.corpora.files import list_folder, read_by_names, require_folder, wav_files

EMOTIONS = {
    "angry": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "happy": "happiness",
    "neutral": "neutral",
    "ps": "surprise",
    "sad": "sadness",
}
NAME = re.compile(r"(?P<speaker>OA|YA)F?_(?P<word>[a-z]+)_(?P<emotion>[a-z]+)", re.IGNORECASE)
EMOTION_FOLDER = re.compile(r"[OY]AF_\w+", re.IGNORECASE)


def read_tess(root: Path) -> Corpus:
    """Read the corpus below ``root``: the folder of ``OAF_angry`` and its like, or one of these.

    Files of another name are left out with a note. Raises ``InvalidInput`` without any clip.
    """
    require_folder(root, "tess")
    folders = [p for p in list_folder(root) if EMOTION_FOLDER.fullmatch(p.name) and p.is_dir()]
    files = wav_files(*(folders or [root]))
    return read_by_names("tess", root, files, parse, "OAF_angry/OAF_back_angry.wav")


def parse(path: Path) -> Utterance | str:
    """Parse the file's name, or return the reason to leave the file out.

    >>> clip = parse(Path("YAF_young_ps.wav"))
    >>> clip.label, clip.speaker, clip.sex, clip.content
    ('surprise', 'YAF', 'female', 'young')
    >>> parse(Path("OA_bite_neutral.wav")).speaker  # named so as published
    'OAF'
    """
    name = NAME.fullmatch(path.stem)
    if name is None or name["emotion"].lower() not in EMOTIONS:
        return "not named as a TESS clip (such as OAF_back_angry.wav)"
    label, speaker = EMOTIONS[name["emotion"].lower()], f"{name['speaker'].upper()}F"
    return Utterance(path.stem, path, label, speaker, "female", content=name["word"].lower())
