"""Databases of audb, from a repository in a folder that the tests publish themselves."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.support.speech import RATE, tone

from staanet import audio, storage
from staanet.corpora import describe, load_corpus
from staanet.corpora.audb import parse
from staanet.errors import InvalidInput, StorageFault

LABELS = ("anger", "joy")
SPEAKERS = {1: {"gender": "female"}, 2: {"gender": "male"}, 3: {"gender": "female"}}
FILES = [
    f"wav/s{speaker}_{label}_{n}.wav" for speaker in SPEAKERS for label in LABELS for n in "ab"
]


def refusal(spec: str, **options: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        load_corpus(spec, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    return str(caught.value)


def database(root: Path, take: int = 0):
    """Tiny: a table of files with speakers, one of emotions, and one of parts of files."""
    audformat = pytest.importorskip("audformat")
    for number, file in enumerate(FILES):
        samples = tone(0.5, 200, seed=100 * take + number)
        storage.write_bytes(root / file, audio.encode(samples, RATE))
    db = audformat.Database("tiny")
    db.schemes["emotion"] = audformat.Scheme(labels=list(LABELS))
    db.schemes["speaker"] = audformat.Scheme(labels=SPEAKERS)
    db.schemes["number"] = audformat.Scheme("float")
    files = audformat.filewise_index(FILES)
    db["files"] = audformat.Table(files)
    db["files"]["speaker"] = audformat.Column(scheme_id="speaker")
    db["files"]["speaker"].set([int(file[5]) for file in FILES])
    emotions = [*[file.split("_")[1] for file in FILES[:-1]], None]
    db["emotion"] = audformat.Table(files)
    db["emotion"]["emotion"] = audformat.Column(scheme_id="emotion")
    db["emotion"]["emotion"].set(emotions)
    db["emotion"]["emotion.confidence"] = audformat.Column(scheme_id="number")
    db["emotion"]["emotion.confidence"].set([0.5] * len(FILES))
    parts = audformat.segmented_index(
        [FILES[0], FILES[0], FILES[1]],
        pd.to_timedelta([0, 0.2, 0.1], unit="s"),
        pd.to_timedelta([0.2, 0.5, None], unit="s"),
    )
    db["turns"] = audformat.Table(parts)
    db["turns"]["emotion"] = audformat.Column(scheme_id="emotion")
    db["turns"]["emotion"].set(["joy", "anger", "joy"])
    return db


@pytest.fixture
def configured(tmp_path: Path, monkeypatch):
    """audb with a repository and caches below ``tmp_path`` and nothing else."""
    audb = pytest.importorskip("audb", reason='databases of audb: pip install "staanet[audb]"')
    import audbackend

    audbackend.backend.FileSystem.create(str(tmp_path / "host"), "repository")
    repository = audb.Repository("repository", str(tmp_path / "host"), "file-system")
    monkeypatch.setattr(audb.config, "REPOSITORIES", [repository])
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AUDB_CACHE_ROOT", str(tmp_path / "cache"))
    monkeypatch.setenv("AUDB_SHARED_CACHE_ROOT", str(tmp_path / "shared"))
    return audb, repository


@pytest.fixture
def published(configured, tmp_path: Path):
    """The database in two versions; the files of the second sound otherwise."""
    audb, repository = configured
    for take, version in enumerate(("1.0.0", "1.1.0")):
        root = tmp_path / f"build{take}"
        database(root, take).save(str(root))
        audb.publish(str(root), version, repository, previous_version=None, verbose=False)
        shutil.rmtree(root)
    return audb


def test_a_pinned_version_gives_labels_speakers_and_sexes(published, tmp_path: Path) -> None:
    corpus = load_corpus("audb:tiny@1.0.0:emotion:emotion")
    assert corpus.name == "audb:tiny@1.0.0:emotion:emotion" and corpus.labels == LABELS
    assert len(corpus) == 11 and corpus.notes == ("rows without a label left out: 1",)
    found = {u.id: (u.label, u.speaker, u.sex) for u in corpus.utterances}
    assert found["wav__s2_joy_a"] == ("joy", "2", "male")
    assert found["wav__s3_anger_b"] == ("anger", "3", "female")
    for u in corpus.utterances:
        assert u.path.is_file() and u.path.is_relative_to(tmp_path / "cache")
    loaded = corpus.load(corpus.utterances[0], RATE)
    assert np.array_equal(loaded.pcm16, tone(0.5, 200, seed=0))
    assert not describe(corpus)["problems"] and len(corpus.split(0)) == 3
    assert not list((tmp_path / "cache").rglob(Path(FILES[-1]).name)), "unlabelled: not fetched"
    assert not list((tmp_path / "shared").rglob("*.wav"))


def test_only_the_cache_is_written_and_nothing_for_a_wrong_name(published, tmp_path: Path) -> None:
    def outside() -> set[Path]:
        return {p for p in tmp_path.rglob("*") if p.relative_to(tmp_path).parts[0] != "cache"}

    before = outside()
    for spec in ("audb:tinny", "audb:tiny@9.0.0"):
        refusal(spec)
    assert not (tmp_path / "cache").exists()
    load_corpus("audb:tiny@1.0.0")
    created = {p for p in outside() - before if p.is_file()}
    assert not created and (tmp_path / "cache" / "tiny").is_dir()


def test_the_newest_version_and_the_usual_column_are_said(published) -> None:
    corpus = load_corpus("audb:tiny")
    assert corpus.name == "audb:tiny@1.1.0:emotion:emotion"
    notes = " | ".join(corpus.notes)
    assert "newest version" in notes and "'@1.1.0'" in notes and f"read as {corpus.name}" in notes
    old = load_corpus("audb:tiny@1.0.0")
    first, other = old.load(old.utterances[0], RATE), corpus.load(corpus.utterances[0], RATE)
    assert first.id == other.id and not np.array_equal(first.pcm16, other.pcm16)
    again = load_corpus(corpus.name)
    assert again.utterances == corpus.utterances


def test_a_table_of_parts_gives_parts_with_the_speakers_of_their_files(published) -> None:
    corpus = load_corpus("audb:tiny@1.0.0:turns")
    assert {u.id: (u.label, u.speaker, u.start_s, u.end_s) for u in corpus.utterances} == {
        "wav__s1_anger_a_0-200": ("joy", "1", 0.0, 0.2),
        "wav__s1_anger_a_200-500": ("anger", "1", 0.2, 0.5),
        "wav__s1_anger_b_100-end": ("joy", "1", 0.1, None),
    }
    assert [len(clip.pcm16) for clip in corpus.clips(RATE)] == [3200, 4800, 6400]


def test_the_cache_is_enough(published, tmp_path: Path) -> None:
    before = load_corpus("audb:tiny@1.0.0")
    shutil.rmtree(tmp_path / "host")
    assert load_corpus("audb:tiny@1.0.0").utterances == before.utterances
    assert load_corpus("audb:tiny").name == before.name, "the newest there is"
    assert "unknown version '1.1.0'" in refusal("audb:tiny@1.1.0")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("audb:tinny", "no such database in audb's repositories or cache"),
        ("audb:tiny@1.0", "unknown version '1.0'. Did you mean '1."),
        ("audb:tiny@1.0.0:emotions", "unknown table 'emotions'. Did you mean 'emotion'?"),
        ("audb:tiny@1.0.0:emotion:emotoin", "unknown column 'emotoin'. Did you mean 'emotion'?"),
        ("audb:tiny@1.0.0:emotion:emotion.confidence", "the label '0.5' is a number"),
        ("audb:tiny@1.0.0:turns:speaker", "unknown column 'speaker'. Known: emotion"),
        ("audb:../tiny@1.0.0", "names no database. Write audb:NAME@VERSION:TABLE:COLUMN"),
        ("audb:tiny@../1", "names no database"),
        ("audb:tiny@1.0.0:a:b:c", "names no database"),
        ("audb:", "does not say where it is"),
    ],
)
def test_what_is_not_there_is_named(spec: str, said: str, published, tmp_path: Path) -> None:
    assert said in refusal(spec)
    assert not (tmp_path / "tiny").exists()


def test_ambiguous_columns_are_listed(configured, tmp_path: Path) -> None:
    audb, repository = configured
    db = database(tmp_path / "build")
    db["emotion"].drop_columns("emotion", inplace=True)
    db["files"]["emotion"] = db["turns"]["emotion"].__class__(scheme_id="emotion")
    db["files"]["emotion"].set("joy")
    db.save(str(tmp_path / "build"))
    audb.publish(str(tmp_path / "build"), "1.0.0", repository, verbose=False)
    message = refusal("audb:tiny")
    assert "has 2 columns named label or emotion or class" in message
    assert "files:emotion, turns:emotion" in message
    assert load_corpus("audb:tiny:files").labels == ("joy",)


def numbered(root: Path):
    """The database with a table of numbers, one of which is missing and one row of which is empty."""
    import audformat

    db = database(root)
    db["numbers"] = audformat.Table(audformat.filewise_index(FILES))
    values = [float(n) for n in range(len(FILES))]
    for column, numbers in {
        "Aro": [None, *values[1:]],
        "valence": [None, None, *values[2:]],
        "mos": [4.5] * len(FILES),
    }.items():
        db["numbers"][column] = audformat.Column(scheme_id="number")
        db["numbers"][column].set(numbers)
    return db


@pytest.fixture
def numbers(configured, tmp_path: Path):
    audb, repository = configured
    numbered(tmp_path / "build").save(str(tmp_path / "build"))
    audb.publish(str(tmp_path / "build"), "1.0.0", repository, verbose=False)


def test_schemes_of_numbers_are_the_labels_of_a_regression(numbers) -> None:
    corpus = load_corpus("audb:tiny", task="regression")
    assert corpus.task == "regression" and corpus.labels == ("arousal", "valence")
    assert corpus.name == "audb:tiny@1.0.0:numbers:Aro,valence by numbers"
    assert corpus.utterances[-1].label == "arousal=11 valence=11"
    assert corpus.utterances[-1].speaker == "3" and len(corpus) == 10
    assert "rows without a label left out: 1" in corpus.notes
    assert [reason for _, reason in corpus.put_aside] == ["the valence is 'None', no number"]
    again = load_corpus(corpus.name.removesuffix(" by numbers"), task="regression")
    assert again.utterances == corpus.utterances
    other = load_corpus("audb:tiny:numbers:mos", task="regression")
    assert other.labels == ("mos",) and len(other) == 12 and other.utterances[0].label == "mos=4.5"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("audb:tiny:emotion", "columns of numbers: emotion:emotion.confidence"),
        ("audb:tiny:numbers:Aro,mso", "unknown column 'mso'. Did you mean 'mos'?"),
        ("audb:tiny:numbers:mos,mos", "names the same number twice"),
        ("audb:tiny:emotion:emotion", "the emotion is 'anger', no number"),
    ],
)
def test_a_column_without_numbers_is_named(spec: str, message: str, numbers) -> None:
    assert message in refusal(spec, task="regression")


@pytest.mark.parametrize("storage_format", ["csv", "parquet"])
def test_a_table_of_numbers_on_disk_is_a_manifest(tmp_path: Path, storage_format: str) -> None:
    numbered(tmp_path).save(str(tmp_path), storage_format=storage_format)
    table = f"folder:{tmp_path}/db.numbers.{storage_format}"
    corpus = load_corpus(table, task="regression")
    assert corpus.labels == ("arousal", "valence") and len(corpus) == 10
    assert corpus.utterances[-1].label == "arousal=11 valence=11" and len(corpus.put_aside) == 2
    other = load_corpus(table, task="regression", columns={"quality": "mos"})
    assert other.labels == ("quality",) and other.utterances[0].label == "quality=4.5"


def test_sexes_from_a_table_of_speakers_and_a_segment_without_length(configured, tmp_path) -> None:
    audb, repository = configured
    import audformat

    db = database(tmp_path / "build")
    people = pd.Index(list(SPEAKERS), dtype="Int64", name="speaker")
    db["people"] = audformat.MiscTable(people)
    db["people"]["gender"] = audformat.Column()
    db["people"]["gender"].set(["female", "male", "other"])
    db.schemes["person"] = audformat.Scheme("int", labels="people")
    db["files"]["speaker"].scheme_id = "person"
    parts = audformat.segmented_index(FILES[:1], ["0.3s"], ["0.1s"])
    for name, index in (("back", parts), ("empty", parts)):
        db[name] = audformat.Table(index)
        db[name]["label"] = audformat.Column()
    db["back"]["label"].set(["joy"])
    db.save(str(tmp_path / "build"))
    audb.publish(str(tmp_path / "build"), "1.0.0", repository, verbose=False)
    corpus = load_corpus("audb:tiny:emotion")
    assert {u.speaker: u.sex for u in corpus.utterances} == {"1": "female", "2": "male", "3": None}
    assert "from 0.3 s to 0.1 s has no length" in refusal("audb:tiny:back")
    assert "labels no file" in refusal("audb:tiny:empty")


def test_without_a_connection_the_newest_in_the_cache_is_used(published, monkeypatch) -> None:
    before = load_corpus("audb:tiny@1.0.0")

    def offline(name: str):
        raise ConnectionError(f"no route to the host of {name}")

    monkeypatch.setattr(published, "versions", offline)
    assert load_corpus("audb:tiny").utterances == before.utterances
    assert "no route to the host of tiny" in refusal("audb:tiny@1.1.0")
    assert "no route to the host of other" in refusal("audb:other")


def test_a_damaged_cache_and_a_full_disk_are_said(published, tmp_path: Path, monkeypatch) -> None:
    load_corpus("audb:tiny@1.0.0")
    (header,) = (tmp_path / "cache" / "tiny" / "1.0.0").glob("*/db.yaml")
    header.write_text("tables: [")
    message = refusal("audb:tiny@1.0.0")
    assert (
        "cannot be loaded (while parsing" in message and "cache in ~/.config/audb.yaml" in message
    )
    assert "1.0.0" in message and "db.yaml" in message, "the damaged file is named"
    header.unlink()
    assert len(load_corpus("audb:tiny@1.0.0")) == 11, "fetched again"

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(published.info, "header", full)
    with pytest.raises(StorageFault, match="No space left"):
        load_corpus("audb:tiny@1.1.0")


def test_without_the_package_the_remedy_is_its_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "audb", None)
    assert 'pip install "staanet[audb]"' in refusal("audb:emodb")


@pytest.mark.parametrize("text", ["emodb", "emodb@1.4.1", "emodb:t", "emodb@1:t.x:c.y", "a-b_c.d"])
def test_a_wish_is_written_as_it_was_read(text: str) -> None:
    assert str(parse(text)) == f"audb:{text}"
