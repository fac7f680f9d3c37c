"""Describes the content of a corpus by reading every file once."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from staanet import audio
from staanet.core import Corpus, Progress, Utterance, protocols, silent
from staanet.core.dimensions import dimension_values
from staanet.corpora.labels import MIN_CLASS_CLIPS
from staanet.corpora.profile import Profile, loud_epsilon_warning, profile_lines
from staanet.errors import SHOWN, InvalidInput, UnusableClip, first_names, printable
from staanet.storage import lazy_rows

MAX_PROBLEMS = 10_000
"""Problems that are listed; further ones are counted."""


def describe(
    corpus: Corpus, split_seed: int = 0, progress: Progress = silent, *, protocol: str | None = None
) -> dict[str, Any]:
    """Return clips, classes, speakers, lengths, formats, profile, split, problems, notes, for JSON.

    A row or file that cannot be used becomes a pair (file, reason) in ``problems``. So does the
    same audio under two labels, or in two parts of the split. Without ``protocol``, a corpus that
    cannot be split has a note. Raises ``InvalidInput`` where it cannot be split by ``protocol``.
    """
    parts, unsplit = _split(corpus, split_seed, protocol)
    survey = _Survey(corpus)
    for index, utterance in enumerate(corpus.utterances):
        survey.read(index, utterance)
        progress("reading", index + 1, len(corpus), utterance.id)
    copies, conflicts = _copies(corpus, survey.duplicate_groups(), parts)
    seconds, profile = (
        np.frombuffer(survey.seconds),
        survey.profile.to_dict(_Ids(corpus.utterances)),
    )
    return {
        "name": corpus.name,
        "clips": len(corpus),
        "classes": _classes(corpus),
        **_numbers_entry(corpus),
        "speakers": _speakers(corpus),
        "seconds": {
            "min": round(float(seconds.min()), 3) if len(seconds) else None,
            "median": round(float(np.median(seconds)), 3) if len(seconds) else None,
            "max": round(float(seconds.max()), 3) if len(seconds) else None,
            "total": round(float(seconds.sum()), 3),
        },
        "formats": dict(survey.formats.most_common()),
        "profile": profile,
        "protocol": protocol or corpus.disjoint_by,
        "protocols": list(corpus.protocols),
        "split": {
            part.part: {"speakers": list(part.speakers), "clips": len(part), **contents_entry(part)}
            for part in parts
        },
        "problems": [*corpus.put_aside, *survey.problems, *conflicts],
        "warnings": [
            *corpus.warnings,
            *small_test_warning(parts),
            *loud_epsilon_warning(profile),
            *survey.uncounted(),
        ],
        "notes": [*corpus.notes, *survey.remarks(), *copies, *unsplit],
    }


@dataclass
class _Survey:
    """What reading the files shows, in bounded memory for each clip."""

    corpus: Corpus
    problems: list[tuple[str, str]] = field(default_factory=list)
    seconds: array[float] = field(default_factory=lambda: array("d"))
    formats: Counter[str] = field(default_factory=Counter)
    profile: Profile = field(default_factory=Profile)
    problem_count: int = 0
    _remark_counts: Counter[str] = field(default_factory=Counter)
    _remark_ids: dict[str, list[str]] = field(default_factory=dict)
    _digests: bytearray = field(default_factory=bytearray)
    _indices: array[int] = field(default_factory=lambda: array("q"))

    def read(self, index: int, utterance: Utterance) -> None:
        """Read one file, and record its properties or the reason why it is unusable."""
        try:
            sound = audio.read_audio(utterance.path, self.corpus.limits)
            speech = audio.cut(sound.samples, sound.sample_rate, utterance.start_s, utterance.end_s)
        except UnusableClip as problem:
            self._add_problem(utterance, problem.what)
            return
        samples = audio.snap(speech)
        self.seconds.append(len(samples) / sound.sample_rate)
        channels = f"{sound.channels} channel{'s' if sound.channels > 1 else ''}"
        self.formats[f"{sound.sample_rate} Hz, {channels}"] += 1
        key = f"{sound.sample_rate} {audio.content_hash(samples)}"
        self._digests += lazy_rows.digests_of([key]).tobytes()
        self._indices.append(index)
        for note in sound.notes:
            self._remark_counts[note] += 1
            ids = self._remark_ids.setdefault(note, [])
            ids += [utterance.id] * (len(ids) < SHOWN)
        if reason := audio.degeneracy(samples):
            self._add_problem(utterance, reason)
        else:
            self.profile.add(index, utterance.speaker, speech, sound.sample_rate)

    def _add_problem(self, utterance: Utterance, reason: str) -> None:
        self.problem_count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append((printable(utterance.where), reason))

    def uncounted(self) -> list[str]:
        """Return a warning on problems that are not listed, or none."""
        more = self.problem_count - len(self.problems)
        return [f"{more} further files cannot be used and are not listed"] if more else []

    def remarks(self) -> list[str]:
        """Return a note for each thing that was odd, with the first clips it was seen in."""
        notes = []
        for note, ids in sorted(self._remark_ids.items()):
            more = self._remark_counts[note] - len(ids)
            notes.append(f"{note}: {', '.join(ids)}" + (f" and {more} more" if more else ""))
        return notes

    def duplicate_groups(self) -> list[list[int]]:
        """Return the indices of clips with the same audio, a list for each sound."""
        digests = np.frombuffer(bytes(self._digests), np.uint64).reshape(-1, 2)
        return [
            [self._indices[row] for row in group] for group in lazy_rows.duplicate_groups(digests)
        ]


class _Ids(Sequence[str]):
    """The ids of utterances by index."""

    def __init__(self, utterances: Sequence[Utterance]) -> None:
        self.utterances = utterances

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, index: Any) -> Any:
        return self.utterances[index].id


def _label_counts(corpus: Corpus) -> Counter[str]:
    return Counter(
        label for label in lazy_rows.attribute_values(corpus.utterances, "label") if label
    )


def _classes(corpus: Corpus) -> dict[str, int]:
    """Return the number of clips of each class; none where labels are numbers."""
    is_regression = corpus.task == "regression"
    return {} if is_regression else dict(sorted(_label_counts(corpus).items()))


def _numbers_entry(corpus: Corpus) -> dict[str, dict[str, dict[str, float]]]:
    """Return the range, mean and deviation of each number, where labels are numbers."""
    if corpus.task == "classification":
        return {}
    labels = list(lazy_rows.attribute_values(corpus.utterances, "label"))
    values = dimension_values(labels, corpus.labels)
    figures = {
        name: {"min": x.min(), "mean": x.mean(), "max": x.max(), "deviation": x.std()}
        for name, x in zip(corpus.labels, values.T, strict=True)
    }
    return {
        "numbers": {n: {k: round(float(v), 6) for k, v in x.items()} for n, x in figures.items()}
    }


def _speakers(corpus: Corpus) -> dict[str, dict[str, Any]]:
    counts = Counter(lazy_rows.attribute_values(corpus.utterances, "speaker"))
    columns = (lazy_rows.attribute_values(corpus.utterances, name) for name in ("speaker", "sex"))
    sexes = dict(zip(*columns, strict=True))
    return {s: {"clips": counts[s], "sex": sex} for s, sex in sorted(sexes.items())}


def _split(corpus: Corpus, seed: int, protocol: str | None) -> tuple[tuple[Corpus, ...], list[str]]:
    """Return the parts of the split, or none and a note with the reason."""
    try:
        return corpus.split(seed, protocol), []
    except InvalidInput as problem:
        if protocol is not None:
            raise
        return (), [f"no split: {problem.what}"]


def contents_entry(part: Corpus) -> dict[str, list[str]]:
    """Return the contents of a part, for a card or a table, where contents separate the parts.

    >>> contents_entry(Corpus("none", (), ()))
    {}
    """
    return (
        {} if part.disjoint_by == protocols.DRAWN else {"contents": [c[:80] for c in part.contents]}
    )


def small_test_warning(parts: Iterable[Corpus]) -> list[str]:
    """Warn of classes with few clips in the test part: one clip is much of their recall."""
    few = [
        f"{label} {counts[label]}"
        for part in parts
        if part.part == "test"
        for counts in [_label_counts(part)]
        for label in part.class_labels
        if counts[label] < MIN_CLASS_CLIPS
    ]
    text = f"fewer than {MIN_CLASS_CLIPS} test clips of a class: {', '.join(few)}"
    return [f"{text}; one clip is more than a tenth of its recall"] if few else []


def _copies(
    corpus: Corpus, groups: Sequence[Sequence[int]], parts: Sequence[Corpus]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Return notes on harmless copies, and the copies that would make a figure wrong."""
    part_of = {unit: part.part for part in parts for unit in part.units()} if groups else {}
    notes, problems = [], []
    for group in groups:
        clips = [corpus.utterances[index] for index in group]
        others = f"same audio as {first_names([u.id for u in clips[1:]])}"
        labels = sorted({u.label or "" for u in clips})
        names = sorted({part_of[unit] for u in clips if (unit := corpus.unit(u)) in part_of})
        file = printable(clips[0].where)
        if len(labels) > 1:
            problems.append((file, f"{others}, under the labels {', '.join(labels)}"))
        elif len(names) > 1:
            problems.append((file, f"{others}, in the parts {', '.join(names)}"))
        else:
            notes.append(f"{clips[0].id}: {others}")
    return notes, problems


# ---------------------------------------------------------------- as text


def description_text(description: Mapping[str, Any]) -> str:
    """Return the result of ``describe`` as lines for a terminal; warnings begin with ``warning``."""
    seconds = description["seconds"]
    lengths = "none could be read"
    if seconds["total"]:
        lengths = (
            f"{seconds['min']:.2f} to {seconds['max']:.2f} s, median {seconds['median']:.2f} s, "
            f"together {seconds['total'] / 60:.1f} min"
        )
    classes = ", ".join(f"{label} {n}" for label, n in description["classes"].items()) or "none"
    numbers = [
        f"number    {name} from {x['min']:.4g} to {x['max']:.4g}, mean {x['mean']:.4g}, "
        f"deviation {x['deviation']:.4g}"
        for name, x in description.get("numbers", {}).items()
    ]
    people = ", ".join(
        f"{speaker} ({entry['sex'] or 'sex unknown'}, {entry['clips']})"
        for speaker, entry in description["speakers"].items()
    )
    formats = "; ".join(f"{name}: {n}" for name, n in description["formats"].items()) or "none"
    lines = [
        f"{description['name']}: {description['clips']} clips",
        *(numbers or [f"classes   {classes}"]),
        f"speakers  {people}",
        f"lengths   {lengths}",
        f"formats   {formats}",
        *profile_lines(description["profile"]),
        *_protocol_lines(description),
    ]
    lines += [f"warning   {warning}" for warning in description["warnings"]]
    lines += [f"note      {note}" for note in description["notes"]]
    lines += [f"problem   {file}: {reason}" for file, reason in description["problems"]]
    return "\n".join(lines if description["problems"] else [*lines, "problems  none"])


def _protocol_lines(description: Mapping[str, Any]) -> list[str]:
    """Return the protocols beyond the usual ones, and the parts of the split."""
    lines = []
    usual = {protocols.DRAWN, protocols.CONTENTS, protocols.BY_HAND, protocols.CONTENTS_BY_HAND}
    others = [name for name in description["protocols"] if name not in usual]
    if others or description["protocol"] != protocols.DRAWN:
        more = f" (also {', '.join(others)})" if others else ""
        lines.append(f"protocol  {printable(description['protocol'])}{more}")
    for part, entry in description["split"].items():
        unit = "contents" if "contents" in entry else "speakers"
        lines.append(f"{part:<9} {entry['clips']} clips of {unit} {_some_names(entry[unit])}")
    return lines


def _some_names(names: Sequence[str]) -> str:
    """Return all names, or the first where there are too many to read.

    >>> _some_names([f"a{n:02d}" for n in range(99)])[-15:]
    'a39 and 59 more'
    """
    more = f" and {len(names) - 40} more" if len(names) > 60 else ""
    return ", ".join(printable(name) for name in names[: 40 if more else None]) + more
