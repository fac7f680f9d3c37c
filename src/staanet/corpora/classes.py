"""What is told apart: a corpus's own labels, its speakers, or their sex."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from staanet.core import Corpus, Utterance
from staanet.corpora.files import UNKNOWN, omission_notes
from staanet.errors import InvalidInput, unknown_name

CLASSES = ("label", "speaker", "sex")
CONTENTS_OF_A_SPEAKER = 3
"""One at least for each of train, dev and test."""


def classed(corpus: Corpus, classes: str) -> Corpus:
    """``corpus`` with its own labels (``label``), or with each clip's ``speaker`` or ``sex`` as label.

    Its name says so (``emodb by sex``), for cards that must not be taken for each other's. Clips of
    which that is not known are left out with a note, and so are speakers who say fewer than three
    things: of each, train, dev and test need one (``Corpus.split``). A speaker whose name is a number
    becomes ``speaker_03``, as a class is a word. Raises ``InvalidInput`` for other ``classes``, and
    where fewer than two are left.

    >>> clips = [Utterance(f"{s}{n}", None, "joy", s, "male", content=str(n)) for s in "ab" for n in range(3)]
    >>> classed(Corpus("two", tuple(clips), ("joy",)), "speaker").labels
    ('a', 'b')
    """
    if classes not in CLASSES:
        raise unknown_name("classes", classes, CLASSES)
    if classes == corpus.classes:
        return corpus
    speakers = classes == "speaker"
    kept, unknown = _known(corpus.utterances, speakers)
    if classes == "sex":
        _require_one_sex_each(kept, corpus.name)
    notes = [*corpus.notes, *omission_notes(unknown, f"of unknown {classes}")]
    if speakers:
        kept, few = _with_enough_to_say(kept)
        notes += omission_notes(
            few, f"of a speaker with fewer than {CONTENTS_OF_A_SPEAKER} contents"
        )
        notes += _unknown_contents(kept)
    labels = tuple(sorted({u.label or "" for u in kept}))
    if len(labels) < 2:
        raise InvalidInput(
            f"tells {len(labels)} {classes} apart; a classifier needs 2",
            where=corpus.name,
            remedy="; ".join([*notes, f"give a corpus (or a column '{classes}') of two at least"]),
        )
    return replace(
        corpus,
        name=f"{corpus.name} by {classes}",
        utterances=tuple(kept),
        labels=labels,
        notes=tuple(notes),
        classes=classes,
    )


def _known(utterances: Sequence[Utterance], speakers: bool) -> tuple[list[Utterance], list[str]]:
    """The clips with their new labels, and the names of those that have none."""
    kept, unknown = [], []
    for u in utterances:
        label = u.sex if not speakers else None if u.speaker == UNKNOWN else _word(u.speaker)
        if label:
            kept.append(replace(u, label=label))
        else:
            unknown.append(u.path.name)
    return kept, unknown


def _require_one_sex_each(utterances: Sequence[Utterance], where: str) -> None:
    sexes: dict[str, str | None] = {}
    for u in utterances:
        if u.speaker != UNKNOWN and sexes.setdefault(u.speaker, u.sex) != u.sex:
            raise InvalidInput(
                f"the speaker {u.speaker} is {sexes[u.speaker]} in one row and {u.sex} in another",
                where=where,
                remedy="Correct the column 'sex'",
            )


def _word(speaker: str) -> str:
    """A class is a word: a number could be its place among the others.

    >>> _word("03"), _word("Ses01F")
    ('speaker_03', 'Ses01F')
    """
    return f"speaker_{speaker}" if speaker.replace(".", "").isdigit() else speaker


def _with_enough_to_say(utterances: Sequence[Utterance]) -> tuple[list[Utterance], list[str]]:
    said: defaultdict[str, set[str]] = defaultdict(set)
    for u in utterances:
        said[u.speaker].add(u.content or str(u.path))
    enough = {s for s, contents in said.items() if len(contents) >= CONTENTS_OF_A_SPEAKER}
    few = [u.path.name for u in utterances if u.speaker not in enough]
    return [u for u in utterances if u.speaker in enough], few


def _unknown_contents(utterances: Sequence[Utterance]) -> list[str]:
    unknown = Counter(u.content is None for u in utterances)[True]
    if not unknown:
        return []
    return [
        f"what is said is not known of {unknown} clips: each of their files counts as another "
        "content, so that a speaker may say the same in two parts; a manifest's column 'content' "
        "tells it"
    ]
