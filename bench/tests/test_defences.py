"""What the bench says of defences is what the folders of the commands hold."""

from __future__ import annotations

import importlib
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from staanet.config import AuditRecipe
from staanet.core import NO_CHANNEL
from staanet.pipeline.stage import normal

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bench():
    if not (ROOT / "bench" / "defences.py").exists():
        pytest.skip("bench/ is not part of this distribution")
    sys.path.insert(0, str(ROOT))
    try:
        return importlib.import_module("bench.defences")
    finally:
        sys.path.remove(str(ROOT))


def rate(value, count=10):
    return {"value": value, "low": 0.1, "high": 0.9, "count": count}


def rows(name, uar, pgd):
    return [
        {
            "victim": name,
            "test_uar": uar,
            "attack": attack,
            "epsilon": epsilon,
            "fooled": rate(pgd if attack == "pgd" else 0.2),
            "uar": uar,
            "uar_after": 0.1,
            "hardened": {"cost": {"times": 4.25}, "from": "plain"} if name == "hard" else None,
            "recipe": {"method": "sparse_trades", "weight": 3.0, "ramp": 0.3, "inner_steps": 2},
        }
        for epsilon in (0.01, 0.03)
        for attack in ("pgd", "staa", "random")
    ]


def test_a_hardened_victim_is_told_beside_the_plain_one(bench):
    told = "\n".join(bench.hardened([*rows("plain", 0.75, 0.8), *rows("hard", 0.70, 0.4)]))
    assert "| plain | 0.750 | 80.0 % of 10 (10 to 90) |" in told
    assert (
        "hard: the fooling rate of adaptive PGD, divided by the rate on the plain victim, is 0.50 at epsilon 0.01 and 0.50"
        in told
    )
    assert "The UAR is 5.0 points lower. A step takes 4.2 times as long as a plain step." in told
    assert (
        "from `plain` with `staanet harden --method sparse_trades --weight 3.0 --inner-steps 2`"
        in told
    )


def test_a_rate_of_nothing_is_no_ratio(bench):
    told = "\n".join(bench.hardened([*rows("plain", 0.75, 0.0), *rows("hard", 0.70, 0.4)]))
    assert "is n/a at epsilon" in told


def cell(target, source, value, attack="pgd", control=False):
    return {
        "target": target,
        "source": source,
        "channel": NO_CHANNEL,
        "control": control,
        "title": attack,
        "fooling_rate": rate(value),
        "uar_before": rate(0.6),
    }


def test_the_gap_is_between_the_strongest_static_and_adaptive_attack_without_controls(bench):
    summary = {
        "targets": {"v": {}, "v+median": {"defended": {"inner": "v"}}},
        "cells": [
            cell("v", "v", 0.9),
            cell("v+median", "v", 0.3),
            cell("v+median", "v", 0.4),
            cell("v+median", "v+median", 0.7),
            cell("v+median", "v+median", 1.0, control=True),
        ],
    }
    told = bench.transformations([summary])[-1]
    assert told.endswith("| +30.0 |") and "90.0 %" in told and "100.0" not in told
    assert told.splitlines()[2].startswith("| v+median | 0.600 | 0.600 |")
    assert bench.transformations([{"targets": {"v": {}}, "cells": []}]) == []


def test_certificates_say_how_many_attacks_inside_the_radius_succeeded(bench):
    one = {
        "victim": "v",
        "method": "gaussian",
        "noise": {"sigma": 0.02},
        "right": 7,
        "clips": 10,
        "abstained": 2,
        "median_radius": 0.03,
        "largest_radius": 0.05,
        "unit": "L2 norm",
        "broken": 0,
        "attacked": 8,
        "votes": {"votes": 500, "alpha": 0.001},
    }
    told = bench.certificates([one])[-1]
    assert (
        "| 500 | 0.001 | 7 of 10 | 2 | 0.03 | 0.05 L2 norm | 0 of 8 |" in told
        and bench.certificates([]) == []
    )


def test_an_audit_is_told_with_what_was_not_as_it_comes(bench):
    usual = normal(asdict(AuditRecipe()))
    told = {
        "seconds": {"train": 90.0, "attack": 30.0},
        "victim": {"name": "v", "gradients": False},
        "recipe": usual | {"clips": 16},
        "sources": [{"name": "emo18"}],
        "corpus": {"clips": 16},
        "machine": "a machine",
        "verdict": ["Passed."],
    }
    said = "\n".join(bench.audited(told))
    assert "without gradients. The sources are emo18. The settings are clips 16." in said
    assert "The audit used 16 test clips. It took 2.0 minutes" in said
    assert "* Passed." in said
    said = "\n".join(bench.audited(told | {"recipe": usual}))
    assert "The settings are the defaults." in said
