"""Detectors in front of a victim, which then may abstain. ``DETECTORS`` names them."""

from __future__ import annotations

from staanet.errors import unknown_name
from staanet.guards.detectors import Detector, Disagreement, Learned, Residual, residuals
from staanet.guards.guarded import Aware, Guarded, Undetected

__all__ = [
    "Aware", "DETECTORS", "Detector", "Disagreement", "Guarded", "Learned", "Residual", "Undetected",
    "build_detector", "residuals",
]  # fmt: skip

DETECTORS: dict[str, type[Detector]] = {
    "disagreement": Disagreement,
    "learned": Learned,
    "residual": Residual,
}
"""``residual``: what does not fit its neighbours; ``disagreement``: answers that change when the clip
is squeezed; ``learned``: a small network on residuals."""


def build_detector(name: str) -> Detector:
    """A detector by its registry name; ``learned`` with weights from torch's global generator.

    >>> build_detector("residual").name
    'residual'
    """
    if name not in DETECTORS:
        raise unknown_name("detector", name, DETECTORS)
    return DETECTORS[name]()
