"""Parquet manifests."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.corpora import SEGMENTS, put, refusal, segment_times, write, write_parquet

from staanet.corpora import load_corpus
from staanet.errors import InvalidInput


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
    path = write_parquet(
        tmp_path / "m.parquet", file=["a.wav", "b.wav"], label=["joy", "joy"], end=ends
    )
    assert segment_times(load_corpus(f"folder:{path}")) == {
        "a_0-2000": (0.0, 2.0),
        "b": (0.0, None),
    }


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"file": ["a.wav"]}, "has no column 'label'"),
        ({"file": [], "label": []}, "holds no rows"),
        ({"file": ["a.wav"], "label": [1.5]}, "m.parquet:1: the label '1.5' is a number"),
        ({"file": ["a.wav"], "label": [None]}, "m.parquet:1: the label is empty"),
        ({"file": [b"a.wav"], "label": ["joy"]}, "m.parquet:1: the file is"),
        ({"file": [{"bytes": b"RIFF"}], "label": ["joy"]}, "m.parquet:1: the file is"),
        ({"file": ["../a.wav"], "label": ["joy"]}, "outside the corpus root"),
        ({"file": ["a.wav"], "label": ["joy"], "end": [True]}, "the end is true, no time"),
        ({"file": ["a.wav"], "label": ["joy"], "end": [pd.Timestamp(0)]}, "no time"),
    ],
)
def test_a_bad_parquet_manifest_is_refused(columns: dict, said: str, tmp_path: Path) -> None:
    assert said in refusal(write_parquet(tmp_path / "m.parquet", **columns))


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
    path = write_parquet(tmp_path / "m.parquet", file=["a.wav", "b.wav"], label=["joy", "rage"])
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


def test_float_seconds_and_missing_times_of_parquet(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "m.parquet",
        file=["a.wav", "b.wav", "c.wav"],
        label=["joy", "joy", None],
        start=[0.25, math.nan, 0.0],
        end=[1.5, None, 1.0],
    )
    corpus = load_corpus(f"folder:{path}")
    assert segment_times(corpus) == {"a_250-1500": (0.25, 1.5), "b": (0.0, None)}
    assert corpus.put_aside == ((f"{path}:3", "the label is empty"),)
