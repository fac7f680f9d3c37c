"""Rows as files of CSV and Parquet."""

import pandas

from staanet.results import row_files


def test_a_column_with_text_and_numbers_becomes_text(tmp_path):
    rows = [{"epsilon": "-20 dB", "l0": 3}, {"epsilon": 2.0, "l0": 4}, {"epsilon": None, "l0": 5}]
    row_files.write_parquet(tmp_path / "rows.parquet", rows)
    assert row_files.read_parquet(tmp_path / "rows.parquet") == [
        {"epsilon": "-20 dB", "l0": 3},
        {"epsilon": "2.0", "l0": 4},
        {"epsilon": None, "l0": 5},
    ]


def test_columns_of_one_kind_keep_their_type(tmp_path):
    rows = [
        {"epsilon": 0.03, "file": "a.wav", "fooled": True},
        {"epsilon": 0.01, "file": None, "fooled": False},
    ]
    row_files.write_parquet(tmp_path / "rows.parquet", rows)
    frame = pandas.read_parquet(tmp_path / "rows.parquet")
    assert frame.epsilon.dtype == float and frame.fooled.dtype == bool
    assert row_files.read_parquet(tmp_path / "rows.parquet") == rows
