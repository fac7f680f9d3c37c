"""Audio without labels that trains a generator beside the corpus's train part.

A generator learns from its source's own answers, so any audio serves: whole folders, another corpus,
synthetic speech. What is in the corpus's dev or test part is left out, recognised by its samples, so
that no generator is judged on what trained it; who speaks in such folders is not known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from staanet import audio, corpora, storage
from staanet.core import Clip, Corpus, Victim
from staanet.errors import InvalidInput
from staanet.pipeline.clips import load_clips
from staanet.pipeline.context import Context
from staanet.results import adversarial_set, row_files

SYNTHETIC = "synthetic:"
_COLUMNS = ("id", "from", "seconds", "sha256")


@dataclass(frozen=True, kw_only=True)
class Extra:
    """What trains a generator beside its corpus."""

    clips: tuple[Clip, ...] = ()
    told: dict[str, Any] | None = None
    """For the card's inputs: how many clips, how long, which (one sha256 of all of theirs)."""
    left_out: dict[str, int] | None = None
    """How many were not used, by why: the part of the corpus that holds them, or ``twice``."""
    flags: tuple[str, ...] = ()
    rows: tuple[dict[str, Any], ...] = ()

    @property
    def inputs(self) -> dict[str, Any]:
        return {"unlabelled": self.told}

    @property
    def card(self) -> dict[str, Any]:
        return {"unlabelled_left_out": self.left_out} if self.left_out is not None else {}

    def save(self, folder: Path) -> None:
        """Write which clips these are to ``folder/unlabelled.csv``, where there are any."""
        if self.rows:
            storage.write_text(
                folder / adversarial_set.UNLABELLED, row_files.csv_text(_COLUMNS, self.rows)
            )


def gather(
    places: Sequence[str], parts: Sequence[Corpus], source: Victim, out: Path, *, context: Context
) -> Extra:
    """The usable clips of ``places`` at the source's rate, each once, none of the corpus's ``parts``.

    A place is a folder or file, ``KIND:PATH`` (all of that corpus, its labels unused), or
    ``synthetic:``, which is rendered into ``out/speech``. ``parts`` are train, dev and test. All is
    held in memory: an hour at 16 kHz takes 115 MB. Raises ``InvalidInput`` for a place that
    does not exist, where nothing is left, and for synthetic speech beside a corpus of it, as two
    renderings are near copies that no hash recognises.
    """
    if not places:
        return Extra()
    for place in places:
        if place.startswith(SYNTHETIC) and parts[0].name.startswith(SYNTHETIC[:-1]):
            raise InvalidInput(
                f"the unlabelled '{place}' says what the test part of {parts[0].name} says",
                remedy="Give other audio",
            )
    seen = {
        digest: part.part for part in parts for digest in _hashes(load_clips(part, source, context))
    }
    kept: list[Clip] = []
    rows: list[dict[str, Any]] = []
    left_out = {"train": 0, "dev": 0, "test": 0, "twice": 0}
    for place, clip in _clips(places, source, out, context):
        digest = audio.content_hash(clip.pcm16)
        if digest in seen:
            left_out[seen[digest]] += 1
            continue
        seen[digest] = "twice"
        kept.append(replace(clip, label=None, speaker=corpora.UNKNOWN))
        seconds = len(clip.pcm16) / clip.sample_rate
        rows.append({"id": clip.id, "from": place, "seconds": f"{seconds:.3f}", "sha256": digest})
    if not kept:
        raise InvalidInput(
            f"nothing of the unlabelled audio is left ({_told(left_out) or 'no usable clip'})",
            where=", ".join(places),
            remedy="Give other folders, or drop --unlabelled",
        )
    every = "\n".join(sorted(str(row["sha256"]) for row in rows))
    told = {
        "clips": len(kept),
        "seconds": round(sum(float(row["seconds"]) for row in rows), 3),
        "sha256": hashlib.sha256(every.encode()).hexdigest(),
        "speakers": "unknown",
    }
    return Extra(
        clips=tuple(kept), told=told, left_out=left_out, flags=_flags(rows), rows=tuple(rows)
    )


def summary(card: Mapping[str, Any]) -> str:
    """What a generator's card tells of unlabelled audio, in a sentence; nothing where it had none.

    >>> told = {"clips": 2, "seconds": 90.0}
    >>> summary({"inputs": {"unlabelled": told}, "unlabelled_left_out": {"dev": 0, "test": 3}})
    'unlabelled audio: 2 clips, 1.5 min; left out: 3 of the test part'
    """
    told = card["inputs"].get("unlabelled")
    if not told:
        return ""
    without = _told(card.get("unlabelled_left_out") or {})
    return f"unlabelled audio: {told['clips']} clips, {told['seconds'] / 60:.1f} min" + (
        f"; left out: {without}" if without else ""
    )


def _told(left_out: Mapping[str, int]) -> str:
    return ", ".join(
        f"{count} that are there twice" if why == "twice" else f"{count} of the {why} part"
        for why, count in left_out.items()
        if count
    )


def _flags(rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    strangers = sum(row["from"] != SYNTHETIC for row in rows)
    if not strangers:
        return ()
    return (
        f"trained also on {strangers} unlabelled clips, whose speakers are not known and may be those "
        "of dev and test",
    )


def _clips(
    places: Sequence[str], source: Victim, out: Path, context: Context
) -> Iterator[tuple[str, Clip]]:
    for place in places:
        corpus = _corpus(place, out, context)
        for clip in load_clips(corpus, source, context):
            yield place, clip


def _corpus(place: str, out: Path, context: Context) -> Corpus:
    if place == SYNTHETIC:
        return corpora.render_synthetic(out / "speech", context.progress, seed=context.seed)
    if place.partition(":")[0] in corpora.CORPORA and ":" in place:
        return corpora.load_corpus(place)
    return corpora.unlabelled_corpus([Path(place).expanduser()], leave_out=out)


def _hashes(clips: Iterable[Clip]) -> Iterator[str]:
    return (audio.content_hash(clip.pcm16) for clip in clips)
