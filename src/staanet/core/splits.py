"""Splits a corpus into train, dev and test by speakers (or contents), seeded or by a protocol."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from staanet.core import protocols
from staanet.core.cross_validation import FOLD, fold_parts
from staanet.errors import InvalidInput
from staanet.storage import lazy_rows

if TYPE_CHECKING:
    from staanet.core.corpus import Corpus


def part_units(corpus: Corpus, seed: int, protocol: str | None) -> dict[str, set[str]]:
    """Returns the speakers (or contents) of ``train``, ``dev`` and ``test``; see ``Corpus.split``."""
    if protocol in (None, corpus.disjoint_by):
        return _draw_parts(corpus, seed)
    if str(protocol).startswith(FOLD) and "/" in str(protocol):
        return fold_parts(corpus, _alike(corpus), seed, str(protocol))
    return _protocol_parts(corpus, seed, str(protocol))


def split_hash(corpus: Corpus, part_of: Mapping[str, str]) -> str:
    """The sha256 of the sorted lines ``id, part``, of the clips that are in one."""
    digest, last = hashlib.sha256(), ""
    for line in _split_lines(corpus, part_of):
        if line < last:
            break
        digest.update(("\n" * bool(last) + line).encode("utf-8", "surrogatepass"))
        last = line
    else:  # in order, as ids are by rule: no list of them is needed
        return digest.hexdigest()
    text = "\n".join(sorted(_split_lines(corpus, part_of)))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _split_lines(corpus: Corpus, part_of: Mapping[str, str]) -> Iterator[str]:
    ids = lazy_rows.attribute_values(corpus.utterances, "id")
    for name, unit in zip(ids, corpus.units(), strict=True):
        if unit in part_of:
            yield f"{name}\t{part_of[unit]}"


def _protocol_parts(corpus: Corpus, seed: int, protocol: str) -> dict[str, set[str]]:
    if corpus.disjoint_by == protocols.CONTENTS and protocol.partition(":")[0] == protocols.DRAWN:
        raise InvalidInput(
            f"the protocol '{protocol[:100]}' keeps speakers apart, but they are the classes",
            where=corpus.name,
            remedy=f"Drop --protocol, or write {protocols.CONTENTS_BY_HAND}",
        )
    manifest_parts = lazy_rows.attribute_values(corpus.utterances, "part")
    clips = Counter(zip(corpus.units(), manifest_parts, strict=True))
    parts = protocols.parts_of(
        protocol, clips, corpus.fixed, seed=seed, where=corpus.name, disjoint_by=corpus.disjoint_by
    )
    for part, units in parts.items():
        labels = lazy_rows.attribute_values(corpus.utterances, "label")
        labels_present = {
            label for label, u in zip(labels, corpus.units(), strict=True) if u in units
        }
        for label in corpus.class_labels:
            if label not in labels_present:
                raise InvalidInput(
                    f"class '{label}' has 0 {part} clips in the protocol '{protocol[:100]}'",
                    where=corpus.name,
                    remedy="Leave the class out, or choose speakers that have it",
                )
    return parts


def _draw_parts(corpus: Corpus, seed: int) -> dict[str, set[str]]:
    """A fifth of the speakers (or contents) each for dev and test, until every class is in each part."""
    labelled: dict[str, set[str]] = {}
    for unit, label in zip(
        corpus.units(), lazy_rows.attribute_values(corpus.utterances, "label"), strict=True
    ):
        labelled.setdefault(unit, set()).add(label or "")
    if len(labelled) < 3:
        raise InvalidInput(
            f"{len(labelled)} {corpus.disjoint_by} cannot be split into train, dev and test",
            where=corpus.name,
            remedy=f"Give a corpus with at least 3 {corpus.disjoint_by}; attack, sweep and certify also take "
            "this one whole (--part all)",
        )
    groups = _alike(corpus)
    rng = np.random.default_rng(seed)
    lacking: tuple[str, str] = ("", "")
    for _ in range(1000):
        parts: dict[str, set[str]] = {"train": set(), "dev": set(), "test": set()}
        for group in groups:
            order = [group[i] for i in rng.permutation(len(group))]
            fifth = max(1, round(len(group) / 5))
            parts["test"].update(order[:fifth])
            parts["dev"].update(order[fifth : 2 * fifth])
            parts["train"].update(order[2 * fifth :])
        missing = [
            (part, label)
            for part, units in parts.items()
            for label in sorted(set(corpus.class_labels).difference(*(labelled[u] for u in units)))
        ]
        if not missing:
            return parts
        lacking = missing[0]
    raise InvalidInput(
        f"class '{lacking[1]}' has 0 {lacking[0]} clips in every {corpus.disjoint_by[:-1]}-disjoint split "
        "tried",
        where=corpus.name,
        remedy=f"Leave the class out, or add {corpus.disjoint_by} that have it",
    )


def _alike(corpus: Corpus) -> list[list[str]]:
    """Groups of speakers (or contents), each of which every part of a split should have."""
    is_by_speaker = corpus.disjoint_by == protocols.DRAWN
    return _by_sex(corpus) if is_by_speaker else _by_speakers_of_content(corpus)


def _by_sex(corpus: Corpus) -> list[list[str]]:
    speakers, sexes = (
        lazy_rows.attribute_values(corpus.utterances, name) for name in ("speaker", "sex")
    )
    sex = {speaker: label or "" for speaker, label in zip(speakers, sexes, strict=True)}
    groups = [[s for s in sorted(sex) if sex[s] == g] for g in sorted(set(sex.values()))]
    few = any(len(group) < 3 for group in groups)  # too few of one sex to be in every part
    return [sorted(sex)] if few else groups


def _by_speakers_of_content(corpus: Corpus) -> list[list[str]]:
    """The contents that several speakers have, and of each speaker those that no other has: a fifth
    of each group keeps every speaker in every part, whether or not they say the same."""
    speakers_of: dict[str, set[str]] = {content: set() for content in corpus.contents}
    for u in corpus.utterances:
        speakers_of[u.content_unit].add(u.speaker)
    contents_of: dict[str, list[str]] = {speaker: [] for speaker in corpus.speakers}
    for content, speakers in speakers_of.items():
        if len(speakers) == 1:
            contents_of[min(speakers)].append(content)
    alone = [group for group in contents_of.values() if len(group) >= 3]
    dealt = {content for group in alone for content in group}
    common = [content for content in speakers_of if content not in dealt]
    return [*([common] if common else []), *alone]
