"""The comparison of networks: rates over seeds with their interval, and a row for each network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import networks
from bench.strength import Outcome


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
