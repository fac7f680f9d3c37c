"""The comparison of networks: rates over seeds with their interval, and a row for each network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import networks, sections
from bench.attacking import Outcome

from staanet.victims import build_victim


def outcome(*fooled):
    rows = [
        {"id": str(i), "before": {"emo18": 0, "zhao19": 0}, "after": {"emo18": int(f), "zhao19": 0},
         "density": 0.2, "seconds": 0.1}
        for i, f in enumerate(fooled)
    ]  # fmt: skip
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


def test_the_command_trains_judges_resumes_and_writes_its_section(
    tiny_corpus, tmp_path, monkeypatch
):
    torch.manual_seed(0)
    for name in networks.TARGETS:
        build_victim(name, ("high", "low")).eval().save_pretrained(
            tmp_path / "run" / "victims" / name
        )
    (tmp_path / "run" / "recipe.toml").write_text(
        f'name = "tiny"\ncorpus = "folder:{tiny_corpus}"\n[victims.emo18]\n[generator]\n[attacks.staa]\n'
    )
    monkeypatch.setattr(sections, "RESULTS", tmp_path / "results.md")
    monkeypatch.setattr(networks, "NETWORKS", ("small", "mirror"))
    command = [
        str(tmp_path / "run"), f"folder:{tiny_corpus}", "--clips", "2", "--steps", "2",
        "--batch-size", "2", "--seeds", "2", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    networks.main(command)
    first = (tmp_path / "results.md").read_text()
    assert first.count("\n| ") == 1 + 1 + 2 + 3 and "| mirror, untrained |" in first
    trained = (tmp_path / "out" / "generators" / "mirror_1" / "model.safetensors").stat()
    networks.main(command)  # everything is there already
    assert (tmp_path / "results.md").read_text() == first
    again = (tmp_path / "out" / "generators" / "mirror_1" / "model.safetensors").stat()
    assert again.st_mtime_ns == trained.st_mtime_ns
