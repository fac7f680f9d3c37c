"""Whether changes are aimed is judged only where it can be told."""

from __future__ import annotations

import numpy as np
import pytest

from staanet.sanity import change_checks


def test_one_more_draw_of_noise_is_rarely_called_an_attack():
    rng = np.random.default_rng(0)
    p = [
        change_checks.p_one_more_draw(rng.normal(size=12), rng.normal(size=(12, 8)))
        for _ in range(400)
    ]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.03)
    assert change_checks.p_one_more_draw(rng.normal(size=12) - 2, rng.normal(size=(12, 8))) < 1e-4


def test_changes_so_large_that_noise_misleads_are_not_judged_by_their_direction():
    """A margin that falls below 0 whatever the signs: the check says that it cannot tell."""
    rng = np.random.default_rng(0)
    own, draws = -rng.random((8, 1)), -5 + rng.random((8, 4))
    margins = {"set": own, "flipped": own - 1, "resigned": draws, "shuffled": draws}
    check = change_checks._judge("loud", margins, "sparsefool", is_small=False)
    assert check.verdict == "skipped" and "whatever their signs" in check.explanation
    margins |= {"resigned": 5 + rng.random((8, 4))}
    assert change_checks._judge("loud", margins, "sparsefool", is_small=False).verdict == "pass"
    margins |= {"shuffled": 0.5 + own + rng.normal(size=(8, 4)) * 0.1, "set": own + 0.5}
    assert change_checks._judge("noise", margins, "sparsefool", is_small=False).verdict == "fail"


def test_small_changes_are_judged_even_where_noise_misleads():
    rng = np.random.default_rng(0)
    draws = -0.1 + 0.05 * rng.normal(size=(12, 8))
    noise, aimed = draws[:, :1].copy(), draws.mean(axis=1, keepdims=True) - 0.5
    for own, verdict in ((noise, "fail"), (aimed, "pass")):
        margins = {"set": own, "flipped": own + 1, "resigned": draws, "shuffled": draws}
        assert change_checks._judge("set", margins, "pgd", is_small=True).verdict == verdict
