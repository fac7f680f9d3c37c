"""Corpus and split: clean files are the corpus's, and what was held out was held out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from staanet import audio, storage
from staanet.core import Clip, Corpus, Utterance
from staanet.errors import UnusableClip
from staanet.results import adversarial_set, row_files
from staanet.sanity import Check
from staanet.sanity.copies import shared_recordings
from staanet.sanity.run_folder import Finished, learned
from staanet.sanity.verdicts import AGAIN, Tell, judged, no_corpus


def clean_audio(run: Finished, tell: Tell) -> Check:
    """Each clean file is the corpus's clip on the 16-bit grid, with its label and its speaker."""
    if run.corpus is None:
        return no_corpus("clean_audio", run)
    known = {utterance.id: utterance for utterance in run.corpus.utterances}
    wrong: list[str] = []
    seen: set[tuple[str, str, str, str]] = set()
    for one in run.sets.values():
        for number, clip_id in enumerate(one.rows, start=1):
            clean = one.pair(clip_id).clean
            tell(f"{number}/{len(one.rows)} of {one.name}")
            about = (clip_id, clean.label or "", clean.speaker, audio.content_hash(clean.pcm16))
            if about in seen:  # the same as in another set, and right there
                continue
            own = known.get(clip_id)
            if own is None:
                wrong.append(f"{clip_id} of {one.name} is not in {run.corpus.name}")
                continue
            found = list(_differing(clean, own, run.corpus, run.clip_seconds))
            wrong += [f"{clip_id} of {one.name}: {what}" for what in found]
            if not found:
                seen.add(about)
    return judged(
        "clean_audio",
        "",
        wrong,
        sum(len(one.rows) for one in run.sets.values()),
        "clean files, labels and speakers are those of the corpus",
        AGAIN,
    )


def _differing(clean: Clip, own: Utterance, corpus: Corpus, seconds: float | None) -> Iterator[str]:
    """What of a clean clip is not as in its corpus, where it was cut or tiled to ``seconds``."""
    for key, found, due in (
        ("label", clean.label or "", own.label or ""),
        ("speaker", clean.speaker, own.speaker),
    ):
        if found != due:
            yield f"{key} is '{found}', in the corpus '{due}'"
    wanted = corpus.load(own, clean.sample_rate).pcm16
    if seconds is not None:
        wanted = audio.fit_length(wanted, round(seconds * clean.sample_rate))
    if not np.array_equal(wanted, clean.pcm16):
        yield "its clean file is not the corpus's clip"


def split(run: Finished, tell: Tell) -> Check:
    """No speaker and no recording in two parts; the test clips are tested; all cards name this split.

    Where the classes are the speakers, each is in every part, and no content may be in two.
    """
    if run.corpus is None:
        return no_corpus("split", run)
    parts = run.corpus.split(run.seed, run.protocol)
    wrong = list(_wrong_cards(run, parts[0].split_hash))
    tested = {u.id for u in parts[2].utterances}
    for one in run.sets.values():
        outside = sorted(one.rows.keys() - tested)
        if outside:
            wrong.append(
                f"{len(outside)} clips of {one.name} are not of the test part ({outside[0]})"
            )
    for a, b in combinations(parts, 2):
        shared = sorted({a.unit(u) for u in a.utterances} & {b.unit(u) for u in b.utterances})
        if shared:
            wrong.append(f"the {a.apart[:-1]} {shared[0]} is in {a.part} and {b.part}")
    wrong += shared_recordings(parts, tell)
    return judged(
        "split",
        "",
        wrong,
        len(run.corpus),
        f"no {run.corpus.apart[:-1]} and no recording is in two parts, and every card names this split",
        "Take the copies out of the corpus, train and evaluate again",
    )


def _wrong_cards(run: Finished, wanted: str) -> Iterator[str]:
    found = {}
    for kind, place in learned(run, "victim", "generator", "vector"):
        inputs = storage.read_card(place, kind).get("inputs")
        found[f"the {kind} {place.name}"] = (
            inputs.get("split") if isinstance(inputs, dict) else None
        )
    if (run.folder / storage.CARD).is_file():
        corpus = storage.read_card(run.folder, "run").get("corpus")
        found["the run's card"] = corpus.get("split_hash") if isinstance(corpus, dict) else None
    for name, told in found.items():
        if told != wanted:
            yield f"{name} names the split {str(told)[:12]}, the corpus gives {wanted[:12]}"


def unlabelled_told(place: Path) -> Mapping[str, Any]:
    """What a generator's card tells of audio that trained it and is not of its corpus."""
    inputs = storage.read_card(place, "generator").get("inputs")
    told = inputs.get("unlabelled") if isinstance(inputs, dict) else None
    return told if isinstance(told, dict) else {}


def unlabelled(run: Finished, place: Path, tell: Tell) -> Check:
    """The list of unlabelled clips that trained a generator is the one its card sums up, and none of
    them is a clip of the dev or test part, sample by sample."""
    if run.corpus is None:
        return no_corpus("unlabelled", run)
    told, listed = unlabelled_told(place), place / adversarial_set.UNLABELLED
    rows = row_files.read_csv(listed, ("id", "from", "seconds", "sha256"))
    hashes = [row["sha256"] for row in rows]
    every = hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()
    wrong = []
    if told.get("sha256") != every or told.get("clips") != len(rows):
        wrong.append(
            f"{listed.name} lists {len(rows)} clips ({every[:12]}), the card {told.get('clips')} "
            f"({str(told.get('sha256'))[:12]})"
        )
    held_out = _held_out(run, tell)
    wrong += [
        f"{row['id']} of {row['from']} is {held_out[row['sha256']]}"
        for row in rows
        if row["sha256"] in held_out
    ]
    return judged(
        "unlabelled",
        place.name,
        wrong,
        len(rows),
        f"{len(rows)} unlabelled clips are those of the card, none of dev or test by its samples; who "
        "speaks in them is not known",
        "Train the generator again, without clips of dev and test",
    )


def _held_out(run: Finished, tell: Tell) -> dict[str, str]:
    """The hash of each clip of dev and test, at each rate of the run's victims -> its name."""
    assert run.corpus is not None, "asked for by its check"
    _, *parts = run.corpus.split(run.seed, run.protocol)
    rates = sorted({victim.sample_rate for victim in run.victims.values()})
    clips = [(rate, part, u) for rate in rates for part in parts for u in part.utterances]
    found: dict[str, str] = {}
    for number, (rate, part, utterance) in enumerate(clips, start=1):
        tell(f"{number}/{len(clips)}")
        with suppress(UnusableClip):
            samples = part.load(utterance, rate).pcm16
            found[audio.content_hash(samples)] = f"{utterance.id} of the {part.part} part"
    return found
