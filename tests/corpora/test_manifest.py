"""Manifests: Parquet, parts of files, audiofolders; what is no time or lies outside is refused."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.speech import RATE, tone

from staanet import audio, storage
from staanet.core import Corpus
from staanet.corpora import describe, load_corpus, manifest
from staanet.corpora.manifest import seconds
from staanet.errors import InvalidInput, UnusableClip


def put(root: Path, *names: str, length_s: float = 3.0, rate: int = RATE) -> None:
    for number, name in enumerate(names):
        samples = tone(length_s * rate / RATE, 200, seed=number)
        storage.write_bytes(root / name, audio.encode(samples, rate))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def parquet(path: Path, **columns: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InvalidInput) as caught:
        load_corpus(f"folder:{path}")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def times(corpus: Corpus) -> dict[str, tuple[float, float | None]]:
    return {u.id: (u.start_s, u.end_s) for u in corpus.utterances}


# ---------------------------------------------------------------- parts of files


SEGMENTS = (
    "file,start,end,emotion,speaker\n"
    "a.wav,0 days 00:00:00,0 days 00:00:01.2,joy,s\n"
    "a.wav,0 days 00:00:01.200000,0 days 00:00:02.500000,rage,s\n"
    "a.wav,2.5,NaT,joy,t\n"
    "b.wav,0 days,,joy,t\n"
)


def test_a_table_of_audformat_cuts_files_into_utterances(tmp_path: Path) -> None:
    put(tmp_path, "a.wav", "b.wav")
    corpus = load_corpus(f"folder:{write(tmp_path / 'db.emotion.csv', SEGMENTS)}")
    assert times(corpus) == {
        "a_0-1200": (0.0, 1.2),
        "a_1200-2500": (1.2, 2.5),
        "a_2500-end": (2.5, None),
        "b": (0.0, None),
    }
    whole, rate = audio.read_int16(tmp_path / "a.wav")
    clips = {clip.id: clip for clip in corpus.clips(rate)}
    parts = [clips[i].samples for i in ("a_0-1200", "a_1200-2500", "a_2500-end")]
    assert np.array_equal(np.concatenate(parts), whole), "the parts fill the file, bit for bit"
    assert np.array_equal(clips["b"].samples, audio.read_int16(tmp_path / "b.wav")[0])
    assert [clips[i].label for i in sorted(clips)] == ["joy", "rage", "joy", "joy"]
    assert len(clips["a_1200-2500"].samples) == round(1.3 * RATE)
    described = describe(corpus)
    assert not described["problems"] and described["seconds"]["total"] == 6.0


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_a_part_is_cut_at_the_rate_of_its_file(rate: int, tmp_path: Path) -> None:
    put(tmp_path, "a.wav", rate=rate)
    path = write(tmp_path / "m.csv", "file,start,end,label\na.wav,0.25,0.75,joy\n")
    (clip,) = load_corpus(f"folder:{path}").clips(RATE)
    assert len(clip.samples) == RATE // 2
    whole = audio.read_audio(tmp_path / "a.wav").samples[rate // 4 : 3 * rate // 4]
    assert np.array_equal(clip.samples, audio.snap(audio.resample(whole, rate, RATE)))


def test_an_end_rounded_to_milliseconds_is_the_end_of_the_file(tmp_path: Path) -> None:
    put(tmp_path, "a.wav", length_s=1.00003)
    path = write(tmp_path / "m.csv", "file,start,end,label\na.wav,0.5,1.0003,joy\n")
    (clip,) = load_corpus(f"folder:{path}").clips(RATE)
    assert len(clip.samples) == round(1.00003 * RATE) - RATE // 2


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("2.5", "3.001", "from 2.5 s to 3.001 s is not in the file, which ends at 3 s"),
        ("3.1", "", "from 3.1 s to the end is not in the file, which ends at 3 s"),
        ("3", "", "0 samples"),
        ("1", "1.00001", "0 samples"),
    ],
)
def test_a_part_outside_its_file_is_put_aside(
    start: str, end: str, said: str, tmp_path: Path
) -> None:
    put(tmp_path, "a.wav")
    text = f"file,start,end,label\na.wav,{start},{end},joy\na.wav,0,1,joy\n"
    corpus = load_corpus(f"folder:{write(tmp_path / 'm.csv', text)}")
    described = describe(corpus)
    ((file, reason),) = described["problems"]
    assert said in reason and "a.wav" in file and f"[{start} s to" in file and "m.csv:2]" in file
    aside: list[UnusableClip] = []
    assert len(list(corpus.clips(RATE, lambda _, problem: aside.append(problem)))) == 1
    assert said in str(aside[0]) and file in str(aside[0]), "the good neighbour is read"


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("1.2", "1.2", ":2: its part ends at 1.2 s but starts at 1.2 s"),
        ("0 days 00:00:02", "1.5", ":2: its part ends at 1.5 s but starts at 2 s"),
        ("0", "0", ":2: its part ends at 0 s"),
        ("nan", "1", ":2: the start is 'nan', no time"),
        ("0", "inf", ":2: the end is 'inf', no time"),
        ("0", "1e400", ":2: the end is '1e400', no time"),
        ("-1", "1", ":2: the start is '-1', no time"),
        ("-1 days +23:59:59.5", "1", ":2: the start is '-1 days +23:59:59.5', no time"),
        ("0:99:00", "", ":2: the start is '0:99:00', no time"),
        ("one", "2", ":2: the start is 'one', no time"),
        ("٣", "4", "no time"),
    ],
)
def test_times_that_are_none_are_refused_by_row(
    start: str, end: str, said: str, tmp_path: Path
) -> None:
    text = f"file,start,end,label\na.wav,{start},{end},joy\n"
    message = refusal(write(tmp_path / "m.csv", text))
    assert said in message and "Write" in message


@pytest.mark.parametrize(
    "value, said",
    [
        *((value, "the start is") for value in ("true", "[1]", "NaN", "-Infinity", '{"s": 1}')),
        ("9" * 400, "a number of 400 digits"),
    ],
)
def test_wrong_types_for_a_time_are_refused(value: str, said: str, tmp_path: Path) -> None:
    line = f'{{"file": "a.wav", "label": "joy", "start": {value}}}'
    told = refusal(write(tmp_path / "m.jsonl", line))
    assert "m.jsonl:1: " in told and said in told


def test_json_lines_may_differ_in_their_optional_keys(tmp_path: Path) -> None:
    lines = [
        {"file": "a.wav", "label": "joy"},
        {"file": "a.wav", "label": "joy", "start": 1, "end": 2.5, "speaker": 7, "split": "val"},
    ]
    path = write(tmp_path / "m.jsonl", "\n".join(map(json.dumps, lines)))
    corpus = load_corpus(f"folder:{path}")
    assert times(corpus) == {"a": (0.0, None), "a_1000-2500": (1.0, 2.5)}
    assert [(u.speaker, u.part) for u in corpus.utterances] == [("unknown", None), ("7", "dev")]
    write(path, json.dumps(lines[0]) + '\n{"file": "b.wav"}')
    assert "m.jsonl:2: has no column 'label'" in refusal(path)


def test_equal_parts_count_once_and_conflicts_not_at_all(tmp_path: Path) -> None:
    text = (
        "file,start,end,label,speaker\na.wav,0,1,joy,s\na.wav,0.0,0 days 00:00:01,joy,s\n"
        "a.wav,1,2,joy,s\n./a.wav,1,2.0,rage,s\na.wav,,,rage,s\n"
    )
    corpus = load_corpus(f"folder:{write(tmp_path / 'm.csv', text)}")
    assert times(corpus) == {"a": (0.0, None), "a_0-1000": (0.0, 1.0)}
    assert "listed more than once, used once: a_0-1000.wav" in corpus.notes
    assert "1 file left out, listed under two labels or speakers: a_1000-2000.wav" in corpus.notes


@pytest.mark.parametrize(
    ("rows", "overlaps"),
    [
        (["0,1,s", "1,2,t"], False),
        (["0,1,s", "0.5,2,s"], False),
        (["0,1,s", "0.9,2,t"], True),
        (["0,3,s", "1,2,s", "2.5,,t"], True),
        ([",,s", "1,2,t"], True),
    ],
)
def test_overlapping_speakers_are_said(rows: list[str], overlaps: bool, tmp_path: Path) -> None:
    text = "file,start,end,speaker,label\n" + "".join(f"a.wav,{row},joy\n" for row in rows)
    notes = " ".join(load_corpus(f"folder:{write(tmp_path / 'm.csv', text)}").notes)
    assert ("different speakers overlap in 1 file: a.wav" in notes) is overlaps


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bounds=st.lists(
        st.tuples(st.floats(0, 1e8), st.floats(0, 1e8)).filter(lambda b: b[0] < b[1]),
        min_size=1,
        max_size=20,
        unique=True,
    )
)
def test_ids_of_parts_are_unique_and_safe(bounds: list[tuple[float, float]], tmp_path: Path):
    rows = "".join(f"a/ü.wav,{start!r},{end!r},joy\n" for start, end in bounds)
    corpus = load_corpus(
        f"folder:{write(tmp_path / 'm.csv', 'file,start,end,label' + chr(10) + rows)}"
    )
    assert sorted((u.start_s, u.end_s) for u in corpus.utterances) == sorted(bounds)
    ids = {u.id.casefold() for u in corpus.utterances}
    assert len(ids) == len(bounds) and all(
        set(i) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-") for i in ids
    )


@given(st.floats(0, 1e6))
def test_a_time_is_read_as_pandas_writes_it(value: float) -> None:
    delta = pd.Timedelta(round(value * 1e9), "ns")
    assert math.isclose(seconds(str(delta)) or 0.0, delta.total_seconds(), abs_tol=1e-9)
    assert seconds(value) == seconds(repr(value)) == value


@given(st.one_of(st.text(max_size=12), st.text("0123456789:. dayse+-", max_size=24)))
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    try:
        found = seconds(text)
    except ValueError:
        return
    assert found is None or 0 <= found < 1e9


# ---------------------------------------------------------------- Parquet


def test_a_parquet_manifest_is_read_as_its_csv_twin(tmp_path: Path) -> None:
    put(tmp_path, "a.wav", "b.wav")
    frame = pd.DataFrame(
        {
            "file": ["a.wav", "a.wav", "a.wav", "b.wav"],
            "start": pd.to_timedelta([0, 1.2, 2.5, 0], unit="s"),
            "end": pd.to_timedelta([1.2, 2.5, None, None], unit="s"),
            "emotion": pd.Categorical(["joy", "rage", "joy", "joy"]),
            "speaker": ["s", "s", "t", "t"],
            "confidence": [0.5, None, 1.0, 1.0],
        }
    )
    frame.to_parquet(tmp_path / "m.parquet")
    twin = load_corpus(f"folder:{write(tmp_path / 'm.csv', SEGMENTS)}")
    assert load_corpus(f"folder:{tmp_path / 'm.parquet'}").utterances == twin.utterances
    frame.set_index(["file", "start", "end"]).to_parquet(tmp_path / "index.parquet")
    assert load_corpus(f"folder:{tmp_path / 'index.parquet'}").utterances == twin.utterances


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_durations_of_any_unit_are_seconds(unit: str, tmp_path: Path) -> None:
    ticks = 2 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    ends = pa.array([ticks, None], pa.duration(unit))
    path = parquet(tmp_path / "m.parquet", file=["a.wav", "b.wav"], label=["joy", "joy"], end=ends)
    assert times(load_corpus(f"folder:{path}")) == {"a_0-2000": (0.0, 2.0), "b": (0.0, None)}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"file": ["a.wav"]}, "has no column 'label'"),
        ({"file": [], "label": []}, "holds no rows"),
        ({"file": ["a.wav"], "label": [1.5]}, "m.parquet:1: the label is 1.5"),
        ({"file": ["a.wav"], "label": [None]}, "m.parquet:1: the label is empty"),
        ({"file": [b"a.wav"], "label": ["joy"]}, "m.parquet:1: the file is"),
        ({"file": [{"bytes": b"RIFF"}], "label": ["joy"]}, "m.parquet:1: the file is"),
        ({"file": ["../a.wav"], "label": ["joy"]}, "outside the corpus root"),
        ({"file": ["a.wav"], "label": ["joy"], "start": [math.nan]}, "the start is NaN, no time"),
        ({"file": ["a.wav"], "label": ["joy"], "end": [True]}, "the end is true, no time"),
        ({"file": ["a.wav"], "label": ["joy"], "end": [pd.Timestamp(0)]}, "no time"),
        ({"file": ["a.wav", "b.wav"], "label": ["joy", " "]}, "m.parquet:2: the label is empty"),
    ],
)
def test_a_bad_parquet_manifest_is_refused(columns: dict, said: str, tmp_path: Path) -> None:
    assert said in refusal(parquet(tmp_path / "m.parquet", **columns))


def test_a_column_twice_in_parquet_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a.wav"])] * 3, names=["file", "label", "label"])
    pq.write_table(table, tmp_path / "m.parquet")
    assert "the column 'label' twice" in refusal(tmp_path / "m.parquet")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=4)), max_size=4),
    keep=st.floats(0, 1),
)
def test_a_damaged_parquet_file_is_refused_or_read(
    flips: list, keep: float, tmp_path: Path
) -> None:
    path = parquet(tmp_path / "m.parquet", file=["a.wav", "b.wav"], label=["joy", "rage"])
    data = bytearray(path.read_bytes())
    for place, content in flips:
        at = int(place * len(data))
        data[at : at + len(content)] = content
    path.write_bytes(data if keep > 0.3 else data[: int(keep * len(data))])
    try:
        corpus = load_corpus(f"folder:{path}")
    except InvalidInput as error:
        assert "m.parquet" in str(error) and len(str(error)) < 900
    else:
        assert len({u.id for u in corpus.utterances}) == len(corpus)


# ---------------------------------------------------------------- audiofolders


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


# ---------------------------------------------------------------- read in blocks


@pytest.mark.parametrize("block", [1, 2, 3, 5, 64, 2**20])
@pytest.mark.parametrize(
    "tail, row",
    [
        (b"b.wav,joy,\xff\n", 3),
        (b"b.wav,j\xc3\xb6y,s\nc.wav,joy,\xc3", 4),
        (b"\xed\xa0\x80", 3),
        (b"b.wav,\xf0\x9f\x98\n", 3),
    ],
)
def test_the_row_that_is_not_utf8_is_told_wherever_a_block_ends(
    block: int, tail: bytes, row: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "_BLOCK", block)
    path = tmp_path / "list.csv"
    path.write_bytes(b"\xef\xbb\xbffile,label,speaker\na.wav,joy,\xe2\x82\xac\n" + tail)
    assert f"row {row} not UTF-8. save as UTF-8" in refusal(path)


@pytest.mark.parametrize("block", [1, 3, 2**20])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_any_system_ends_them(
    block: int, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "_BLOCK", block)
    rows = ["\ufefffile,label,speaker", 'a.wav,joy,"ö, the first"', "", "b.wav,fear,€"]
    path = tmp_path / "list.csv"
    path.write_bytes(end.join(rows).encode())
    found = load_corpus(f"folder:{path}").utterances
    assert [(u.id, u.speaker, u.row) for u in found] == [
        ("a", "ö, the first", f"{path}:2"),
        ("b", "€", f"{path}:4"),
    ]


def test_the_limits_of_a_manifest_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "list.csv", "file,label\na.wav,joy\nb.wav,fear\nc.wav,joy\n")
    monkeypatch.setattr(manifest, "MAX_ROWS", 2)
    assert f"{path}:4: more than 2 rows. Split the manifest" in refusal(path)
    monkeypatch.setattr(manifest, "MAX_BYTES", 10)
    for name in ("list.csv", "list.jsonl", "list.parquet"):
        (tmp_path / name).write_bytes(b"x" * 11)
        assert "is larger than 10 bytes" in refusal(tmp_path / name)


def test_a_manifest_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch) -> None:
    for name in ("list.csv", "list.jsonl", "list.parquet"):
        path = write(tmp_path / name, "x")
        monkeypatch.setattr(manifest, "_checked", lambda path: path.with_name("gone"))
        assert "cannot be read (No such file or directory)" in refusal(path)
