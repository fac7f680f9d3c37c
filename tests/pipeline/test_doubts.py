"""What is odd or doubtful is said: in what a command prints, in cards, and in the report."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tests.support.models import LinearVictim
from tests.support.report_runs import fake_clips, make_run
from tests.support.speech import RATE, tone

from staanet import audio, config, corpora, pipeline, storage, victims
from staanet.config import VictimRecipe
from staanet.core import Clip, metrics
from staanet.corpora.cache import with_cache
from staanet.pipeline.recording_notes import RecordingNotes
from staanet.pipeline.run_card import corpus_flags
from staanet.pipeline.train_victim import chance_flags
from staanet.report.flags import run_flags
from staanet.results import adversarial_set, row_files
from staanet.results.run_folder import RunFolder

RECIPE = VictimRecipe(steps=4, batch_size=4, seconds=0.1, evaluate_every=2)


@pytest.fixture
def clipped(tmp_path):
    """Three tones in a folder; the second is clipped in its recording."""
    folder = tmp_path / "sounds"
    for number in range(3):
        samples = tone(0.3, 300.0 + 50 * number, number).astype(np.float64)
        if number == 1:
            samples = np.clip(40 * samples, -20_000, 20_000)
        data = audio.encode(samples.astype(np.int16), RATE)
        storage.write_bytes(folder / f"t{number}.wav", data)
    return folder


def attack(folder, out, context, **more):
    job = pipeline.AttackJob(
        corpus=corpora.unlabelled_corpus([folder]),
        sources=[],
        recipe=config.AttackRecipe(attack="random", max_density=0.1),
        **more,
    )
    return job.run(LinearVictim(torch.ones(8000)), out, context=context)


def test_a_set_names_its_sources_and_what_is_odd_about_them(clipped, tmp_path):
    context = pipeline.Context()
    made = attack(clipped, tmp_path / "a", context)
    ((note, entry),) = made.card["recordings"].items()
    assert "clipped in the recording" in note and entry == {"count": 1, "clips": ["t1"]}
    assert context.quarantine.recordings.lines() == [f"{note}: t1"]
    rows = adversarial_set.read_rows(tmp_path / "a")
    sources = {row["id"]: row[adversarial_set.SOURCE_FILE] for row in rows}
    assert sources == {f"t{n}": str(clipped / f"t{n}.wav") for n in range(3)}


def test_windows_of_a_long_file_lead_back_to_it_with_its_notes(clipped, tmp_path):
    made = attack(clipped, tmp_path / "a", pipeline.Context(), window_s=0.1)
    ((note, entry),) = made.card["recordings"].items()
    assert note == "... % of the samples are clipped in the recording" and entry["count"] == 3
    assert all(name.startswith("t1~0000") for name in entry["clips"])
    rows = adversarial_set.read_rows(tmp_path / "a")
    assert {row[adversarial_set.SOURCE_FILE] for row in rows} == {
        str(clipped / f"t{n}.wav") for n in range(3)
    }


def test_notes_come_through_the_cache_and_the_order_does_not_matter(clipped, tmp_path):
    corpus = corpora.unlabelled_corpus([clipped])
    plain = [clip.notes for clip in corpus.clips(RATE)]
    for _ in range(2):
        cached = with_cache(corpus, tmp_path / "cache")
        assert [clip.notes for clip in cached.clips(RATE)] == plain and any(plain)
    clips = [Clip(str(n), np.ones(9, np.int16), RATE, notes=("odd",)) for n in range(5)]
    whole, parts = RecordingNotes.of(clips), RecordingNotes()
    for part in (clips[3:], clips[:3], []):
        parts.merge(RecordingNotes.of(part).entry().get("recordings", {}))
    assert parts.entry() == whole.entry() == RecordingNotes.of([*clips[::-1], *clips]).entry()
    assert whole.lines() == ["odd: 0, 1, 2 and 2 more"]


def shuffled_manifest(corpus, path):
    """A manifest of a corpus whose label column is shuffled against its files."""
    rows = [
        {"file": str(u.path), "label": u.label, "speaker": u.speaker} for u in corpus.utterances
    ]
    labels = np.random.default_rng(3).permutation([row["label"] for row in rows])
    for row, label in zip(rows, labels, strict=True):
        row["label"] = str(label)
    storage.write_text(path, row_files.csv_text(["file", "label", "speaker"], rows))
    return corpora.load_corpus(f"folder:{path}", root="/")


def test_labels_that_are_shuffled_against_the_files_are_told_at_training(tiny_corpus, tmp_path):
    corpus = corpora.load_corpus(f"folder:{tiny_corpus}")
    shuffled, context = shuffled_manifest(corpus, tmp_path / "m.csv"), pipeline.Context()
    pipeline.train_victim(shuffled, "zhao19", tmp_path / "v", recipe=RECIPE, context=context)
    card = storage.read_card(tmp_path / "v", "victim")
    (flag,) = [flag for flag in context.quarantine.flags if "chance" in flag]
    assert card["flags"] == [flag] and card["test_chance_p"] >= 0.05
    assert "check the alignment of labels and files" in flag
    assert chance_flags("v", {"test_chance_p": 0.01, "test_uar": 0.9}, 20) == []


def test_chance_is_told_from_knowledge():
    rng, labels = np.random.default_rng(0), np.array(["a", "b", "c"] * 20)
    by_chance = [metrics.chance_p(labels, rng.permutation(labels)) for _ in range(40)]
    assert np.mean(np.array(by_chance) < 0.05) < 0.15 and 0.3 < np.mean(by_chance) < 0.7
    half = np.where(rng.random(60) < 0.5, labels, rng.permutation(labels))
    assert metrics.chance_p(labels, half) < 0.01


def test_what_is_doubtful_about_the_data_stands_in_card_and_report(tmp_path, tiny_corpus):
    corpus = corpora.load_corpus(f"folder:{tiny_corpus}")
    doubts = corpus_flags(corpus, corpus.split(0))
    assert any("test clips of a class" in flag for flag in doubts)
    run = make_run(tmp_path / "run", fake_clips())
    storage.write_card(run, {**storage.read_card(run, "run"), "flags": doubts})
    results = RunFolder.read(run)
    assert set(doubts) <= set(run_flags(results, [], 0))
    stored = next(iter(results.sets.values()))
    odd = {**stored.card, "recordings": {"almost no level": {"count": 5, "clips": ["a", "b"]}}}
    sets = {stored.key: dataclasses.replace(stored, card=odd)}
    shown = run_flags(dataclasses.replace(results, sets=sets), [], 0)
    assert "recordings: almost no level (a, b and 3 more)" in shown


def test_a_damaged_cache_that_was_rebuilt_is_a_doubt(clipped, tmp_path):
    corpus = corpora.unlabelled_corpus([clipped])
    for damage in (False, True):
        cached = with_cache(corpus, tmp_path / "cache")
        list(cached.clips(RATE))
        assert ("rebuilt" in "".join(corpus_flags(cached, []))) == damage
        (path,) = (tmp_path / "cache").glob("*.i16")
        path.write_bytes(bytes(path.stat().st_size))


def resume_with_other_threads(work):
    """The flags of ``work(context)`` that is killed after its third step and goes on with one more thread."""

    def kill(what: str, done: int, total: int, figures: str = "") -> None:
        if what.startswith(("train", "harden", "learn")) and done == 3:
            raise KeyboardInterrupt

    threads = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        work(pipeline.Context(progress=kill))
    context = pipeline.Context()
    torch.set_num_threads(threads + 1)
    try:
        work(context)
    finally:
        torch.set_num_threads(threads)
    text = f"with {threads + 1} threads, begun with {threads}"
    return [flag for flag in context.quarantine.flags if text in flag]


def test_a_training_that_goes_on_with_other_threads_says_so(tiny_corpus, tmp_path):
    corpus, trained = corpora.load_corpus(f"folder:{tiny_corpus}"), tmp_path / "v"

    def train(context):
        pipeline.train_victim(corpus, "zhao19", trained, recipe=RECIPE, context=context)

    def harden(context):
        recipe = config.HardenRecipe(**short, inner_steps=1)
        pipeline.harden(corpus, victim(), tmp_path / "h", recipe=recipe, context=context)

    def distil(context):
        recipe = VictimRecipe(**short, network="zhao19")
        pipeline.distil(corpus, victim(), tmp_path / "s", recipe=recipe, context=context)

    def victim():
        return victims.load_victim(trained)

    short = {"steps": 4, "batch_size": 4, "seconds": 0.1, "evaluate_every": 2}
    for work, name in ((train, "v"), (harden, "h"), (distil, "s")):
        (flag,) = resume_with_other_threads(work)
        assert flag.startswith("resumed after step ")
        assert flag in storage.read_card(tmp_path / name, "victim")["flags"]
