"""Turns written labels into classes: missing values, number codes, label maps, similar spellings."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import NoReturn

from staanet.core import Corpus
from staanet.errors import InvalidInput, first_names, printable, unknown_name
from staanet.storage.lazy_rows import attribute_values

MISSING = frozenset(
    {"", "-", "--", "?", "nan", "-nan", "nat", "na", "n/a", "#n/a", "<na>", "n.a."}
    | {"none", "null", "nil", "true", "false"}
)
"""Lower-case words that mark a missing label in tables."""
NUMBER = re.compile(r"[-+]?[\d.,]+([eE][-+]?\d+)?")


def appearance(word: str) -> str:
    """Return what words share that a reader takes for one word.

    Case, the way in which accents are put together and signs without width do not count.

    >>> appearance("J\u00f6y") == appearance("jo\u0308y\u200b ")
    True
    """
    plain = unicodedata.normalize("NFKC", word)
    visible = "".join(sign for sign in plain if unicodedata.category(sign) != "Cf")
    return unicodedata.normalize("NFKC", visible.casefold()).strip()


def is_missing(label: str) -> bool:
    """Return whether a label is one of the words that stand for none.

    >>> is_missing("NaN"), is_missing(" - "), is_missing("neutral")
    (True, True, False)
    """
    return appearance(label) in MISSING


def is_number(label: str) -> bool:
    """Return whether a label is a number, which does not say which class it is.

    >>> is_number("01"), is_number("-1.5"), is_number("1e0"), is_number("class 1")
    (True, True, True, False)
    """
    return NUMBER.fullmatch(label.strip()) is not None


class SharedLabelMap(dict[str, str]):
    """A label map with pairs for a corpus and pairs for models, whose labels are ``others``."""

    others: Collection[str] = ()


def resolve_labels(
    words: Mapping[str, str], label_map: Mapping[str, str] | None = None, where: object = None
) -> dict[str, str | None]:
    """Return the class of each label as it is written; None where the label is missing.

    ``words`` maps each written label to where it stands first. ``label_map`` maps labels to
    classes; a key matches by content, so that ``1`` is also ``01`` and ``1.0``, and case and spaces
    around do not count. Labels without a key stay as they are. Raises ``InvalidInput`` for a key
    that matches no label, number codes without a map, and two labels that look alike.

    >>> words = {"01": "m.csv:2", "02": "m.csv:3", "NaN": "m.csv:4"}
    >>> resolve_labels(words, {"1": "neutral", "2": "anger"})
    {'01': 'neutral', '02': 'anger', 'NaN': None}
    """
    classes = _mapped_labels(words, label_map or {}, where)
    resolved: dict[str, str | None] = {}
    spellings: dict[str, str] = {}
    numbers: dict[str, str] = {}
    for word, raw_label in classes.items():
        label = printable(raw_label)
        resolved[word] = None if is_missing(raw_label) else label
        if resolved[word] is not None:
            if is_number(label):
                numbers.setdefault(label, words[word])
            other = spellings.setdefault(appearance(raw_label), label)
            if other != label:
                _refuse_spelling(label, other, words[word])
    if numbers:
        _refuse_numbers(numbers)
    return resolved


def _mapped_labels(
    words: Iterable[str], label_map: Mapping[str, str], where: object
) -> dict[str, str]:
    """Return each label after the map; ``InvalidInput`` for keys that match none."""
    targets: dict[str, str] = {}
    for key, target in label_map.items():
        if targets.setdefault(_content(key), target) != target:
            raise InvalidInput(
                f"the label map gives '{printable(key)}' two classes",
                where=where,
                remedy="Name each label once",
            )
    labels = {word: targets.get(_content(word), word).strip() for word in words}
    contents = {_content(word) for word in words}
    others = label_map.others if isinstance(label_map, SharedLabelMap) else ()
    for key in label_map:
        if _content(key) not in contents and key not in others:
            choices = sorted({printable(word.strip()) for word in words} - {""})
            raise unknown_name("label in the label map:", key, choices, where=where)
    return labels


def _content(label: str) -> str:
    """Return what two spellings of one label share: the value of a number, the look of a word.

    >>> _content("01") == _content("1.0"), _content(" Happy") == _content("happy")
    (True, True)
    """
    try:
        return repr(float(label.strip())) if is_number(label) else appearance(label)
    except ValueError:  # such as 1,5
        return appearance(label)


def _refuse_spelling(label: str, other: str, where: str) -> NoReturn:
    """Raise the refusal of two labels that a reader takes for one."""
    how = "upper and lower case"
    if other.casefold() != label.casefold():
        how = f"signs that are not seen ({label!a})"
    raise InvalidInput(
        f"the label '{label}' differs from '{other}' by {how} alone",
        where=where,
        remedy=f"Write '{other}' everywhere, or give a label map",
    )


def _refuse_numbers(numbers: Mapping[str, str]) -> NoReturn:
    """Raise the refusal of labels that are numbers, with the map that would name them."""
    label, where = next(iter(numbers.items()))
    others = [other for other in numbers if other != label]
    example = ",".join(f"{number}=CLASS" for number in list(numbers)[:3])
    more = f" (and so are {first_names(others)})" if others else ""
    raise InvalidInput(
        f"the label '{label}' is a number{more}, which does not say which class it is",
        where=where,
        remedy="Name the classes by words, in Python with label_map, or in a new manifest by staanet "
        f"corpus ... --label-map {example} --out named.csv",
    )


def relabel(corpus: Corpus, label_map: Mapping[str, str] | None) -> Corpus:
    """Return a corpus with the classes that ``label_map`` gives to its labels.

    Clips whose label becomes a word for none are left out with a note. Raises ``InvalidInput`` as
    ``resolve_labels`` does.
    """
    if not label_map:
        return corpus
    words = dict.fromkeys(corpus.labels, corpus.name)
    classes = resolve_labels(words, label_map, corpus.name)
    clips = defaultdict[str | None, int](int)
    utterances = []
    for utterance in corpus.utterances:
        label = classes.get(utterance.label or "")
        clips[label] += 1
        if label is not None:
            utterances.append(replace(utterance, label=label))
    notes = [f"clips without a class by the label map left out: {clips[None]}"] * bool(clips[None])
    labels = tuple(sorted({u.label for u in utterances if u.label}))
    return replace(
        corpus, utterances=tuple(utterances), labels=labels, notes=(*corpus.notes, *notes)
    )


MIN_CLASS_CLIPS = 10
"""Below as many, one clip is more than a tenth of the recall of its class."""


def few_clips_warning(corpus: Corpus) -> list[str]:
    """Return a warning that names classes of few clips, or none.

    >>> from staanet.core import Utterance
    >>> clip = Utterance("a", None, "joy", "s")
    >>> few_clips_warning(Corpus("tiny", (clip,), ("joy",)))
    ['classes of fewer than 10 clips: joy 1; figures on them say little']
    """
    counts = Counter(attribute_values(corpus.utterances, "label"))
    few = [
        f"{label} {counts[label]}"
        for label in corpus.class_labels
        if counts[label] < MIN_CLASS_CLIPS
    ]
    text = f"classes of fewer than {MIN_CLASS_CLIPS} clips: {', '.join(few)}; figures on them say little"
    return [text] if few else []
