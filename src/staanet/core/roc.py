"""ROC of a score that separates two groups of clips: curve, area and threshold."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from staanet.errors import InvalidInput


def roc(clean: ArrayLike, attacked: ArrayLike) -> list[tuple[float, float]]:
    """Returns (false-positive rate, detection rate) at every threshold, from (0, 0) to (1, 1).

    Equal scores fall together, so that ties count half in the area under it. Raises ``InvalidInput``
    where one of the groups is empty.

    >>> roc([1.0, 2.0], [2.0, 3.0])
    [(0.0, 0.0), (0.0, 0.5), (0.5, 1.0), (1.0, 1.0)]
    """
    below, above = np.sort(np.asarray(clean, float)), np.sort(np.asarray(attacked, float))
    if not (len(below) and len(above)):
        raise InvalidInput(
            f"{len(below)} clean and {len(above)} attacked clips",
            remedy="Give at least one of each",
        )
    points = [(0.0, 0.0)]
    for threshold in np.unique(np.concatenate([below, above]))[::-1]:
        points.append((float(np.mean(below >= threshold)), float(np.mean(above >= threshold))))
    return points


def auroc(clean: ArrayLike, attacked: ArrayLike) -> float:
    """Returns the area under ``roc``: how probably the attacked clip of a pair scores higher.

    >>> auroc([1.0, 2.0], [2.0, 3.0])  # of four pairs three, and a tie for half
    0.875
    """
    from scipy.integrate import trapezoid

    points = np.array(roc(clean, attacked))
    return float(trapezoid(points[:, 1], points[:, 0]))


def threshold_at(clean: ArrayLike, false_positive_rate: float) -> float:
    """Returns the least threshold above which at most that share of clean scores lies.

    >>> threshold_at([1.0, 2.0, 3.0, 4.0], 0.25)
    3.0
    """
    check_rate(false_positive_rate)
    scores = np.sort(np.asarray(clean, float))
    if not len(scores):
        raise InvalidInput(
            "no threshold without clean scores", remedy="Give at least one clean clip"
        )
    allowed = int(np.floor(false_positive_rate * len(scores) + 1e-9))
    return float(scores[len(scores) - 1 - allowed])


def check_rate(false_positive_rate: float) -> None:
    """Raises ``InvalidInput`` where no threshold has such a false-positive rate."""
    if not 0 <= false_positive_rate < 1:
        raise InvalidInput(
            f"false-positive rate {false_positive_rate}", remedy="Give a share in [0, 1)"
        )
