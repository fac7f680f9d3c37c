"""The comparison of networks: rates over seeds with their interval, and a row for each network."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
from bench import attacking, networks, sections
from bench.attacking import Outcome

from staanet import load_corpus, storage, training
from staanet.errors import InvalidInput
from staanet.victims import build_victim


def outcome(*fooled):
    rows = [
        {
            "id": str(i),
            "before": {"emo18": 0, "zhao19": 0},
            "after": {"emo18": int(f), "zhao19": 0},
            "density": 0.2,
            "seconds": 0.1,
        }
        for i, f in enumerate(fooled)
    ]
    return Outcome(rows)


def test_a_rate_is_over_all_seeds_and_its_interval_knows_the_speakers():
    seeds, speakers = [outcome(1, 1, 0, 0), outcome(1, 0, 0, 0)], dict(zip("0123", "aabb"))
    found = networks.rate(seeds, "emo18", speakers)
    assert found.value == pytest.approx(3 / 8) and found.clusters == 2 and found.count == 8
    assert found.low < found.value < found.high
    few = networks.rate(seeds, "emo18", dict.fromkeys("0123", "a"))
    assert few.low is None  # one speaker says nothing about others


def test_each_network_has_a_row_with_every_seed():
    text = networks.table({"paper": [outcome(1, 0), outcome(0, 0)]}, {"0": "a", "1": "b"})
    row = text.splitlines()[-1]
    assert row.startswith("| paper | 0.250 [") and "| 0.500, 0.000 | 0.000, 0.000 | 0.200 |" in row


@pytest.fixture
def command(tiny_corpus, tmp_path, monkeypatch):
    """The command on two small networks and two seeds; what it is given comes behind."""
    torch.manual_seed(0)
    for name in networks.TARGETS:
        build_victim(name, ("high", "low")).eval().save_pretrained(
            tmp_path / "run" / "victims" / name
        )
    (tmp_path / "run" / "recipe.toml").write_text(
        f'name = "tiny"\ncorpus = "folder:{tiny_corpus}"\n[victims.emo18]\n[generator]\n[attacks.staa]\n'
    )
    monkeypatch.setattr(sections, "RESULTS", tmp_path / "results.md")
    published = networks.NETWORKS["paper, published objective"] | {"network": "small"}
    monkeypatch.setattr(
        networks,
        "NETWORKS",
        {"small, published": published, "backward_net": {"network": "backward_net"}},
    )

    def given(*more):
        networks.main(
            [
                str(tmp_path / "run"),
                f"folder:{tiny_corpus}",
                "--clips",
                "2",
                "--steps",
                "2",
                "--batch-size",
                "2",
                "--seconds",
                "0.2",
                "--seeds",
                "2",
                *more,
            ]
        )

    return given


def test_the_command_trains_judges_resumes_and_writes_its_section(command, tmp_path):
    out = ["--out", str(tmp_path / "out")]
    command(*out)
    first = (tmp_path / "results.md").read_text()
    assert first.count("\n| ") == 1 + 1 + 2 + 3 and "| backward_net, untrained |" in first
    assert "--seconds 0.2 --seeds 2`" in first
    assert "The training is short: 2 steps of 2 crops of 0.2 s. More" in first
    trained = (tmp_path / "out" / "generators" / "backward_net_1" / "model.safetensors").stat()
    command(*out)  # everything is there already
    assert (tmp_path / "results.md").read_text() == first
    again = (tmp_path / "out" / "generators" / "backward_net_1" / "model.safetensors").stat()
    assert again.st_mtime_ns == trained.st_mtime_ns


def test_every_seed_trains_on_the_runs_own_train_part(command, tmp_path):
    command("--only", "1", "--out", str(tmp_path / "out"))
    card = storage.read_card(tmp_path / "out" / "generators" / "backward_net_1", "generator")
    corpus = load_corpus(f"folder:{tmp_path / 'tiny'}")
    assert corpus.split(0)[0].speakers != corpus.split(1)[0].speakers
    assert card["inputs"]["seed"] == 1
    assert card["inputs"]["split"] == corpus.split(0)[0].split_hash


def test_seeds_of_several_processes_are_read_from_one_folder(
    command, tmp_path, monkeypatch, capsys
):
    merged = tmp_path / "merged"
    for part, rows in (("0", 2), ("1", 2), ("untrained", 3)):
        command("--only", part, "--out", str(tmp_path / part))
        assert capsys.readouterr().out.count("\n| ") == 1 + rows
        for kind in ("generators", "cells"):
            if (tmp_path / part / kind).exists():
                shutil.copytree(tmp_path / part / kind, merged / kind, dirs_exist_ok=True)
    assert not (tmp_path / "results.md").exists()

    def never(*given, **settings):
        raise AssertionError("everything is there already")

    monkeypatch.setattr(training, "train_generator", never)
    monkeypatch.setattr(attacking, "craft", never)
    command("--out", str(merged))
    text = (tmp_path / "results.md").read_text()
    assert text.count("\n| ") == 1 + 1 + 2 + 3
    assert re.search(r"\| backward_net \| .* \| \d\.\d+, \d\.\d+ \|", text)  # two seeds


def test_a_device_that_is_not_there_is_told_before_anything_is_made(command, tmp_path):
    with pytest.raises(InvalidInput, match="no device 'nowhere' here"):
        command("--device", "nowhere", "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
