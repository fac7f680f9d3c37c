"""Checks of attacks: what they find on masked gradients, and the laws behind them."""

from __future__ import annotations

import numpy as np
from tests.support.fraud_victims import Masked
from tests.support.speech import RATE, clip

from staanet import sanity
from staanet.attacks import PGD, Random
from staanet.core import Budget
from staanet.sanity import Probe
from staanet.sanity.loaded_run import load_run
from staanet.sanity.probe import ALPHA, p_worse
from staanet.victims import CallableVictim, load_victim


def test_a_masked_gradient_loses_to_black_box_and_to_more_of_everything(run):
    """Carlini et al.: attacks that should fail less and do not tell of a masked gradient."""
    made = next(iter(load_run(run).files.sets.values()))
    clips = [made.pair(clip_id).clean for clip_id in list(made.rows)]
    probe = Probe(Masked(load_victim(run / "victims" / "emo18")), clips, epsilon=0.03)
    assert sanity.huge_epsilon(probe).verdict == "fail"


def test_a_black_box_skips_gradients_and_says_why():
    loud = CallableVictim(
        lambda x: np.stack([np.abs(x).mean(axis=1), np.full(len(x), 0.1)], axis=1), ["a", "b"], RATE
    )
    probe = Probe(loud, [clip(seed=i) for i in range(8)])
    for check in (
        sanity.gradients(loud, probe.clips),
        sanity.more_steps(probe),
        sanity.larger_epsilon(probe),
        sanity.huge_epsilon(probe),
        sanity.white_box_wins(probe),
    ):
        assert check.verdict == "skipped" and "black box" in check.explanation
    assert sanity.deterministic(loud, probe.clips).verdict == "pass"


def test_the_known_optimum_is_found_by_pgd_and_not_by_noise():
    assert sanity.finds_known_optimum(lambda budget: PGD(budget=budget)).verdict == "pass"
    assert sanity.finds_known_optimum(lambda budget: Random(budget=budget)).verdict == "fail"
    assert (
        sanity.finds_known_optimum(
            lambda budget: PGD(budget=Budget(epsilon=1.1 * budget.epsilon))
        ).verdict
        == "fail"
    )  # one that cheats on epsilon


def test_p_worse_is_a_fair_coin_on_the_clips_where_two_attacks_differ():
    both, neither = np.array([True] * 20), np.array([False] * 20)
    assert p_worse(both, both) == p_worse(neither, both) == 1.0
    assert p_worse(both[:7], neither[:7]) == 0.5**7 < ALPHA
    assert p_worse(both[:6], neither[:6]) == 0.5**6 > ALPHA
