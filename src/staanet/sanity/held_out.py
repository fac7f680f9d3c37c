"""Checks that clean files are the corpus's, and that test clips were held out of training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from staanet import audio, storage
from staanet.core import Clip, Corpus, Utterance
from staanet.errors import UnusableClip
from staanet.results.adversarial_set import UNLABELLED
from staanet.results.checks import Check
from staanet.results.clip_tables import content_of, corpus_rows, describe_row_changes, read_listing
from staanet.results.row_files import read_csv
from staanet.sanity.loaded_run import REMEDY, LoadedRun, no_corpus
from staanet.sanity.recordings import shared_recordings

Report = Callable[[str], None]
"""Receives how far a check is."""


def clean_audio(run: LoadedRun, progress: Report) -> Check:
    """Each clean file is the corpus's clip on the 16-bit grid, with its label and its speaker."""
    if run.corpus is None:
        return no_corpus("clean_audio", run)
    utterances = {utterance.id: utterance for utterance in run.corpus.utterances}
    wrong: list[str] = []
    compared: set[tuple[str, str, str, str]] = set()
    for stored in run.files.sets.values():
        for number, clip_id in enumerate(stored.rows, start=1):
            progress(f"{number}/{len(stored.rows)} of {stored.name}")
            clean = stored.pair(clip_id).clean
            key = (clip_id, clean.label or "", clean.speaker, audio.content_hash(clean.pcm16))
            if key in compared:  # the same as in another set, and right there
                continue
            if clip_id not in utterances:
                wrong.append(f"{clip_id} of {stored.name} is not in {run.corpus.name}")
                continue
            differences = list(
                _differences(clean, utterances[clip_id], run.corpus, run.clip_seconds)
            )
            wrong += [f"{clip_id} of {stored.name}: {what}" for what in differences]
            if not differences:
                compared.add(key)
    return Check.list_wrong(
        "clean_audio",
        "",
        wrong,
        sum(len(stored.rows) for stored in run.files.sets.values()),
        "clean files, labels and speakers are those of the corpus",
        REMEDY,
    )


def _differences(
    clean: Clip, utterance: Utterance, corpus: Corpus, seconds: float | None
) -> Iterator[str]:
    """How a clean clip differs from its corpus, where it was cut or tiled to ``seconds``."""
    for key, value, right in (
        ("label", clean.label or "", utterance.label or ""),
        ("speaker", clean.speaker, utterance.speaker),
    ):
        if value != right:
            yield f"{key} is '{value}', in the corpus '{right}'"
    samples = corpus.load(utterance, clean.sample_rate).pcm16
    if seconds is not None:
        samples = audio.fit_length(samples, round(seconds * clean.sample_rate))
    if not np.array_equal(samples, clean.pcm16):
        yield "its clean file is not the corpus's clip"


def split(run: LoadedRun, progress: Report) -> Check:
    """No speaker and no recording is in two parts; test clips are tested; cards name this split.

    Where the classes are the speakers, each is in every part, and no content may be in two.
    """
    if run.corpus is None:
        return no_corpus("split", run)
    parts = run.corpus.split(run.seed, run.protocol)
    wrong = list(_other_splits(run, parts[0].split_hash))
    test_ids = {utterance.id for utterance in parts[2].utterances}
    for stored in run.files.sets.values():
        outside = sorted(stored.rows.keys() - test_ids)
        if outside:
            wrong.append(
                f"{len(outside)} clips of {stored.name} are not of the test part ({outside[0]})"
            )
    for a, b in combinations(parts, 2):
        shared = sorted({a.unit(u) for u in a.utterances} & {b.unit(u) for u in b.utterances})
        if shared:
            wrong.append(f"the {a.disjoint_by[:-1]} {shared[0]} is in {a.part} and {b.part}")
    wrong += shared_recordings(parts, progress)
    unit = run.corpus.disjoint_by[:-1]
    return Check.list_wrong(
        "split",
        "",
        wrong,
        len(run.corpus),
        f"no {unit} and no recording is in two parts, and every card names this split",
        "Take the copies out of the corpus, train and evaluate again",
    )


def _other_splits(run: LoadedRun, split_hash: str) -> Iterator[str]:
    hashes = {}
    for kind, folder in run.trained("victim", "generator", "vector"):
        inputs = storage.read_card(folder, kind).get("inputs")
        hashes[f"the {kind} {folder.name}"] = (
            inputs.get("split") if isinstance(inputs, dict) else None
        )
    if run.files.card:
        corpus = run.files.card.get("corpus")
        hashes["the run's card"] = corpus.get("split_hash") if isinstance(corpus, dict) else None
    for name, value in hashes.items():
        if value != split_hash:
            yield f"{name} names the split {str(value)[:12]}, the corpus gives {split_hash[:12]}"


def content(run: LoadedRun) -> Check:
    """Audio, labels and speakers of the corpus are still those that the run was made from.

    Its table of clips is compared with the corpus, file by file, and with what each model's card names.
    """
    if run.corpus is None:
        return no_corpus("content", run)
    before = read_listing(run.files.folder)
    if not before:
        return Check.skip(
            "content",
            "",
            "the run has no table of the clips that it was made from",
            remedy="Run the recipe again in a new folder: what it is made from is then noted",
        )
    parts = run.corpus.split(run.seed, run.protocol)
    now = {row["id"]: row for row in corpus_rows(parts)}
    digest, wrong = content_of(before.values()), []
    if content_of(now.values()) != digest:
        wrong.append(f"the run was made {describe_row_changes(before, now)}")
    for kind, folder in run.trained("victim", "generator", "vector"):
        inputs = storage.read_card(folder, kind).get("inputs")
        trained_on = inputs.get("content") if isinstance(inputs, dict) else None
        if trained_on not in (None, digest):
            wrong.append(f"the {kind} {folder.name} was trained on other data than the run's table")
    return Check.list_wrong(
        "content",
        "",
        wrong,
        len(before),
        "audio, labels and speakers are those that every model was made from",
        "Restore those data, or run the recipe again in a new folder",
    )


def unlabelled_entry(folder: Path) -> Mapping[str, Any]:
    """Returns the card's entry on the unlabelled audio that trained a generator; empty without any."""
    inputs = storage.read_card(folder, "generator").get("inputs")
    entry = inputs.get("unlabelled") if isinstance(inputs, dict) else None
    return entry if isinstance(entry, dict) else {}


def unlabelled(run: LoadedRun, folder: Path, progress: Report) -> Check:
    """The unlabelled clips that trained a generator are those of its card, and none is held out.

    They are compared with the clips of dev and test sample by sample.
    """
    if run.corpus is None:
        return no_corpus("unlabelled", run)
    entry, path = unlabelled_entry(folder), folder / UNLABELLED
    rows = read_csv(path, ("id", "from", "seconds", "sha256"))
    hashes = sorted(row["sha256"] for row in rows)
    digest = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    wrong = []
    if entry.get("sha256") != digest or entry.get("clips") != len(rows):
        wrong.append(
            f"{path.name} lists {len(rows)} clips ({digest[:12]}), the card {entry.get('clips')} "
            f"({str(entry.get('sha256'))[:12]})"
        )
    held_out = _held_out_hashes(run, run.corpus, progress)
    wrong += [
        f"{row['id']} of {row['from']} is {held_out[row['sha256']]}"
        for row in rows
        if row["sha256"] in held_out
    ]
    return Check.list_wrong(
        "unlabelled",
        folder.name,
        wrong,
        len(rows),
        f"{len(rows)} unlabelled clips are those of the card, none of dev or test by its samples; who "
        "speaks in them is not known",
        "Train the generator again, without clips of dev and test",
    )


def _held_out_hashes(run: LoadedRun, corpus: Corpus, progress: Report) -> dict[str, str]:
    """Hash of each clip of dev and test, at each rate of the run's victims -> its name."""
    _, *parts = corpus.split(run.seed, run.protocol)
    rates = sorted({victim.sample_rate for victim in run.victims.values()})
    clips = [(rate, part, u) for rate in rates for part in parts for u in part.utterances]
    names: dict[str, str] = {}
    for number, (rate, part, utterance) in enumerate(clips, start=1):
        progress(f"{number}/{len(clips)}")
        with suppress(UnusableClip):
            samples = part.load(utterance, rate).pcm16
            names[audio.content_hash(samples)] = f"{utterance.id} of the {part.part} part"
    return names
