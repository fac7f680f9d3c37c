"""Rows that are parts of files, and their times."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.corpora import SEGMENTS, put, refusal, segment_times, write
from tests.support.speech import RATE

from staanet import audio
from staanet.corpora import describe, load_corpus
from staanet.corpora.manifest import seconds
from staanet.errors import UnusableClip


def test_a_table_of_audformat_cuts_files_into_utterances(tmp_path: Path) -> None:
    put(tmp_path, "a.wav", "b.wav", length_s=3.0)
    corpus = load_corpus(f"folder:{write(tmp_path / 'db.emotion.csv', SEGMENTS)}")
    assert segment_times(corpus) == {
        "a_0-1200": (0.0, 1.2),
        "a_1200-2500": (1.2, 2.5),
        "a_2500-end": (2.5, None),
        "b": (0.0, None),
    }
    whole, rate = audio.read_int16(tmp_path / "a.wav")
    clips = {clip.id: clip for clip in corpus.clips(rate)}
    parts = [clips[i].pcm16 for i in ("a_0-1200", "a_1200-2500", "a_2500-end")]
    assert np.array_equal(np.concatenate(parts), whole), "the parts fill the file, bit for bit"
    assert np.array_equal(clips["b"].pcm16, audio.read_int16(tmp_path / "b.wav")[0])
    assert [clips[i].label for i in sorted(clips)] == ["joy", "rage", "joy", "joy"]
    assert len(clips["a_1200-2500"].pcm16) == round(1.3 * RATE)
    described = describe(corpus)
    assert not described["problems"] and described["seconds"]["total"] == 6.0


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_a_part_is_cut_at_the_rate_of_its_file(rate: int, tmp_path: Path) -> None:
    put(tmp_path, "a.wav", rate=rate, length_s=3.0)
    path = write(tmp_path / "m.csv", "file,start,end,label\na.wav,0.25,0.75,joy\n")
    (clip,) = load_corpus(f"folder:{path}").clips(RATE)
    assert len(clip.pcm16) == RATE // 2
    whole = audio.read_audio(tmp_path / "a.wav").samples[rate // 4 : 3 * rate // 4]
    assert np.array_equal(clip.pcm16, audio.snap(audio.resample(whole, rate, RATE)))


def test_an_end_rounded_to_milliseconds_is_the_end_of_the_file(tmp_path: Path) -> None:
    put(tmp_path, "a.wav", length_s=1.00003)
    path = write(tmp_path / "m.csv", "file,start,end,label\na.wav,0.5,1.0003,joy\n")
    (clip,) = load_corpus(f"folder:{path}").clips(RATE)
    assert len(clip.pcm16) == round(1.00003 * RATE) - RATE // 2


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
    put(tmp_path, "a.wav", length_s=3.0)
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
        *((value, "the start is") for value in ("true", "[1]", "-Infinity", '{"s": 1}')),
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
    assert segment_times(corpus) == {"a": (0.0, None), "a_1000-2500": (1.0, 2.5)}
    assert [(u.speaker, u.part) for u in corpus.utterances] == [("unknown", None), ("7", "dev")]
    write(path, json.dumps(lines[0]) + '\n{"file": "b.wav"}')
    corpus = load_corpus(f"folder:{path}")
    assert len(corpus) == 1 and corpus.put_aside == ((f"{path}:2", "has no column 'label'"),)


@pytest.mark.parametrize("word", ["", "NaT", "nan", "None", "<NA>"])
def test_a_missing_time_is_an_end_of_the_file(word: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", f"file,start,end,label\na.wav,{word},{word},joy\n")
    assert segment_times(load_corpus(f"folder:{path}")) == {"a": (0.0, None)}


def test_equal_parts_count_once_and_conflicts_not_at_all(tmp_path: Path) -> None:
    text = (
        "file,start,end,label,speaker\na.wav,0,1,joy,s\na.wav,0.0,0 days 00:00:01,joy,s\n"
        "a.wav,1,2,joy,s\n./a.wav,1,2.0,rage,s\na.wav,,,rage,s\n"
    )
    corpus = load_corpus(f"folder:{write(tmp_path / 'm.csv', text)}")
    assert segment_times(corpus) == {"a": (0.0, None), "a_0-1000": (0.0, 1.0)}
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
    assert math.isclose(seconds(str(delta)) or 0.0, delta.value / 1e9, abs_tol=1e-9)
    assert seconds(value) == seconds(repr(value)) == value


@given(st.one_of(st.text(max_size=12), st.text("0123456789:. dayse+-", max_size=24)))
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    try:
        found = seconds(text)
    except ValueError:
        return
    assert found is None or 0 <= found < 1e9
