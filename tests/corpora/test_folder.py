"""Class folders, audiofolders and files without labels."""

from __future__ import annotations

import csv
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from tests.support.corpora import put, refusal, write, write_wav

from staanet import storage
from staanet.corpora import describe, load_corpus, unlabelled_corpus
from staanet.errors import InvalidInput, StaaNetError


def test_class_folders_give_labels_and_speakers(tmp_path: Path) -> None:
    for number, file in enumerate(("joy/ann/a.wav", "joy/bob/take/a.flac", "rage/a.wav")):
        write_wav(tmp_path / file, number)
    write_wav(tmp_path / "loose.wav")
    (tmp_path / "joy" / "ann" / "a.txt").write_text("words")
    corpus = load_corpus(f"folder:{tmp_path}")
    assert [(u.id, u.label, u.speaker) for u in corpus.utterances] == [
        ("joy__ann__a", "joy", "ann"),
        ("joy__bob__take__a", "joy", "bob"),
        ("rage__a", "rage", "unknown"),
    ]
    notes = " ".join(corpus.notes)
    assert "not audio by name: joy/ann/a.txt" in notes
    assert "not in the folder of a class: loose.wav" in notes
    unknown = next(warning for warning in corpus.warnings if "unknown" in warning)
    assert "the speaker of 1 clip is unknown; they are taken as one speaker" in unknown
    assert "speaker column" in unknown


def test_class_folders_hold_recordings_of_every_kind_that_is_read(tmp_path: Path) -> None:
    kinds = ("aiff", "AU", "caf", "w64", "sph", "m4a", "webm", "amr", "3gp")
    for kind in kinds:
        storage.write_bytes(tmp_path / "joy" / "ann" / f"{kind}.{kind}", b"#!AMR\n" + bytes(99))
    soundfile.write(tmp_path / "joy" / "ann" / "real.aiff", 0.1 * np.sin(np.arange(1600)), 16_000)
    write_wav(tmp_path / "rage" / "bob" / "a.wav", 1)
    corpus = load_corpus(f"folder:{tmp_path}")
    files = {utterance.path.suffix[1:] for utterance in corpus.utterances}
    assert {*kinds, "wav"} <= files and len(corpus.utterances) == len(kinds) + 2
    rows = {utterance.path.name: utterance for utterance in corpus.utterances}
    assert len(corpus.load(rows["real.aiff"], 16_000).pcm16) == 1600
    if find_spec("av") is None:
        with pytest.raises(StaaNetError, match=r"staanet\[av\]|ffmpeg -i"):
            corpus.load(rows["amr.amr"], 16_000)


def test_without_speakers_nothing_is_split(tmp_path: Path) -> None:
    for number in range(9):
        write_wav(tmp_path / "ab"[number % 2] / f"{number}.wav", number)
    with pytest.raises(InvalidInput):
        load_corpus(f"folder:{tmp_path}").split(0)


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    write_wav(tmp_path / "loose.wav")
    message = refusal(f"folder:{tmp_path}")
    assert "one folder per class" in message and "loose.wav" in message
    assert "no manifest" in refusal(f"folder:{tmp_path / 'loose.wav'}")


@pytest.mark.parametrize("name", ["01", " 3 ", "-1.5"])
def test_a_number_is_no_class(name: str, tmp_path: Path) -> None:
    write_wav(tmp_path / name / "a.wav")
    assert "is a number" in refusal(f"folder:{tmp_path}")


def test_labels_are_trimmed_aloud_and_never_differ_by_case(tmp_path: Path) -> None:
    write_wav(tmp_path / " joy " / "a.wav", 1)
    write_wav(tmp_path / "joy" / "b.wav", 2)
    corpus = load_corpus(f"folder:{tmp_path}")
    assert corpus.labels == ("joy",) and "trimmed: joy" in " ".join(corpus.notes)
    write_wav(tmp_path / "JOY" / "c.wav", 3)
    assert "by upper and lower case alone" in refusal(f"folder:{tmp_path}")


def test_links_that_leave_the_root_are_left_out(tmp_path: Path) -> None:
    outside = write_wav(tmp_path / "outside" / "a.wav", 1)
    inside = write_wav(tmp_path / "root" / "joy" / "s" / "b.wav", 2)
    (tmp_path / "root" / "joy" / "link.wav").symlink_to(outside)
    (tmp_path / "root" / "rage").symlink_to(outside.parent)
    (tmp_path / "root" / "joy" / "loop").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "fear" / "s").mkdir(parents=True)
    (tmp_path / "root" / "fear" / "s" / "copy.wav").symlink_to(inside)
    write_wav(tmp_path / "root" / "fear" / "s" / "c.wav", 3)
    corpus = load_corpus(f"folder:{tmp_path / 'root'}")
    assert [u.id for u in corpus.utterances] == ["fear__s__c"]
    notes = " ".join(corpus.notes)
    assert "links that leave the folder: joy/link.wav" in notes
    assert "links to folders: joy/loop, rage" in notes
    assert "under two labels or speakers: fear/s/copy.wav" in notes


def test_a_very_deep_folder_is_read(tmp_path: Path) -> None:
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        for _ in range(300):
            Path("joy").mkdir()
            os.chdir("joy")
        write_wav(Path("a.wav").absolute())
    finally:
        os.chdir(here)
    (only,) = load_corpus(f"folder:{tmp_path}").utterances
    assert only.label == "joy" and len(only.id) < 100
    shutil.rmtree(tmp_path / "joy")


def test_files_and_folders_without_labels(tmp_path: Path) -> None:
    one = write_wav(tmp_path / "one.bin", 1)
    write_wav(tmp_path / "in" / "sub" / "two.wav", 2)
    write_wav(tmp_path / "in" / "out" / "old.wav", 3)
    (tmp_path / "in" / "words.txt").write_text("words")
    corpus = unlabelled_corpus([one, tmp_path / "in", one], leave_out=tmp_path / "in" / "out")
    assert [u.id for u in corpus.utterances] == ["one", "sub__two"]
    assert corpus.labels == () and "words.txt" in corpus.notes[0]
    assert [len(c.pcm16) for c in corpus.clips(16_000)] == [400, 400]
    with pytest.raises(InvalidInput, match="no such file"):
        unlabelled_corpus([tmp_path / "gone.wav"])
    with pytest.raises(InvalidInput, match="no audio file"):
        unlabelled_corpus([tmp_path / "in" / "out"], leave_out=tmp_path / "in" / "out")


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_an_audiofolder_is_read_by_its_metadata(form: str, tmp_path: Path) -> None:
    rows = {"file_name": ["x/a.wav", "b.wav"], "label": ["joy", "rage"], "speaker_id": ["s", "t"]}
    frame = pd.DataFrame(rows)
    path = tmp_path / f"metadata.{form}"
    if form == "csv":
        frame.to_csv(path, index=False)
    elif form == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    corpus = load_corpus(f"folder:{tmp_path}")
    assert [(u.id, u.label, u.speaker) for u in corpus.utterances] == [
        ("b", "rage", "t"),
        ("x__a", "joy", "s"),
    ]


def test_each_part_of_an_audiofolder_may_have_its_own_metadata(tmp_path: Path) -> None:
    for part, speaker in (("train", "s"), ("validation", "t"), ("test", "u")):
        put(tmp_path, f"{part}/a.wav", length_s=0.2)
        write(tmp_path / part / "metadata.csv", f"file_name,label,speaker\na.wav,joy,{speaker}\n")
    write(tmp_path / "README.md", "words")
    corpus = load_corpus(f"folder:{tmp_path}")
    assert {u.id: (u.speaker, u.part) for u in corpus.utterances} == {
        "train__a": ("s", "train"),
        "validation__a": ("t", "dev"),
        "test__a": ("u", "test"),
    }
    assert not [p for p in describe(corpus)["problems"] if "same audio" not in p[1]]
    assert "README.md" in " ".join(corpus.notes)
    write(tmp_path / "test" / "metadata.csv", "file_name,label\na.wav,joy\n../train/a.wav,joy\n")
    message = refusal(tmp_path)
    assert "test/metadata.csv:3" in message and "outside the corpus root" in message
    write(tmp_path / "test" / "metadata.csv", "file_name,label\na.wav,Joy\n")
    assert "metadata.csv:2: the label 'joy' differs" in refusal(tmp_path)
    (tmp_path / "train" / "metadata.csv").unlink()
    assert "train: has no metadata file, unlike another part" in refusal(tmp_path)


def test_folders_of_a_split_are_parts_and_no_classes(tmp_path: Path) -> None:
    put(tmp_path, "train/joy/s/a.wav", "train/rage/s/b.wav", "test/joy/t/a.wav", "test/loose.wav")
    corpus = load_corpus(f"folder:{tmp_path}")
    assert [(u.id, u.label, u.speaker, u.part) for u in corpus.utterances] == [
        ("test__joy__t__a", "joy", "t", "test"),
        ("train__joy__s__a", "joy", "s", "train"),
        ("train__rage__s__b", "rage", "s", "train"),
    ]
    assert "not in the folder of a class: test/loose.wav" in " ".join(corpus.notes)
    with (tmp_path / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerows(
            [("file_name", "label"), ("train/joy/s/a.wav", "joy"), ("test/x.wav", "joy")]
        )
    parts = {u.id: u.part for u in load_corpus(f"folder:{tmp_path}").utterances}
    assert parts == {"train__joy__s__a": "train", "test__x": "test"}


def test_a_class_named_test_is_a_class(tmp_path: Path) -> None:
    put(tmp_path, "test/s/a.wav", "speech/s/b.wav")
    assert load_corpus(f"folder:{tmp_path}").labels == ("speech", "test")
