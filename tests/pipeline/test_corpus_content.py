"""Data are identified by their content: other labels or audio are refused, and named in words."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest
from tests.support.speech import RATE, tone

from staanet import audio, config, corpora, pipeline, storage
from staanet.config import VictimRecipe
from staanet.core import Clip
from staanet.errors import InvalidInput
from staanet.pipeline.clips import has_met
from staanet.pipeline.corpus_content import CorpusContent
from staanet.results import clip_tables
from staanet.victims import load_victim

RECIPE = VictimRecipe(steps=4, batch_size=4, seconds=0.1, evaluate_every=2)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Tones of six speakers, and a manifest that labels them."""
    lines = ["file,label,speaker"]
    for number, label in enumerate(("high", "low")):
        for speaker in range(6):
            samples = tone(0.3, (1200.0, 200.0)[number], 10 * number + speaker)
            name = f"{label}{speaker}.wav"
            storage.write_bytes(tmp_path / "data" / name, audio.encode(samples, RATE))
            lines.append(f"{name},{label},s{speaker}")
    path = tmp_path / "data" / "list.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def correct_label(manifest: Path, name: str, label: str) -> None:
    lines = manifest.read_text(encoding="utf-8").splitlines()
    changed = [f"{name},{label},{x.split(',')[2]}" if x.startswith(name) else x for x in lines]
    manifest.write_text("\n".join(changed) + "\n", encoding="utf-8")


def train(manifest: Path, out: Path, **more: object) -> None:
    corpus = corpora.load_corpus(f"folder:{manifest}")
    context = pipeline.Context(**more)
    pipeline.train_victim(corpus, "zhao19", out, recipe=RECIPE, context=context)


def id_of(manifest: Path, name: str) -> str:
    corpus = corpora.load_corpus(f"folder:{manifest}")
    return next(u.id for u in corpus.utterances if u.path.name == name)


def two_per_class(manifest: Path) -> None:
    """Makes room for a correction: every speaker keeps a clip of each class."""
    for label in ("high", "low"):
        for speaker in range(6):
            source = manifest.parent / f"{label}{speaker}.wav"
            shutil.copy(source, source.with_name(f"{label}{speaker}b.wav"))
    lines = manifest.read_text(encoding="utf-8").splitlines()
    lines += [x.replace(".wav", "b.wav") for x in lines[1:]]
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_corrected_label_is_refused_and_the_clip_is_named(manifest: Path, tmp_path: Path) -> None:
    two_per_class(manifest)
    train(manifest, tmp_path / "v")
    train(manifest, tmp_path / "v")  # the same data: nothing to do
    clip = id_of(manifest, "high3b.wav")
    correct_label(manifest, "high3b.wav", "low")
    with pytest.raises(InvalidInput) as error:
        train(manifest, tmp_path / "v")
    assert f"was made from other data: another label now ({clip}: high, now low)" in str(
        error.value
    )
    assert "{" not in str(error.value)


def test_replaced_audio_new_and_lost_clips_are_named(manifest: Path, tmp_path: Path) -> None:
    two_per_class(manifest)
    train(manifest, tmp_path / "v")
    replaced, lost = id_of(manifest, "low2.wav"), id_of(manifest, "high5b.wav")
    storage.write_bytes(manifest.parent / "low2.wav", audio.encode(tone(0.3, 210.0, 99), RATE))
    lines = manifest.read_text(encoding="utf-8").splitlines()
    manifest.write_text("\n".join(x for x in lines if "high5b" not in x) + "\n")
    with pytest.raises(InvalidInput) as error:
        train(manifest, tmp_path / "v")
    assert f"other audio now ({replaced})" in str(error.value)
    assert f"gone since ({lost})" in str(error.value)


def test_a_killed_training_does_not_go_on_with_other_labels(manifest: Path, tmp_path: Path) -> None:
    two_per_class(manifest)

    def kill(what: str, done: int, total: int, figures: str = "") -> None:
        if what.startswith("train") and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(manifest, tmp_path / "v", progress=kill)
    correct_label(manifest, "low1b.wav", "high")
    with pytest.raises(InvalidInput, match="was begun from other data: another label now"):
        train(manifest, tmp_path / "v")


def test_a_set_of_other_labels_or_audio_is_refused(manifest: Path, tmp_path: Path) -> None:
    train(manifest, tmp_path / "v")
    victim = load_victim(tmp_path / "v")
    samples = [tone(0.3, 300.0 + 50 * n, n) for n in range(2)]
    clips = [Clip(f"c{n}", x, RATE, "low", "s") for n, x in enumerate(samples)]
    plan = pipeline.plan_attack(
        "random", config.AttackRecipe(max_density=0.1), victim, context=pipeline.Context()
    )
    pipeline.attack(plan, clips, tmp_path / "a", context=pipeline.Context())
    other_label = [clips[0], Clip("c1", clips[1].pcm16, RATE, "high", "s")]
    with pytest.raises(InvalidInput, match="another label now .c1: low, now high"):
        pipeline.attack(plan, other_label, tmp_path / "a", context=pipeline.Context())
    other_audio = [Clip("c0", clips[1].pcm16, RATE, "low", "s"), clips[1]]
    with pytest.raises(InvalidInput, match="other audio now .c0"):
        pipeline.attack(plan, other_audio, tmp_path / "a", context=pipeline.Context())


def test_a_run_refuses_corrected_labels_and_its_dry_run_too(tmp_path: Path, manifest: Path) -> None:
    from tests.support.recipes import TINY_RECIPE

    two_per_class(manifest)
    path = tmp_path / "tiny.toml"
    path.write_text(TINY_RECIPE.format(corpus=manifest.as_posix()), encoding="utf-8")
    recipe = config.load_recipe(str(path))
    pipeline.run(recipe, tmp_path / "run", context=pipeline.Context())
    assert len(list((tmp_path / "run").rglob("corpus-*.csv"))) == 1
    states = {
        s.name: s.state
        for s in pipeline.dry_run(recipe, tmp_path / "run", pipeline.Context()).stages
    }
    assert set(states.values()) == {"done"}
    correct_label(manifest, "low4b.wav", "high")
    for command in (pipeline.dry_run, pipeline.run):
        with pytest.raises(InvalidInput, match="another label now"):
            command(recipe, tmp_path / "run", context=pipeline.Context())


def test_each_file_is_hashed_once(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_tables, "_file_hashes", {})
    read: list[Path] = []
    sha256 = storage.sha256
    monkeypatch.setattr(storage, "sha256", lambda path: (read.append(path), sha256(path))[1])
    parts = corpora.load_corpus(f"folder:{manifest}").split(0)
    first = CorpusContent.of(parts)
    assert CorpusContent.of(parts) == first and len(read) == 12
    assert CorpusContent.of(parts[::-1]) == first  # the split has a hash of its own


def test_a_model_that_learnt_these_clips_is_told_under_any_name_of_the_corpus(
    manifest: Path, tmp_path: Path
) -> None:
    train(manifest, tmp_path / "v")
    whole = corpora.load_corpus(f"folder:{manifest}")
    renamed = corpora.unlabelled_corpus([manifest.parent])
    (warning,) = pipeline.split_warnings([tmp_path / "v"], renamed)
    assert has_met(tmp_path / "v", renamed) is True
    learnt = len(whole.split(0)[0])
    assert f"was trained on {learnt} of these clips, by their audio" in warning
    assert pipeline.split_warnings([tmp_path / "v"], whole.split(0)[2]) == []
    assert has_met(tmp_path / "v", whole.split(0)[2]) is False
    (tmp_path / "v").joinpath(storage.CARD).unlink()
    next((tmp_path / "v").glob(storage.CLIP_TABLES)).unlink()
    assert has_met(tmp_path / "v", whole.split(0)[2]) is None


def test_a_speaker_of_the_training_is_found_in_other_clips(manifest: Path, tmp_path: Path) -> None:
    whole = corpora.load_corpus(f"folder:{manifest}")
    train(manifest, tmp_path / "v")
    path = next((tmp_path / "v").glob(storage.CLIP_TABLES))
    speaker = whole.split(0)[0].speakers[0]
    clip = next(u.id for u in whole.utterances if u.speaker == speaker)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(f"{clip},train", f"{clip},test"), encoding="utf-8")
    only = dataclasses.replace(whole, utterances=[u for u in whole.utterances if u.id == clip])
    (warning,) = pipeline.split_warnings([tmp_path / "v"], only)
    assert f"was trained on the speaker {speaker} of these clips" in warning


def test_content_decides_and_a_source_of_unknown_origin_is_said(
    manifest: Path, tmp_path: Path
) -> None:
    train(manifest, tmp_path / "v")
    test = corpora.load_corpus(f"folder:{manifest}").split(0)[2]
    other_name = dataclasses.replace(test, split_hash="0" * 64)
    assert pipeline.split_warnings([tmp_path / "v"], other_name, is_origin_needed=True) == []
    (warning,) = pipeline.split_warnings(["onnx:m.onnx"], test, is_origin_needed=True)
    assert warning.startswith("nothing says what onnx:m.onnx was trained on")
    assert pipeline.split_warnings(["onnx:m.onnx"], test) == []


@pytest.mark.skipif("STAANET_DATA" not in os.environ, reason="needs real speech: set STAANET_DATA")
def test_the_shipped_models_know_their_clips_under_any_name() -> None:
    folder = Path(os.environ["STAANET_DATA"]) / "emodb"
    corpus = corpora.load_corpus(f"emodb:{folder}")
    shipped = [f"shipped:{name}" for name in storage.pretrained.names("victims")]
    assert pipeline.split_warnings(shipped, corpus.split(0)[2], is_origin_needed=True) == []
    renamed = corpora.unlabelled_corpus([folder / "wav"])
    assert len(pipeline.split_warnings(shipped, renamed)) == len(shipped)
