"""A matrix as Markdown, LaTeX and tidy rows: nothing lost, nothing obeyed, no average of nothing."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import numpy as np
import pandas
import pytest
import torch
from tests.support.models import LinearVictim
from tests.support.speech import clip

from staanet.errors import InvalidInput
from staanet.evaluation import transfer_matrix
from staanet.results.adversarial_set import AdversarialClip, AdversarialSet
from staanet.results.cells import Cell
from staanet.results.transfer_tables import METRICS, effects_table, matrix_document

HOSTILE = r"50 % & a_b|c {x} \input{~} $^#"


def pair(name: str, after: int, speaker: str) -> AdversarialClip:
    clean = np.full(100, 10, dtype=np.int16)
    clean[0] += 1
    made = replace(clip(id=name, label="up", speaker=speaker), pcm16=clean)
    return AdversarialClip(made, np.full(100, after, dtype=np.int16), 0.5, 30)


@pytest.fixture
def matrix():
    ones, other = LinearVictim(torch.ones(100)), LinearVictim(torch.ones(100))
    other.name = "other_one"
    budget = {"epsilon": 0.01, "max_density": 0.2, "max_l0": None, "min_snr_db": None}
    fooling = AdversarialSet(
        [pair("a", -10, "s1"), pair("b", 10, "s2"), pair("c", -10, "s3"), pair("d", -9, "s3")],
        {"attack": "pgd", "title": HOSTILE, "source": "linear", "budget": budget},
    )
    tame = AdversarialSet(
        [pair("a", 10, "s1")],
        {"attack": "random", "source": "linear", "budget": budget, "matched": "pgd__linear"},
    )
    return transfer_matrix([fooling, tame], [ones, other])


def rows_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_markdown_has_one_width_and_shows_the_metric_with_its_n(matrix, metric):
    lines = rows_of(matrix.to_markdown(metric=metric))
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
    assert len(lines) == 4 and widths == {12}
    value = 100 * matrix.cell("pgd", "linear", "linear")[metric]["value"]
    assert f"{value:.1f} %" in lines[2] and ", N 4)" in lines[2] and "(white box)" in lines[2]
    assert lines[2].split("|")[-2].strip() == "30"  # queries per clip
    assert "(control)" in lines[3] and ", N 1)" in lines[3]
    assert METRICS[metric] in matrix.to_markdown(metric=metric).splitlines()[0]


def test_an_unknown_metric_is_named_with_the_known_ones(matrix):
    for show in (matrix.to_markdown, matrix.to_latex):
        with pytest.raises(InvalidInput, match="fooling_rate"):
            show(metric="fooling_rat")


def test_no_fooled_clip_is_no_mean(matrix):
    cells = [Cell.from_dict(cell) for cell in matrix.cells]
    lines = rows_of(effects_table(cells).to_markdown())
    assert "| 3 of 4 |" in lines[2]
    assert lines[4].endswith("| 0 of 1 | n/a (0 of 1) | n/a (0 of 1) | n/a (0 of 1) |")
    assert "3 of 4" in matrix_document(cells) and "nan" not in matrix_document(cells)


def test_latex_escapes_every_name_and_closes_what_it_opens(matrix):
    text = matrix.to_latex()
    for word in ("toprule", "midrule", "bottomrule"):
        assert text.count(rf"\{word}") == 1
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    assert r"50 \% \& a\_b\textbar{}c \{x\} \textbackslash{}input\{\textasciitilde{}\}" in text
    bare = re.sub(r"\\[\\&%$#_{}]", "", text)
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {10}


def test_latex_tells_budget_white_box_and_control(matrix):
    text = matrix.to_latex()
    caption = next(line for line in text.splitlines() if line.startswith(r"\caption"))
    assert r"$\epsilon$ = 0.01, at most 20 \% of the samples" in caption
    assert "as many samples as 50" in caption and "N is the number of clips" in caption
    white = [line for line in text.splitlines() if r"$^{\mathrm{w}}$ " in line and "&" in line]
    assert len(white) == 1 and r"\textit{random}" in text


def test_tidy_cells_are_written_beside_the_rows(matrix, tmp_path):
    matrix.save(tmp_path)
    frame = pandas.read_parquet(tmp_path / "cells.parquet")
    assert len(frame) == len(matrix.cells) == 4
    first = frame.iloc[0]
    assert first.fooling_rate == pytest.approx(0.75) and first.fooling_rate_count == 4
    assert first.epsilon == 0.01 and first.queries_mean == 30 and bool(first.white_box)
    assert frame.density_mean_fooled.isna().tolist() == [False, False, True, True]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "cells.csv").read_text())))
    assert [row["target"] for row in rows] == list(frame.target) and len(rows[0]) == frame.shape[1]
    matrix.to_parquet(tmp_path / "again.parquet")
    assert pandas.read_parquet(tmp_path / "again.parquet").equals(frame)
    for metric in ("Fooling rate", "Attack success rate", "Uar after", "Attack success, recall"):
        assert f"**{metric}" in (tmp_path / "matrix.md").read_text()
    assert (tmp_path / "matrix.tex").read_text() == matrix.to_latex()


def test_no_cell_gives_empty_tables(tmp_path):
    empty = transfer_matrix([], [])
    empty.save(tmp_path)
    assert len(rows_of(empty.to_markdown())) == 2 and r"\bottomrule" in empty.to_latex()
