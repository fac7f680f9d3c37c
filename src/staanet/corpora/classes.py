"""Chooses the classes of a corpus: its labels, its speakers, or the sex of its speakers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from staanet.core import Corpus, Utterance
from staanet.corpora.files import UNKNOWN, omission_notes
from staanet.errors import InvalidInput, unknown_name

CLASSES = ("label", "speaker", "sex")
MIN_CONTENTS = 3
"""Contents (sentences) that a speaker needs: at least one for each of train, dev and test."""


def with_classes(corpus: Corpus, classes: str) -> Corpus:
    """Return the corpus labelled by its labels, or by the ``speaker`` or ``sex`` of each clip.

    The new corpus is named after its classes (``emodb by sex``). Clips of unknown speaker or sex are
    left out with a note, and so are speakers with fewer than ``MIN_CONTENTS`` contents. A speaker whose
    name is a number becomes ``speaker_03``, because a class is a word. Raises ``InvalidInput`` for
    other ``classes``, for a speaker of two sexes, and where fewer than two classes remain.

    >>> clips = [Utterance(f"{s}{n}", None, "joy", s, "male", content=str(n)) for s in "ab" for n in range(3)]
    >>> with_classes(Corpus("two", tuple(clips), ("joy",)), "speaker").labels
    ('a', 'b')
    """
    if classes not in CLASSES:
        raise unknown_name("classes", classes, CLASSES)
    if classes == corpus.classes:
        return corpus
    by_speaker = classes == "speaker"
    labelled, unknown = _relabel(corpus.utterances, by_speaker)
    if not by_speaker:
        _require_one_sex_each(labelled, corpus.name)
    notes = [*corpus.notes, *omission_notes(unknown, f"of unknown {classes}")]
    if by_speaker:
        labelled, few = _with_enough_contents(labelled)
        notes += omission_notes(few, f"of a speaker with fewer than {MIN_CONTENTS} contents")
        notes += _unknown_contents_note(labelled)
    labels = tuple(sorted({u.label or "" for u in labelled}))
    if len(labels) < 2:
        raise InvalidInput(
            f"has {len(labels)} classes by {classes}; a classifier needs 2",
            where=corpus.name,
            remedy="; ".join([*notes, f"give a corpus (or a column '{classes}') of two at least"]),
        )
    return replace(
        corpus,
        name=f"{corpus.name} by {classes}",
        utterances=tuple(labelled),
        labels=labels,
        notes=tuple(notes),
        classes=classes,
    )


def _relabel(
    utterances: Sequence[Utterance], by_speaker: bool
) -> tuple[list[Utterance], list[str]]:
    """Return the clips with their new labels, and the file names of clips that have none."""
    labelled, unknown = [], []
    for u in utterances:
        speaker = None if u.speaker == UNKNOWN else _class_name(u.speaker)
        label = speaker if by_speaker else u.sex
        if label:
            labelled.append(replace(u, label=label))
        else:
            unknown.append(u.path.name)
    return labelled, unknown


def _require_one_sex_each(utterances: Sequence[Utterance], where: str) -> None:
    """Raise ``InvalidInput`` where the rows of a speaker disagree on the sex."""
    sexes: dict[str, str | None] = {}
    for u in utterances:
        if u.speaker != UNKNOWN and sexes.setdefault(u.speaker, u.sex) != u.sex:
            raise InvalidInput(
                f"the speaker {u.speaker} is {sexes[u.speaker]} in one row and {u.sex} in another",
                where=where,
                remedy="Correct the column 'sex'",
            )


def _class_name(speaker: str) -> str:
    """Return the class of a speaker; a number alone could be taken for the index of a class.

    >>> _class_name("03"), _class_name("Ses01F")
    ('speaker_03', 'Ses01F')
    """
    return f"speaker_{speaker}" if speaker.replace(".", "").isdigit() else speaker


def _with_enough_contents(utterances: Sequence[Utterance]) -> tuple[list[Utterance], list[str]]:
    """Return the clips of speakers with enough contents, and the file names of the others."""
    contents: defaultdict[str, set[str]] = defaultdict(set)
    for u in utterances:
        contents[u.speaker].add(u.content or str(u.path))
    enough = {speaker for speaker, texts in contents.items() if len(texts) >= MIN_CONTENTS}
    few = [u.path.name for u in utterances if u.speaker not in enough]
    return [u for u in utterances if u.speaker in enough], few


def _unknown_contents_note(utterances: Sequence[Utterance]) -> list[str]:
    unknown = sum(u.content is None for u in utterances)
    if not unknown:
        return []
    return [
        f"the content of {unknown} clips is unknown: each of their files counts as another content, "
        "so that a speaker may say the same in two parts; a column 'content' of a manifest tells it"
    ]
