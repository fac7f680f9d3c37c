"""Cross-validation: every speaker (or content) is tested once, by models that never met it.

A fold is a protocol, ``fold:I/N``: the ``I``-th of ``N`` groups of speakers tests, the group before it
is dev, the others train. The groups depend on the seed and on ``N`` alone.
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
LEAST_FOLDS = 3
"""One group tests, one is dev, and one has to train."""
_DRAWS = 1000


def fold_protocol(number: int, of: int) -> str:
    """The protocol of a fold, counted from 1.

    >>> fold_protocol(2, 5)
    'fold:2/5'
    """
    return f"{FOLD}{number}/{of}"


def fold_parts(
    corpus: Corpus, groups: Sequence[Sequence[str]], seed: int, protocol: str
) -> dict[str, set[str]]:
    """The speakers (or contents) of ``train``, ``dev`` and ``test`` of one fold.

    Args:
        corpus: Whole.
        groups: Its speakers, in groups that each fold should have alike, such as those of one sex.
        seed: Draws the folds.
        protocol: ``fold:I/N``.

    Raises:
        InvalidInput: There are fewer speakers than folds, a class would be missing from the training
            part of a fold, or the protocol is not one of a fold.
    """
    match = re.fullmatch(r"fold:([0-9]{1,4})/([0-9]{1,4})", protocol)
    number, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (1 <= number <= of and of >= LEAST_FOLDS):
        raise InvalidInput(
            f"the protocol '{printable(protocol[:100])}' is no fold of {LEAST_FOLDS} or more",
            where=corpus.name,
            remedy=f"Write for example {fold_protocol(2, 5)} for the second of five",
        )
    dealt = draw_folds(corpus, groups, seed, of)
    test, dev = dealt[number - 1], dealt[number - 2]
    return {"train": set().union(*dealt) - test - dev, "dev": dev, "test": test}


def draw_folds(
    corpus: Corpus, groups: Sequence[Sequence[str]], seed: int, count: int
) -> list[set[str]]:
    """Deals speakers (or contents) into ``count`` disjoint sets of about equal size.

    Of a thousand draws it takes the one in which the fewest classes are missing from a part. See
    ``fold_parts``.
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
        dealt = [set(order[first::count]) for first in range(count)]
        missing = _missing_classes(dealt, labelled, classes)
        if fewest is None or missing < fewest:
            best, fewest = dealt, missing
        if missing == (0, 0):
            break
    if fewest and fewest[0]:
        _refuse(corpus, best, labelled)
    return best


def _missing_classes(
    dealt: Sequence[set[str]], labelled: dict[str, set[str]], classes: set[str]
) -> tuple[int, int]:
    """How many classes are missing from training parts, and from test parts, over all folds."""
    present = [set().union(*(labelled[unit] for unit in fold)) for fold in dealt]
    train = sum(len(classes - _trained(present, index)) for index in range(len(dealt)))
    return train, sum(len(classes - labels) for labels in present)


def _trained(present: Sequence[set[str]], index: int) -> set[str]:
    """The classes in the training part of the fold that tests ``index``."""
    held_out = (index, (index - 1) % len(present))
    return set().union(*(labels for i, labels in enumerate(present) if i not in held_out))


def _refuse(corpus: Corpus, dealt: Sequence[set[str]], labelled: dict[str, set[str]]) -> None:
    present = [set().union(*(labelled[unit] for unit in fold)) for fold in dealt]
    for index in range(len(dealt)):
        for label in corpus.labels:
            if label not in _trained(present, index):
                units = sum(label in labels for labels in labelled.values())
                raise InvalidInput(
                    f"class '{label}' would have 0 train clips in fold {index + 1} of {len(dealt)}: "
                    f"{units} of {len(labelled)} {corpus.disjoint_by} have it",
                    where=corpus.name,
                    remedy="Leave the class out, or ask for more folds",
                )
