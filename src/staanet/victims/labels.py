"""Matches the label words of a model with those of a corpus, and refuses labels that name no class."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from staanet.core import Victim
from staanet.errors import InvalidInput, printable

WORDS: dict[str, str] = {
    "anger": "ang angry wut wütend ärger rabbia rab ira colère",
    "boredom": "bor bored langeweile gelangweilt noia",
    "calm": "cal calmness ruhig calma",
    "contempt": "con contemptuous verachtung disprezzo",
    "disgust": "dis disgusted ekel disgusto dégoût",
    "excitement": "exc excited",
    "fear": "fea fearful afraid scared anxiety anxious angst furcht ängstlich paura pau miedo peur",
    "frustration": "fru frustrated",
    "happiness": "hap happy joy joyful freude fröhlich glücklich gioia gio felicità alegría joie",
    "neutral": "neu neutrality neutrale",
    "sadness": "sad trauer traurig tristezza tri triste tristesse",
    "surprise": "sur surprised ps pleasant_surprise pleasant_surprised überraschung überrascht sorpresa sor",
}
"""Well-known words and abbreviations of emotions in English, German, Italian, Spanish and French."""
DIMENSIONS = frozenset({"arousal", "valence", "dominance", "activation", "activity", "potency"})
"""Labels of a regression model, which answers with numbers and not with a class."""
TOLERANCE = 0.05
"""Change of a number from 0 to 1 that counts, where a published model says none."""
_PLACEHOLDER = re.compile(r"(label|class|output|speaker)?[ _-]*\d+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LabelMatch:
    """Which label of a model stands for which label of a corpus."""

    mapping: Mapping[str, str]
    """From the model's label to the corpus's label, for each pair that means the same."""
    model_only: tuple[str, ...]
    corpus_only: tuple[str, ...]

    @property
    def note(self) -> str:
        """The pairs whose words differ, for the user to check; empty where all words are equal.

        >>> match_labels(["angry", "neutral"], ["anger", "neutral"]).note
        'labels matched by their words: angry = anger'
        """
        pairs = [f"{a} = {b}" for a, b in self.mapping.items() if a != b]
        return f"labels matched by their words: {', '.join(pairs)}" if pairs else ""

    def among(self, labels: Collection[str]) -> LabelMatch:
        """The match with pairs of these labels of the corpus alone.

        >>> match_labels(["ang", "hap"], ["anger", "happiness"]).among(["anger"]).mapping
        {'ang': 'anger'}
        """
        pairs = {a: b for a, b in self.mapping.items() if b in labels}
        rest = [a for a in self.mapping if a not in pairs]
        corpus_only = tuple(label for label in self.corpus_only if label in labels)
        return LabelMatch(pairs, (*rest, *self.model_only), corpus_only)

    def check(self, model: str, corpus: str) -> None:
        """Raises ``InvalidInput`` with both lists where fewer than two classes match."""
        if len(self.mapping) >= 2:
            return
        theirs = [*self.mapping, *self.model_only]
        ours = [*self.mapping.values(), *self.corpus_only]
        example = f"{theirs[0]}={ours[0]}" if theirs and ours else "MODEL=CORPUS"
        raise InvalidInput(
            f"{len(self.mapping)} classes of {model} meet those of {corpus}: the model has "
            f"{_listing(theirs)}; the clips have {_listing(ours)}",
            remedy=f"Say which label means which: --label-map {example},...",
        )


def match_labels(
    model_labels: Sequence[str],
    corpus_labels: Collection[str],
    label_map: Mapping[str, str] | None = None,
) -> LabelMatch:
    """Match labels by ``label_map``, then by equal words, then by well-known words for the same emotion.

    A model's label that could stand for two labels of the corpus is not matched, nor are two labels of
    the model for the same label of the corpus.

    >>> match_labels(["ang", "hap", "other"], ["anger", "happiness", "fear"]).mapping
    {'ang': 'anger', 'hap': 'happiness'}

    Args:
        model_labels: The labels of the model, in the order of its outputs.
        corpus_labels: The labels of the clips.
        label_map: From a label of the model to one of the corpus; it has priority.

    Returns:
        The pairs, and the labels on both sides that have no counterpart.

    Raises:
        InvalidInput: The map names a label that does not exist, or the model's labels are placeholders
            such as ``LABEL_0`` and nothing says what they stand for.
    """
    label_map = dict(label_map or {})
    _check_map(label_map, model_labels, corpus_labels)
    mapping = {a: b for a, b in label_map.items() if a in model_labels}
    rest = [label for label in model_labels if label not in mapping]
    for reading in (str, _plain, canonical_label):
        free = [label for label in corpus_labels if label not in mapping.values()]
        there = Counter(reading(label) for label in rest)
        here = Counter(reading(label) for label in free)
        for label in list(rest):
            word = reading(label)
            if word and there[word] == here[word] == 1:
                mapping[label] = next(other for other in free if reading(other) == word)
                rest.remove(label)
    placeholders = [label for label in rest if _PLACEHOLDER.fullmatch(label.strip())]
    if placeholders and len(mapping) < 2:
        raise InvalidInput(
            f"the model's labels say nothing: {_listing(model_labels)}; the clips have "
            f"{_listing(sorted(corpus_labels))}",
            remedy=f"Say what they stand for: --label-map {placeholders[0]}="
            f"{next(iter(sorted(corpus_labels)), 'LABEL')},...",
        )
    ordered = {label: mapping[label] for label in model_labels if label in mapping}
    unmatched = tuple(sorted(set(corpus_labels) - set(ordered.values())))
    return LabelMatch(ordered, tuple(rest), unmatched)


def rename_labels(victim: Victim, match: LabelMatch) -> None:
    """Renames the labels of a victim, and of victims inside it, to the corpus's words."""
    for part in victim.modules():
        if isinstance(part, Victim):
            part.own_labels = part.own_labels or part.labels
            part.labels = tuple(match.mapping.get(label, label) for label in part.labels)


def canonical_label(label: str) -> str:
    """The English noun for a well-known word or abbreviation of an emotion; empty for any other.

    >>> canonical_label("Fearful"), canonical_label("Ueberraschung"), canonical_label("mood")
    ('fear', 'surprise', '')
    """
    return _CANONICAL.get(_plain(label), "")


def _plain(label: str) -> str:
    """A label without case, accents, umlauts' spellings and separators.

    >>> _plain("Pleasant_Surprise"), _plain("Ärger") == _plain("aerger")
    ('pleasant surprise', True)
    """
    text = unicodedata.normalize("NFC", label).casefold().strip()
    for umlaut, letters in (("ä", "ae"), ("ö", "oe"), ("ü", "ue")):
        text = text.replace(umlaut, letters)
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return " ".join(re.split(r"[\s_-]+", text))


_CANONICAL = {
    _plain(word): noun for noun, words in WORDS.items() for word in (noun, *words.split())
}


def are_dimensions(labels: Sequence[str]) -> bool:
    """Whether labels are the usual names of numbers.

    >>> are_dimensions(["Arousal", "dominance", "valence"]), are_dimensions(["joy"]), are_dimensions([])
    (True, False, False)
    """
    return bool(labels) and all(_plain(label) in DIMENSIONS for label in labels)


def default_tolerance(labels: Sequence[str]) -> tuple[tuple[float, ...], str]:
    """The tolerance of a model that answers numbers and names none, and a note that it was taken."""
    note = (
        f"it answers with numbers ({_listing(labels)}); an answer counts as changed where one moves by more "
        f"than {TOLERANCE}, as Derington et al. (arXiv 2312.06270) have it for numbers from 0 to 1; another "
        "range needs another tolerance"
    )
    return (TOLERANCE,) * len(labels), note


def check_class_labels(labels: Sequence[str], *, where: object) -> None:
    """Raise ``InvalidInput`` where a model's labels cannot be the classes of a classifier.

    >>> check_class_labels(["valence", "arousal"], where="model.onnx")
    Traceback (most recent call last):
    staanet.errors.InvalidInput: model.onnx: is a regression model: ...
    """
    words = Counter(_plain(label) for label in labels)
    repeated = [label for label in labels if words[_plain(label)] > 1]
    if are_dimensions(labels):
        raise InvalidInput(
            f"is a regression model: it answers {_listing(labels)} with numbers and names no class",
            where=where,
            remedy="Give its numbers a tolerance, which makes it a regression victim",
        )
    if len(labels) < 2:
        raise InvalidInput(
            f"has {len(labels)} class: no attack can change its answer",
            where=where,
            remedy="Give a model with two or more classes",
        )
    if repeated:
        raise InvalidInput(
            f"has the class '{printable(repeated[0])}' {words[_plain(repeated[0])]} times in "
            f"{_listing(labels)}",
            where=where,
            remedy="Correct the labels: each class needs a name of its own",
        )


def _check_map(
    label_map: Mapping[str, str], model_labels: Sequence[str], corpus_labels: Collection[str]
) -> None:
    for a, b in label_map.items():
        if a not in model_labels:
            raise InvalidInput(
                f"the label map names '{printable(a)}'; the model has {_listing(model_labels)}",
                remedy="Write MODEL=CORPUS, with labels of the model on the left",
            )
        if b not in corpus_labels:
            raise InvalidInput(
                f"the label map names '{printable(b)}'; the clips have "
                f"{_listing(sorted(corpus_labels))}",
                remedy="Write MODEL=CORPUS, with labels of the clips on the right",
            )
    if len(set(label_map.values())) < len(label_map):
        raise InvalidInput(
            "the label map gives two labels of the model to one label of the clips",
            remedy="Give each label of the clips once",
        )


def _listing(labels: Sequence[str]) -> str:
    return ", ".join(printable(label) for label in labels) or "none"
