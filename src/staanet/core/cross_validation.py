"""Cross-validation: each speaker (or content) is in the test part of exactly one fold.

A fold is a protocol, ``fold:I/N``. Speakers are divided into ``N`` sets: the ``I``-th is test, the set
before it is dev, the others are train. The sets depend on the corpus, the seed and ``N`` alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from staanet.errors import InvalidInput, printable
from staanet.storage import lazy_rows

if TYPE_CHECKING:
    from staanet.core.corpus import Corpus

FOLD = "fold:"
MIN_FOLDS = 3
"""One set for each of test, dev and train."""
_DRAWS = 1000


def fold_protocol(number: int, of: int) -> str:
    """Returns the protocol of a fold; ``number`` counts from 1.

    >>> fold_protocol(2, 5)
    'fold:2/5'
    """
    return f"{FOLD}{number}/{of}"


def fold_parts(
    corpus: Corpus, groups: Sequence[Sequence[str]], seed: int, protocol: str
) -> dict[str, set[str]]:
    """Returns the speakers (or contents) of ``train``, ``dev`` and ``test`` of one fold.

    Args:
        corpus: The whole corpus.
        groups: Its speakers in groups, such as those of one sex; each fold gets a like share of a group.
        seed: The seed of the random folds.
        protocol: ``fold:I/N``.

    Raises:
        InvalidInput: There are fewer speakers than folds, a class would be missing from the training
            part of a fold, or the protocol is not one of a fold.
    """
    match = re.fullmatch(r"fold:([0-9]{1,4})/([0-9]{1,4})", protocol)
    number, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (1 <= number <= of and of >= MIN_FOLDS):
        raise InvalidInput(
            f"the protocol '{printable(protocol[:100])}' is no fold of {MIN_FOLDS} or more",
            where=corpus.name,
            remedy=f"Write for example {fold_protocol(2, 5)} for the second of five",
        )
    folds = draw_folds(corpus, groups, seed, of)
    test, dev = folds[number - 1], folds[number - 2]
    return {"train": set().union(*folds) - test - dev, "dev": dev, "test": test}


def draw_folds(
    corpus: Corpus, groups: Sequence[Sequence[str]], seed: int, count: int
) -> list[set[str]]:
    """Divides speakers (or contents) at random into ``count`` disjoint sets of about equal size.

    Of a thousand draws it takes the one in which the fewest classes are missing from train and test parts.
    Raises ``InvalidInput`` where there are too few speakers, or a train part lacks a class in all draws.
    See ``fold_parts`` for the arguments.
    """
    labelled: dict[str, set[str]] = {}
    labels = lazy_rows.attribute_values(corpus.utterances, "label")
    for unit, label in zip(corpus.units(), labels, strict=True):
        labelled.setdefault(unit, set()).add(label or "")
    if len(labelled) < count:
        raise InvalidInput(
            f"{len(labelled)} {corpus.disjoint_by} cannot be divided into {count} folds",
            where=corpus.name,
            remedy=f"Use at most {len(labelled)} folds",
        )
    rng = np.random.default_rng(seed)
    classes = set(corpus.class_labels)
    best: list[set[str]] = []
    fewest: tuple[int, int] | None = None
    for _ in range(_DRAWS):
        order = [group[i] for group in groups for i in rng.permutation(len(group))]
        folds = [set(order[first::count]) for first in range(count)]
        missing = _missing_classes(folds, labelled, classes)
        if fewest is None or missing < fewest:
            best, fewest = folds, missing
        if missing == (0, 0):
            break
    if fewest and fewest[0]:
        _raise_missing_class(corpus, best, labelled)
    return best


def _missing_classes(
    folds: Sequence[set[str]], labelled: dict[str, set[str]], classes: set[str]
) -> tuple[int, int]:
    """Returns how many classes are missing from train parts, and from test parts, over all folds."""
    test, train = _classes_of_folds(folds, labelled)
    missing = [sum(len(classes - labels) for labels in part) for part in (train, test)]
    return missing[0], missing[1]


def _classes_of_folds(
    folds: Sequence[set[str]], labelled: dict[str, set[str]]
) -> tuple[list[set[str]], list[set[str]]]:
    """Returns the classes in the test part, and in the train part, of each fold."""
    test = [set().union(*(labelled[unit] for unit in fold)) for fold in folds]
    train = [
        set().union(*(labels for i, labels in enumerate(test) if (index - i) % len(test) > 1))
        for index in range(len(test))
    ]
    return test, train


def _raise_missing_class(
    corpus: Corpus, folds: Sequence[set[str]], labelled: dict[str, set[str]]
) -> None:
    for number, classes in enumerate(_classes_of_folds(folds, labelled)[1], start=1):
        for label in corpus.labels:
            if label not in classes:
                units = sum(label in labels for labels in labelled.values())
                raise InvalidInput(
                    f"class '{label}' would have 0 train clips in fold {number} of {len(folds)}: "
                    f"{units} of {len(labelled)} {corpus.disjoint_by} have it",
                    where=corpus.name,
                    remedy="Leave the class out, or ask for more folds",
                )
