"""Corpora: what is read is what the names say, what is left out is said, and splits keep apart."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.speech import real_speech

from staanet import audio, storage
from staanet.core import Corpus
from staanet.corpora import (
    CORPORA,
    as_text,
    describe,
    load_corpus,
    manifest,
    render_synthetic,
    synthetic,
    unlabelled,
)
from staanet.corpora.files import safe_ids
from staanet.errors import InvalidInput, UnusableClip

EMODB_CLASSES = ("anger", "boredom", "disgust", "fear", "happiness", "neutral", "sadness")


def wav(
    path: Path, seed: int = 0, rate: int = 16_000, channels: int = 1, frames: int = 400
) -> Path:
    """A WAV file made from bytes: faint noise, another for each seed."""
    rng = np.random.default_rng(seed)
    data = rng.integers(-900, 900, frames * channels, dtype=np.int16).astype("<i2").tobytes()
    form = (1).to_bytes(2, "little") + channels.to_bytes(2, "little") + rate.to_bytes(4, "little")
    form += (rate * 2 * channels).to_bytes(4, "little") + (2 * channels).to_bytes(2, "little")
    form += (16).to_bytes(2, "little")
    body = b"WAVEfmt " + (16).to_bytes(4, "little") + form
    body += b"data" + len(data).to_bytes(4, "little") + data
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"RIFF" + len(body).to_bytes(4, "little") + body)
    return path


def refusal(spec: str | Path) -> str:
    with pytest.raises(InvalidInput) as caught:
        load_corpus(str(spec))
    return str(caught.value)


def speakers_are_apart(corpus: Corpus) -> None:
    for seed in range(5):
        parts = corpus.split(seed)
        speakers = [set(part.speakers) for part in parts]
        assert sum(map(len, speakers)) == len(set.union(*speakers)) == len(corpus.speakers)
        for part in parts:
            assert {u.label for u in part.utterances} == set(corpus.labels)
            assert {u.sex for u in part.utterances} == {"female", "male"}
        again = corpus.split(seed)
        assert [p.split_hash for p in parts] == [p.split_hash for p in again]
        assert [p.utterances for p in parts] == [p.utterances for p in again]


def ids_are_sorted_and_unique(corpus: Corpus) -> None:
    ids = [u.id for u in corpus.utterances]
    assert ids == sorted(set(ids))


# ---------------------------------------------------------------- naming a corpus


@pytest.mark.parametrize("kind", sorted(set(CORPORA) - {"synthetic", "audb"}))
def test_a_missing_path_says_what_to_write(kind: str, tmp_path: Path) -> None:
    message = refusal(f"{kind}:{tmp_path / 'nowhere'}")
    assert "no such folder" in message and f"{kind}:PATH" in message


@pytest.mark.parametrize("kind", ["emodb", "ravdess"])
def test_an_empty_corpus_says_what_was_looked_for(kind: str, tmp_path: Path) -> None:
    sought = {"emodb": "03a01Fa.wav", "ravdess": "03-01-06-01-02-01-12.wav"}[kind]
    assert sought in refusal(f"{kind}:{tmp_path}")
    file = wav(tmp_path / "speech.wav")
    assert "speech.wav" in refusal(f"{kind}:{tmp_path}")
    assert "not a folder" in refusal(f"{kind}:{file}")


def test_a_mistyped_kind_is_corrected() -> None:
    assert "Did you mean 'emodb'?" in refusal("emobd:x")
    assert "KIND:PATH" in refusal("some/folder")
    assert "Pass synthetic:FOLDER" in refusal("synthetic:")


def test_the_home_folder_and_limits_are_honoured(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    wav(tmp_path / "e" / "03a01Fa.wav", frames=500)
    corpus = load_corpus("emodb:~/e", audio.AudioLimits(max_seconds=0.01))
    with pytest.raises(UnusableClip):
        corpus.load(corpus.utterances[0], 16_000)
    assert "no such folder" in refusal("emodb:~nobody-has-this-name/e")


# ---------------------------------------------------------------- EMO-DB


def emodb_tree(root: Path, order: random.Random | None = None) -> Path:
    speakers = ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16")
    names = [f"{s}a01{letter}a.wav" for s in speakers for letter in "WLEAFTN"]
    if order:
        order.shuffle(names)
    for seed, name in enumerate(names):
        wav(root / "wav" / name, seed)
    return root


def test_emodb_reads_names_from_its_root_and_its_wav_folder(tmp_path: Path) -> None:
    root = emodb_tree(tmp_path)
    (root / "erkennung.txt").write_text("03a01Fa 95,00")
    corpus = load_corpus(f"emodb:{root}")
    assert corpus == load_corpus(f"emodb:{root / 'wav'}")
    assert corpus.labels == EMODB_CLASSES and len(corpus) == 70 and not corpus.notes
    clip = next(u for u in corpus.utterances if u.id == "08a01Wa")
    assert (clip.label, clip.speaker, clip.sex) == ("anger", "08", "female")
    ids_are_sorted_and_unique(corpus)
    speakers_are_apart(corpus)


def test_the_order_of_a_folder_does_not_matter(tmp_path: Path) -> None:
    one = load_corpus(f"emodb:{emodb_tree(tmp_path / 'one')}")
    two = load_corpus(f"emodb:{emodb_tree(tmp_path / 'two', random.Random(1))}")
    assert [u.id for u in one.utterances] == [u.id for u in two.utterances]
    assert one.split(3)[0].split_hash == two.split(3)[0].split_hash


def test_other_names_become_a_note(tmp_path: Path) -> None:
    root = emodb_tree(tmp_path)
    for name in ("notes.wav", "03a01Xa.wav", "._03a01Fa.wav", "٠٣a01Fa.wav"):
        wav(root / "wav" / name)
    wav(root / "wav" / "03a01Fa.WAV")
    corpus = load_corpus(f"emodb:{root}")
    assert len(corpus) == 70
    assert any(note.startswith("3 files left out, not named as an EMO-DB") for note in corpus.notes)
    assert any("same name" in note for note in corpus.notes)


def test_real_emodb_is_complete() -> None:
    corpus = load_corpus(f"emodb:{real_speech('emodb')}")
    assert len(corpus) == 535 and len(corpus.speakers) == 10 and not corpus.notes
    counts = Counter(u.label for u in corpus.utterances)
    assert [counts[label] for label in EMODB_CLASSES] == [127, 81, 46, 69, 71, 79, 62]
    speakers_are_apart(corpus)


# ---------------------------------------------------------------- RAVDESS


def test_ravdess_reads_speech_that_is_audio_alone(tmp_path: Path) -> None:
    for actor in range(1, 7):
        for emotion in range(1, 9):
            name = f"03-01-0{emotion}-01-01-01-{actor:02d}.wav"
            wav(tmp_path / f"Actor_{actor:02d}" / name, seed=10 * actor + emotion, rate=48_000)
    wav(tmp_path / "Actor_01" / "03-02-01-01-01-01-01.wav")
    wav(tmp_path / "Actor_01" / "01-01-01-01-01-01-01.wav")
    wav(tmp_path / "Actor_01" / "03-01-09-01-01-01-01.wav")
    wav(tmp_path / "elsewhere" / "03-01-01-01-01-01-01.wav")
    corpus = load_corpus(f"ravdess:{tmp_path}")
    assert len(corpus) == 48 and len(corpus.labels) == 8
    assert {u.speaker: u.sex for u in corpus.utterances}["05"] == "male"
    assert {u.speaker: u.sex for u in corpus.utterances}["06"] == "female"
    assert "2 files left out, song or video" in " ".join(corpus.notes)
    assert "1 file left out, not named as a RAVDESS" in " ".join(corpus.notes)
    ids_are_sorted_and_unique(corpus)
    speakers_are_apart(corpus)
    assert len(load_corpus(f"ravdess:{tmp_path / 'Actor_02'}")) == 8


def test_real_ravdess_says_its_rate_and_its_stereo_files() -> None:
    corpus = load_corpus(f"ravdess:{real_speech('ravdess')}")
    described = describe(corpus)
    assert described["clips"] == 120 and len(described["speakers"]) == 2
    assert described["formats"] == {"48000 Hz, 1 channel": 118, "48000 Hz, 2 channels": 2}
    assert any("2 channels averaged to mono" in note for note in described["notes"])
    assert any("2 speakers cannot be split" in note for note in described["notes"])
    assert not described["problems"] and not described["split"]
    clip = corpus.load(corpus.utterances[0], 16_000)
    assert clip.sample_rate == 16_000 and 2.5 * 16_000 < len(clip.samples) < 6 * 16_000


# ---------------------------------------------------------------- class folders


def test_class_folders_give_labels_and_speakers(tmp_path: Path) -> None:
    for number, file in enumerate(("joy/ann/a.wav", "joy/bob/take/a.flac", "rage/a.wav")):
        wav(tmp_path / file, number)
    wav(tmp_path / "loose.wav")
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
    assert "the speaker of 1 clips is unknown" in notes and "speaker column" in notes


def test_without_speakers_nothing_is_split(tmp_path: Path) -> None:
    for number in range(9):
        wav(tmp_path / "ab"[number % 2] / f"{number}.wav", number)
    with pytest.raises(InvalidInput):
        load_corpus(f"folder:{tmp_path}").split(0)


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    wav(tmp_path / "loose.wav")
    message = refusal(f"folder:{tmp_path}")
    assert "one folder per class" in message and "loose.wav" in message
    assert "no manifest" in refusal(f"folder:{tmp_path / 'loose.wav'}")


@pytest.mark.parametrize("name", ["01", " 3 ", "-1.5"])
def test_a_number_is_no_class(name: str, tmp_path: Path) -> None:
    wav(tmp_path / name / "a.wav")
    assert "is a number" in refusal(f"folder:{tmp_path}")


def test_labels_are_trimmed_aloud_and_never_differ_by_case(tmp_path: Path) -> None:
    wav(tmp_path / " joy " / "a.wav", 1)
    wav(tmp_path / "joy" / "b.wav", 2)
    corpus = load_corpus(f"folder:{tmp_path}")
    assert corpus.labels == ("joy",) and "trimmed: joy" in " ".join(corpus.notes)
    wav(tmp_path / "JOY" / "c.wav", 3)
    assert "by upper and lower case alone" in refusal(f"folder:{tmp_path}")


def test_links_that_leave_the_root_are_left_out(tmp_path: Path) -> None:
    outside = wav(tmp_path / "outside" / "a.wav", 1)
    inside = wav(tmp_path / "root" / "joy" / "s" / "b.wav", 2)
    (tmp_path / "root" / "joy" / "link.wav").symlink_to(outside)
    (tmp_path / "root" / "rage").symlink_to(outside.parent)
    (tmp_path / "root" / "joy" / "loop").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "fear" / "s").mkdir(parents=True)
    (tmp_path / "root" / "fear" / "s" / "copy.wav").symlink_to(inside)
    wav(tmp_path / "root" / "fear" / "s" / "c.wav", 3)
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
        wav(Path("a.wav").absolute())
    finally:
        os.chdir(here)
    (only,) = load_corpus(f"folder:{tmp_path}").utterances
    assert only.label == "joy" and len(only.id) < 100
    shutil.rmtree(tmp_path / "joy")


# ---------------------------------------------------------------- manifests


def manifest_of(folder: Path, text: str | bytes, name: str = "list.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder / name


def test_a_manifest_gives_file_label_speaker_and_sex(tmp_path: Path) -> None:
    wav(tmp_path / "a" / "x.wav", 1)
    wav(tmp_path / "b" / "x.wav", 2)
    csv = "\ufefffile,label,speaker,sex\r\na/x.wav,joy,1,F\r\n\r\n./b//x.wav,rage,2,male\r\n"
    corpus = load_corpus(f"folder:{manifest_of(tmp_path, csv)}")
    assert [(u.id, u.label, u.speaker, u.sex) for u in corpus.utterances] == [
        ("a__x", "joy", "1", "female"),
        ("b__x", "rage", "2", "male"),
    ]
    lines = [
        {"path": "a/x.wav", "emotion": "joy", "actor": 1, "gender": "f"},
        {"path": "b/x.wav", "emotion": "rage", "actor": 2, "gender": "M"},
    ]
    text = "\n".join(map(json.dumps, lines))
    twin = load_corpus(f"folder:{manifest_of(tmp_path, text, 'list.jsonl')}")
    assert twin.utterances == corpus.utterances
    shutil.copy(tmp_path / "list.jsonl", tmp_path / "metadata.jsonl")
    assert load_corpus(f"folder:{tmp_path}").utterances == corpus.utterances


def test_the_first_known_column_is_used_and_the_other_is_said(tmp_path: Path) -> None:
    path = manifest_of(tmp_path, "file,emotion,label,speaker\na.wav,joy,rage,s\n")
    corpus = load_corpus(f"folder:{path}")
    assert corpus.labels == ("rage",)
    assert "column 'emotion' not used, 'label' is" in corpus.notes


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_other_encodings_are_refused_by_row(encoding: str, tmp_path: Path) -> None:
    text = "file,label,speaker\na.wav,joy,s\nb.wav,Ärger,s\n".encode(encoding)
    row = 3 if encoding == "latin-1" else 1
    message = refusal(f"folder:{manifest_of(tmp_path, text)}")
    assert f"row {row} not UTF-8" in message and "save as UTF-8" in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no rows"),
        ("file,label,speaker\n", "holds no rows"),
        ("file,speaker\na.wav,s\n", "Columns found: file, speaker; wanted: file (or path"),
        ("file;label;speaker\na.wav;joy;s\n", "separated by ';'"),
        ("file\tlabel\na.wav\tjoy\n", "separated by '\\t'"),
        ("file,label,label\na.wav,joy,joy\n", "the column 'label' twice"),
        ("file,label\na.wav,joy,s\n", ":2: 3 cells, the header has 2"),
        ('file,label\n"a.wav,joy\n', "is not CSV"),
        ("file,label\na.wav, \n", ":2: the label is empty"),
        ("file,label\na.wav,joy\nb.wav,7\n", ":3: the label '7' is a number"),
        ("file,label\na.wav,joy\nb.wav,Joy\n", ":3: the label 'Joy' differs from 'joy'"),
        ("file,label\n ,joy\n", ":2: the file is empty"),
        ("file,start,end,label\na.wav,1.5,1,joy\n", ":2: its part ends at 1 s but starts at 1.5 s"),
        ("file,label\n../../x.wav,joy\n", ":2: '../../x.wav' is outside the corpus root"),
        ("file,label\na.wav,joy\n/etc/x,joy\n", ":3: '/etc/x' is outside the corpus root"),
        ("file,label\n..\\x,joy\n", "is outside the corpus root"),
        ("file,label\nC:\\x,joy\n", "is outside the corpus root"),
        ("file,label\n~/x,joy\n", "is outside the corpus root"),
        ("file,label\na/../..,joy\n", "is outside the corpus root"),
    ],
)
def test_a_bad_manifest_is_refused(text: str, said: str, tmp_path: Path) -> None:
    message = refusal(f"folder:{manifest_of(tmp_path, text)}")
    assert said in message and "list.csv" in message and "\n" not in message


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"file": "a.wav", "label": 3}', "the label is 3"),
        ('{"file": "a.wav", "label": NaN}', "the label is NaN"),
        ('{"file": "a.wav", "label": "joy", "label": "rage"}', "a key stands twice"),
        ('{"file": "a.wav", "label": null}', "the label is empty"),
        ('{"file": ["a.wav"], "label": "joy"}', "the file is"),
        ('["a.wav", "joy"]', "is not a JSON object"),
        ("[" * 200_000, "is not JSON"),
        ('{"file": "a.wav", "label": "joy", "n": ' + "9" * 5000 + "}", "is not JSON"),
    ],
)
def test_a_bad_json_line_is_refused(line: str, said: str, tmp_path: Path) -> None:
    message = refusal(f"folder:{manifest_of(tmp_path, line, 'list.jsonl')}")
    assert said in message and "list.jsonl:1" in message and len(message) < 600


def test_too_many_rows_or_bytes_are_refused(tmp_path: Path, monkeypatch) -> None:
    path = manifest_of(tmp_path, "file,label\n" + "".join(f"{i}.wav,joy\n" for i in range(9)))
    monkeypatch.setattr(manifest, "MAX_ROWS", 8)
    assert "more than 8 rows" in refusal(f"folder:{path}")
    monkeypatch.setattr(manifest, "MAX_BYTES", 8)
    assert "larger than 8 bytes" in refusal(f"folder:{path}")


def test_repeated_rows_count_once_and_conflicts_not_at_all(tmp_path: Path) -> None:
    text = (
        "file,label,speaker\na.wav,joy,s\n./a.wav,joy ,s\nb.wav,joy,s\nb.wav,rage,s\nc.wav,joy,t\n"
    )
    corpus = load_corpus(f"folder:{manifest_of(tmp_path, text)}")
    assert [u.id for u in corpus.utterances] == ["a", "c"]
    assert "listed more than once, used once: a.wav" in corpus.notes
    assert "1 file left out, listed under two labels or speakers: b.wav" in corpus.notes


def test_every_file_its_own_speaker_only_where_the_manifest_says_so(tmp_path: Path) -> None:
    rows = "".join(f"{i}.wav,{'ab'[i % 2]},{i}.wav\n" for i in range(12))
    corpus = load_corpus(f"folder:{manifest_of(tmp_path, f'file,label,speaker{chr(10)}{rows}')}")
    assert len(corpus.speakers) == 12 and len(corpus.split(0)) == 3


@pytest.mark.parametrize("file", ["gone.wav", "a\0b.wav", "n" * 300 + ".wav", "\ud800.wav"])
def test_a_file_that_cannot_be_is_put_aside_when_it_is_read(file: str, tmp_path: Path) -> None:
    line = json.dumps({"file": file, "label": "joy\u202e\ud800", "speaker": "s"})
    corpus = load_corpus(f"folder:{manifest_of(tmp_path, line, 'list.jsonl')}")
    described = describe(corpus)
    ((name, reason),) = described["problems"]
    assert reason and name.isprintable()
    assert as_text(described).replace("\n", "").isprintable()
    with pytest.raises(UnusableClip):
        corpus.load(corpus.utterances[0], 16_000)


def test_absolute_and_windows_paths_inside_the_folder_are_read(tmp_path: Path) -> None:
    wav(tmp_path / "a" / "x.wav", 1)
    wav(tmp_path / "a" / "y.wav", 2)
    text = f"file,label\n{tmp_path}/a/x.wav,joy\na\\y.wav,joy\n"
    corpus = load_corpus(f"folder:{manifest_of(tmp_path, text)}")
    assert [u.id for u in corpus.utterances] == ["a__x", "a__y"]
    assert not describe(corpus)["problems"]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    text=st.text(st.sampled_from('file,label;"\n\r\\/.~ a1é\0\u202e'), max_size=60),
    data=st.binary(),
)
def test_no_manifest_raises_anything_but_invalid_input(
    text: str, data: bytes, tmp_path: Path
) -> None:
    for name, content in (("m.csv", text.encode()), ("m.jsonl", text.encode()), ("m.csv", data)):
        for start in (b"", b"file,label\n", b'{"file":"a","label":"'):
            try:
                corpus = load_corpus(f"folder:{manifest_of(tmp_path, start + content, name)}")
            except InvalidInput:
                continue
            ids_are_sorted_and_unique(corpus)


@given(names=st.sets(st.text(max_size=12), max_size=20))
def test_ids_are_safe_unique_and_free_of_order(names: set[str]) -> None:
    ids = safe_ids({name: name for name in names})
    folded = {i.casefold() for i in ids.values()}
    assert len(folded) == len(names)
    assert all(i and i.isascii() and set(i) & set("/\\ \0:") == set() for i in ids.values())
    assert not any(i.startswith((".", "-")) for i in ids.values())
    assert ids == safe_ids({name: name for name in reversed(list(ids))})


def test_equal_base_names_never_collide() -> None:
    names = ("a/x.wav", "a__x.wav", "b/x.wav", "a/X.wav", "a/x.flac", "ü.wav", "u.wav", "..wav")
    assert len({i.casefold() for i in safe_ids({n: n for n in names}).values()}) == len(names)


# ---------------------------------------------------------------- files without labels


def test_files_and_folders_without_labels(tmp_path: Path) -> None:
    one = wav(tmp_path / "one.bin", 1)
    wav(tmp_path / "in" / "sub" / "two.wav", 2)
    wav(tmp_path / "in" / "out" / "old.wav", 3)
    (tmp_path / "in" / "words.txt").write_text("words")
    corpus = unlabelled([one, tmp_path / "in", one], leave_out=tmp_path / "in" / "out")
    assert [u.id for u in corpus.utterances] == ["one", "sub__two"]
    assert corpus.labels == () and "words.txt" in corpus.notes[0]
    assert [len(c.samples) for c in corpus.clips(16_000)] == [400, 400]
    with pytest.raises(InvalidInput, match="no such file"):
        unlabelled([tmp_path / "gone.wav"])
    with pytest.raises(InvalidInput, match="no audio file"):
        unlabelled([tmp_path / "in" / "out"], leave_out=tmp_path / "in" / "out")


# ---------------------------------------------------------------- describing


def test_describe_counts_and_collects_problems(tmp_path: Path) -> None:
    root = emodb_tree(tmp_path)
    wav(root / "wav" / "03a02Fa.wav", 1000, rate=8_000, channels=2)
    (root / "wav" / "03a02Na.wav").write_bytes(b"RIFF")
    (root / "wav" / "03a02Ta.wav").write_bytes(audio.encode(np.zeros(400, np.int16), 16_000))
    for name, twin in (("03a03Fa", "03a01Fa"), ("03a04Wa", "03a01Fa"), ("08a03Wa", "16a01Wa")):
        shutil.copy(root / "wav" / f"{twin}.wav", root / "wav" / f"{name}.wav")
    seen: list[int] = []
    corpus = load_corpus(f"emodb:{root}")
    described = describe(corpus, 0, progress=lambda what, done, total, figures: seen.append(done))
    assert seen == list(range(1, len(corpus) + 1))
    assert described["clips"] == 76 and described["classes"]["happiness"] == 12
    assert described["speakers"]["03"] == {"clips": 12, "sex": "male"}
    assert described["formats"] == {"16000 Hz, 1 channel": 74, "8000 Hz, 2 channels": 1}
    assert described["seconds"]["min"] == 0.025 and described["seconds"]["max"] == 0.05
    assert sum(part["clips"] for part in described["split"].values()) == 76
    problems = {Path(file).stem: reason for file, reason in described["problems"]}
    assert "not audio" in problems["03a02Na"] and "silence" in problems["03a02Ta"]
    assert "under the labels anger, happiness" in problems["03a01Fa"]
    together = any({"08", "16"} <= set(part["speakers"]) for part in described["split"].values())
    assert ("08a03Wa" in problems) is not together
    assert any("2 channels averaged" in note for note in described["notes"])
    json.dumps(described, allow_nan=False)
    assert "problem   " in as_text(described)


def test_describe_survives_a_corpus_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "joy").mkdir()
    (tmp_path / "joy" / "a.wav").write_bytes(b"")
    described = describe(load_corpus(f"folder:{tmp_path}"))
    assert described["seconds"] == {"min": None, "median": None, "max": None, "total": 0.0}
    assert described["split"] == {} and "none could be read" in as_text(described)


# ---------------------------------------------------------------- synthetic speech


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    pytest.importorskip("espeakng_loader", reason='synthetic speech: pip install "staanet[demo]"')
    folder = tmp_path_factory.mktemp("synthetic") / "corpus"
    render_synthetic(folder, voices=8, sentences=3)
    return folder


def pitch_hz(samples: np.ndarray, rate: int) -> float:
    """The median fundamental frequency of the loud frames, by autocorrelation."""
    size = rate // 25
    frames = np.lib.stride_tricks.sliding_window_view(samples / 32768, size)[:: rate // 100]
    loud = frames[frames.std(axis=1) > 0.5 * samples.std() / 32768] * np.hanning(size)
    power = np.abs(np.fft.rfft(loud, 2 * size)) ** 2
    window = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(size), 2 * size)) ** 2)[:size]
    likeness = np.fft.irfft(power)[:, :size] / window.clip(1e-3 * window[0])
    lags = np.arange(rate // 500, rate // 60)
    near_best = likeness[:, lags] > 0.9 * likeness[:, lags].max(axis=1, keepdims=True)
    rising = likeness[:, lags] >= likeness[:, lags - 1]
    falling = likeness[:, lags] >= likeness[:, lags + 1]
    return float(np.median(rate / lags[(near_best & rising & falling).argmax(axis=1)]))


def test_synthetic_speech_is_a_corpus_of_speakers_apart(rendered: Path) -> None:
    corpus = load_corpus(f"synthetic:{rendered}")
    assert len(corpus) == 8 * 4 * 3 and corpus.labels == (
        "anger",
        "happiness",
        "neutral",
        "sadness",
    )
    ids_are_sorted_and_unique(corpus)
    speakers_are_apart(corpus)
    described = describe(corpus)
    assert not described["problems"] and described["formats"] == {"16000 Hz, 1 channel": 96}


def test_synthetic_emotions_sound_as_they_are_meant(rendered: Path) -> None:
    corpus = load_corpus(f"synthetic:{rendered}")
    rows = []
    for u in corpus.utterances:
        samples, rate = audio.read_int16(u.path)
        seconds = len(samples) / rate
        assert rate == 16_000 and 0.7 < seconds < 3.5
        assert abs(samples.astype(int)).max() < 32_767, "clipped"
        assert not np.any(
            np.all(np.lib.stride_tricks.sliding_window_view(samples, 40) == 0, axis=1)
        )
        level = 10 * np.log10(np.mean((samples / 32768) ** 2))
        rows.append((u.label, u.sex, u.speaker, seconds, level, pitch_hz(samples, rate)))

    def mean(label: str, column: int, sex: tuple[str, ...] = ("female", "male")) -> float:
        return float(np.median([row[column] for row in rows if row[0] == label and row[1] in sex]))

    assert mean("sadness", 3) > 1.2 * mean("neutral", 3) > 1.2 * mean("happiness", 3)
    assert mean("anger", 4) > mean("happiness", 4) > mean("neutral", 4) > mean("sadness", 4)
    for sex in ("female", "male"):
        by_pitch = [mean(k, 5, (sex,)) for k in ("sadness", "neutral", "anger", "happiness")]
        assert by_pitch == sorted(by_pitch) and by_pitch[2] > 1.2 * by_pitch[1]
    for label in corpus.labels:
        assert mean(label, 5, ("female",)) > 1.5 * mean(label, 5, ("male",))
    assert len({round(row[3], 3) for row in rows}) > 80, "each clip varies"


def test_synthetic_speech_is_the_same_in_any_order_and_after_a_kill(
    rendered: Path, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def kill(what: str, done: int, total: int, figures: str = "") -> None:
        if done == 5:
            raise Killed

    with pytest.raises(Killed):
        render_synthetic(tmp_path / "again", kill, voices=2, sentences=2)
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "again" / "wav").iterdir()}
    assert len(kept) == 5
    with pytest.raises(InvalidInput, match="other sentences"):
        render_synthetic(tmp_path / "again", voices=2, sentences=3)
    (tmp_path / "again" / "wav" / "f2_anger_00.wav").write_bytes(b"torn")
    corpus = render_synthetic(tmp_path / "again", voices=2, sentences=2)
    assert len(corpus) == 16
    for u in corpus.utterances:
        assert u.path.read_bytes() == (rendered / "wav" / u.path.name).read_bytes()
        if u.path.name in kept and u.id != "f2_anger_00":
            assert u.path.stat().st_mtime_ns == kept[u.path.name], "not rendered twice"
    other = render_synthetic(tmp_path / "other", voices=1, sentences=1, seed=1)
    assert other.utterances[0].path.read_bytes() != corpus.utterances[0].path.read_bytes()


def test_synthetic_files_are_verified(rendered: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(rendered, folder)
    assert len(render_synthetic(folder, voices=8, sentences=3)) == 96, "nothing to do"
    with pytest.raises(InvalidInput, match="other voices, seed"):
        render_synthetic(folder, voices=6, sentences=3, seed=2)
    victim = folder / "wav" / "m1_anger_01.wav"
    data = bytearray(victim.read_bytes())
    data[999] ^= 1
    victim.write_bytes(data)
    message = refusal(f"synthetic:{folder}")
    assert "m1_anger_01.wav" in message and "Delete the folder" in message
    victim.unlink()
    assert "is missing" in refusal(f"synthetic:{folder}")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "victim"}, "is not the manifest"),
        ({"schema": 2}, "has schema 2; this version reads 1"),
        ({"files": [{"id": "../../x"}]}, "is damaged"),
        ({"files": {}}, "is damaged"),
        ({"parameters": None}, "is damaged"),
        ({"files": []}, "holds no clip"),
    ],
)
def test_a_manifest_that_lies_is_refused(change: dict, said: str, rendered, tmp_path: Path) -> None:
    good = storage.read_json(rendered / "manifest.json")
    storage.write_json(tmp_path / "manifest.json", good | change)
    assert said in refusal(f"synthetic:{tmp_path}")


def test_nothing_is_rendered_into_a_strange_folder_or_without_espeak(
    tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "draft.txt").write_text("dear reader")
    assert "holds no synthetic speech" in refusal(f"synthetic:{tmp_path / 'thesis'}")
    with pytest.raises(InvalidInput, match="voices is 99"):
        render_synthetic(tmp_path / "many", voices=99)
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    assert 'pip install "staanet[demo]"' in refusal(f"synthetic:{tmp_path / 'new'}")


def test_a_broken_espeak_is_reported(tmp_path: Path, monkeypatch) -> None:
    wheel = pytest.importorskip("espeakng_loader")
    monkeypatch.setattr(wheel, "get_data_path", lambda: str(tmp_path / "no-data"))
    assert "eSpeak NG" in refusal(f"synthetic:{tmp_path / 'a'}")
    monkeypatch.setattr(wheel, "get_library_path", lambda: str(tmp_path / "no-library.so"))
    assert "eSpeak NG ended" in refusal(f"synthetic:{tmp_path / 'b'}")


def test_an_unknown_voice_is_reported_and_the_next_one_speaks() -> None:
    pytest.importorskip("espeakng_loader")
    with synthetic._espeak() as (_, say):
        with pytest.raises(InvalidInput, match="no voice 'xx'"):
            say("xx", "<speak>Hello.</speak>")
        first = say("en-us+m1", "<speak>Hello.</speak>")
        assert np.array_equal(first, say("en-us+m1", "<speak>Hello.</speak>"))


def test_every_voice_is_another_and_half_are_female() -> None:
    assert len({v.espeak for v in synthetic.VOICES}) == len({v.name for v in synthetic.VOICES})
    sexes = [v.sex for v in synthetic.VOICES]
    assert sexes == ["female", "male"] * (len(sexes) // 2)
    assert len(set(synthetic.SENTENCES)) == len(synthetic.SENTENCES)
