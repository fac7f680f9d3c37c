"""Split protocols: named published ones of a corpus, and speaker lists written by hand.

A protocol is ``speakers`` (drawn by the seed, the default), ``speakers:TEST,.../DEV,...`` (the rest
trains), ``manifest`` (the corpus's own split), or a name that the corpus gives to a fixed split.
Where the classes are the speakers, each of them has to be in every part, and what is kept apart is
what they say: ``contents`` (the default there), ``contents:TEST,.../DEV,...`` and ``manifest``.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from staanet.errors import InvalidInput, first_names, printable, unknown_name

PARTS = ("train", "dev", "test")
DRAWN, CONTENTS, MANIFEST = "speakers", "contents", "manifest"
BY_HAND = "speakers:TEST,.../DEV,..."
CONTENTS_BY_HAND = "contents:TEST,.../DEV,..."
ALIASES = {
    "training": "train",
    "devel": "dev",
    "development": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "testing": "test",
}
Fold = Mapping[str, str]
"""Speaker -> part."""


def part_named(text: str) -> str:
    """The part that a manifest or a folder means; other text as it is, without spaces around.

    >>> part_named(" Validation "), part_named("train"), part_named("fold 3")
    ('dev', 'train', 'fold 3')
    """
    name = text.strip()
    folded = ALIASES.get(name.casefold(), name.casefold())
    return folded if folded in PARTS else name


def folds(groups: Mapping[str, Sequence[str]]) -> dict[str, Fold]:
    """Leave one group of speakers out: each tests once, the one before it is dev, the rest trains.

    >>> folds({"1": ["a"], "2": ["b"], "3": ["c"]})["1"]
    {'a': 'test', 'b': 'train', 'c': 'dev'}
    """
    names = list(groups)
    return {
        test: {
            speaker: "test" if name == test else "dev" if name == names[index - 1] else "train"
            for name in names
            for speaker in groups[name]
        }
        for index, test in enumerate(names)
    }


def protocols(
    named: Iterable[str], parts: Iterable[str | None], disjoint_by: str = DRAWN
) -> tuple[str, ...]:
    """The protocols that ``split`` accepts for a corpus with published protocols and parts.

    >>> protocols(["paper"], ["train"])
    ('speakers', 'paper', 'manifest', 'speakers:TEST,.../DEV,...')
    >>> protocols(["paper"], [None], CONTENTS)
    ('contents', 'contents:TEST,.../DEV,...')
    """
    manifest_protocol = [MANIFEST] if any(parts) else []
    if disjoint_by == CONTENTS:
        return (CONTENTS, *manifest_protocol, CONTENTS_BY_HAND)
    return (DRAWN, *named, *manifest_protocol, BY_HAND)


def parts_of(
    protocol: str,
    clips: Iterable[tuple[str, str | None]],
    named: Mapping[str, Sequence[Fold]],
    *,
    seed: int = 0,
    where: object = None,
    disjoint_by: str = DRAWN,
) -> dict[str, set[str]]:
    """The speakers of each part by a fixed protocol; ``clips`` are pairs (speaker, own part), or how
    many clips there are of each pair.

    A named protocol of several folds takes the one that the seed counts to. ``apart`` may be
    ``contents``: all that is said here of speakers is then meant of those. Raises ``InvalidInput``
    for an unknown protocol or speaker, a speaker in two parts, a part without speakers.

    >>> parts_of("speakers:a/b", [("a", None), ("b", None), ("c", None)], {})
    {'train': {'c'}, 'dev': {'b'}, 'test': {'a'}}
    """
    counted = Counter(clips)
    speakers = {speaker for speaker, _ in counted}
    if protocol == MANIFEST:
        parts = _parts_of_manifest(counted, where, disjoint_by)
    elif protocol in named and disjoint_by == DRAWN:
        fold = named[protocol][seed % len(named[protocol])]
        parts = {part: {s for s in speakers if fold.get(s) == part} for part in PARTS}
    elif protocol.startswith(f"{disjoint_by}:"):
        parts = _by_hand(protocol, speakers, where, disjoint_by)
    else:
        available = protocols(named, (part for _, part in counted), disjoint_by)
        raise unknown_name("protocol", protocol[:100], available, where=where)
    for part, members in parts.items():
        if not members:
            raise InvalidInput(
                f"the {part} part of the protocol '{printable(protocol[:100])}' has no {disjoint_by}",
                where=where,
                remedy="Give the whole corpus, or choose another --protocol",
            )
    return parts


def _by_hand(
    protocol: str, speakers: set[str], where: object, disjoint_by: str
) -> dict[str, set[str]]:
    lists = [
        {name.strip() for name in names.split(",")} - {""}
        for names in protocol.removeprefix(f"{disjoint_by}:").split("/")
    ]
    if len(lists) != 2 or not all(lists):
        form, example = (
            (BY_HAND, "speakers:03,08/09,10")
            if disjoint_by == DRAWN
            else (CONTENTS_BY_HAND, "contents:a01,a02/b01")
        )
        raise InvalidInput(
            f"the protocol '{printable(protocol[:100])}' does not name test and dev {disjoint_by}",
            where=where,
            remedy=f"Write {form}, such as {example}; the others train",
        )
    test, dev = lists
    for name in sorted(test | dev):
        if name not in speakers:
            raise unknown_name(disjoint_by[:-1], name[:100], speakers, where=where)
    if both := sorted(test & dev):
        raise InvalidInput(
            f"{_subject(both, disjoint_by)} named for test and for dev",
            where=where,
            remedy="Name each once",
        )
    return {"train": speakers - test - dev, "dev": dev, "test": test}


def _parts_of_manifest(
    clips: Counter[tuple[str, str | None]], where: object, disjoint_by: str
) -> dict[str, set[str]]:
    if not any(part for _, part in clips):
        raise InvalidInput(
            "gives its clips no split",
            where=where,
            remedy="Add a column 'split' (train, dev or test) to its manifest, or drop --protocol",
        )
    parts: dict[str, set[str]] = {part: set() for part in PARTS}
    others: Counter[str] = Counter()
    for (speaker, part), count in clips.items():
        if part in parts:
            parts[part].add(speaker)
        else:
            others[part or ""] += count
    for name, count in sorted(others.items()):
        raise InvalidInput(
            f"{count} clips have the split '{printable(name[:100])}'",
            where=where,
            remedy="Write train, dev or test in each row of the manifest's split column",
        )
    for first, other in itertools.combinations(PARTS, 2):
        if both := sorted(parts[first] & parts[other]):
            raise InvalidInput(
                f"{_subject(both, disjoint_by)} in {first} and in {other}",
                where=where,
                remedy=f"Move all clips of a {disjoint_by[:-1]} into one part, or split by "
                f"--protocol {disjoint_by}",
            )
    return parts


def _subject(names: Sequence[str], disjoint_by: str) -> str:
    """The subject of a sentence about speakers or contents.

    >>> _subject(["a", "b"], "speakers")
    'the speakers a, b are'
    """
    shown = first_names(names)
    return (
        f"the {disjoint_by[:-1]} {shown} is"
        if len(names) == 1
        else f"the {disjoint_by} {shown} are"
    )
