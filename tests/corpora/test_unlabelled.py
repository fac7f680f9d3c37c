"""Audio without labels trains a generator, and never a clip that judges it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tests.support.speech import RATE, tone
from typer.testing import CliRunner

from staanet import audio, config, pipeline, storage, training
from staanet.cli import app
from staanet.core import Corpus
from staanet.corpora import load_corpus
from staanet.errors import InvalidInput
from staanet.pipeline import unlabelled
from staanet.results import row_files
from staanet.results.run_folder import RunFolder
from staanet.sanity import held_out, selfcheck
from staanet.sanity.loaded_run import LoadedRun
from staanet.victims import build_victim

RECIPE = config.GeneratorRecipe(
    network="compact", steps=2, batch_size=4, seconds=0.2, evaluate_every=2
)


@pytest.fixture
def emo18():
    training.seed_weights(0)
    return build_victim("emo18", ("high", "low")).eval()


@pytest.fixture
def corpus(tiny_corpus: Path) -> Corpus:
    return load_corpus(f"folder:{tiny_corpus}")


@pytest.fixture
def extra(tmp_path: Path, corpus: Corpus) -> Path:
    """Three new clips, and one each of train, dev and test under other names and in other formats."""
    root = tmp_path / "more"
    for number in range(3):
        path = root / "deep" / f"new{number}.wav"
        storage.write_bytes(path, audio.encode(tone(0.3, 300 + 90 * number, 900 + number), RATE))
    train, dev, test = (part.utterances[0].path for part in corpus.split(0))
    storage.write_bytes(root / "copy.wav", train.read_bytes())
    samples, rate = soundfile.read(dev, dtype="int16")
    soundfile.write(root / "copy of dev.flac", samples, rate)
    soundfile.write(
        root / "stereo test.wav", np.stack([soundfile.read(test, dtype="int16")[0]] * 2, 1), rate
    )
    storage.write_bytes(root / "again.wav", (root / "deep" / "new0.wav").read_bytes())
    (root / "notes.txt").write_text("no audio")
    return root


def gathered(places, corpus, source, out, **about):
    quarantine = pipeline.Quarantine()
    found = unlabelled.gather(
        places,
        corpus.split(0),
        source,
        out,
        context=pipeline.Context(quarantine=quarantine),
        **about,
    )
    return found, quarantine


def staanet(*words: object) -> tuple[int, str, str]:
    made = CliRunner().invoke(app, [str(word) for word in words])
    return made.exit_code, made.stdout, made.stderr


def test_each_clip_counts_once_and_none_of_the_corpus(extra, corpus, emo18, tmp_path) -> None:
    found, _ = gathered([str(extra)], corpus, emo18, tmp_path / "out")
    assert found.summary is not None and found.summary["clips"] == len(found.clips) == 3
    assert found.left_out == {"train": 1, "dev": 1, "test": 1, "twice": 1}
    assert found.summary["speakers"] == "unknown" and "speakers are not known" in found.flags[0]
    assert {(clip.label, clip.speaker) for clip in found.clips} == {(None, "unknown")}
    own = {c.pcm16.tobytes() for part in corpus.split(0) for c in part.clips(RATE)}
    assert not own & {clip.pcm16.tobytes() for clip in found.clips}
    card = {"inputs": {"unlabelled": found.summary}, **found.card}
    assert "3 clips" in unlabelled.describe_unlabelled(
        card
    ) and "1 of the test part" in unlabelled.describe_unlabelled(card)
    assert unlabelled.describe_unlabelled({"inputs": {"unlabelled": None}}) == ""


def test_neither_order_nor_place_changes_which_clips_they_are(
    extra, corpus, emo18, tmp_path
) -> None:
    one, _ = gathered([str(extra)], corpus, emo18, tmp_path)
    two, _ = gathered([str(extra / "deep"), str(extra)], corpus, emo18, tmp_path)
    assert one.summary["sha256"] == two.summary["sha256"]
    (extra / "deep" / "new2.wav").unlink()
    three, _ = gathered([str(extra)], corpus, emo18, tmp_path)
    assert three.summary["sha256"] != one.summary["sha256"]


def test_broken_audio_is_put_aside_and_nothing_left_is_told(extra, corpus, emo18, tmp_path) -> None:
    (extra / "torn.wav").write_bytes(b"RIFF")
    found, quarantine = gathered([str(extra)], corpus, emo18, tmp_path)
    assert len(found.clips) == 3 and [row["id"] for row in quarantine.rows] == ["torn"]
    copies = tmp_path / "copies"
    storage.write_bytes(copies / "a.wav", corpus.split(0)[2].utterances[0].path.read_bytes())
    with pytest.raises(InvalidInput, match=r"nothing .* is left \(1 of the test part\)"):
        gathered([str(copies)], corpus, emo18, tmp_path)
    with pytest.raises(InvalidInput, match="no such file or folder"):
        gathered([str(tmp_path / "nowhere")], corpus, emo18, tmp_path)


def test_another_corpus_serves_and_its_labels_are_not_used(
    corpus, emo18, tiny_corpus, tmp_path
) -> None:
    storage.write_bytes(tmp_path / "o" / "x" / "a.wav", audio.encode(tone(0.3, 700, 77), RATE))
    found, _ = gathered([f"folder:{tmp_path / 'o'}"], corpus, emo18, tmp_path / "out")
    assert [clip.label for clip in found.clips] == [None]


def test_synthetic_speech_serves_but_not_beside_itself(corpus, emo18, tmp_path) -> None:
    pytest.importorskip("espeakng_loader", reason="the extra demo is not installed")
    from staanet.corpora import render_synthetic

    render_synthetic(tmp_path / "out" / "speech", voices=1, sentences=1)
    found, _ = gathered(
        [f"synthetic:{tmp_path / 'out' / 'speech'}"], corpus, emo18, tmp_path / "out"
    )
    assert len(found.clips) == 4
    speech = replace(corpus, name="synthetic by sex")
    with pytest.raises(InvalidInput, match="its sentences are also in the test part"):
        gathered(["synthetic:"], speech, emo18, tmp_path / "out")


def test_a_generator_learns_from_it_and_its_card_tells(extra, tiny_corpus, emo18, tmp_path) -> None:
    victim, plain, more = tmp_path / "v", tmp_path / "plain", tmp_path / "gen"
    emo18.save_pretrained(victim)
    words = [
        "train-generator",
        f"folder:{tiny_corpus}",
        "--source",
        victim,
        "--network",
        "compact",
        "--steps",
        2,
        "--batch-size",
        4,
        "--seconds",
        0.2,
    ]
    code, _, said = staanet(*words, "--out", plain)
    assert code == 0, said
    code, told, said = staanet(
        *words, "--out", more, "--unlabelled", extra, "--unlabelled", extra / "deep"
    )
    assert code == 0, said
    assert "unlabelled audio: 3 clips" in told and "speakers are not known" in said
    assert storage.read_card(plain, "generator")["inputs"]["unlabelled"] is None
    about = storage.read_card(more, "generator")
    assert about["inputs"]["unlabelled"]["clips"] == 3 and len(about["flags"]) >= 1
    with (more / "unlabelled.csv").open(newline="") as file:
        assert len({row["sha256"] for row in csv.DictReader(file)}) == 3
    weights = [(folder / "model.safetensors").read_bytes() for folder in (plain, more)]
    assert weights[0] != weights[1]
    again = json.loads(staanet(*words, "--out", more, "--unlabelled", extra, "--json")[1])
    assert again["sha256"] == about["sha256"], "what is done is not done again"
    code, _, said = staanet(*words, "--out", more)
    assert code == 3 and "was made with unlabelled" in said
    code, _, said = staanet(*words, "--out", tmp_path / "x", "--unlabelled", tmp_path / "nowhere")
    assert code == 3 and "no such file or folder" in said


def test_selfcheck_reads_the_list(extra, corpus, emo18, tmp_path) -> None:
    found, _ = gathered([str(extra)], corpus, emo18, tmp_path / "out")
    place = tmp_path / "run" / "generators" / "g"
    storage.write_card(
        place, {"kind": "generator", "inputs": {"unlabelled": found.summary}, **found.card}
    )
    found.save(place)
    nothing = dict.fromkeys(("cells", "rows", "victims", "generators", "quarantined", "flags"), ())
    files = RunFolder(
        folder=tmp_path / "run",
        summary={},
        labels={},
        sets={},
        card={},
        recipe="",
        machine="",
        **nothing,
    )
    run = LoadedRun(files=files, victims={"emo18": emo18}, corpus=corpus, seed=0)
    check = held_out.unlabelled(run, place, lambda what: None)
    assert (
        check.verdict == "pass"
        and check.figures["count"] == 3
        and "3 unlabelled" in check.explanation
    )
    said = selfcheck.describe_extent(run, 1)
    assert said.startswith("1 victim, 1 generator; 0 clips of 0 sets and 0 rows of results")
    assert said.endswith(f"up to 1 clip; {corpus.name}")

    clip = corpus.split(0)[2].load(corpus.split(0)[2].utterances[0], 16_000)
    more = {"id": "x", "from": "y", "seconds": "1", "sha256": audio.content_hash(clip.pcm16)}
    rows = [*row_files.read_csv(place / "unlabelled.csv", ("id",)), more]
    storage.write_text(place / "unlabelled.csv", row_files.csv_text(list(more), rows))
    check = held_out.unlabelled(run, place, lambda what: None)
    assert check.verdict == "fail" and check.figures["wrong"] == 2
    assert "lists 4 clips" in check.explanation and "of the test part" in check.explanation

    (place / "unlabelled.csv").unlink()
    with pytest.raises(InvalidInput, match="unlabelled.csv"):
        held_out.unlabelled(run, place, lambda what: None)
    nowhere = held_out.unlabelled(
        replace(run, corpus=None, problem="gone"), place, lambda what: None
    )
    assert nowhere.verdict == "skipped" and "gone" in nowhere.explanation
