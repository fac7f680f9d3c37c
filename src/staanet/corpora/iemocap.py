"""IEMOCAP: dyadic acted English dialogues, 10 speakers in 5 sessions (Busso et al., LREC 2008).

The classes are the four of the SER literature: anger, happiness (with excitement), neutral,
sadness. Labels stand in ``SessionN/dialog/EmoEvaluation/<dialog>.txt``, the audio of single
utterances in ``SessionN/sentences/wav/<dialog>/<utterance>.wav``. Whole dialogues are not read.

The literature splits by session. Protocols: ``loso:N`` tests session N, with the session before it
as dev; ``sessions`` takes the ``loso`` protocol that the seed counts to (seeds 0 to 4 go through
all); ``paper`` is STAA-Net's, sessions 1 to 3, 4 and 5.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from staanet.core import Corpus, Utterance
from staanet.core.dimensions import dimension_label
from staanet.core.protocols import Fold, folds
from staanet.corpora.dimensions import CLASSIFICATION, with_dimensions
from staanet.corpora.files import (
    build_corpus,
    list_folder,
    omission_notes,
    read_text_table,
    require_folder,
    wav_files,
)

EMOTIONS = {
    "ang": "anger",
    "exc": "happiness",
    "hap": "happiness",
    "neu": "neutral",
    "sad": "sadness",
}
LINE = re.compile(
    r"\[[0-9.]+ - [0-9.]+\]\t(?P<id>Ses0[1-5][FM]_\w+_[FM][0-9]+)\t(?P<emotion>[a-z]{3})\t"
    r"\[(?P<numbers>.*)"
)
ID = re.compile(
    r"(?P<session>Ses0[1-5])[FM]_(?P<scene>(?:impro|script)[0-9_]+|\w+?)[a-z]?_(?P<sex>[FM])[0-9]+"
)
NUMBERS = ("valence", "arousal", "dominance")
"""What the numbers of a line are, in order."""
NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
SESSION_FOLDER = re.compile(r"Session[1-5]")


def read_iemocap(root: Path, task: str = CLASSIFICATION) -> Corpus:
    """Read the corpus below ``root``: the folder of ``Session1`` to ``Session5`` (or some of these).

    Left out with a note: utterances of another label (``xxx``: the annotators did not agree), audio
    without a label, labels without audio. Where the task is ``regression``, labels are the means of
    valence, arousal and dominance (1 to 5), which utterances of every label have. Raises
    ``InvalidInput`` without any clip.
    """
    require_folder(root, "iemocap")
    is_regression = task == "regression"
    utterances, unlabelled, other_labels, missing = [], [], Counter[str](), []
    for session in (p for p in list_folder(root) if SESSION_FOLDER.fullmatch(p.name)):
        rows = _labels(session / "dialog" / "EmoEvaluation")
        numbers = {id: dimension_label(row.numbers) for id, row in rows.items() if row.numbers}
        classes = {id: EMOTIONS[row.word] for id, row in rows.items() if row.word in EMOTIONS}
        labels = numbers if is_regression else classes
        for path in wav_files(*_folders(session / "sentences" / "wav")):
            if path.stem in labels:
                utterances.append(parse(path, labels.pop(path.stem)))
            elif path.stem not in rows or rows[path.stem].word in EMOTIONS:  # or a second such file
                unlabelled.append(path.name)
            else:
                other_labels[rows[path.stem].word] += 1
        missing += [f"{name}.wav" for name in labels]
    counts = ", ".join(f"{label} {count}" for label, count in sorted(other_labels.items()))
    notes = (
        *([f"{other_labels.total()} utterances of other labels left out: {counts}"] * bool(counts)),
        *omission_notes(unlabelled, "without a label in dialog/EmoEvaluation"),
        *omission_notes(missing, "labelled but without audio"),
    )
    expected = "files such as Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav"
    corpus = build_corpus("iemocap", root, utterances, notes, expected)
    corpus = replace(corpus, fixed=_protocols(corpus.speakers))
    return with_dimensions(corpus, NUMBERS) if is_regression else corpus


def _folders(parent: Path) -> list[Path]:
    """Return the folders in ``parent``, none where it is not there."""
    return [p for p in list_folder(parent) if p.is_dir()] if parent.is_dir() else []


def _protocols(speakers: Sequence[str]) -> Mapping[str, Sequence[Fold]]:
    """Return the protocols by name, for the sessions that are there.

    >>> _protocols(["Ses04F", "Ses04M", "Ses05M"])["loso:5"]
    ({'Ses04F': 'dev', 'Ses04M': 'dev', 'Ses05M': 'test'},)
    """
    sessions = sorted({speaker[4] for speaker in speakers})
    by_session = folds({n: [s for s in speakers if s[4] == n] for n in sessions})
    paper = {"1": "train", "2": "train", "3": "train", "4": "dev", "5": "test"}
    return {
        "paper": ({s: paper[s[4]] for s in speakers},),
        "sessions": tuple(by_session.values()),
        **{f"loso:{n}": (fold,) for n, fold in by_session.items()},
    }


def parse(path: Path, label: str) -> Utterance:
    """Return the utterance of a file whose label was read.

    The speaker is the session and the letter before the last number. (The letter after the session
    says who wore the markers.) The content is the scene as a whole, whichever take it was.

    >>> clip = parse(Path("Ses01F_script01_1b_M003.wav"), "anger")
    >>> clip.speaker, clip.sex, clip.content
    ('Ses01M', 'male', 'script01_1')
    """
    name = ID.fullmatch(path.stem)
    assert name is not None  # its label was found under an id of this form
    sex = "male" if name["sex"] == "M" else "female"
    speaker = name["session"] + name["sex"]
    return Utterance(path.stem, path, label, speaker, sex, content=name["scene"])


@dataclass(frozen=True, slots=True)
class _Label:
    word: str
    """Of three letters."""
    numbers: dict[str, float]
    """By name; empty where the line holds other than three."""


def _labels(folder: Path) -> dict[str, _Label]:
    """Return the label of each utterance; lines of another form are comments."""
    labels = {}
    for path in list_folder(folder) if folder.is_dir() else []:
        if path.suffix.lower() == ".txt" and path.is_file():
            for line in read_text_table(path).splitlines():
                if (label := LINE.fullmatch(line.rstrip())) is not None:
                    values = NUMBER.findall(label["numbers"])
                    pairs = zip(NUMBERS, map(float, values), strict=True)
                    numbers = dict(pairs) if len(values) == len(NUMBERS) else {}
                    labels[label["id"]] = _Label(label["emotion"], numbers)
    return labels
