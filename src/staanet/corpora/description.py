"""What a corpus holds, found by reading every file once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from staanet import audio
from staanet.core import Corpus, Progress, Utterance, protocols, silent
from staanet.errors import InvalidInput, UnusableClip, printable


def describe(
    corpus: Corpus, split_seed: int = 0, progress: Progress = silent, *, protocol: str | None = None
) -> dict[str, Any]:
    """Clips, classes, speakers, lengths in seconds, formats, split, problems and notes, for JSON.

    A file that cannot be used becomes a row ``(file, reason)`` in ``problems``; so does the same
    audio under two labels, or in two parts of the split. A split that nobody asked for may fail with
    a note; one by a ``protocol`` raises ``InvalidInput``.
    """
    speakers = {u.speaker: u.sex for u in corpus.utterances}
    per_speaker = Counter(u.speaker for u in corpus.utterances)
    split, part_of, unsplit = _split(corpus, split_seed, protocol)
    problems: list[tuple[str, str]] = []
    seconds: list[float] = []
    formats: Counter[str] = Counter()
    remarks: defaultdict[str, list[str]] = defaultdict(list)
    same: defaultdict[str, list[Utterance]] = defaultdict(list)
    for count, utterance in enumerate(corpus.utterances, start=1):
        try:
            sound = audio.read_audio(utterance.path, corpus.limits)
            speech = audio.cut(sound.samples, sound.sample_rate, utterance.start_s, utterance.end_s)
        except UnusableClip as problem:
            problems.append((_file(utterance), problem.what))
        else:
            samples = audio.snap(speech)
            seconds.append(len(samples) / sound.sample_rate)
            formats[_format(sound)] += 1
            same[f"{sound.sample_rate} {audio.content_hash(samples)}"].append(utterance)
            for note in sound.notes:
                remarks[note].append(utterance.id)
            if reason := audio.degenerate(samples):
                problems.append((_file(utterance), reason))
        progress("reading", count, len(corpus), utterance.id)
    copies, conflicts = _copies([group for group in same.values() if len(group) > 1], part_of)
    heard = [f"{note}: {_some(ids)}" for note, ids in sorted(remarks.items())]
    return {
        "name": corpus.name,
        "clips": len(corpus),
        "classes": dict(sorted(Counter(u.label for u in corpus.utterances if u.label).items())),
        "speakers": {
            s: {"clips": per_speaker[s], "sex": sex} for s, sex in sorted(speakers.items())
        },
        "seconds": _seconds(seconds),
        "formats": dict(formats.most_common()),
        "protocol": protocol or corpus.apart,
        "protocols": list(corpus.protocols),
        "split": split,
        "problems": [*problems, *conflicts],
        "notes": [*corpus.notes, *heard, *copies, *unsplit],
    }


def description_text(described: Mapping[str, Any]) -> str:
    """``describe``'s findings as lines for a terminal."""
    seconds = described["seconds"]
    lengths = "none could be read"
    if seconds["total"]:
        lengths = (
            f"{seconds['min']:.2f} to {seconds['max']:.2f} s, median {seconds['median']:.2f} s, "
            f"together {seconds['total'] / 60:.1f} min"
        )
    classes = ", ".join(f"{label} {n}" for label, n in described["classes"].items()) or "none"
    people = ", ".join(
        f"{speaker} ({who['sex'] or 'sex unknown'}, {who['clips']})"
        for speaker, who in described["speakers"].items()
    )
    formats = "; ".join(f"{name}: {n}" for name, n in described["formats"].items()) or "none"
    lines = [
        f"{described['name']}: {described['clips']} clips",
        f"classes   {classes}",
        f"speakers  {people}",
        f"lengths   {lengths}",
        f"formats   {formats}",
    ]
    usual = {protocols.DRAWN, protocols.CONTENTS, protocols.BY_HAND, protocols.CONTENTS_BY_HAND}
    others = [name for name in described["protocols"] if name not in usual]
    if others or described["protocol"] != protocols.DRAWN:
        known = f" (also {', '.join(others)})" if others else ""
        lines.append(f"protocol  {printable(described['protocol'])}{known}")
    for part, held in described["split"].items():
        what = "contents" if "contents" in held else "speakers"
        lines.append(f"{part:<9} {held['clips']} clips of {what} {_shown(held[what])}")
    lines += [f"note      {note}" for note in described["notes"]]
    lines += [f"problem   {file}: {reason}" for file, reason in described["problems"]]
    return "\n".join(lines if described["problems"] else [*lines, "problems  none"])


def _split(
    corpus: Corpus, seed: int, protocol: str | None
) -> tuple[dict[str, dict[str, Any]], dict[str, str], list[str]]:
    """The parts, the part of each clip, and why there is none."""
    try:
        parts = corpus.split(seed, protocol)
    except InvalidInput as problem:
        if protocol is not None:
            raise
        return {}, {}, [f"no split: {problem.what}"]
    split: dict[str, dict[str, Any]] = {
        p.part: {"speakers": list(p.speakers), "clips": len(p), **contents_entry(p)} for p in parts
    }
    return split, {u.id: p.part for p in parts for u in p.utterances}, []


def contents_entry(part: Corpus) -> dict[str, list[str]]:
    """What is said in a part, where parts are kept apart by it, for a card or a table.

    >>> contents_entry(Corpus("none", (), ()))
    {}
    """
    return {} if part.apart == protocols.DRAWN else {"contents": [c[:80] for c in part.contents]}


def _shown(names: Sequence[str]) -> str:
    """All of them, or the first where there are too many to read.

    >>> _shown([f"a{n:02d}" for n in range(99)])[-15:]
    'a39 and 59 more'
    """
    more = f" and {len(names) - 40} more" if len(names) > 60 else ""
    return ", ".join(printable(name) for name in names[: 40 if more else None]) + more


def _copies(
    groups: Sequence[Sequence[Utterance]], part_of: Mapping[str, str]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Notes on harmless copies, and the copies that would make a figure wrong."""
    notes, problems = [], []
    for group in groups:
        others = f"same audio as {_some([u.id for u in group[1:]])}"
        labels = sorted({u.label or "" for u in group})
        parts = sorted({part_of[u.id] for u in group if part_of})
        if len(labels) > 1:
            problems.append((_file(group[0]), f"{others}, under the labels {', '.join(labels)}"))
        elif len(parts) > 1:
            problems.append((_file(group[0]), f"{others}, in the parts {', '.join(parts)}"))
        else:
            notes.append(f"{group[0].id}: {others}")
    return notes, problems


def _seconds(seconds: Sequence[float]) -> dict[str, float | None]:
    if not seconds:
        return {"min": None, "median": None, "max": None, "total": 0.0}
    values = {"min": min(seconds), "median": median(seconds), "max": max(seconds)}
    return {key: round(value, 3) for key, value in {**values, "total": sum(seconds)}.items()}


def _format(sound: audio.Sound) -> str:
    return f"{sound.sample_rate} Hz, {sound.channels} channel{'s' if sound.channels > 1 else ''}"


def _file(utterance: Utterance) -> str:
    return printable(utterance.where)


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
    return ", ".join(ids[:5]) + more
