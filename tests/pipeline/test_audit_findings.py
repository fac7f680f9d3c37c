"""Which attack an audit calls the worst, which noise it sets beside it, and on what its surrogates are trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from staanet.config import AuditRecipe
from staanet.core import Corpus, Utterance
from staanet.corpora import with_classes
from staanet.pipeline import Context
from staanet.pipeline.audit_findings import describe_findings, worst_cell
from staanet.pipeline.audit_stages import keep_split


def cell(rate, snr_db, *, epsilon="-20 dB", control=False, count=4):
    """A cell of the matrix with these figures."""
    return {
        "attack": "random" if control else "pgd",
        "algorithm": "random" if control else "pgd",
        "title": "t",
        "source": "s",
        "channel": "pcm16",
        "control": control,
        "white_box": False,
        "budget": {"epsilon": epsilon, "max_density": 1.0},
        "fooling_rate": {"value": rate, "low": None, "high": None, "count": count},
        "uar_before": {"value": 0.5},
        "accuracy_before": {"value": 0.5},
        "mean": {"snr_db": snr_db},
        "queries_mean": 0.0,
    }


@pytest.mark.parametrize("rate, snr_db", [(0.5, 40.0), (0.0, 20.0)])
def test_of_equal_rates_the_softest_success_and_the_loudest_failure_are_the_worst(rate, snr_db):
    assert worst_cell([cell(rate, 20.0), cell(rate, 40.0), cell(rate, 30.0)])["snr_db"] == snr_db


def test_an_attack_on_a_single_clip_is_not_the_worst_because_it_fooled_it():
    one, many = cell(1.0, 20.0, count=1), cell(0.7, 20.0, count=60)
    assert worst_cell([one, many])["count"] == 60
    assert worst_cell([one, cell(0.1, 20.0, count=60)])["count"] == 1  # at least 21 % against 5 %


def test_the_control_has_the_budget_of_the_worst_attack():
    cells = [
        cell(0.5, 20.0, epsilon="-30 dB"),
        cell(0.75, 30.0, epsilon="-20 dB"),
        cell(0.25, 20.0, epsilon="-30 dB", control=True),
        cell(0.0, 30.0, epsilon="-20 dB", control=True),
    ]
    facts = describe_findings(
        cells, [], AuditRecipe(epsilons=("-30 dB", "-20 dB"), densities=(1.0,), channels=())
    )
    assert facts["worst"]["epsilon"] == facts["attackers"]["noise"]["epsilon"] == "-20 dB"
    assert facts["attackers"]["noise"]["fooling_rate"] == 0.0


def test_without_noise_there_is_no_control():
    facts = describe_findings(
        [cell(0.5, 20.0)], [], AuditRecipe(epsilons=("-20 dB",), densities=(1.0,), channels=())
    )
    assert set(facts["attackers"]) == {"transfer"}


@pytest.mark.parametrize(("classes", "name"), [("label", "s"), ("label", "s,"), ("speaker", "s")])
def test_the_surrogates_have_the_split_of_the_audit(classes, name):
    """Also where the classes are the speakers, and where a protocol cannot write a speaker's name."""
    clips = [
        Utterance(f"{s}{n}", Path(f"{s}/{n}.wav"), "ab"[n % 2], f"{name}{s}")
        for s in range(6)
        for n in range(8)
    ]
    corpus = with_classes(Corpus("twelve", tuple(clips), ("a", "b")), classes)
    parts = [[u.id for u in part.utterances] for part in corpus.split(0)]
    fixed, protocol = keep_split(corpus, Context(seed=0))
    for seed in (1, 2):
        assert [[u.id for u in part.utterances] for part in fixed.split(seed, protocol)] == parts


def test_an_attack_is_the_worst_before_noise_that_changes_as_much():
    few = cell(0.0, 10.0) | {"fooling_rate": {"value": 0.0, "low": None, "high": None, "count": 1}}
    rows = [cell(0.0, 20.0, control=True), few, cell(0.0, 24.0)]
    assert worst_cell(rows)["snr_db"] == 24.0 and worst_cell(rows)["attack"] == "pgd"
    assert worst_cell([*rows, cell(0.5, 20.0, control=True)])["control"]
