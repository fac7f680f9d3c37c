"""Rates are counted as defined, from the files that were written, with controls and flags."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas
import pytest
import torch
from tests.support.models import LinearVictim
from tests.support.speech import RATE, clip

from staanet import audio
from staanet.attacks import PGD, Random, craft
from staanet.core import Budget
from staanet.errors import InvalidInput
from staanet.evaluation import transfer_matrix
from staanet.evaluation.perceptual import Score
from staanet.results import row_files
from staanet.results.adversarial_set import AdversarialClip, AdversarialSet


def pair(name, before, after, label, speaker):
    """A clip that a LinearVictim of ones answers 'up' (positive) or 'down'."""
    clean = np.full(100, before, dtype=np.int16)
    clean[0] += 1  # a constant clip is no speech
    made = replace(clip(id=name, label=label, speaker=speaker), pcm16=clean)
    return AdversarialClip(made, np.full(100, after, dtype=np.int16), 0.5, 3)


@pytest.fixture
def ones():
    return LinearVictim(torch.ones(100))


@pytest.fixture
def crafted():
    return AdversarialSet(
        [
            pair("a", 10, -10, "up", "s1"),  # right, made wrong
            pair("b", 10, 10, "up", "s2"),  # right, still right
            pair("c", -10, 10, "up", "s1"),  # wrong, made right: fooled, but no success
            pair("d", -10, -10, "down", "s2"),  # right, still right
            pair("e", 10, -10, "perceptual_missing", "s1"),  # a label that the victim does not know
        ],
        {"attack": "pgd", "source": "linear", "budget": {}},
    )


def test_each_rate_counts_what_its_name_says(ones, crafted):
    cell = transfer_matrix([crafted], [ones]).cell("pgd", "linear", "linear")
    assert cell["fooling_rate"]["value"] == pytest.approx(3 / 5)
    assert cell["attack_success_rate"]["value"] == pytest.approx(1 / 3)
    assert cell["accuracy_before"]["value"] == pytest.approx(3 / 4)
    assert cell["accuracy_after"]["value"] == pytest.approx(3 / 4)
    assert cell["uar_before"]["value"] == pytest.approx((2 / 3 + 1) / 2)
    assert cell["count"] == 5 and cell["attack_success_rate"]["count"] == 3
    assert cell["white_box"] and not cell["control"]


def test_means_are_over_all_clips_and_apart_over_the_fooled(ones, crafted):
    cell = transfer_matrix([crafted], [ones]).cell("pgd", "linear", "linear")
    assert cell["mean"]["l0"] == pytest.approx(np.mean([c.measurements()["l0"] for c in crafted]))
    assert cell["mean_fooled"]["l0"] == pytest.approx(
        np.mean([crafted.clips[i].measurements()["l0"] for i in (0, 2, 4)])
    )


def test_no_fooled_clip_gives_none_never_zero_or_infinity(ones):
    still = AdversarialSet([pair("a", 10, 10, "up", "s1")], {"attack": "x", "source": "linear"})
    still = AdversarialSet(
        [replace(still.clips[0], adversarial=still.clips[0].clean.pcm16)], still.card
    )
    matrix = transfer_matrix([still], [ones])
    cell = matrix.cells[0]
    assert cell["mean_fooled"]["snr_db"] is None and cell["mean"]["snr_db"] is None
    assert "mask empty" in matrix.summary["flags"][0]
    json.dumps(matrix.summary, allow_nan=False)


def test_a_control_that_is_as_good_raises_a_flag(ones, crafted):
    control = AdversarialSet(crafted.clips, {"attack": "random", "source": "linear"})
    flags = transfer_matrix([crafted, control], [ones]).summary["flags"]
    assert any("no more often than the random control" in flag for flag in flags)


def test_a_universal_vector_is_a_control_and_has_a_flag_of_its_own(ones, crafted):
    uap = AdversarialSet(
        crafted.clips, {"attack": "mine", "algorithm": "uap", "source": "linear", "budget": {}}
    )
    tame = AdversarialSet(crafted.clips[1:2], {"attack": "random", "source": "linear"})
    summary = transfer_matrix([crafted, uap, tame], [ones]).summary
    assert [cell["control"] for cell in summary["cells"]] == [False, True, True]
    (flag,) = summary["flags"]
    assert "pgd from linear fools linear no more often than the universal vector" in flag


class Threshold(LinearVictim):
    """Answers 'up' where the first sample is above one step of the grid."""

    def forward(self, waveforms, lengths=None):
        score = waveforms[:, 0] * 32768 - 1.5
        return torch.stack([score, -score], dim=1)


def test_after_a_channel_the_clean_clip_passes_too():
    """6 dB down, a 2 becomes a 1: what the channel does to the clean clip is no success."""
    clips = [pair("a", 1, 2, "up", "s1"), pair("b", 9, 2, "up", "s2"), pair("c", 9, 1, "up", "s3")]
    made = AdversarialSet(clips, {"attack": "pgd", "source": "linear", "budget": {}})
    matrix = transfer_matrix([made], [Threshold(torch.ones(100))], channels=["gain:-6", "gain:-6"])
    plain = matrix.cell("pgd", "linear", "linear")
    after = matrix.cell("pgd", "linear", "linear", "gain:-6")
    assert (plain["channel"], after["channel"]) == ("pcm16", "gain:-6")
    assert len(matrix.cells) == 2 and len(matrix.rows) == 6
    assert plain["fooling_rate"]["value"] == pytest.approx(1 / 3)
    assert after["fooling_rate"]["value"] == pytest.approx(2 / 3)
    assert plain["mean"] == after["mean"], "distances are those of the files"
    answers = [
        (r["clean_prediction"], r["adversarial_prediction"])
        for r in matrix.rows
        if r["channel"] != "pcm16"
    ]
    assert answers == [("down", "down"), ("up", "down"), ("up", "down")]


def test_channels_leave_the_matrix_of_the_files_as_it_was(ones, crafted):
    alone = transfer_matrix([crafted], [ones])
    beside = transfer_matrix([crafted], [ones], channels=["noise:20", "rir"])
    assert beside.cell("pgd", "linear", "linear") == alone.cells[0]
    assert [r for r in beside.rows if r["channel"] == "pcm16"] == list(alone.rows)
    assert beside.to_markdown() == alone.to_markdown()
    assert beside.summary["flags"] == alone.summary["flags"]
    assert {c["channel"] for c in beside.cells} == {"pcm16", "noise:20", "rir"}


def test_on_disk_cells_tell_their_channel_and_the_matrices_show_the_files_as_they_are(
    ones, crafted, tmp_path
):
    alone, beside = (
        transfer_matrix([crafted], [ones], channels=channels) for channels in ([], ["gain:-6"])
    )
    alone.save(tmp_path / "alone")
    beside.save(tmp_path / "beside")
    for name in ("matrix.md", "matrix.tex"):
        assert (tmp_path / "beside" / name).read_text() == (tmp_path / "alone" / name).read_text()
    frame = pandas.read_parquet(tmp_path / "beside" / "cells.parquet")
    assert list(frame.channel) == ["pcm16", "gain:-6"]
    text = pandas.read_csv(tmp_path / "beside" / "cells.csv")
    assert list(text.channel) == list(frame.channel) and list(text.columns) == list(frame.columns)
    summary = json.loads((tmp_path / "beside" / "summary.json").read_text())
    assert [cell["channel"] for cell in summary["cells"]] == list(frame.channel)


def test_a_clip_and_its_twin_meet_the_same_noise(ones):
    still = AdversarialSet(
        [pair(str(n), 1, 1, "up", "s1") for n in range(20)], {"attack": "x", "source": "linear"}
    )
    same = [replace(c, adversarial=c.clean.pcm16) for c in still.clips]
    still = AdversarialSet(same, still.card)
    matrix = transfer_matrix([still], [ones], channels=["noise:-20", "rir:0.1"])
    assert {r["clean_prediction"] for r in matrix.rows if r["channel"] == "noise:-20"} == {
        "up",
        "down",
    }
    assert all(cell["fooling_rate"]["value"] == 0 for cell in matrix.cells)


def test_an_unknown_channel_is_refused_before_any_work(ones, crafted):
    with pytest.raises(InvalidInput, match="unknown transform 'mp4'"):
        transfer_matrix([crafted], [ones], channels=["mp4"])


def test_how_it_sounds_is_asked_once_a_clip_and_averaged_over_those_that_have_a_score(
    ones, crafted, tmp_path
):
    heard = []

    def scorer(one):
        heard.append(one.clean.id)
        odd = one.clean.id in "ab"
        return {
            "pesq_wb": Score(None, f"too short (0.0{len(heard)} s)")
            if odd
            else Score(3.0 + len(heard))
        }

    two = LinearVictim(torch.ones(100))
    two.name = "other"
    matrix = transfer_matrix([crafted], [ones, two], channels=["gain:-6"], scorer=scorer)
    assert heard == ["a", "b", "c", "d", "e"]
    matrix.save(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["sets"] == [
        {
            "attack": "pgd",
            "source": "linear",
            "perceptual": {
                "pesq_wb": {"value": 7.0, "count": 3, "of": 5, "missing": {"too short": 2}}
            },
        }
    ]
    frame = pandas.read_parquet(tmp_path / "results.parquet")
    own = frame[(frame.channel == "pcm16") & (frame.target == "other")]
    assert list(own.pesq_wb.isna()) == [True, True, False, False, False]
    assert list(own.perceptual_missing[:2]) == [
        "pesq_wb: too short (0.01 s)",
        "pesq_wb: too short (0.02 s)",
    ]


def test_without_listening_nothing_is_said_of_sound(ones, crafted):
    matrix = transfer_matrix([crafted], [ones])
    assert "sets" not in matrix.summary and "perceptual_missing" not in matrix.rows[0]


def test_a_set_survives_the_disk_bit_for_bit(linear, tmp_path):
    clips = [clip(0.1, 300, n, id=f"c{n}", label="up", speaker=f"s{n}") for n in range(3)]
    budget = Budget(epsilon=0.01, max_density=0.2)
    made = craft(PGD(budget=budget, steps=3), linear, clips)
    made.save(tmp_path / "set")
    again = AdversarialSet.load(tmp_path / "set")
    for a, b in zip(made, again, strict=True):
        assert np.array_equal(a.adversarial, b.adversarial)
        assert np.array_equal(a.clean.pcm16, b.clean.pcm16)
        assert (a.clean.id, a.clean.label, a.clean.speaker) == (
            b.clean.id,
            b.clean.label,
            b.clean.speaker,
        )
        assert a.measurements() == b.measurements()


def test_reported_figures_are_those_of_the_files(linear, tmp_path):
    made = craft(Random(budget=Budget(epsilon=0.005, max_density=0.3)), linear, [clip(0.1, id="c")])
    made.save(tmp_path / "set")
    table = pandas.read_csv(tmp_path / "set" / "metadata.csv")
    clean, rate = audio.read_int16(tmp_path / "set" / table.original_file_name[0])
    adversarial, _ = audio.read_int16(tmp_path / "set" / table.file_name[0])
    delta = adversarial.astype(int) - clean
    assert rate == RATE
    assert table.l0[0] == np.count_nonzero(delta)
    assert table.linf[0] == np.abs(delta).max() / 32768
    with_eot = 10 * np.log10(
        np.square(clean.astype(float)).sum() / np.square(delta.astype(float)).sum()
    )
    assert table.snr_db[0] == pytest.approx(with_eot, abs=0.01)


def test_a_matrix_is_written_whole(ones, crafted, tmp_path):
    matrix = transfer_matrix([crafted], [ones])
    matrix.save(tmp_path)
    frame = pandas.read_parquet(tmp_path / "results.parquet")
    assert list(frame.adversarial_prediction) == ["down", "up", "up", "down", "down"]
    assert json.loads((tmp_path / "summary.json").read_text())["cells"][0]["count"] == 5
    assert "60.0 %" in matrix.to_markdown() and "(white box)" in matrix.to_markdown()


@pytest.mark.parametrize("name", ["../out.wav", "/etc/passwd", "a/../../b.wav"])
def test_a_row_that_leads_out_of_its_folder_is_refused(name, linear, tmp_path):
    craft(Random(), linear, [clip(0.1, id="c")]).save(tmp_path)
    table = (tmp_path / "metadata.csv").read_text().replace("adversarial/c.wav", name)
    (tmp_path / "metadata.csv").write_text(table)
    with pytest.raises(InvalidInput) as error:
        AdversarialSet.load(tmp_path)
    assert "outside the folder" in str(error.value) and "metadata.csv:2" in str(error.value)


@pytest.mark.parametrize(
    "cell, written",
    [("=cmd", "'=cmd"), ("+1+1", "'+1+1"), ("@x", "'@x"), ("-1.5", "-1.5"), ("joy", "joy")],
)
def test_text_that_a_spreadsheet_would_run_is_escaped(cell, written):
    assert row_files.csv_text(["a"], [{"a": cell}]) == f"a\n{written}\n"
