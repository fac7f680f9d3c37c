"""Comparisons of cells: the right pairs, on the same clips, and real only where it can be shown."""

from __future__ import annotations

import pytest

from staanet.core import NO_CHANNEL
from staanet.evaluation.comparisons import compare_cells, describe_groups, leading_groups

CLIPS = [(f"{speaker}{n}", speaker) for speaker in "abcdefgh" for n in range(10)]


def cell(attack, target="t", source="t", control=False, algorithm="pgd", defence=""):
    return {
        "attack": attack,
        "source": source,
        "target": target,
        "channel": NO_CHANNEL,
        "control": control,
        "algorithm": algorithm,
        "defence": defence,
    }


def rows(is_fooled):
    return [
        {
            "id": name,
            "speaker": speaker,
            "label": "xy"[int(name[1]) % 2],
            "clean_prediction": "x",
            "adversarial_prediction": "y" if is_fooled(name) else "x",
            "level_db": -20.0 - int(name[1]),
            "sex": "female" if speaker < "e" else "male",
        }
        for name, speaker in CLIPS
    ]


STRONG, WEAK = rows(lambda name: True), rows(lambda name: name[1] == "0")


def test_the_leading_attack_meets_every_other_on_the_same_target():
    cells = [
        cell("random", control=True, algorithm="random"),
        cell("pgd"),
        cell("staa", algorithm="staa"),
    ]
    found = compare_cells(cells, [WEAK, WEAK, STRONG])
    assert [(f["first"]["attack"], f["second"]["attack"]) for f in found] == [
        ("staa", "random"),
        ("staa", "pgd"),
    ]
    assert all(f["what"] == "attacks" and f["value"] == pytest.approx(0.9) for f in found)
    assert all(f["is_real"] and f["least"] < 0.9 for f in found)


def test_targets_of_the_leading_set_are_compared_once():
    cells = [
        cell("staa"),
        cell("staa", target="u"),
        cell("staa", target="t+median", defence="static"),
    ]
    found = compare_cells(cells, [STRONG, WEAK, WEAK])
    assert sorted((f["what"], f["first"]["target"], f["second"]["target"]) for f in found) == [
        ("defences", "t", "t+median"),
        ("defences", "t+median", "u"),
        ("victims", "t", "u"),
    ]


def test_equal_attacks_and_few_speakers_are_not_called_real():
    (equal,) = compare_cells([cell("staa"), cell("pgd")], [STRONG, STRONG])
    assert equal["value"] == 0 and not equal["is_real"]
    one = [row for row in STRONG if row["speaker"] == "a"]
    other = [row for row in WEAK if row["speaker"] == "a"]
    (lonely,) = compare_cells([cell("staa"), cell("pgd")], [one, other])
    assert lonely["low"] is None and not lonely["is_real"]


def test_groups_are_classes_speakers_sexes_and_thirds_of_the_level():
    (entry,) = leading_groups([cell("staa")], [WEAK])
    kinds = [group["kind"] for group in entry["groups"]]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "class": 2,
        "speaker": 8,
        "sex": 2,
        "loudness": 3,
    }
    loud = next(g for g in entry["groups"] if g["name"] == "loud third")
    assert loud["value"] > loud["others"] == 0
    assert {g["kind"] for g in describe_groups([{**r, "level_db": None} for r in WEAK])} == {
        "class",
        "speaker",
        "sex",
    }
