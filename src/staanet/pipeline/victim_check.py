"""Checks each victim before its first use, and matches its labels with those of the clips."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import torch

from staanet.core import Clip, Corpus, Victim
from staanet.core.dimensions import read_dimensions
from staanet.errors import InvalidInput
from staanet.pipeline.context import Context
from staanet.storage import lazy_rows
from staanet.victims.labels import LabelMatch, match_labels, rename_labels
from staanet.victims.quick_check import CheckedVictims, VictimReport

_CHECKED = CheckedVictims()
FIRST_CLIPS = 64
"""Clips that are read for the check where ``clips`` is an iterator."""


def check_victims(
    victims: Iterable[Victim], clips: Iterable[Clip], context: Context
) -> list[VictimReport]:
    """Checks each victim on a few clips, once per process, and returns a report per victim.

    Doubts become warnings of the context. Raises ``InvalidInput`` where a victim cannot be evaluated; see
    ``staanet.victims.quick_check``.
    """
    first = clips if isinstance(clips, Sequence) else list(itertools.islice(clips, FIRST_CLIPS))
    reports = []
    for victim in victims:
        with torch.random.fork_rng(devices=[]):  # the check must not change later random draws
            report = _CHECKED.check(victim, first)
        for flag in report.flags:
            context.quarantine.warn(flag)
        for module in victim.modules():
            for note in getattr(module, "notes", ()):
                context.quarantine.note(f"{victim.name}: {note}")
        reports.append(report)
    return reports


def match_corpus_labels(
    victims: Iterable[Victim], corpus: Corpus, context: Context, *, is_required: bool = False
) -> None:
    """Does ``match_clip_labels`` for a corpus, also for its classes that no chosen clip has."""
    labels = lazy_rows.attribute_values(corpus.utterances, "label")
    match_clip_labels(
        victims,
        labels,
        context,
        where=corpus.name,
        is_required=is_required,
        more_classes=corpus.class_labels,
    )


def match_clip_labels(
    victims: Iterable[Victim],
    labels: Iterable[str | None],
    context: Context,
    *,
    where: str,
    is_required: bool = True,
    more_classes: Sequence[str] = (),
) -> None:
    """Renames the labels of victims to those of the clips, where the words differ, and notes it.

    Args:
        victims: The models, whose labels are changed in place.
        labels: The label of each clip; None where a clip has none.
        context: Holds the label map, and receives the notes.
        where: The name of the corpus or folder, for errors.
        is_required: Whether figures need the labels.
        more_classes: Classes of the corpus, which these clips may lack.

    Raises:
        InvalidInput: Figures need the labels, or a label map names them, and fewer than two classes match.
    """
    clip_labels = [label for label in labels if label is not None]
    classes = sorted({*clip_labels, *(more_classes if clip_labels else ())})
    if classes and read_dimensions(classes[0]):  # labels are numbers, not classes
        if is_required:
            require_classes_of_clips(victims, classes[0], where)
        return
    for victim in victims:
        is_named = set(classes) <= set(victim.labels) or victim.task == "regression"
        if not classes or is_named:
            continue
        label_map = {  # other pairs are for the corpus or for another victim
            a: b for a, b in context.label_map.items() if a in victim.labels
        }
        absent = sorted({*label_map.values()} - {*classes})  # a small set of clips may lack a class
        try:
            match = _checked_match(victim, classes, absent, label_map, where)
        except InvalidInput:
            if is_required or label_map:
                raise
            continue
        rename_labels(victim, match)
        if match.note:
            context.quarantine.note(f"{victim.name}: {match.note}")
        if absent and len(classes) > 1:
            words = f"names {', '.join(absent)}, which no clip has; they have {', '.join(classes)}"
            context.quarantine.warn(f"{victim.name}: the label map {words}")
        count = sum(label in victim.labels for label in clip_labels)
        if is_required and count < len(clip_labels):
            context.quarantine.warn(
                f"{victim.name}: {count} of {len(clip_labels)} clips have one of its classes; "
                "UAR, accuracy and attack success count those alone"
            )


def _checked_match(
    victim: Victim,
    classes: Sequence[str],
    absent: Sequence[str],
    label_map: Mapping[str, str],
    where: str,
) -> LabelMatch:
    """Returns the match with the clips' classes and with those that only the label map names."""
    match = match_labels(victim.labels, [*classes, *absent], label_map)
    if len(classes) > 1:
        present = match.among(classes)
        if absent and len(present.mapping) < 2:
            match_labels(
                victim.labels, classes, label_map
            )  # raises, and names the classes of the clips
        present.check(victim.name, where)
    return match


def require_classes_of_clips(victims: Iterable[Victim], label: str, where: str) -> None:
    """Raises ``InvalidInput`` if a victim is a classifier; the clips have numbers, such as ``label``."""
    for victim in victims:
        if victim.task == "classification":
            raise InvalidInput(
                f"the clips have numbers ({label}), and {victim.name} answers with a class of "
                f"{', '.join(victim.labels)}",
                where=where,
                remedy="Give a regression victim, or clips with classes (drop --task regression)",
            )
