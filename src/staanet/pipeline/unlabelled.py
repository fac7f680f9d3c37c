"""Reads unlabelled audio that extends the train part for a generator.

A generator learns from the answers of its source, so any audio serves: whole folders, another corpus,
synthetic speech. Clips of the corpus's dev or test part are left out, recognised by their samples, so
that no generator is judged on what trained it. Who speaks in such folders is not known.
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
class ExtraAudio:
    """What trains a generator beside its corpus."""

    clips: tuple[Clip, ...] = ()
    summary: dict[str, Any] | None = None
    """For the inputs of the card: how many clips, how many seconds, and one sha256 of all of theirs."""
    left_out: dict[str, int] | None = None
    """How many clips were not used, by the part of the corpus that holds them, or ``twice``."""
    flags: tuple[str, ...] = ()
    rows: tuple[dict[str, Any], ...] = ()

    @property
    def card(self) -> dict[str, Any]:
        return {"unlabelled_left_out": self.left_out} if self.left_out is not None else {}

    def save(self, folder: Path) -> None:
        """Writes which clips these are to ``folder/unlabelled.csv``, if there are any."""
        if self.rows:
            storage.write_text(
                folder / adversarial_set.UNLABELLED, row_files.csv_text(_COLUMNS, self.rows)
            )


def gather(
    names: Sequence[str], parts: Sequence[Corpus], source: Victim, out: Path, *, context: Context
) -> ExtraAudio:
    """Reads audio without labels at the source's rate, each clip once, none of the corpus's own.

    All is held in memory: an hour at 16 kHz takes 115 MB.

    Args:
        names: Folders and files; ``KIND:PATH`` for all of a corpus, its labels unused; and
            ``synthetic:``, which is rendered into ``out/speech``.
        parts: Train, dev and test of the corpus whose clips are left out.
        source: The model that the generator is trained against.
        out: Folder of the generator.
        context: The shared settings of the command.

    Returns:
        The clips, and what the card of the generator says of them.

    Raises:
        InvalidInput: If a name does not exist, if nothing is left, or for synthetic speech beside a
            corpus of it: two renderings are near copies that no hash recognises.
    """
    if not names:
        return ExtraAudio()
    _refuse_near_copies(names, parts[0])
    part_of = {
        digest: part.part for part in parts for digest in _hashes(load_clips(part, source, context))
    }
    clips: list[Clip] = []
    rows: list[dict[str, Any]] = []
    left_out = {"train": 0, "dev": 0, "test": 0, "twice": 0}
    for name, clip in _clips(names, source, out, context):
        digest = audio.content_hash(clip.pcm16)
        if digest in part_of:
            left_out[part_of[digest]] += 1
            continue
        part_of[digest] = "twice"
        clips.append(replace(clip, label=None, speaker=corpora.UNKNOWN))
        seconds = len(clip.pcm16) / clip.sample_rate
        rows.append({"id": clip.id, "from": name, "seconds": f"{seconds:.3f}", "sha256": digest})
    if not clips:
        raise InvalidInput(
            f"nothing of the unlabelled audio is left ({_in_words(left_out) or 'no usable clip'})",
            where=", ".join(names),
            remedy="Give other folders, or drop --unlabelled",
        )
    every = "\n".join(sorted(str(row["sha256"]) for row in rows))
    summary = {
        "clips": len(clips),
        "seconds": round(sum(float(row["seconds"]) for row in rows), 3),
        "sha256": hashlib.sha256(every.encode()).hexdigest(),
        "speakers": "unknown",
    }
    return ExtraAudio(
        clips=tuple(clips), summary=summary, left_out=left_out, flags=_flags(rows), rows=tuple(rows)
    )


def _refuse_near_copies(names: Sequence[str], part: Corpus) -> None:
    for name in names:
        if name.startswith(SYNTHETIC) and part.name.startswith(SYNTHETIC[:-1]):
            raise InvalidInput(
                f"'{name}' cannot be unlabelled audio: its sentences are also in the test part of "
                f"{part.name}",
                remedy="Give other audio",
            )


def describe_unlabelled(card: Mapping[str, Any]) -> str:
    """A sentence about a generator's unlabelled audio, for its card; empty if there was none.

    >>> audio = {"clips": 2, "seconds": 90.0}
    >>> describe_unlabelled({"inputs": {"unlabelled": audio}, "unlabelled_left_out": {"test": 3}})
    'unlabelled audio: 2 clips, 1.5 min; left out: 3 of the test part'
    """
    audio = card["inputs"].get("unlabelled")
    if not audio:
        return ""
    without = _in_words(card.get("unlabelled_left_out") or {})
    return f"unlabelled audio: {audio['clips']} clips, {audio['seconds'] / 60:.1f} min" + (
        f"; left out: {without}" if without else ""
    )


def _in_words(left_out: Mapping[str, int]) -> str:
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
    names: Sequence[str], source: Victim, out: Path, context: Context
) -> Iterator[tuple[str, Clip]]:
    for name in names:
        corpus = _corpus(name, out, context)
        for clip in load_clips(corpus, source, context):
            yield name, clip


def _corpus(name: str, out: Path, context: Context) -> Corpus:
    if name == SYNTHETIC:
        return corpora.render_synthetic(out / "speech", context.progress, seed=context.seed)
    if name.partition(":")[0] in corpora.CORPORA and ":" in name:
        return corpora.load_corpus(name)
    return corpora.unlabelled_corpus([Path(name).expanduser()], leave_out=out)


def _hashes(clips: Iterable[Clip]) -> Iterator[str]:
    return (audio.content_hash(clip.pcm16) for clip in clips)
