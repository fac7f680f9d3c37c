"""Groups: rates beside all others, no more false findings than stated, real ones found."""

from __future__ import annotations

import numpy as np
import pytest

from staanet.core.groups import group_rates

SPEAKERS = [f"s{n}" for n in range(10) for _ in range(24)]
SEX = ["fm"[int(name[1:]) % 2] for name in SPEAKERS]


def kinds_of(labels):
    return {"class": labels, "sex": SEX, "speaker": SPEAKERS}


def drawn_labels(rng):
    return [str(label) for label in rng.integers(0, 6, len(SPEAKERS))]


def test_equal_groups_are_rarely_called_worse_although_many_are_looked_at():
    rng = np.random.default_rng(0)
    trials = 120
    alarms = 0
    for _ in range(trials):
        hits = rng.random(len(SPEAKERS)) < 0.4
        groups = group_rates(hits, kinds_of(drawn_labels(rng)), SPEAKERS)
        assert len(groups) == 6 + 2 + 10
        alarms += any(group.p is not None and group.p < 0.05 for group in groups)
    assert alarms / trials <= 0.06


@pytest.mark.parametrize(("kind", "name"), [("class", "3"), ("speaker", "s4")])
def test_a_group_that_is_hit_much_harder_is_found_and_no_other(kind, name):
    rng = np.random.default_rng(1)
    labels = drawn_labels(rng)
    inside = np.array(kinds_of(labels)[kind]) == name
    hits = rng.random(len(SPEAKERS)) < np.where(inside, 0.95, 0.3)
    groups = group_rates(hits, kinds_of(labels), SPEAKERS)
    assert [(g.kind, g.name) for g in groups if g.is_worse] == [(kind, name)]
    worst = next(g for g in groups if g.is_worse)
    assert worst.value == pytest.approx(hits[inside].mean())
    assert worst.low <= worst.value <= worst.high and worst.low > worst.others


def test_speakers_who_differ_are_no_proof_against_a_sex():
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(60):
        rate = dict(zip(sorted(set(SPEAKERS)), rng.beta(2, 2, 10), strict=True))
        hits = [rng.random() < rate[name] for name in SPEAKERS]
        (first, second) = group_rates(hits, {"sex": SEX}, SPEAKERS)
        alarms += min(first.p, second.p) < 0.05
    assert alarms / 60 <= 0.06 + 0.03


def test_small_groups_and_missing_names_are_not_looked_at():
    groups = group_rates([1, 0, 1, 0, 1, 0, 1], {"class": list("aaabbc") + [""]}, list("xyzxyzx"))
    assert [group.name for group in groups] == ["a"]
    assert group_rates([], {"class": []}, []) == []


def test_one_speaker_gives_no_p():
    groups = group_rates([1, 0, 1, 0, 1, 1], {"class": list("aaabbb")}, ["x"] * 6)
    assert {group.p for group in groups} == {None} and not any(g.is_worse for g in groups)
